//! What follows when the end of the log is lost.

use std::sync::Arc;

use crate::limits;
use crate::state::State;

impl State {
    /// Whoever still holds a number that this state did not give out must not be taken for who gets it next: a worker its
    /// session or token, a scheduler its epoch. Readers drop messages whose numbers they have seen, and those who follow
    /// the catalogue wait for a revision above the one they know.
    pub(super) fn on_numbers_skipped(&mut self) {
        let skipped = limits::NUMBERS_SKIPPED;
        self.next_token += skipped;
        self.workers.last_session.0 += skipped;
        self.catalogue.revision += skipped;
        for shard in self.shards.iter_mut().map(Arc::make_mut) {
            shard.epoch.0 += skipped;
            shard.owner = None;
            // Those that wait may have been published: readers get them once more, under numbers that they have not seen.
            shard.outbox.acked.0 += skipped;
            for message in &mut shard.outbox.messages {
                Arc::make_mut(message).seq.0 += skipped;
            }
        }
    }
}
