//! States of nodes.

use std::sync::Arc;

use crate::ids::{ExecutionId, TimeMs, Token};
use crate::output::{ExecutionEvent, NodeRef, NodeState};
use crate::payload::{Failure, Payload};
use crate::state::{Execution, QueueKey, Queued, State, Timer};
use crate::work::{At, Work};

impl State {
    /// A node leaves PENDING: it counts as living in its scope, and its time over all attempts runs.
    pub(super) fn begin_node(&mut self, at: At) {
        let now = self.now;
        let Some(Execution { workflow, scopes, .. }) = self.execution_mut(at.execution) else { return };
        let Some(scope) = scopes.get_mut(&at.scope) else { return };
        let Some(position) = crate::find::position(&workflow.program, scope.body, at.node) else { return };
        let record = &mut scope.nodes[position];
        if record.state == NodeState::Pending {
            record.visit += 1;
            record.started_at = Some(now);
            scope.live += 1;
        }
    }

    /// The total timeout runs from the moment `when` was true.
    pub(super) fn begin_total(&mut self, at: At) {
        let now = self.now;
        let Some(found) = self.at(at) else { return };
        if found.record.total.is_none()
            && let Some(ms) = found.node.timeouts.total_ms
        {
            let due = TimeMs(now.0.saturating_add(ms));
            let id = self.set_timer(due, Timer::NodeTotal(at.execution, at.scope, at.node));
            if let Some(record) = self.record_mut(at) {
                record.total = Some(id);
            }
        }
    }

    /// Takes a node out of whatever it stood in: queue, timer, offer.
    pub(super) fn release(&mut self, at: At) {
        let Some(record) = self.record_mut(at) else { return };
        let (timer, queued, token) = (record.timer.take(), record.queued.take(), record.token);
        let evaluating = record.state == NodeState::Evaluating;
        if evaluating {
            record.token = Token(0);
        }
        self.clear_timer(timer);
        if let Some(key) = queued {
            self.unqueue(at, key);
        }
        if evaluating {
            self.drop_offer(at.execution, token);
        }
    }

    fn unqueue(&mut self, at: At, key: QueueKey) {
        let Some(execution) = self.open(at.execution) else { return };
        let workflow = Arc::clone(&execution.workflow);
        let Some((pool, kind)) = crate::find::class_of(workflow.program.node(at.node)) else { return };
        self.queue.remove(&(pool.into(), kind.into()), &workflow.namespace, key);
    }

    fn node_ref(&self, at: At) -> NodeRef {
        let visit = self.at(at).map_or(1, |found| found.record.visit);
        NodeRef { scope: at.scope, node: at.node, visit }
    }

    pub(super) fn on_node_offered(&mut self, at: At, token: Token) {
        self.begin_node(at);
        self.release(at);
        if let Some(record) = self.record_mut(at) {
            record.state = NodeState::Evaluating;
            record.token = token;
        }
    }

    pub(super) fn on_queued(&mut self, at: At, with: Option<Payload>) {
        self.begin_node(at);
        self.release(at);
        self.begin_total(at);
        let now = self.now;
        let Some(found) = self.at(at) else { return };
        let workflow = Arc::clone(&found.execution.workflow);
        let Some(class) = crate::find::class_of(workflow.program.node(at.node)) else { return };
        let key = QueueKey::new(found.program.priority, found.execution.started_at, now, self.next_queue);
        let timeout = found.node.timeouts.queue_ms;
        self.next_queue += 1;
        let queued = Queued { execution: at.execution, scope: at.scope, node: at.node, since: now };
        self.queue.insert(class, &workflow.namespace, key, queued);
        let timer = timeout.map(|ms| {
            let due = TimeMs(now.0.saturating_add(ms));
            self.set_timer(due, Timer::Node(at.execution, at.scope, at.node))
        });
        if let Some(record) = self.record_mut(at) {
            record.state = NodeState::Queued;
            record.queued = Some(key);
            record.timer = timer;
            if with.is_some() {
                record.with = with;
            }
        }
    }

    pub(super) fn on_waiting(&mut self, at: At, due: TimeMs) {
        self.begin_node(at);
        self.release(at);
        self.begin_total(at);
        let id = self.set_timer(due, Timer::Node(at.execution, at.scope, at.node));
        if let Some(record) = self.record_mut(at) {
            record.state = NodeState::Waiting;
            record.timer = Some(id);
        }
        self.may_rest(at.execution);
        let node = self.node_ref(at);
        self.publish(at.execution, ExecutionEvent::NodeStarted(node));
    }

