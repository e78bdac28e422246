//! Applies events. Cannot fail: whatever [`crate::decide`] says has been checked against the same state.
//!
//! Events about something that is no more change nothing, so that every step is total.

mod execution;
mod node;
mod outbox;
mod recover;
mod worker;

use std::sync::Arc;

use crate::event::Event;
use crate::ids::{ExecutionId, Offset, ScopeId, TimeMs, Token};
use crate::output::MessageBody;
use crate::state::{Execution, NodeRecord, Scope, State, Timer, TimerId};
use crate::work::{At, Work};

/// Applies one event.
pub fn evolve(state: &mut State, event: Event) {
    match event {
        Event::Wanted(work) => state.want(work),
        Event::Submitted(submit, version) => state.on_submitted(*submit, version),
        Event::SourceAdvanced(shard, namespace, source, number) => {
            if let Some(shard) = state.shard_mut(shard) {
                shard.sources.insert((namespace, source), number);
            }
        }
        Event::SubmissionRejected(id, namespace, why) => state.on_submission_rejected(id, namespace, why),
        Event::Replied(shard, to, answer) => {
            state.post(shard, MessageBody::Reply { to, answer });
        }
        Event::StaleTokenTold(shard, inbox, lease) => {
            state.post(shard, MessageBody::StaleToken { inbox, lease });
        }
        Event::CancelRequested(id, reason) => {
            state.publish(id, crate::output::ExecutionEvent::CancelRequested { reason });
        }
        Event::Offered(id, scope, subject, token) => state.on_offered(id, scope, subject, token),
        Event::Reoffered(id, old, new) => state.on_reoffered(id, old, new),
        Event::Evaluated(id, token) => state.drop_offer(id, token),
        Event::Held(at) => {
            if let Some(record) = state.record_mut(at)
                && !std::mem::replace(&mut record.held, true)
                && let Some(scope) = state.scope_mut(at.execution, at.scope)
            {
                scope.held.push_back(at.node);
            }
        }
        Event::Queued(at, with) => state.on_queued(at, with),
        Event::Waiting(at, due) => state.on_waiting(at, due),
        Event::ScopeEntered { at, scope, body, attempt } => state.on_scope_entered(at, scope, body, attempt),
        Event::Chosen(at, cases) => state.on_chosen(at, cases),
        Event::Leased { at, class, key, worker, token } => state.on_leased(at, &class, key, worker, token),
        Event::LeaseEnded(worker, token) => state.on_lease_ended(worker, token),
        Event::Revoked(at, after) => state.on_revoked(at, after),
        Event::AfterStopChanged(at, after) => {
            if let Some(record) = state.record_mut(at) {
                record.after_stop = Some(Box::new(after));
            }
        }
        Event::Retrying(at, failure, due) => state.on_retrying(at, failure, due),
        Event::Declined(at, due) => state.on_declined(at, due),
        Event::OutputKept(at, output) => {
            if let Some(record) = state.record_mut(at) {
                record.output = Some(output);
            }
        }
        Event::FailureKept(at, failure) => {
            if let Some(record) = state.record_mut(at) {
                record.failure = Some(Box::new(failure));
                record.output = None;
            }
        }
        Event::CaseCompleted(at, case, output) => {
            if let Some(record) = state.record_mut(at) {
                record.case_outputs.push((case, output));
            }
        }
        Event::Completed { at, output, cases, degraded } => state.on_completed(at, output, cases, degraded),
        Event::Failed { at, failure, handled } => state.on_failed(at, failure, handled),
        Event::Skipped(at) => state.on_skipped(at),
        Event::Cancelled(at) => state.on_cancelled(at),
        Event::VarSet(id, scope, var, value) => state.on_var_set(id, scope, var, value),
        Event::PathDecided { target, arrived } => {
            if let Some(record) = state.record_mut(target) {
                if arrived {
                    record.arrived = record.arrived.saturating_add(1);
                } else {
                    record.dead = record.dead.saturating_add(1);
                }
                state.want(Work::Join(target));
            }
        }
        Event::ListAdvanced(id, scope, next) => state.on_list_advanced(id, scope, next),
        Event::ScopeStopping(id, scope, ending) => state.on_scope_stopping(id, scope, ending),
        Event::ScopeLeft(id, scope) => state.on_scope_left(id, scope),
        Event::ExecutionEnded(id, outcome) => state.on_execution_ended(id, outcome),
        Event::KeyForgotten(shard, namespace, key) => state.on_key_forgotten(shard, namespace, &key),
        Event::RecordTaken(shard, next_offset, checksum) => {
            if let Some(shard) = state.shard_mut(shard) {
                shard.next_offset = next_offset;
                shard.before = checksum;
            }
        }
        Event::OutboxAcked(shard, seq) => state.on_outbox_acked(shard, seq),
        Event::Granted(shard, epoch, owner) => {
            if let Some(shard) = state.shard_mut(shard) {
                shard.epoch = epoch;
                shard.owner = Some(owner);
            }
        }
        Event::Registered(register, id, session, inbox) => state.on_registered(*register, id, session, inbox),
        Event::SessionEnded(worker) => state.on_session_ended(worker),
        Event::DrainSet(worker, draining) => {
            state.change_worker(worker, |worker| worker.draining = draining);
        }
        Event::NamespacePut(namespace) => state.on_namespace_put(namespace),
        Event::WorkflowPut(put) => state.on_workflow_put(*put),
        Event::TriggerPut(trigger) => {
            let key = (trigger.namespace.clone(), trigger.id.clone());
            state.catalogue.triggers.insert(key, Arc::new(trigger));
            state.catalogue.revision += 1;
        }
        Event::TriggerDeleted(namespace, id) => {
            state.catalogue.triggers.remove(&(namespace, id));
            state.catalogue.revision += 1;
        }
        Event::NumbersSkipped => state.on_numbers_skipped(),
        Event::LevelRaised(level) => state.level = level,
        Event::BusReplaced => {
            for shard in state.shards.iter_mut().map(Arc::make_mut) {
                (shard.next_offset, shard.before) = (Offset(0), 0);
            }
        }
    }
}

impl State {
    pub(crate) fn want(&mut self, work: Work) {
        self.work.push_back(work);
    }

    fn shard_mut(&mut self, id: crate::ids::ShardId) -> Option<&mut crate::state::Shard> {
        self.shards.get_mut(usize::from(id.0)).map(Arc::make_mut)
    }

    fn execution_mut(&mut self, id: ExecutionId) -> Option<&mut Execution> {
        self.shard_mut(id.shard())?.executions.live_mut(id)
    }

    fn scope_mut(&mut self, id: ExecutionId, scope: ScopeId) -> Option<&mut Scope> {
        self.execution_mut(id)?.scopes.get_mut(&scope)
    }

    fn record_mut(&mut self, at: At) -> Option<&mut NodeRecord> {
        let Execution { workflow, scopes, .. } = self.execution_mut(at.execution)?;
        let scope = scopes.get_mut(&at.scope)?;
        let position = crate::find::position(&workflow.program, scope.body, at.node)?;
        scope.nodes.get_mut(position)
    }

    /// Sets a timer and gives its id.
    fn set_timer(&mut self, due: TimeMs, timer: Timer) -> TimerId {
        let id = (due, self.next_timer);
        self.next_timer += 1;
        self.timers.insert(id, timer);
        id
    }

    fn clear_timer(&mut self, id: Option<TimerId>) {
        if let Some(id) = id {
            self.timers.clear(&id);
        }
    }

    fn used_token(&mut self, token: Token) {
        self.next_token = self.next_token.max(token.0 + 1);
    }
}
