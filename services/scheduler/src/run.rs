//! The loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge, histogram};
use nova_bus::{Batch, ReadError, Reader, SharedBus, Topic};
use nova_client::{ClientError, Coordinators, Repeat};
use nova_telemetry::trace::{self, Span};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::evaluate::{Evaluator, Fetched};
use crate::link::{FromLeader, Link};
use crate::metrics as names;
use crate::outbox::{Acknowledged, Outbox};
use crate::shard::{Phase, Shard};

/// Proposals on their way over all shards.
const IN_FLIGHT: usize = 32;
/// Bytes of outbox messages that the bus has not acknowledged, above which no more are taken from the coordinator.
const PUBLISHING_BYTES: u64 = 32 << 20;
/// A watermark goes alone after this long.
const ALONE: Duration = Duration::from_millis(50);
/// How often shards are asked for and renewed, until the leader names its lease.
const RENEW: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// An election takes its time: only what lasts longer is worth a word.
const QUIET: Duration = Duration::from_secs(3);

/// A proposal on its way.
struct Sent {
    shard: u32,
    epoch: u64,
    at: Instant,
    /// Of the executions in it that are traced.
    spans: Vec<Span>,
}

/// A scheduler.
pub struct Scheduler {
    bus: SharedBus,
    coordinators: Coordinators,
    cluster: ClusterId,
    owner: u64,
    shards: BTreeMap<u32, Shard>,
    /// Proposals on their way.
    sent: BTreeMap<u64, Sent>,
    next_request: u64,
    /// Shards that may have something to propose.
    ready: BTreeSet<u32>,
    acknowledged: mpsc::UnboundedReceiver<Acknowledged>,
    tell: mpsc::UnboundedSender<Acknowledged>,
    publishing: Arc<AtomicU64>,
    lease: Duration,
    give_back: Vec<u32>,
    evaluator: Evaluator,
    fetched: mpsc::UnboundedReceiver<Fetched>,
    /// Whether the streams to a leader were opened.
    linked: bool,
}

impl Scheduler {
    /// A scheduler that owns nothing yet.
    #[must_use]
    pub fn new(config: &Config, bus: SharedBus) -> Self {
        let (tell, acknowledged) = mpsc::unbounded_channel();
        let (send, fetched) = mpsc::unbounded_channel();
        let coordinators = Coordinators::new(config.coordinators.clone());
        Self {
            bus,
            evaluator: Evaluator::new(coordinators.clone(), send),
            fetched,
            coordinators,
            cluster: ClusterId::of_name(&config.cluster),
            owner: rand::random(),
            shards: BTreeMap::new(),
            sent: BTreeMap::new(),
            next_request: 1,
            ready: BTreeSet::new(),
            acknowledged,
            tell,
            publishing: Arc::default(),
            lease: RENEW * 3,
            give_back: Vec::new(),
            linked: false,
        }
    }

    /// Works until `stop`; then it gives its shards back.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut alone_since = Instant::now();
        while !stop.is_cancelled() {
            self.linked = false;
            if let Err(why) = self.work(&stop).await {
                counter!(names::RECOVERIES).increment(1);
                if self.linked {
                    tracing::warn!(why, "the link to the leader broke; it is opened again");
                    alone_since = Instant::now();
                } else if alone_since.elapsed() > QUIET {
                    tracing::warn!(why, "no link to a leader");
                    alone_since = Instant::now();
                }
            }
            self.sent.clear();
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        let leaving = v1::AcquireShardsRequest { owner: self.owner, leaving: true, ..Default::default() };
        let _ = self.acquire(leaving).await;
    }

