//! Workers, their sessions and leases; the catalogue; ownership; and filling free slots.

use nova_plants::Plant;

use super::node::{Repeat, failure};
use super::{Decider, Nothing, text_fits};
use crate::event::Event;
use crate::find::{Found, in_body};
use crate::ids::{Epoch, SessionId, Token, WorkerId};
use crate::input::{EntryBody, Register};
use crate::limits;
use crate::output::Refusal;
use crate::payload::Failure;
use crate::queue::Next;
use crate::state::{State, Worker};
use crate::work::At;

impl State {
    /// The worker of that number.
    #[must_use]
    pub fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.all.get((id.0 as usize).wrapping_sub(1))
    }
}

impl Decider<'_> {
    pub(super) fn entry(&mut self, body: &EntryBody, term: u64) -> Result<(), Nothing> {
        match body {
            EntryBody::Propose(_) | EntryBody::Tick | EntryBody::Requeue { .. } => Ok(()),
            EntryBody::Grant { shard, after, owner } => {
                let known = self.state.shard(*shard).ok_or(Nothing::Refused(Refusal::UnknownShard))?;
                if known.epoch != *after {
                    return refuse(Refusal::StaleEpoch { current: known.epoch });
                }
                self.say(Event::Granted(*shard, Epoch(after.0 + 1), *owner));
                Ok(())
            }
            EntryBody::Register(register) => self.register(register),
            EntryBody::Close { worker, session } => {
                let open = self.session(*worker, *session)?;
                if !open.leases.is_empty() {
                    return refuse(Refusal::LeasesOpen { count: open.leases.len() as u32 });
                }
                self.say(Event::SessionEnded(*worker));
                Ok(())
            }
            EntryBody::SessionLost { worker, session, counted_in_term } => {
                if *counted_in_term != term {
                    return refuse(Refusal::OtherTerm);
                }
                self.session(*worker, *session)?;
                self.say(Event::SessionEnded(*worker));
                Ok(())
            }
            EntryBody::Drain { worker, draining } => {
                self.state.worker(*worker).ok_or(Nothing::Refused(Refusal::NotFound))?;
                self.say(Event::DrainSet(*worker, *draining));
                Ok(())
            }
            EntryBody::PutNamespace(namespace) => {
                if !text_fits(&namespace.name) {
                    return invalid("name: 1 to 256 bytes");
                }
                self.say(Event::NamespacePut(namespace.clone()));
                Ok(())
            }
            EntryBody::PutWorkflow(put) => {
                if !self.state.catalogue.namespaces.contains_key(&put.namespace) {
                    return refuse(Refusal::UnknownNamespace);
                }
                if !text_fits(&put.name) {
                    return invalid("name: 1 to 256 bytes");
                }
                let key = (put.namespace.clone(), put.name.clone());
                let newest = self.state.catalogue.workflows.get(&key).and_then(|versions| versions.last());
                if newest.is_none_or(|newest| newest.hash != put.hash) {
                    self.say(Event::WorkflowPut(Box::new(put.clone())));
                }
                Ok(())
            }
            EntryBody::PutTrigger(trigger) => {
                if !self.state.catalogue.namespaces.contains_key(&trigger.namespace) {
                    return refuse(Refusal::UnknownNamespace);
                }
                if !text_fits(&trigger.id) {
                    return invalid("id: 1 to 256 bytes");
                }
                self.say(Event::TriggerPut(trigger.clone()));
                Ok(())
            }
            EntryBody::DeleteTrigger { namespace, id } => {
                if !self.state.catalogue.triggers.contains_key(&(namespace.clone(), id.clone())) {
                    return refuse(Refusal::NotFound);
                }
                self.say(Event::TriggerDeleted(namespace.clone(), id.clone()));
                Ok(())
            }
            EntryBody::RaiseLevel { to } => {
                let level = self.state.level;
                if *to < level {
                    return refuse(Refusal::Invalid {
                        what: format!("the feature level is {level}, and never goes down").into(),
                    });
                }
                if *to > level {
                    self.say(Event::LevelRaised(*to));
                }
                Ok(())
            }
            EntryBody::Recover { new_bus } => {
                for worker in self.state.workers.all.iter().filter(|worker| worker.open) {
                    self.say(Event::SessionEnded(worker.id));
                }
                self.say(Event::NumbersSkipped);
                if *new_bus {
                    self.say(Event::BusReplaced);
                }
                Ok(())
            }
        }
    }

    fn session(&self, worker: WorkerId, session: SessionId) -> Result<&Worker, Nothing> {
        let known = self.state.worker(worker).filter(|known| known.open && known.session == session);
        known.ok_or(Nothing::Refused(Refusal::NoSuchSession))
    }

    /// Rule 21.
    fn register(&mut self, register: &Register) -> Result<(), Nothing> {
        let kinds_fit = register.kinds.len() <= 1_000 && register.kinds.iter().all(|kind| text_fits(kind));
        if !text_fits(&register.name) || !text_fits(&register.pool) || !kinds_fit {
            return invalid("name, pool, kinds: 1 to 256 bytes each, at most 1,000 kinds");
        }
        if register.capacity == 0 || register.capacity > limits::MAX_CAPACITY {
            return invalid("capacity: 1 to 100,000");
        }
        let workers = &self.state.workers;
        let known = workers.by_name.get(&register.name).and_then(|id| self.state.worker(*id));
        let last = known.map_or(SessionId(0), |known| known.session);
        if let Some(known) = known.filter(|known| known.open) {
            if !register.fenced {
                return refuse(Refusal::NameTaken { session: known.session });
            }
            if register.last_session != last {
                return refuse(Refusal::NotLastSession { last });
            }
        } else if register.last_session != last {
            return refuse(Refusal::NotLastSession { last });
        }
        // The session that this one takes the place of makes room.
        let leaving = known.filter(|known| known.open).map(|known| known.inbox);
        let load = |inbox: &u32| {
            workers.inboxes.get(inbox).copied().unwrap_or(0).saturating_sub(u32::from(leaving == Some(*inbox)))
        };
        // A worker that comes back keeps its inbox when there is room: fewer partitions to read again.
        let own = known.map(|known| known.inbox).filter(|inbox| *inbox < register.inboxes);
        let inbox = own
            .filter(|inbox| load(inbox) < limits::WORKERS_PER_INBOX)
            .or_else(|| (0..register.inboxes).min_by_key(|inbox| (load(inbox), *inbox)))
            .filter(|inbox| load(inbox) < limits::WORKERS_PER_INBOX);
        let Some(inbox) = inbox else { return refuse(Refusal::NoInbox) };
        if let Some(known) = known.filter(|known| known.open) {
            self.say(Event::SessionEnded(known.id));
        }
        let id = known.map_or(WorkerId(workers.all.len() as u32 + 1), |known| known.id);
        let session = SessionId(workers.last_session.0 + 1);
        self.say(Event::Registered(Box::new(register.clone()), id, session, inbox));
        Ok(())
    }

    /// A lease ended with its session: a used attempt (rule 20).
    pub(super) fn lease_lost(&mut self, worker: WorkerId, token: Token) -> Result<(), Nothing> {
        self.lease_gone(worker, token, failure("worker.lost", "the worker's session ended", true))
    }

    /// A lease whose assignment or result the bus lost (rule 27).
    pub(super) fn lease_dropped(&mut self, worker: WorkerId, token: Token) -> Result<(), Nothing> {
        self.lease_gone(worker, token, failure("worker.lost", "the assignment or its result was lost", true))
    }

    fn lease_gone(&mut self, worker: WorkerId, token: Token, why: Failure) -> Result<(), Nothing> {
        let known = self.state.worker(worker).ok_or(Nothing::Stale)?;
        let lease = *known.leases.get(&token).ok_or(Nothing::Stale)?;
        self.say(Event::LeaseEnded(worker, token));
        let at = At { execution: lease.execution, scope: lease.scope, node: lease.node };
        let Some(found) = self.state.at(at) else { return Ok(()) };
        if lease.revoking {
            self.after_stop(at, &found);
        } else {
            self.attempt_lost(at, &found, why);
        }
        Ok(())
    }

    /// An attempt came to nothing through no fault of its own: begun again at once while attempts are left.
    pub(super) fn attempt_lost(&mut self, at: At, found: &Found<'_>, mut why: Failure) {
        let retry = found.node.retry.as_ref();
        let attempts = retry.map_or(limits::ATTEMPTS_WHEN_LOST, |retry| retry.max_attempts);
        let unwanted =
            retry.is_some_and(|retry| retry.never.iter().any(|pattern| nova_program::code_matches(pattern, &why.code)));
        if found.record.attempt < attempts && !unwanted {
            why.node = found.node.id.clone();
            self.say(Event::Retrying(at, why, self.state.now));
        } else {
            self.fail(at, found, why, Repeat::Never);
        }
    }

    /// The first queued node that a free slot fits gets it.
    pub(super) fn fill(&mut self) -> Result<(), Nothing> {
        let next = pick(self.state).ok_or(Nothing::Stale)?;
        let (class, key, worker) = (next.class.clone(), next.key, next.worker);
        let at = At { execution: next.queued.execution, scope: next.queued.scope, node: next.queued.node };
        if !self.state.at(at).is_some_and(|found| in_body(found.execution, found.scope)) {
            self.say(Event::Cancelled(at));
            return Ok(());
        }
        let token = self.token();
        self.say(Event::Leased { at, class, key, worker, token });
        Ok(())
    }
}

/// The node whose turn it is among those for which a capable worker has a free slot, and the one with most of them.
pub(crate) fn pick(state: &State) -> Option<Next<'_, WorkerId>> {
    state.queue.next(|(pool, kind)| {
        let able = state.workers.free.iter().filter(|((of, kinds), _)| **of == **pool && kinds.contains(kind));
        if nova_plants::is(Plant::UnorderedApply) {
            let all: std::collections::HashSet<WorkerId> =
                able.flat_map(|(_, free)| free.iter().map(|(_, worker)| *worker)).collect();
            return all.into_iter().next();
        }
        able.filter_map(|(_, free)| free.last()).max().map(|(_, worker)| *worker)
    })
}

fn refuse<T>(refusal: Refusal) -> Result<T, Nothing> {
    Err(Nothing::Refused(refusal))
}

fn invalid<T>(what: &str) -> Result<T, Nothing> {
    refuse(Refusal::Invalid { what: what.into() })
}
