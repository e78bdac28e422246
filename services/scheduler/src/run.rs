//! The loop. It never waits for the bus or for an answer: what takes time is asked aside, and told when it is known.

mod leases;
mod positions;
mod proposing;
mod reading;
mod ready;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use nova_bus::{Reader, SharedBus, Topic};
use nova_client::Coordinators;
use nova_wire::{ClusterId, v1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::evaluator::{Evaluated, Evaluator, Fetched};
use crate::link::{FromLeader, Link};
use crate::metrics as names;
use crate::outbox::{Acknowledged, Publisher};
use crate::shard::Shard;

/// Bytes of outbox messages that the bus has not acknowledged, above which no more are taken from the coordinator.
const PUBLISHING_BYTES: u64 = 32 << 20;
/// A watermark goes alone after this long; as often it is looked what else is due.
const ALONE: Duration = Duration::from_millis(50);
/// How often shards are asked for and renewed, until the leader names its lease.
const RENEW: Duration = Duration::from_millis(500);
/// Longest wait for a coordinator.
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// Wait before a link is tried again: a new leader is found as soon as there is one.
const REOPEN: Duration = Duration::from_millis(30);
/// An election takes its time: only what lasts longer is worth a word.
const QUIET: Duration = Duration::from_secs(3);

/// What the loop is told by what it started.
pub(crate) enum Told {
    /// Messages are durable.
    Acknowledged(Acknowledged),
    /// A version of a workflow has come, or not.
    Fetched(Fetched),
    /// What offers come to.
    Evaluated(Evaluated),
    /// Shards were asked for and renewed.
    Renewed(leases::Renewed),
    /// Where shards stand.
    Positions(positions::Positions),
    /// What the log of a shard has.
    Log(reading::Log),
}

/// A scheduler.
pub struct Scheduler {
    bus: SharedBus,
    coordinators: Coordinators,
    cluster: ClusterId,
    owner: u64,
    shards: BTreeMap<u32, Shard>,
    /// Proposals on their way.
    sent: BTreeMap<u64, proposing::Sent>,
    next_request: u64,
    ready: ready::Ready,
    told: mpsc::UnboundedReceiver<Told>,
    tell: mpsc::UnboundedSender<Told>,
    /// Once the bus has told how many partitions there are.
    publisher: Option<Publisher>,
    lease: Duration,
    renew_at: Instant,
    /// When the bus was last asked for the ends of logs.
    bus_asked_at: Option<Instant>,
    /// A renewal is on its way.
    renewing: bool,
    /// Positions are being asked.
    asking: bool,
    give_back: Vec<u32>,
    /// The last renewal found no bus.
    without_bus: bool,
    evaluator: Evaluator,
    /// The reader failed: it is asked again at the next tick.
    reader_failed: bool,
    /// Whether the streams to a leader were opened.
    linked: bool,
    /// Whether what it subscribed to is no longer what it needs.
    resubscribe: bool,
}

impl Scheduler {
    /// A scheduler that owns nothing yet.
    #[must_use]
    pub fn new(config: &Config, coordinators: Coordinators, bus: SharedBus) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            bus,
            evaluator: Evaluator::new(coordinators.clone(), tell.clone()),
            coordinators,
            cluster: ClusterId::of_name(&config.cluster),
            owner: rand::random(),
            shards: BTreeMap::new(),
            sent: BTreeMap::new(),
            next_request: 1,
            ready: ready::Ready::default(),
            told,
            tell,
            publisher: None,
            lease: RENEW * 3,
            renew_at: Instant::now(),
            bus_asked_at: None,
            renewing: false,
            asking: false,
            give_back: Vec::new(),
            without_bus: false,
            reader_failed: false,
            linked: false,
            resubscribe: false,
        }
    }

    /// The same under a number of its own: a process that is started again takes the shards of the one before at once, and
    /// does not wait for its lease to end. Epochs keep the two apart, should both run.
    #[must_use]
    pub fn with_owner(mut self, owner: u64) -> Self {
        self.owner = owner;
        self
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
            tokio::select! {
                () = tokio::time::sleep(REOPEN) => {}
                () = stop.cancelled() => {}
            }
        }
        self.leave().await;
    }

    /// Works with one leader until something breaks.
    async fn work(&mut self, stop: &CancellationToken) -> Result<(), String> {
        if self.publisher.is_none() {
            self.publisher = Some(self.publisher().await?);
        }
        let mut reader = self.bus.reader().map_err(|error| error.to_string())?;
        let mut link = Link::open(&self.coordinators).await?;
        self.linked = true;
        self.forget_sent();
        // A new leader, and one that saw the streams end, wants to hear of it.
        (self.resubscribe, self.renew_at) = (true, Instant::now());
        let mut alone = tokio::time::interval(ALONE);
        alone.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if std::mem::take(&mut self.resubscribe) {
                link.subscribe(self.subscription()).await?;
            }
            self.propose(&link, false);
            let room = self.publishing() < PUBLISHING_BYTES && self.evaluator.has_room();
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                from = link.next(room) => match from {
                    FromLeader::Answer(answer) => self.answered(answer, &mut *reader),
                    FromLeader::Output(output) => self.output(output),
                    FromLeader::Broken(why) => return Err(why),
                },
                Some(told) = self.told.recv() => self.hear(told, &mut *reader),
                batch = reader.next(Duration::from_secs(1)), if !self.reader_failed => self.read(batch, &mut *reader),
                _ = alone.tick() => {
                    self.reader_failed = false;
                    let now = Instant::now();
                    self.give_up(now, &mut *reader);
                    self.renew(now);
                    self.ask_positions(now);
                    self.resume(now, &mut *reader);
                    self.ready.extend(self.shards.keys().copied());
                    self.propose(&link, true);
                    self.measure();
                }
            }
        }
    }

    async fn publisher(&self) -> Result<Publisher, String> {
        let asking = tokio::time::timeout(PATIENCE, self.bus.partitions(&Topic::Events));
        let count = asking.await.map_err(|_| "the bus does not answer")?.map_err(|error| error.to_string())?;
        let count = count.ok_or("the event topic does not exist")?;
        Ok(Publisher::new(self.bus.clone(), self.cluster, count, self.tell.clone()))
    }

    /// Bytes of messages that the bus has not acknowledged.
    fn publishing(&self) -> u64 {
        self.publisher.as_ref().map_or(0, Publisher::waiting)
    }

    fn hear(&mut self, told: Told, reader: &mut dyn Reader) {
        match told {
            Told::Acknowledged(told) => self.acknowledged(&told),
            Told::Fetched(fetched) => self.evaluator.fetched(fetched),
            Told::Evaluated(evaluated) => self.evaluated(evaluated),
            Told::Renewed(renewed) => self.renewed(renewed, reader),
            Told::Positions(positions) => self.positions(positions, reader),
            Told::Log(log) => self.begin(&log, reader),
        }
    }

    fn subscription(&self) -> v1::SubscribeRequest {
        let shards = self.shards.values().map(|shard| v1::SubscribedShard {
            shard: shard.number,
            epoch: shard.epoch,
            after_seq: shard.outbox.received,
        });
        v1::SubscribeRequest { owner: self.owner, shards: shards.collect() }
    }

    fn output(&mut self, response: v1::SubscribeResponse) {
        if response.renew {
            self.renew_soon();
        }
        for output in response.shards {
            let Some(shard) = self.shards.get_mut(&output.shard) else { continue };
            if output.superseded {
                // A member that lags behind says so too: the epoch that counts comes with the position.
                shard.recovering = true;
                continue;
            }
            if let Some(publisher) = &mut self.publisher {
                output.messages.into_iter().for_each(|message| shard.outbox.publish(message, publisher));
            }
            let offered = shard.offered;
            shard.offered = output.offers.iter().map(|offer| offer.token).fold(offered, u64::max);
            // A subscription that was opened anew repeats.
            let new = output.offers.into_iter().filter(|offer| offer.token > offered);
            self.evaluator.take(shard.place(), new);
        }
    }

    fn evaluated(&mut self, evaluated: Evaluated) {
        self.evaluator.ended();
        let Evaluated { place, locals } = evaluated;
        counter!(names::EVALUATIONS).increment(locals.len() as u64);
        // One that went back meanwhile is offered the same again.
        if let Some(shard) = self.shards.get_mut(&place.shard).filter(|shard| shard.place() == place) {
            shard.locals.extend(locals);
            self.ready.insert(place.shard);
        }
    }

    fn acknowledged(&mut self, told: &Acknowledged) {
        if let Some(shard) = self.shards.get_mut(&told.shard).filter(|shard| shard.epoch == told.epoch) {
            shard.outbox.acknowledged(&told.seqs);
        }
    }

    fn drop_shard(&mut self, number: u32, reader: &mut dyn Reader) {
        if self.shards.remove(&number).is_some() {
            reader.remove(&Topic::Commands, number);
            self.evaluator.forget(number);
        }
    }

    fn measure(&self) {
        gauge!(names::SHARDS).set(self.shards.len() as f64);
        let halted = self.shards.values().filter(|shard| shard.has_alarm()).count();
        gauge!(names::HALTED).set(halted as f64);
        gauge!(names::BUFFERED).set(self.shards.values().map(Shard::buffered).sum::<usize>() as f64);
        gauge!(names::IN_FLIGHT).set(self.sent.len() as f64);
        gauge!(names::PUBLISHING).set(self.publishing() as f64);
        gauge!(names::LAG).set(self.shards.values().map(Shard::lag).sum::<u64>() as f64);
        let oldest = self.shards.values().filter_map(Shard::oldest).min();
        gauge!(names::OLDEST).set(oldest.map_or(0.0, |at| at.elapsed().as_secs_f64()));
    }
}
