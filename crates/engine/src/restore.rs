//! Putting a state together from its parts, as a snapshot holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::Seq;
use crate::output::Message;
use crate::state::{Outbox, State};

impl Outbox {
    /// The messages after `acked`; none when their numbers have gaps.
    #[must_use]
    pub fn from_messages(acked: Seq, messages: Vec<Arc<Message>>) -> Option<Self> {
        let gapless = messages.iter().zip(acked.0 + 1..).all(|(message, number)| message.seq.0 == number);
        let bytes = messages.iter().map(|message| message.body.bytes()).sum();
        gapless.then(|| Self { acked, messages: messages.into(), bytes })
    }
}

impl State {
    /// Computes what follows from the rest: numbers of workers by name, their free slots and inboxes, whose turn it
    /// is in the queue, and which evaluations an execution waits for. For those who fill in the other fields by themselves.
    pub fn rebuild_indexes(&mut self) {
        let workers = &mut self.workers;
        workers.by_name = workers.all.iter().map(|worker| (worker.name.clone(), worker.id)).collect();
        workers.free = BTreeMap::new();
        workers.inboxes = BTreeMap::new();
        for worker in &workers.all {
            if worker.open {
                *workers.inboxes.entry(worker.inbox).or_default() += 1;
            }
            if let Some(free) = worker.free_for_work() {
                workers.free.entry(worker.ability()).or_default().insert((free, worker.id));
            }
        }
        let slots = workers.all.iter().flat_map(|worker| worker.leases.values().map(move |lease| (worker, lease)));
        let slots = slots.filter_map(|(worker, lease)| {
            // Who holds a lease is not parked.
            let shard = self.shards.get(usize::from(lease.execution.shard().0))?;
            let execution = shard.executions.live(lease.execution)?;
            Some((Arc::clone(&worker.pool), Arc::clone(&execution.workflow.namespace)))
        });
        self.queue.recount(slots);
        for shard in self.shards.iter_mut().map(Arc::make_mut) {
            for (token, offer) in &shard.offers {
                shard.executions.note_offer(offer.execution, *token);
            }
        }
    }
}
