//! Evaluates offers: what a node's expressions come to, as a pure function of what the offer shows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_client::{Coordinators, Repeat};
use nova_model::{Compiled, ErrorView, Evaluated, ExecutionView, NodeState, NodeView, Offered, Phase};
use nova_program::{BodyIx, NodeIx, VarIx};
use nova_wire::v1;
use tokio::sync::mpsc;

use crate::run::Told;

/// Workflow versions kept compiled.
const CACHE: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(5);

/// A version of a workflow.
pub(crate) type Key = (String, String, u32);

/// A version that was fetched; none when it cannot be had now.
pub(crate) struct Fetched {
    pub key: Key,
    pub compiled: Option<Arc<Compiled>>,
}

/// Compiled versions, and offers that wait for one.
pub(crate) struct Evaluator {
    coordinators: Coordinators,
    cache: BTreeMap<Key, Arc<Compiled>>,
    order: VecDeque<Key>,
    waiting: BTreeMap<Key, Vec<(u32, u64, v1::Offer)>>,
    tell: mpsc::UnboundedSender<Told>,
}

/// An evaluation of an offer of a shard in an epoch.
pub(crate) struct Evaluation {
    pub shard: u32,
    pub epoch: u64,
    pub local: v1::Local,
}

impl Evaluator {
    pub(crate) fn new(coordinators: Coordinators, tell: mpsc::UnboundedSender<Told>) -> Self {
        Self { coordinators, cache: BTreeMap::new(), order: VecDeque::new(), waiting: BTreeMap::new(), tell }
    }

    /// Evaluates an offer, or fetches what it needs first.
    pub(crate) fn take(&mut self, shard: u32, epoch: u64, offer: v1::Offer) -> Option<Evaluation> {
        let key = (offer.namespace.clone(), offer.workflow.clone(), offer.version);
        if let Some(compiled) = self.cache.get(&key) {
            return Some(Evaluation { shard, epoch, local: evaluate(compiled, &offer) });
        }
        let waiting = self.waiting.entry(key.clone()).or_default();
        waiting.push((shard, epoch, offer));
        if waiting.len() == 1 {
            tokio::spawn(fetch(self.coordinators.clone(), key, self.tell.clone()));
        }
        None
    }

    /// Evaluates what waited for a version.
    pub(crate) fn arrived(&mut self, fetched: Fetched) -> Vec<Evaluation> {
        let Some(compiled) = fetched.compiled else {
            tokio::spawn(fetch_later(self.coordinators.clone(), fetched.key, self.tell.clone()));
            return Vec::new();
        };
        let waiting = self.waiting.remove(&fetched.key).unwrap_or_default();
        let evaluated = waiting.iter().map(|(shard, epoch, offer)| Evaluation {
            shard: *shard,
            epoch: *epoch,
            local: evaluate(&compiled, offer),
        });
        let evaluated = evaluated.collect();
        if self.order.len() >= CACHE
            && let Some(oldest) = self.order.pop_front()
        {
            self.cache.remove(&oldest);
        }
        self.order.push_back(fetched.key.clone());
        self.cache.insert(fetched.key, compiled);
        evaluated
    }
}

async fn fetch_later(coordinators: Coordinators, key: Key, tell: mpsc::UnboundedSender<Told>) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    fetch(coordinators, key, tell).await;
}

async fn fetch(coordinators: Coordinators, key: Key, tell: mpsc::UnboundedSender<Told>) {
    let (namespace, name, version) = key.clone();
    let request = v1::GetWorkflowRequest { namespace, name, version: Some(version) };
    let asking = coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
        let request = request.clone();
        async move { member.get_workflow(request).await }
    });
    let compiled = match asking.await {
        Ok(answer) => match Compiled::from_canonical(&answer.document) {
            Ok(compiled) => Some(Arc::new(compiled)),
            Err(problems) => {
                tracing::error!(workflow = key.1, version = key.2, %problems, "a stored workflow cannot be compiled");
                None
            }
        },
        Err(error) => {
            tracing::warn!(workflow = key.1, version = key.2, %error, "a workflow cannot be fetched now");
            None
        }
    };
    let _ = tell.send(Told::Fetched(Fetched { key, compiled }));
}

