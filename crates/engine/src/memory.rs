//! About how much memory the state takes, by kind of thing: for people who watch it, never for a decision.
//!
//! What there may be millions of is counted by its pieces, not one by one; live executions are estimated from a few.

use crate::output::Message;
use crate::state::{Execution, NodeRecord, OfferRecord, Scope, State, Worker};

/// One kind of thing in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Its name, for a label.
    pub kind: &'static str,
    /// How many there are.
    pub count: u64,
    /// How much they take, about.
    pub bytes: u64,
}

/// Live executions of each shard that are looked at.
const SAMPLE: usize = 8;

/// What an allocation takes beside what is in it: the count of references, and what is rounded up.
const ALLOCATION: u64 = 24;

impl State {
    /// Counts and estimated bytes of all kinds of things.
    #[must_use]
    pub fn memory(&self) -> [Memory; 8] {
        let kind = |kind, count: usize, bytes| Memory { kind, count: count as u64, bytes };
        let shards = || self.shards.iter();
        let live: usize = shards().map(|shard| shard.executions.len() - shard.executions.parked()).sum();
        let parked = shards().map(|shard| shard.executions.parked()).sum();
        let parked_bytes = shards().map(|shard| shard.executions.parked_bytes()).sum();
        let keys: usize = shards().map(|shard| shard.keys.len()).sum();
        // Their texts: of the length of a UUID, mostly.
        let key_bytes = shards().map(|shard| shard.keys.bytes()).sum::<u64>() + keys as u64 * (36 + ALLOCATION);
        let messages: usize = shards().map(|shard| shard.outbox.messages.len()).sum();
        let payloads: u64 = shards().map(|shard| shard.outbox.bytes).sum();
        let workers = &self.workers.all;
        let worker = size_of::<Worker>() as u64 + 8 * ALLOCATION;
        let leases: usize = workers.iter().map(|worker| worker.leases.len()).sum();
        let versions = &self.catalogue.versions;
        let version = |version: &std::sync::Arc<crate::state::WorkflowVersion>| {
            let program = &version.program;
            let parts = program.nodes.len() * (size_of::<nova_program::Node>() + 64)
                + program.bodies.len() * size_of::<nova_program::Body>()
                + program.edges.len() * size_of::<nova_program::Edge>();
            (parts + version.document.len()) as u64 + 8 * ALLOCATION
        };
        [
            kind("executions_live", live, self.live_bytes(live as u64)),
            kind("executions_parked", parked, parked_bytes),
            kind("timers", self.timers.len(), self.timers.bytes()),
            kind("queue", self.queue.len() as usize, self.queue.bytes()),
            kind("keys", keys, key_bytes),
            kind("outbox", messages, payloads + messages as u64 * (size_of::<Message>() as u64 + ALLOCATION)),
            kind("workers", workers.len(), workers.len() as u64 * worker + leases as u64 * 96),
            kind("catalogue", versions.len(), versions.iter().map(version).sum()),
        ]
    }

    fn live_bytes(&self, count: u64) -> u64 {
        let sample = self.shards.iter().flat_map(|shard| shard.executions.some_live(SAMPLE));
        let (mut looked, mut bytes) = (0, 0);
        for execution in sample {
            looked += 1;
            bytes += execution.weight();
        }
        (bytes * count).checked_div(looked).unwrap_or(0)
    }
}

impl Execution {
    /// About how much memory it takes, with its evaluations.
    fn weight(&self) -> u64 {
        let scope = |scope: &Scope| {
            let payload = |record: &NodeRecord| {
                record
                    .output
                    .iter()
                    .chain(&record.with)
                    .map(|it| crate::weight::payload(it) + 2 * ALLOCATION)
                    .sum::<u64>()
            };
            let vars = scope.vars.iter().map(|var| crate::weight::payload(&var.value) + 2 * ALLOCATION);
            let nodes = scope.nodes.len() * size_of::<NodeRecord>();
            (size_of::<Scope>() + nodes) as u64 + scope.nodes.iter().map(payload).sum::<u64>() + vars.sum::<u64>()
        };
        // The map of its scopes is one allocation with room for eleven.
        let own = size_of::<Self>() as u64 + 12 * 16 + 8 * ALLOCATION + crate::weight::payload(&self.input);
        let offers = self.offers.len() * (size_of::<OfferRecord>() + 32);
        own + offers as u64 + self.scopes.values().map(scope).sum::<u64>()
    }
}
