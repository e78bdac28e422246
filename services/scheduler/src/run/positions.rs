//! Going back: where shards stand is asked, and only those that lost something begin there again (rule 4).

use std::time::Instant;

use metrics::counter;
use nova_bus::{Reader, Topic};
use nova_client::{ClientError, Repeat};
use nova_wire::v1;

use super::{PATIENCE, Scheduler, Told};
use crate::metrics as names;

/// Where shards stand.
pub(crate) struct Positions {
    /// Those that it was asked for, with their epochs.
    asked: Vec<(u32, u64)>,
    answer: Result<v1::GetShardsResponse, ClientError>,
}

impl Scheduler {
    /// No answer will come to what was sent.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        for shard in self.shards.values_mut() {
            shard.in_flight = 0;
            shard.recovering = true;
        }
    }

    /// Asks where the shards stand that have to go back.
    pub(super) fn ask_positions(&mut self, now: Instant) {
        if self.asking {
            return;
        }
        let wanting = self.shards.values_mut().filter_map(|it| it.wants_position(now).then_some((it.number, it.epoch)));
        let asked: Vec<_> = wanting.collect();
        if asked.is_empty() {
            return;
        }
        self.asking = true;
        counter!(names::RECOVERIES).increment(1);
        let (coordinators, tell) = (self.coordinators.clone(), self.tell.clone());
        tokio::spawn(async move {
            let asking = coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.get_shards(v1::GetShardsRequest {}).await
            });
            let answer = asking.await;
            let _ = tell.send(Told::Positions(Positions { asked, answer }));
        });
    }

    pub(super) fn positions(&mut self, positions: Positions, reader: &mut dyn Reader) {
        self.asking = false;
        let answer = match positions.answer {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, "positions are not known; they are asked again"),
        };
        let now = Instant::now();
        for view in answer.shards {
            let Some(position) = view.position else { continue };
            let asked = |epoch: u64| positions.asked.contains(&(view.shard, epoch));
            let Some(shard) = self.shards.get_mut(&view.shard).filter(|shard| asked(shard.epoch)) else { continue };
            if position.epoch > shard.epoch {
                tracing::info!(shard = view.shard, current = position.epoch, "another scheduler owns the shard");
                self.drop_shard(view.shard, reader);
            } else if position.epoch == shard.epoch && shard.wants_position(now) {
                shard.go_back(&position, now);
                reader.remove(&Topic::Commands, view.shard);
                self.evaluator.forget(view.shard);
            }
        }
        // What was evaluated is forgotten with the rest: it is offered again.
        self.resubscribe = true;
        self.resume(now, reader);
    }
}
