//! Executions, their scope instances and variables; keys; the catalogue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use nova_program::{BodyIx, NodeIx, VarIx};

use crate::ids::{ExecutionId, ScopeId, ShardId, TimeMs, Token};
use crate::input::{Dedupe, Namespace, PutWorkflow, Submit};
use crate::limits;
use crate::output::{Answer, ExecutionEvent, MessageBody, NodeState, Outcome, Subject};
use crate::payload::Payload;
use crate::state::{
    Ending, Execution, KeyRecord, NamespaceRecord, NodeRecord, OfferRecord, Phase, Scope, State, Timer, Variable,
    WorkflowVersion,
};
use crate::work::{At, Work};

impl State {
    pub(super) fn on_submitted(&mut self, submit: Submit, workflow: Arc<WorkflowVersion>) {
        let id = submit.execution;
        let namespace = Arc::clone(&workflow.namespace);
        let version = workflow.version;
        let total = workflow.program.timeouts.total_ms.map(|ms| {
            let due = TimeMs(self.now.0.saturating_add(ms));
            self.set_timer(due, Timer::Execution(id))
        });
        let key: Option<Arc<str>> = match submit.dedupe {
            Dedupe::Key(key) => Some(key.into()),
            Dedupe::None | Dedupe::Source { .. } => None,
        };
        if let Some(record) = self.catalogue.namespaces.get_mut(&*submit.namespace) {
            record.open += 1;
            record.keys += u64::from(key.is_some());
        }
        let root = new_scope(&workflow, BodyIx::ROOT, None, 0);
        let name = workflow.name.as_ref().into();
        let execution = Execution {
            id,
            workflow,
            input: submit.input.clone(),
            started_at: self.now,
            started_by: submit.started_by.clone(),
            labels: submit.labels.clone(),
            key: key.as_deref().map(Box::from),
            reply_at_end: submit.reply_to.filter(|_| submit.reply_at_end),
            trace: submit.trace,
            events: 0,
            scopes: [(ScopeId(0), root)].into_iter().collect(),
            next_scope: 1,
            total,
            offers: BTreeSet::new(),
            pending: Default::default(),
        };
        let Some(shard) = self.shard_mut(id.shard()) else { return };
        shard.executions.insert(Arc::new(execution));
        if let Some(key) = key {
            let record = KeyRecord { execution: id, version, content_hash: submit.content_hash, until: None };
            shard.keys.insert((namespace, key), record);
        }
        self.publish(
            id,
            ExecutionEvent::Accepted {
                workflow: name,
                version,
                started_by: submit.started_by,
                input: submit.input,
                labels: submit.labels,
                trace: submit.trace,
            },
        );
        self.want(Work::Enter(id, ScopeId(0), 0));
    }

    pub(super) fn on_scope_entered(&mut self, at: At, id: ScopeId, body: BodyIx, attempt: u32) {
        let now = self.now;
        let Some(execution) = self.execution_mut(at.execution) else { return };
        let scope = new_scope(&execution.workflow, body, Some((at.scope, at.node)), attempt);
        execution.scopes.insert(id, scope);
        execution.next_scope = execution.next_scope.max(id.0 + 1);
        self.begin_node(at);
        self.release(at);
        self.begin_total(at);
        if let Some(record) = self.record_mut(at) {
            // Several bodies of one choice are one attempt.
            if record.children == 0 {
                record.attempt = attempt + 1;
            }
            record.children += 1;
            record.state = NodeState::Waiting;
            record.started_at.get_or_insert(now);
        }
        self.publish(at.execution, ExecutionEvent::ScopeEntered { scope: id, body, parent: at.scope });
        self.want(Work::Enter(at.execution, id, 0));
    }

    pub(super) fn on_list_advanced(&mut self, id: ExecutionId, scope: ScopeId, next: Option<NodeIx>) {
        let work = match next {
            Some(node) => Work::Begin(At { execution: id, scope, node }),
            None => {
                if let Some(live) = self.scope_mut(id, scope) {
                    live.at_end = true;
                }
                Work::Settle(id, scope)
            }
        };
        self.want(work);
    }

    pub(super) fn on_scope_stopping(&mut self, id: ExecutionId, scope: ScopeId, ending: Ending) {
        let Some(live) = self.scope_mut(id, scope) else { return };
        match &live.phase {
            // The stronger ending wins: a cancel over an error; the first of equal ones.
            Phase::Stopping(Ending::Cancelled(_)) => return,
            Phase::Stopping(Ending::Failed(_)) if matches!(ending, Ending::Failed(_)) => return,
            Phase::Output(token) => {
                let token = *token;
                live.phase = Phase::Stopping(ending);
                self.drop_offer(id, token);
            }
            Phase::Body | Phase::Stopping(_) => live.phase = Phase::Stopping(ending),
        }
        self.want(Work::Stop(id, scope, 0));
    }

    pub(super) fn on_scope_left(&mut self, id: ExecutionId, scope: ScopeId) {
        let Some(left) = self.execution_mut(id).and_then(|execution| execution.scopes.remove(&scope)) else { return };
        if let Some((parent, node)) = left.parent
            && let Some(record) = self.record_mut(At { execution: id, scope: parent, node })
        {
            record.children = record.children.saturating_sub(1);
        }
    }

