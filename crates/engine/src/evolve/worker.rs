//! Workers, sessions, leases.

use std::sync::Arc;

use nova_program::{NodeKind, With};

use crate::ids::{SessionId, TimeMs, Token, WorkerId};
use crate::input::{LeaseRef, Register};
use crate::output::{Assignment, ExecutionEvent, MessageBody, NodeRef, NodeState};
use crate::payload::Payload;
use crate::state::{AfterStop, Class, Lease, QueueKey, State, Timer, Worker};
use crate::work::At;

impl State {
    /// Changes a worker and keeps the index of free slots equal to what the leases say.
    pub(super) fn change_worker(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.all.get_mut((id.0 as usize).wrapping_sub(1)) else { return };
        let before = worker.free_for_work();
        let ability = worker.ability();
        change(worker);
        let after = worker.free_for_work();
        let moved = !(Arc::ptr_eq(&ability.0, &worker.pool) && Arc::ptr_eq(&ability.1, &worker.kinds));
        if before == after && !moved {
            return;
        }
        let ability_after = moved.then(|| worker.ability());
        if let Some(free) = before
            && let Some(set) = self.workers.free.get_mut(&ability)
        {
            set.remove(&(free, id));
            if let (Some(free), false) = (after, moved) {
                set.insert((free, id));
                return;
            }
            // What nobody has a free slot for stays away, as in a state that was put together from a snapshot.
            if set.is_empty() {
                self.workers.free.remove(&ability);
            }
        }
        if let Some(free) = after {
            self.workers.free.entry(ability_after.unwrap_or(ability)).or_default().insert((free, id));
        }
    }

    pub(super) fn on_registered(&mut self, register: Register, id: WorkerId, session: SessionId, inbox: u32) {
        self.workers.last_session = session;
        if id.0 as usize == self.workers.all.len() + 1 {
            self.workers.by_name.insert(register.name.clone(), id);
            self.workers.all.push(Worker {
                id,
                name: register.name.clone(),
                pool: Arc::from(&*register.pool),
                kinds: Default::default(),
                labels: Vec::new(),
                capacity: 0,
                session: SessionId(0),
                open: false,
                draining: false,
                inbox,
                boot: 0,
                leases: Default::default(),
            });
        }
        *self.workers.inboxes.entry(inbox).or_default() += 1;
        // Those of the session before, which end now: in the pool in which they will be looked for.
        let leases: Vec<_> =
            self.worker(id).map(|worker| worker.leases.values().copied().collect()).unwrap_or_default();
        leases.iter().for_each(|lease| self.slot_ended(id, lease));
        self.change_worker(id, |worker| {
            worker.pool = Arc::from(&*register.pool);
            worker.kinds = Arc::new(register.kinds.into_iter().collect());
            worker.labels = register.labels;
            worker.capacity = register.capacity;
            worker.session = session;
            worker.open = true;
            worker.draining = false;
            worker.inbox = inbox;
            worker.boot = register.boot;
        });
        for lease in &leases {
            let namespace = self.open(lease.execution).map(|execution| Arc::clone(&execution.workflow.namespace));
            if let (Some(worker), Some(namespace)) = (self.worker(id), namespace) {
                let pool = Arc::clone(&worker.pool);
                self.queue.slot_begun(&pool, &namespace);
            }
        }
    }