    pub(super) fn on_chosen(&mut self, at: At, cases: u64) {
        self.begin_total(at);
        if let Some(record) = self.record_mut(at) {
            record.cases = cases;
        }
    }

    pub(super) fn on_retrying(&mut self, at: At, failure: Failure, due: TimeMs) {
        self.release(at);
        let id = self.set_timer(due, Timer::Node(at.execution, at.scope, at.node));
        let node = self.node_ref(at);
        let Some(record) = self.record_mut(at) else { return };
        record.state = NodeState::Retrying;
        record.timer = Some(id);
        record.after_stop = None;
        record.output = None;
        record.case_outputs.clear();
        let attempt = record.attempt;
        self.may_rest(at.execution);
        self.publish(at.execution, ExecutionEvent::AttemptFailed { node, attempt, failure, retry_at: due });
    }

    pub(super) fn on_declined(&mut self, at: At, due: TimeMs) {
        self.release(at);
        let id = self.set_timer(due, Timer::Node(at.execution, at.scope, at.node));
        if let Some(record) = self.record_mut(at) {
            record.state = NodeState::Retrying;
            record.timer = Some(id);
            record.attempt = record.attempt.saturating_sub(1);
        }
        self.may_rest(at.execution);
    }

    pub(super) fn on_completed(&mut self, at: At, output: Payload, cases: u64, degraded: bool) {
        self.begin_node(at);
        let node = self.node_ref(at);
        if let Some(record) = self.record_mut(at) {
            record.output = Some(output.clone());
            record.cases = cases;
        }
        self.end(at, NodeState::Completed);
        if let Some(scope) = self.scope_mut(at.execution, at.scope) {
            scope.last_completed = Some(at.node);
        }
        self.publish(at.execution, ExecutionEvent::NodeCompleted { node, output, cases, degraded });
    }

    pub(super) fn on_failed(&mut self, at: At, failure: Failure, handled: bool) {
        self.begin_node(at);
        let node = self.node_ref(at);
        if let Some(record) = self.record_mut(at) {
            record.output = None;
            record.failure = Some(Box::new(failure.clone()));
        }
        self.end(at, NodeState::Failed);
        self.publish(at.execution, ExecutionEvent::NodeFailed { node, failure, handled });
    }

    pub(super) fn on_skipped(&mut self, at: At) {
        self.begin_node(at);
        let node = self.node_ref(at);
        self.end(at, NodeState::Skipped);
        self.publish(at.execution, ExecutionEvent::NodeSkipped(node));
    }

    pub(super) fn on_cancelled(&mut self, at: At) {
        let node = self.node_ref(at);
        self.end(at, NodeState::Cancelled);
        self.publish(at.execution, ExecutionEvent::NodeCancelled(node));
    }

    /// A node ends: nothing of it stays in queue, timers, offers; its paths, its list and its scope go on.
    fn end(&mut self, at: At, state: NodeState) {
        self.release(at);
        let now = self.now;
        let Some(record) = self.record_mut(at) else { return };
        assert!(!record.ended(), "a node ends once per visit");
        record.state = state;
        record.ended_at = Some(now);
        record.token = Token(0);
        record.worker = None;
        record.after_stop = None;
        record.with = None;
        record.case_outputs = Vec::new();
        let total = record.total.take();
        self.clear_timer(total);
        let Some(scope) = self.scope_mut(at.execution, at.scope) else { return };
        scope.live -= 1;
        scope.left -= 1;
        let next = scope.held.pop_front();
        // What is left may be waits only. Without any left the scope goes on, and what follows will say.
        let others = scope.live > 0;
        if others {
            self.may_rest(at.execution);
        }
        self.want(Work::Ended(at, 0));
        if let Some(node) = next {
            let next = At { node, ..at };
            if let Some(record) = self.record_mut(next) {
                record.held = false;
            }
            self.want(Work::Begin(next));
        }
        self.want(Work::Settle(at.execution, at.scope));
    }

    /// Whether an execution is open; for tests and assertions.
    #[must_use]
    pub fn is_open(&self, id: ExecutionId) -> bool {
        self.shard(id.shard()).is_some_and(|shard| shard.executions.contains(id))
    }
}