    pub(super) fn on_execution_ended(&mut self, id: ExecutionId, outcome: Outcome) {
        self.publish(id, ExecutionEvent::Ended(outcome.clone()));
        let now = self.now;
        let Some(shard) = self.shard_mut(id.shard()) else { return };
        let Some(execution) = shard.executions.remove(id) else { return };
        for token in &execution.offers {
            shard.offers.remove(token);
        }
        let namespace = Arc::clone(&execution.workflow.namespace);
        if let Some(key) = &execution.key {
            let until = TimeMs(now.0 + limits::KEY_TTL_MS);
            if let Some(key) = shard.keep_key_until(&namespace, key, until) {
                self.set_timer(until, Timer::Key(id.shard(), Arc::clone(&namespace), key));
            }
        }
        if let Some(record) = self.catalogue.namespaces.get_mut(&*namespace) {
            record.open = record.open.saturating_sub(1);
        }
        self.clear_timer(execution.total);
        if let Some(to) = execution.reply_at_end {
            self.post(id.shard(), MessageBody::Reply { to, answer: Answer::Finished { execution: id, outcome } });
        }
    }

    pub(super) fn on_key_forgotten(&mut self, shard: ShardId, namespace: Arc<str>, key: &str) {
        if let Some(record) = self.catalogue.namespaces.get_mut(&*namespace) {
            record.keys = record.keys.saturating_sub(1);
        }
        if let Some(shard) = self.shard_mut(shard) {
            shard.forget_key(&namespace, key);
        }
    }

    pub(super) fn on_var_set(&mut self, id: ExecutionId, scope: ScopeId, var: VarIx, value: Payload) {
        let Some(execution) = self.execution_mut(id) else { return };
        let Execution { workflow, scopes, .. } = execution;
        if let Some(live) = scopes.get_mut(&scope) {
            let first = workflow.program.body(live.body).vars.start;
            if let Some(variable) = live.vars.get_mut((var.0 - first) as usize) {
                variable.value = value.clone();
                variable.version += 1;
            }
        }
        self.publish(id, ExecutionEvent::VarSet { scope, var, value });
    }

    pub(super) fn on_offered(&mut self, id: ExecutionId, scope: ScopeId, subject: Subject, token: Token) {
        self.used_token(token);
        self.keep_offer(id, scope, subject, token);
        match crate::find::node_of(subject) {
            Some(node) => self.on_node_offered(At { execution: id, scope, node }, token),
            None => {
                if let Some(live) = self.scope_mut(id, scope) {
                    live.phase = Phase::Output(token);
                }
            }
        }
    }

    fn keep_offer(&mut self, id: ExecutionId, scope: ScopeId, subject: Subject, token: Token) {
        let seed = crate::decide_seed(id, scope, subject);
        let at = self.now;
        let Some(shard) = self.shard_mut(id.shard()) else { return };
        let Some(execution) = shard.executions.live_mut(id) else { return };
        execution.offers.insert(token);
        shard.offers.insert(token, OfferRecord { execution: id, scope, subject, at, seed });
    }

    pub(super) fn on_reoffered(&mut self, id: ExecutionId, old: Token, new: Token) {
        let Some(offer) = self.shard(id.shard()).and_then(|shard| shard.offers.get(&old)).copied() else { return };
        self.drop_offer(id, old);
        self.used_token(new);
        self.keep_offer(id, offer.scope, offer.subject, new);
        match crate::find::node_of(offer.subject) {
            Some(node) => {
                if let Some(record) = self.record_mut(At { execution: id, scope: offer.scope, node }) {
                    record.token = new;
                }
            }
            None => {
                if let Some(live) = self.scope_mut(id, offer.scope) {
                    live.phase = Phase::Output(new);
                }
            }
        }
    }

    pub(super) fn drop_offer(&mut self, id: ExecutionId, token: Token) {
        let Some(shard) = self.shard_mut(id.shard()) else { return };
        if shard.offers.remove(&token).is_some()
            && let Some(execution) = shard.executions.live_mut(id)
        {
            execution.offers.remove(&token);
        }
    }

    pub(super) fn on_namespace_put(&mut self, spec: Namespace) {
        self.catalogue.revision += 1;
        match self.catalogue.namespaces.get_mut(&spec.name) {
            Some(known) => known.spec = spec,
            None => {
                let name = spec.name.clone();
                self.catalogue.namespaces.insert(name, NamespaceRecord { spec, open: 0, keys: 0 });
            }
        }
    }

    pub(super) fn on_workflow_put(&mut self, put: PutWorkflow) {
        self.catalogue.revision += 1;
        let created_at = self.now;
        let versions = self.catalogue.workflows.entry((put.namespace.clone(), put.name.clone())).or_default();
        let version = Arc::new(WorkflowVersion {
            number: self.catalogue.versions.len() as u32,
            namespace: Arc::from(&*put.namespace),
            name: Arc::from(&*put.name),
            version: versions.len() as u32 + 1,
            hash: put.hash,
            program: put.program,
            document: put.document,
            created_at,
        });
        versions.push(Arc::clone(&version));
        self.catalogue.versions.push(version);
    }
}

fn new_scope(workflow: &WorkflowVersion, body: BodyIx, parent: Option<(ScopeId, NodeIx)>, attempt: u32) -> Scope {
    let program = &*workflow.program;
    let shape = program.body(body);
    let nodes = shape.nodes.len() as u32;
    let vars = shape.vars.clone().map(|ix| {
        let start = &program.variables[ix as usize].start;
        Variable { value: Payload::Inline(Bytes::copy_from_slice(start)), version: 0 }
    });
    Scope {
        body,
        parent,
        attempt,
        phase: Phase::Body,
        nodes: (0..nodes).map(|_| NodeRecord::pending()).collect(),
        vars: vars.collect(),
        live: 0,
        left: nodes,
        at_end: false,
        last_completed: None,
        held: VecDeque::new(),
    }
}