    pub(super) fn on_session_ended(&mut self, id: WorkerId) {
        let Some(worker) = self.worker(id).filter(|worker| worker.open) else { return };
        let inbox = worker.inbox;
        if let Some(count) = self.workers.inboxes.get_mut(&inbox) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.workers.inboxes.remove(&inbox);
            }
        }
        self.change_worker(id, |worker| worker.open = false);
    }

    pub(super) fn on_leased(&mut self, at: At, class: &Class, key: QueueKey, id: WorkerId, token: Token) {
        self.used_token(token);
        let Some(workflow) = self.open(at.execution).map(|execution| &execution.workflow) else { return };
        let namespace = Arc::clone(&workflow.namespace);
        self.queue.remove(class, &namespace, key);
        let now = self.now;
        let Some(worker) = self.worker(id) else { return };
        let lease = LeaseRef { execution: at.execution, token, worker: id, session: worker.session };
        let (inbox, pool) = (worker.inbox, Arc::clone(&worker.pool));
        let Some(record) = self.record_mut(at) else { return };
        record.queued = None;
        record.state = NodeState::Running;
        record.token = token;
        record.worker = Some(id);
        record.attempt += 1;
        let old = record.timer.take();
        self.clear_timer(old);
        let Some(found) = self.at(at) else { return };
        let attempt_timeout_ms = found.node.timeouts.attempt_ms;
        let NodeKind::Work { kind, with, .. } = &found.node.kind else { return };
        let with = match (&found.record.with, with) {
            (Some(with), _) => with.clone(),
            (None, With::Constant(bytes)) => Payload::Inline(bytes::Bytes::copy_from_slice(bytes)),
            (None, With::Absent | With::Evaluated) => Payload::null(),
        };
        let (visit, attempt) = (found.record.visit, found.record.attempt);
        let assignment = Assignment {
            inbox,
            lease,
            namespace: Box::from(&*namespace),
            kind: kind.clone(),
            scope: at.scope,
            node: at.node,
            node_id: found.node.id.clone(),
            visit,
            attempt,
            with,
            attempt_timeout_ms,
            trace: found.execution.trace,
        };
        if let Some(ms) = attempt_timeout_ms {
            let due = TimeMs(now.0.saturating_add(ms));
            let timer = self.set_timer(due, Timer::Node(at.execution, at.scope, at.node));
            if let Some(record) = self.record_mut(at) {
                record.timer = Some(timer);
            }
        }
        let assigned = self.post(at.execution.shard(), MessageBody::Assign(assignment));
        let held = Lease { execution: at.execution, scope: at.scope, node: at.node, assigned, revoking: false };
        self.change_worker(id, |worker| {
            worker.leases.insert(token, held);
        });
        self.queue.slot_begun(&pool, &namespace);
        let node = NodeRef { scope: at.scope, node: at.node, visit };
        self.publish(at.execution, ExecutionEvent::AttemptStarted { node, attempt, worker: id, token });
    }

    pub(super) fn on_lease_ended(&mut self, id: WorkerId, token: Token) {
        let lease = self.worker(id).and_then(|worker| worker.leases.get(&token)).copied();
        self.change_worker(id, |worker| {
            worker.leases.remove(&token);
        });
        let Some(lease) = lease else { return };
        self.slot_ended(id, &lease);
        let at = At { execution: lease.execution, scope: lease.scope, node: lease.node };
        if let Some(record) = self.record_mut(at)
            && record.token == token
        {
            record.worker = None;
            let timer = record.timer.take();
            self.clear_timer(timer);
        }
    }

    /// A slot of the worker's pool is used by the lease's namespace no more.
    fn slot_ended(&mut self, id: WorkerId, lease: &Lease) {
        let (Some(worker), Some(execution)) = (self.worker(id), self.open(lease.execution)) else { return };
        let (pool, namespace) = (Arc::clone(&worker.pool), Arc::clone(&execution.workflow.namespace));
        self.queue.slot_ended(&pool, &namespace);
    }

    pub(super) fn on_revoked(&mut self, at: At, after: AfterStop) {
        let Some(record) = self.record_mut(at) else { return };
        let (Some(id), token) = (record.worker, record.token) else { return };
        record.state = NodeState::Cancelling;
        record.after_stop = Some(Box::new(after));
        let timer = record.timer.take();
        self.clear_timer(timer);
        let Some(worker) = self.worker(id) else { return };
        let lease = LeaseRef { execution: at.execution, token, worker: id, session: worker.session };
        let inbox = worker.inbox;
        self.change_worker(id, |worker| {
            if let Some(lease) = worker.leases.get_mut(&token) {
                lease.revoking = true;
            }
        });
        self.post(at.execution.shard(), MessageBody::Revoke { inbox, lease });
    }
}
