//! Having shards: asking for them, renewing them, giving them back (rule 14).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_bus::{Reader, SharedBus, Topic};
use nova_client::{ClientError, Coordinators, Repeat};
use nova_wire::v1;
use tokio::sync::mpsc;

use super::{PATIENCE, Scheduler, Told};
use crate::outbox::Outbox;
use crate::shard::Shard;

/// What a renewal came to.
pub(crate) struct Renewed {
    /// Ends of logs that the bus told, and when it was asked.
    ends: BTreeMap<u32, u64>,
    asked_at: Instant,
    /// When shards were asked for, what was named, and what was answered; none without bus.
    answer: Option<(Instant, Vec<v1::HeldShard>, Result<v1::AcquireShardsResponse, ClientError>)>,
}

impl Scheduler {
    /// Begins a renewal when it is time.
    pub(super) fn renew(&mut self, now: Instant) {
        if self.renewing || now < self.renew_at {
            return;
        }
        self.renewing = true;
        self.renew_at = now + self.lease / 3;
        let held = self.shards.values().map(|shard| v1::HeldShard {
            shard: shard.number,
            epoch: shard.epoch,
            read_offset: shard.next_proposed(),
            end_offset: shard.end_offset,
        });
        let request = v1::AcquireShardsRequest {
            owner: self.owner,
            held: held.collect(),
            give_back: std::mem::take(&mut self.give_back),
            ..Default::default()
        };
        // A renewal that was asked for waits for no bus which answered a moment ago.
        let knows = |at: Instant| now.saturating_duration_since(at) < self.lease / 3;
        let bus = (self.without_bus || !self.bus_asked_at.is_some_and(knows)).then(|| Arc::clone(&self.bus));
        if bus.is_some() {
            self.bus_asked_at = Some(now);
        }
        tokio::spawn(renew(bus, self.bus_patience(), self.coordinators.clone(), request, self.tell.clone()));
    }

    /// Renews at once, or after the renewal that is on its way.
    pub(super) fn renew_soon(&mut self) {
        let now = Instant::now();
        self.renew_at = now;
        self.renew(now);
    }

    /// Longest wait for what the bus says about its logs, for all of them together: one partition without leader must
    /// not cost the others their leases.
    pub(super) fn bus_patience(&self) -> Duration {
        Duration::from_secs(1).min(self.lease / 5)
    }

    /// Takes what a renewal came to.
    pub(super) fn renewed(&mut self, renewed: Renewed, reader: &mut dyn Reader) {
        self.renewing = false;
        for (number, end) in renewed.ends {
            if let Some(shard) = self.shards.get_mut(&number) {
                (shard.end_at, shard.end_offset) = (renewed.asked_at, end);
            }
        }
        let without_bus = renewed.answer.is_none();
        if without_bus != std::mem::replace(&mut self.without_bus, without_bus) {
            tracing::warn!(without_bus, "the bus was lost, or is back; shards are only held with it");
        }
        let Some((sent_at, held, answer)) = renewed.answer else { return };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return tracing::debug!(%error, "shards are not renewed"),
        };
        self.lease = Duration::from_millis(answer.lease_ms.max(300));
        self.renew_at = self.renew_at.min(sent_at + self.lease / 3);
        for named in held {
            if let Some(shard) = self.shards.get_mut(&named.shard).filter(|shard| shard.epoch == named.epoch) {
                shard.renewed_at = sent_at;
            }
        }
        let changed = !answer.granted.is_empty() || !answer.lost.is_empty() || !answer.wanted_back.is_empty();
        for number in answer.lost.iter().chain(&answer.wanted_back) {
            self.drop_shard(*number, reader);
        }
        for granted in answer.granted {
            let Some(position) = granted.position else { continue };
            self.drop_shard(granted.shard, reader);
            self.bus.commands_applied(granted.shard, position.next_offset);
            let outbox = Outbox::new(granted.shard, &position);
            let shard = Shard::new(granted.shard, &position, outbox, sent_at);
            self.shards.insert(granted.shard, shard);
        }
        if changed {
            tracing::info!(shards = self.shards.len(), "shards changed");
            self.resubscribe = true;
            self.resume(Instant::now(), reader);
        }
        if !answer.wanted_back.is_empty() {
            // Others wait for them.
            self.give_back.extend(answer.wanted_back);
            self.renew_soon();
        }
    }

    /// Gives back what it cannot read or publish, or has not renewed, for as long as a lease.
    pub(super) fn give_up(&mut self, now: Instant, reader: &mut dyn Reader) {
        let adrift = |shard: &Shard| shard.is_adrift(self.lease, now).map(|why| (shard.number, why));
        let adrift: Vec<_> = self.shards.values().filter_map(adrift).collect();
        for (number, why) in adrift {
            tracing::warn!(shard = number, why, "a shard is given back");
            self.drop_shard(number, reader);
            self.give_back.push(number);
            self.renew_at = now;
        }
    }

    /// Gives everything back.
    pub(super) async fn leave(mut self) {
        // A renewal that is answered later would give it shards again.
        let settled = async {
            while self.renewing {
                self.renewing = !matches!(self.told.recv().await, Some(Told::Renewed(_)) | None);
            }
        };
        let _ = tokio::time::timeout(PATIENCE, settled).await;
        let leaving = v1::AcquireShardsRequest { owner: self.owner, leaving: true, ..Default::default() };
        // What is not given back is free when its lease is over.
        let _ = acquire(&self.coordinators, leaving).await;
    }
}

async fn acquire(
    coordinators: &Coordinators,
    request: v1::AcquireShardsRequest,
) -> Result<v1::AcquireShardsResponse, ClientError> {
    let asking = coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
        let request = request.clone();
        async move { member.acquire_shards(request).await }
    });
    asking.await
}

/// Asks the bus, if it is given, and with it the coordinator. Who has no bus asks for nothing: it would hold what others
/// could serve.
async fn renew(
    bus: Option<SharedBus>,
    patience: Duration,
    coordinators: Coordinators,
    mut request: v1::AcquireShardsRequest,
    tell: mpsc::UnboundedSender<Told>,
) {
    let asked_at = Instant::now();
    let mut ends = BTreeMap::new();
    let has_bus = match bus {
        None => true,
        Some(bus) if request.held.is_empty() => {
            matches!(tokio::time::timeout(patience, bus.health()).await, Ok(Ok(())))
        }
        Some(bus) => {
            let held: Vec<u32> = request.held.iter().map(|held| held.shard).collect();
            let found = bus.bounds(&Topic::Commands, &held, patience).await;
            ends.extend(found.into_iter().map(|(shard, range)| (shard, range.end)));
            !ends.is_empty()
        }
    };
    for held in &mut request.held {
        held.end_offset = ends.get(&held.shard).copied().unwrap_or(held.end_offset);
    }
    let answer = if has_bus {
        let (sent_at, held) = (Instant::now(), request.held.clone());
        Some((sent_at, held, acquire(&coordinators, request).await))
    } else {
        if request.held.is_empty() && !request.give_back.is_empty() {
            request.leaving = true;
            let _ = acquire(&coordinators, request).await;
        }
        None
    };
    let _ = tell.send(Told::Renewed(Renewed { ends, asked_at, answer }));
}