fn evaluate(compiled: &Compiled, offer: &v1::Offer) -> v1::Local {
    use v1::local::Outcome;
    let execution: String = offer.execution.iter().map(|byte| format!("{byte:02x}")).collect();
    let nodes: Vec<NodeView<'_>> = offer.nodes.iter().map(node_view).collect();
    let vars: Vec<(VarIx, &[u8])> =
        offer.vars.iter().map(|var| (VarIx(var.var), var.value.as_ref().and_then(inline).unwrap_or(b"null"))).collect();
    let phase = match offer.subject {
        Some(v1::offer::Subject::Finish(node)) => Phase::Finish(NodeIx(node)),
        Some(v1::offer::Subject::Fallback(node)) => Phase::Fallback(NodeIx(node)),
        Some(v1::offer::Subject::ScopeOutput(body)) => Phase::ScopeOutput(BodyIx(body)),
        Some(v1::offer::Subject::Prepare(node)) => Phase::Prepare(NodeIx(node)),
        None => Phase::Prepare(NodeIx(0)),
    };
    let offered = Offered {
        phase,
        input: offer.input.as_ref().and_then(inline),
        nodes: &nodes,
        vars: &vars,
        raw_output: offer.raw_output.as_ref().and_then(inline),
        error: offer.failure.as_ref().map(error_view),
        execution: ExecutionView {
            id: &execution,
            workflow: &offer.workflow,
            version: offer.version,
            namespace: &offer.namespace,
            started_at_ms: offer.started_at_ms,
            started_by: &offer.started_by,
        },
        now_ms: offer.now_ms,
        seed: offer.seed,
    };
    let outcome = match compiled.plan.evaluate(&compiled.program, &offered) {
        Evaluated::Skip => Outcome::Skip(v1::Nothing {}),
        Evaluated::Run { with } => Outcome::Run(v1::local::Run { with: with.map(payload) }),
        Evaluated::WaitUntil { at_ms } => Outcome::WaitUntilMs(at_ms),
        Evaluated::WaitFor { for_ms } => Outcome::WaitForMs(for_ms),
        Evaluated::Chosen { bits } => Outcome::Chosen(v1::local::Chosen { cases: bits, sets: Vec::new() }),
        Evaluated::Done { output, chosen, sets } => {
            Outcome::Done(v1::local::Done { output: Some(payload(output)), cases: chosen, sets: writes(sets) })
        }
        Evaluated::Failed { code, message, detail } => Outcome::Failed(v1::Failure {
            code: code.into(),
            message,
            retryable: false,
            retry_after_ms: None,
            detail: detail.map(Into::into),
            node: String::new(),
        }),
    };
    v1::Local { execution: offer.execution.clone(), token: offer.token, outcome: Some(outcome) }
}

fn writes(sets: Vec<(VarIx, Vec<u8>)>) -> Vec<v1::VarWrite> {
    sets.into_iter().map(|(var, value)| v1::VarWrite { var: var.0, value: Some(payload(value)) }).collect()
}

fn payload(json: Vec<u8>) -> v1::Payload {
    v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from(json))) }
}

fn inline(payload: &v1::Payload) -> Option<&[u8]> {
    match &payload.kind {
        Some(v1::payload::Kind::Inline(bytes)) => Some(bytes),
        _ => None,
    }
}

fn error_view(failure: &v1::Failure) -> ErrorView<'_> {
    ErrorView {
        code: &failure.code,
        message: &failure.message,
        retryable: failure.retryable,
        node: &failure.node,
        detail: failure.detail.as_deref(),
    }
}

fn node_view(view: &v1::NodeView) -> NodeView<'_> {
    let state = match view.state() {
        v1::NodeState::Pending => NodeState::Pending,
        v1::NodeState::Evaluating | v1::NodeState::Waiting => NodeState::Waiting,
        v1::NodeState::Queued => NodeState::Queued,
        v1::NodeState::Running => NodeState::Running,
        v1::NodeState::Retrying => NodeState::Retrying,
        v1::NodeState::Cancelling => NodeState::Cancelling,
        v1::NodeState::Completed => NodeState::Completed,
        v1::NodeState::Failed => NodeState::Failed,
        v1::NodeState::Skipped => NodeState::Skipped,
        v1::NodeState::Cancelled => NodeState::Cancelled,
    };
    NodeView {
        node: NodeIx(view.node),
        state,
        arrived: view.arrived,
        output: view.output.as_ref().and_then(inline),
        error: view.failure.as_ref().map(error_view),
        attempts: view.attempts,
        started_at_ms: view.started_at_ms,
        ended_at_ms: view.ended_at_ms,
    }
}
