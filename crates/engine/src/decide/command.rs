//! Commands from the bus: submissions, cancels, and what workers say of their leases.

use std::sync::Arc;

use nova_plants::Plant;

use super::node::{Repeat, failure, too_large};
use super::{Decider, Nothing, text_fits};
use crate::event::Event;
use crate::ids::{ExecutionId, ScopeId, ShardId, TimeMs};
use crate::input::{Command, Dedupe, LeaseRef, ReplyTo, Submit, TaskOutcome, TaskResult};
use crate::limits;
use crate::output::{Answer, Rejection};
use crate::state::{Ending, Lease, Phase, WorkflowVersion};
use crate::work::At;

impl Decider<'_> {
    /// A command that speaks of another shard's execution is in the wrong log: it changes nothing there, since that
    /// shard's order and owner are not this log's.
    pub(super) fn command(&mut self, shard: ShardId, command: &Command) -> Result<(), Nothing> {
        match command {
            Command::Submit(submit) => self.submit(shard, submit),
            Command::Cancel { execution, reason, reply_to } => self.cancel(shard, *execution, reason, *reply_to),
            Command::Result(result) => self.result(shard, result),
            Command::Stopped { lease } => self.stopped(shard, lease),
            Command::Declined { lease, reason } => self.declined(shard, lease, reason),
        }
    }

    fn reply(&mut self, shard: ShardId, to: Option<ReplyTo>, answer: Answer) {
        if let Some(to) = to {
            self.say(Event::Replied(shard, to, answer));
        }
    }

    fn submit(&mut self, shard: ShardId, submit: &Submit) -> Result<(), Nothing> {
        let id = submit.execution;
        match self.admit(shard, submit) {
            Admitted::New(version, source) => {
                self.advance_source(submit, source);
                let number = version.version;
                self.say(Event::Submitted(Box::new(submit.clone()), version));
                let answer = Answer::Accepted { execution: id, version: number, repeated: false };
                self.reply(shard, submit.reply_to, answer);
                Ok(())
            }
            Admitted::Repeated(first, version) => {
                let answer = Answer::Accepted { execution: first, version, repeated: true };
                self.reply(shard, submit.reply_to, answer);
                Ok(())
            }
            Admitted::Rejected(why, source) => {
                // A source's number is decided by a rejection too: each of its events gets one decision.
                self.advance_source(submit, source);
                // The id of an open execution has events of its own, whose numbers must stay gapless.
                let said =
                    matches!(why, Rejection::SourceRepeated { .. } | Rejection::BadId | Rejection::UnknownNamespace);
                if !said && !self.state.is_open(id) {
                    self.say(Event::SubmissionRejected(id, submit.namespace.clone(), why.clone()));
                }
                self.reply(shard, submit.reply_to, Answer::Rejected { execution: id, why: why.clone() });
                Err(Nothing::Rejected(why))
            }
        }
    }

    fn advance_source(&mut self, submit: &Submit, namespace: Option<Arc<str>>) {
        if let (Dedupe::Source { source, number }, Some(namespace)) = (&submit.dedupe, namespace) {
            self.say(Event::SourceAdvanced(submit.execution.shard(), namespace, source.clone(), *number));
        }
    }

    fn admit(&self, shard: ShardId, submit: &Submit) -> Admitted {
        let reject = |why| Admitted::Rejected(why, None);
        let Some(shard) = self.state.shard(shard).filter(|shard| shard.id == submit.execution.shard()) else {
            return reject(Rejection::BadId);
        };
        let Some(namespace) = self.state.catalogue.namespaces.get(&submit.namespace) else {
            return reject(Rejection::UnknownNamespace);
        };
        let name = || Arc::<str>::from(&*submit.namespace);
        if let Some(what) = dedupe_out_of_limits(&submit.dedupe) {
            return reject(Rejection::Invalid { what: what.into() });
        }
        match &submit.dedupe {
            Dedupe::Key(key) => {
                let unseen = |id| {
                    nova_plants::is(Plant::KeyLookedUpEarly)
                        && self.state.open(id).is_some_and(|open| open.started_at == self.state.now)
                };
                if let Some(known) = shard.key(&submit.namespace, key).filter(|known| !unseen(known.execution)) {
                    return if known.content_hash == submit.content_hash {
                        Admitted::Repeated(known.execution, known.version)
                    } else {
                        reject(Rejection::KeyConflict { first: known.execution })
                    };
                }
                if namespace.keys >= namespace.spec.max_keys {
                    return reject(Rejection::QuotaKeys);
                }
            }
            Dedupe::Source { source, number } => {
                let last = shard.source(&submit.namespace, source);
                if let Some(last) = last.filter(|last| *last >= *number) {
                    return reject(Rejection::SourceRepeated { last });
                }
            }
            Dedupe::None => {}
        }
        if shard.executions.contains(submit.execution) {
            return reject(Rejection::BadId);
        }
        let source = matches!(submit.dedupe, Dedupe::Source { .. }).then(name);
        if let Some(what) = out_of_limits(submit) {
            return Admitted::Rejected(Rejection::Invalid { what: what.into() }, source);
        }
        let versions = self.state.catalogue.workflows.get(&(submit.namespace.clone(), submit.workflow.clone()));
        let version = versions.and_then(|all| all.get((submit.version as usize).wrapping_sub(1)));
        let why = match version {
            None => Rejection::UnknownWorkflow,
            Some(version) if version.hash != submit.hash => Rejection::WorkflowChanged,
            Some(_) if namespace.open >= namespace.spec.max_open_executions => Rejection::QuotaExecutions,
            Some(_) if shard.executions.len() as u64 >= limits::OPEN_PER_SHARD => Rejection::BacklogFull,
            Some(version) => return Admitted::New(Arc::clone(version), source),
        };
        Admitted::Rejected(why, source)
    }

    fn cancel(
        &mut self,
        shard: ShardId,
        id: ExecutionId,
        reason: &str,
        reply_to: Option<ReplyTo>,
    ) -> Result<(), Nothing> {
        let open = self.state.live_scope(id, ScopeId(0)).filter(|_| id.shard() == shard);
        let Some((_, root)) = open else {
            self.reply(shard, reply_to, Answer::Rejected { execution: id, why: Rejection::NotOpen });
            return Err(Nothing::Rejected(Rejection::NotOpen));
        };
        let reason: Box<str> = cut(reason).into();
        if !matches!(root.phase, Phase::Stopping(Ending::Cancelled(_))) {
            self.say(Event::CancelRequested(id, reason.clone()));
            if nova_plants::is(Plant::CancelAtDispatch)
                && root.nodes.iter().any(|node| node.state == crate::output::NodeState::Running)
            {
                self.reply(shard, reply_to, Answer::Cancelling { execution: id });
                return Ok(());
            }
            self.say(Event::ScopeStopping(id, ScopeId(0), Ending::Cancelled(reason)));
        }
        self.reply(shard, reply_to, Answer::Cancelling { execution: id });
        Ok(())
    }

    /// The lease that a worker speaks of in this shard's log, if it holds it.
    fn lease(&self, shard: ShardId, lease: &LeaseRef) -> Option<(Lease, At)> {
        if lease.execution.shard() != shard {
            return None;
        }
        if nova_plants::is(Plant::StaleTokenAccepted) {
            let all = self.state.workers.all.iter().flat_map(|worker| worker.leases.values());
            let held = *all.into_iter().find(|held| held.execution == lease.execution)?;
            return Some((held, At { execution: held.execution, scope: held.scope, node: held.node }));
        }
        let worker = self.state.worker(lease.worker)?;
        let held = *worker.leases.get(&lease.token)?;
        let same = worker.open && worker.session == lease.session && held.execution == lease.execution;
        same.then_some((held, At { execution: held.execution, scope: held.scope, node: held.node }))
    }

    /// Rule 19: a stale token changes nothing, and its worker hears so while its session lasts.
    fn stale(&mut self, shard: ShardId, lease: &LeaseRef) -> Result<(), Nothing> {
        if let Some(worker) = self.state.worker(lease.worker)
            && worker.open
            && worker.session == lease.session
        {
            self.say(Event::StaleTokenTold(shard, worker.inbox, *lease));
        }
        Err(Nothing::Stale)
    }

    fn result(&mut self, shard: ShardId, result: &TaskResult) -> Result<(), Nothing> {
        let Some((held, at)) = self.lease(shard, &result.lease) else { return self.stale(shard, &result.lease) };
        self.say(Event::LeaseEnded(result.lease.worker, result.lease.token));
        let Some(found) = self.state.at(at) else { return Ok(()) };
        if held.revoking {
            self.after_stop(at, &found);
            return self.stale(shard, &result.lease);
        }
        match &result.outcome {
            TaskOutcome::Completed(output) => match too_large(output) {
                Some(failure) => self.fail(at, &found, failure, Repeat::Never),
                None => self.worked(at, &found, output.clone(), 0),
            },
            TaskOutcome::Failed(failure) => {
                let mut failure = failure.clone();
                // The engine's own codes are not the worker's to give.
                failure.node = found.node.id.clone();
                failure.detail = failure.detail.filter(|detail| detail.len() <= limits::MAX_DETAIL);
                self.fail(at, &found, failure, Repeat::IfPolicySays);
            }
        }
        Ok(())
    }

    fn stopped(&mut self, shard: ShardId, lease: &LeaseRef) -> Result<(), Nothing> {
        let Some((held, at)) = self.lease(shard, lease) else { return Err(Nothing::Stale) };
        self.say(Event::LeaseEnded(lease.worker, lease.token));
        let Some(found) = self.state.at(at) else { return Ok(()) };
        if held.revoking {
            self.after_stop(at, &found);
        } else {
            self.attempt_lost(at, &found, failure("worker.released", "the worker stopped the attempt by itself", true));
        }
        Ok(())
    }

    fn declined(&mut self, shard: ShardId, lease: &LeaseRef, _reason: &str) -> Result<(), Nothing> {
        let Some((held, at)) = self.lease(shard, lease) else { return Err(Nothing::Stale) };
        self.say(Event::LeaseEnded(lease.worker, lease.token));
        let Some(found) = self.state.at(at) else { return Ok(()) };
        if held.revoking {
            self.after_stop(at, &found);
        } else {
            self.say(Event::Declined(at, TimeMs(self.state.now.0 + limits::DECLINED_DELAY_MS)));
        }
        Ok(())
    }
}

enum Admitted {
    /// With the namespace when a source's number is decided by it.
    New(Arc<WorkflowVersion>, Option<Arc<str>>),
    Repeated(ExecutionId, u32),
    Rejected(Rejection, Option<Arc<str>>),
}

fn dedupe_out_of_limits(dedupe: &Dedupe) -> Option<&'static str> {
    let fits = match dedupe {
        Dedupe::None => true,
        Dedupe::Key(key) => text_fits(key),
        Dedupe::Source { source, .. } => text_fits(source),
    };
    (!fits).then_some("key or source: 1 to 256 bytes")
}

fn out_of_limits(submit: &Submit) -> Option<&'static str> {
    let labels_fit = submit.labels.len() <= limits::MAX_LABELS
        && submit.labels.iter().all(|(name, value)| text_fits(name) && value.len() <= limits::MAX_TEXT);
    if !labels_fit {
        Some("labels: at most 32, each name 1 to 256 bytes and value at most 256")
    } else if submit.started_by.len() > limits::MAX_TEXT {
        Some("started_by: at most 256 bytes")
    } else if too_large(&submit.input).is_some() {
        Some("input: more bytes than may stand inline")
    } else {
        None
    }
}

/// The longest beginning of `text` within the limit.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(limits::MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