    /// Works with one leader until something breaks.
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), String> {
        let mut reader = self.bus.reader().map_err(|error| error.to_string())?;
        self.shards.values_mut().for_each(|shard| shard.reading = false);
        let mut link = Link::open(&self.coordinators).await?;
        self.positions(&mut *reader).await?;
        link.subscribe(self.subscription()).await?;
        self.linked = true;
        let mut renew_at = Instant::now();
        let mut alone = tokio::time::interval(ALONE);
        alone.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if Instant::now() >= renew_at {
                let changed = self.renew(&mut *reader).await?;
                if changed {
                    link.subscribe(self.subscription()).await?;
                }
                renew_at = Instant::now() + self.lease / 3;
            }
            self.propose(&link, false);
            let room = self.publishing.load(Ordering::Relaxed) < PUBLISHING_BYTES;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(renew_at.into()) => {}
                from = link.next(room) => match from {
                    FromLeader::Answer(answer) => {
                        if self.answered(answer) {
                            self.recover(&mut *reader).await?;
                            link.subscribe(self.subscription()).await?;
                        }
                    }
                    FromLeader::Output(output) => self.output(output),
                    FromLeader::Broken(why) => return Err(why),
                },
                Some(told) = self.acknowledged.recv() => self.told(&told),
                Some(fetched) = self.fetched.recv() => self.fetched(fetched),
                batch = reader.next(Duration::from_secs(1)) => self.read(batch, &mut *reader).await,
                _ = alone.tick() => {
                    self.ready.extend(self.shards.keys());
                    self.propose(&link, true);
                    self.measure();
                    self.resume(&mut *reader);
                }
            }
        }
    }

    async fn acquire(&self, request: v1::AcquireShardsRequest) -> Result<v1::AcquireShardsResponse, ClientError> {
        let asking = self.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
            let request = request.clone();
            async move { member.acquire_shards(request).await }
        });
        asking.await
    }

    /// Renews what it has, takes what it is given; true when the set of shards changed.
    async fn renew(&mut self, reader: &mut dyn Reader) -> Result<bool, String> {
        let mut held = Vec::with_capacity(self.shards.len());
        let mut lag = 0;
        for (number, shard) in &self.shards {
            let end = match tokio::time::timeout(PATIENCE, self.bus.offsets(&Topic::Commands, *number)).await {
                Ok(Ok(range)) => range.end,
                // Without bus it cannot own anything: what is not renewed goes to somebody who has one (rule 14).
                Ok(Err(_)) | Err(_) => continue,
            };
            let read_offset = shard.next_proposed();
            lag += end.saturating_sub(read_offset);
            held.push(v1::HeldShard { shard: *number, epoch: shard.epoch, read_offset, end_offset: end });
        }
        gauge!(names::LAG).set(lag as f64);
        let give_back = std::mem::take(&mut self.give_back);
        let request =
            v1::AcquireShardsRequest { owner: self.owner, address: String::new(), held, give_back, leaving: false };
        let answer = self.acquire(request).await.map_err(|error| error.to_string())?;
        self.lease = Duration::from_millis(answer.lease_ms.max(300));
        let changed = !answer.granted.is_empty() || !answer.lost.is_empty() || !answer.wanted_back.is_empty();
        for number in answer.lost.iter().chain(&answer.wanted_back) {
            self.drop_shard(*number, reader);
        }
        self.give_back = answer.wanted_back;
        for granted in answer.granted {
            let Some(position) = granted.position else { continue };
            self.drop_shard(granted.shard, reader);
            let stop = CancellationToken::new();
            let outbox = Outbox::new(
                Arc::clone(&self.bus),
                self.cluster,
                granted.shard,
                &position,
                self.tell.clone(),
                Arc::clone(&self.publishing),
                stop.clone(),
            );
            let shard = Shard::new(granted.shard, &position, outbox, stop);
            self.shards.insert(granted.shard, shard);
            self.begin_reading(granted.shard, reader).await;
        }
        if changed {
            tracing::info!(shards = self.shards.len(), "shards changed");
        }
        Ok(changed)
    }

    fn drop_shard(&mut self, number: u32, reader: &mut dyn Reader) {
        if let Some(shard) = self.shards.remove(&number) {
            shard.stop.cancel();
            reader.remove(&Topic::Commands, number);
        }
        self.ready.remove(&number);
    }

    /// Looks whether the log has what was applied, and reads from there (rule 15 b).
    async fn begin_reading(&mut self, number: u32, reader: &mut dyn Reader) {
        let Some(shard) = self.shards.get_mut(&number) else { return };
        let next = shard.next_proposed();
        let range = match tokio::time::timeout(PATIENCE, self.bus.offsets(&Topic::Commands, number)).await {
            Ok(Ok(range)) => range,
            Ok(Err(error)) => {
                tracing::warn!(shard = number, %error, "the command topic cannot be reached");
                return;
            }
            Err(_) => return,
        };
        if next < range.start || next > range.end {
            halt(shard, &format!("offset {next} is applied, and the topic has {}..{}", range.start, range.end));
            return;
        }
        if shard.next_read < range.start {
            shard.begin_at_next();
        }
        match reader.assign(&Topic::Commands, number, shard.next_read) {
            Ok(()) => shard.reading = true,
            Err(error) => tracing::warn!(shard = number, %error, "the shard cannot be read"),
        }
    }

    /// Asks where all its shards stand and goes back there (rule 4).
    async fn positions(&mut self, reader: &mut dyn Reader) -> Result<(), String> {
        if self.shards.is_empty() {
            return Ok(());
        }
        let asking = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        let answer = asking.await.map_err(|error| error.to_string())?;
        for view in answer.shards {
            let Some(position) = view.position else { continue };
            let number = view.shard;
            let Some(shard) = self.shards.get_mut(&number) else { continue };
            if shard.epoch != position.epoch {
                self.drop_shard(number, reader);
            } else if shard.phase != Phase::Halted {
                shard.go_back(&position);
                self.begin_reading(number, reader).await;
            }
        }
        Ok(())
    }

    async fn recover(&mut self, reader: &mut dyn Reader) -> Result<(), String> {
        counter!(names::RECOVERIES).increment(1);
        self.sent.clear();
        tokio::time::sleep(PAUSE).await;
        self.positions(reader).await
    }

    fn subscription(&self) -> v1::SubscribeRequest {
        let live = self.shards.values().filter(|shard| shard.phase != Phase::Halted);
        let shards = live.map(|shard| v1::SubscribedShard {
            shard: shard.number,
            epoch: shard.epoch,
            after_seq: shard.outbox.received,
        });
        v1::SubscribeRequest { owner: self.owner, shards: shards.collect() }
    }

    fn propose(&mut self, link: &Link, alone: bool) {
        let mut done = Vec::new();
        for number in &self.ready {
            let Some(shard) = self.shards.get_mut(number) else {
                done.push(*number);
                continue;
            };
            loop {
                if self.sent.len() >= IN_FLIGHT || !link.has_room() {
                    break;
                }
                let Some(proposal) = shard.proposal(alone) else {
                    done.push(*number);
                    break;
                };
                histogram!(names::BATCH).record(proposal.records.len() as f64);
                let request = self.next_request;
                self.next_request += 1;
                let bodies = proposal.records.iter().map(|record| &record.commands);
                let spans = trace::of_commands(trace::names::PROPOSE, bodies);
                let sent = Sent { shard: *number, epoch: shard.epoch, at: Instant::now(), spans };
                self.sent.insert(request, sent);
                // There was room, and nobody else sends.
                let sent = link.try_send(v1::ProposeRequest { request, proposal: Some(proposal) });
                if !sent {
                    tracing::debug!(shard = number, "the stream closed; its end is noticed next");
                }
            }
        }
        for number in done {
            self.ready.remove(&number);
        }
    }

    /// Takes a verdict; true when positions must be asked.
    fn answered(&mut self, answer: v1::ProposeResponse) -> bool {
        use v1::propose_response::Result as Answer;
        use v1::refusal::Kind;
        let Some(sent) = self.sent.remove(&answer.request) else { return false };
        let Sent { shard: number, epoch, at, mut spans } = sent;
        histogram!(names::PROPOSE_SECONDS).record(at.elapsed().as_secs_f64());
        let Some(shard) = self.shards.get_mut(&number).filter(|shard| shard.epoch == epoch) else { return false };
        shard.in_flight = shard.in_flight.saturating_sub(1);
        self.ready.insert(number);
        let refusal = match answer.result {
            Some(Answer::Verdict(v1::Verdict { kind: Some(v1::verdict::Kind::Applied(_)) })) => None,
            Some(Answer::Verdict(v1::Verdict { kind: Some(v1::verdict::Kind::Refused(refusal)) })) => Some(refusal),
            Some(Answer::Retry(retry)) => {
                tracing::warn!(shard = number, why = retry.why, "a proposal has no verdict");
                spans.iter_mut().for_each(|span| span.fail("no verdict"));
                shard.phase = Phase::Recovering;
                None
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            spans.iter_mut().for_each(|span| span.fail(refusal.kind().as_str_name()));
            match refusal.kind() {
                Kind::StaleEpoch => {
                    tracing::info!(shard = number, current = refusal.number, "another scheduler owns the shard");
                    shard.stop.cancel();
                    self.shards.remove(&number);
                    return false;
                }
                Kind::Rewritten => {
                    halt(shard, &format!("the record before offset {} is not the one applied", refusal.number));
                    return false;
                }
                kind => {
                    tracing::debug!(shard = number, kind = kind.as_str_name(), "a proposal was refused");
                    shard.phase = Phase::Recovering;
                }
            }
        }
        // What else is on its way for this shard will be refused as a gap: its answers come first.
        let waiting = |shard: &Shard| shard.phase == Phase::Recovering && shard.in_flight == 0;
        self.shards.values().any(waiting)
    }

    fn output(&mut self, response: v1::SubscribeResponse) {
        let begun = Instant::now();
        let mut evaluations = 0;
        for output in response.shards {
            let Some(shard) = self.shards.get_mut(&output.shard) else { continue };
            if output.superseded {
                shard.stop.cancel();
                self.shards.remove(&output.shard);
                continue;
            }
            for message in output.messages {
                shard.outbox.publish(message);
            }
            for offer in output.offers {
                if offer.token > shard.offered {
                    shard.offered = offer.token;
                    let evaluation = self.evaluator.take(shard.number, shard.epoch, offer);
                    shard.locals.extend(evaluation.map(|it| it.local));
                    evaluations += 1;
                }
            }
            self.ready.insert(output.shard);
        }
        if evaluations > 0 {
            counter!(names::EVALUATIONS).increment(evaluations);
            histogram!(names::EVALUATE_SECONDS).record(begun.elapsed().as_secs_f64());
        }
    }

    fn fetched(&mut self, fetched: Fetched) {
        for evaluation in self.evaluator.arrived(fetched) {
            let owned = self.shards.get_mut(&evaluation.shard).filter(|shard| shard.epoch == evaluation.epoch);
            if let Some(shard) = owned {
                shard.locals.push_back(evaluation.local);
                self.ready.insert(evaluation.shard);
            }
        }
    }

    fn told(&mut self, told: &Acknowledged) {
        if let Some(shard) = self.shards.get_mut(&told.shard).filter(|shard| shard.epoch == told.epoch) {
            shard.outbox.acknowledged(&told.seqs);
        }
    }

    async fn read(&mut self, batch: Result<Option<Batch>, ReadError>, reader: &mut dyn Reader) {
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(ReadError::OutOfRange { partition, wanted, low, high, .. }) => {
                if let Some(shard) = self.shards.get_mut(&partition) {
                    halt(shard, &format!("offset {wanted} is wanted, and the topic has {low}..{high}"));
                }
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the command topic cannot be read");
                tokio::time::sleep(PAUSE).await;
                return;
            }
        };
        let Some(shard) = self.shards.get_mut(&batch.partition) else { return };
        for record in &batch.records {
            match shard.take(record, self.cluster) {
                Ok(None) => {}
                Ok(Some(why)) => {
                    counter!(names::DROPPED).increment(1);
                    tracing::warn!(shard = batch.partition, offset = record.offset, why, "a record is dropped");
                    dead_letter(&self.bus, self.cluster, batch.partition, record, why);
                }
                Err(error) => {
                    halt(shard, &error.to_string());
                    reader.remove(&Topic::Commands, batch.partition);
                    return;
                }
            }
        }
        if shard.is_full() {
            reader.remove(&Topic::Commands, batch.partition);
            shard.reading = false;
        }
        self.ready.insert(batch.partition);
    }

    /// Reads shards again whose buffers have room.
    fn resume(&mut self, reader: &mut dyn Reader) {
        for (number, shard) in &mut self.shards {
            let wants = matches!(shard.phase, Phase::Active | Phase::Checking { .. }) && !shard.is_full();
            if wants && !shard.reading {
                shard.reading = reader.assign(&Topic::Commands, *number, shard.next_read).is_ok();
            }
        }
    }

    fn measure(&self) {
        gauge!(names::SHARDS).set(self.shards.len() as f64);
        let halted = self.shards.values().filter(|shard| shard.phase == Phase::Halted).count();
        gauge!(names::HALTED).set(halted as f64);
        gauge!(names::BUFFERED).set(self.shards.values().map(Shard::buffered).sum::<usize>() as f64);
        gauge!(names::IN_FLIGHT).set(self.sent.len() as f64);
        gauge!(names::PUBLISHING).set(self.publishing.load(Ordering::Relaxed) as f64);
        let oldest = self.shards.values().filter_map(Shard::oldest).min();
        gauge!(names::OLDEST).set(oldest.map_or(0.0, |at| at.elapsed().as_secs_f64()));
    }
}

fn halt(shard: &mut Shard, why: &str) {
    shard.phase = Phase::Halted;
    tracing::error!(
        shard = shard.number,
        why,
        "ALARM: the command topic is not the one that was applied; the shard stands still. Restore the topic from a \
         backup, or restore the coordinators from one of the same time. Going on would lose or repeat commands."
    );
}

/// Puts a record that nobody can read aside; best effort, since the record itself stays where it is.
fn dead_letter(bus: &SharedBus, cluster: ClusterId, partition: u32, record: &nova_bus::Record, why: &str) {
    let letter = v1::DeadLetter {
        topic: Topic::Commands.name().into(),
        partition,
        offset: record.offset,
        reason: why.into(),
        original: record.value.clone(),
        at_ms: record.timestamp_ms,
    };
    let sealed = nova_wire::seal(cluster, v1::RecordKind::DeadLetter, partition, letter.encode_to_vec().into());
    let ack = bus.append(&Topic::DeadLetter, 0, vec![sealed.into()]);
    tokio::spawn(tokio::time::timeout(Duration::from_secs(30), ack));
}
