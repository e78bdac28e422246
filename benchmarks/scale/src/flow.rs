//! The way of an execution through a cluster, and the load that is put on it.
//!
//! ```text
//! client ─▶ api ─▶ commands ─▶ scheduler ─▶ entry of the log, majority, applied ─▶ outbox ─▶ scheduler
//!             ▲                   ▲  ▲                                                        │ │ │ │
//!             │                   │  └───────── evaluated ◀── offer ──────────────────────────┘ │ │ │
//!             │                   └── commands ◀── worker ◀── tasks ◀───────────────────────────┘ │ │
//!             └── replies ◀─────────────────────────────────────────────────────────────────────┘ └─▶ events ─▶ history
//! ```

use hdrhistogram::Histogram;
use rand::Rng;

use crate::agenda::Ns;
use crate::network::{HostId, Item, Network, PoolId, Router, StationId, ThreadId, Token};

pub(crate) const SUBMIT: u8 = 0;
pub(crate) const RESULT: u8 = 1;
pub(crate) const EVALUATED: u8 = 2;
pub(crate) const TASK: u8 = 3;
pub(crate) const OFFER: u8 = 4;
pub(crate) const ACCEPTED: u8 = 5;
pub(crate) const FINISHED: u8 = 6;
pub(crate) const EVENTS: u8 = 7;

/// Submissions without a key that an api gives to one shard in turn.
const TURN: usize = 128;
/// What takes longer counts as this: ten minutes.
const LONGEST_US: u64 = 600_000_000;

/// Where an item is when it leaves a station.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    Nowhere,
    Sent,
    Requested(usize),
    CommandOnBus,
    CommandRead,
    Applied { group: usize },
    OutOfOutbox,
    TaskOnBus,
    TaskRead,
    Attempted,
    ReplyOnBus,
    ReplyRead,
    Responded,
    EventsOnBus,
}

/// Stations by who and where.
#[derive(Debug, Default)]
pub(crate) struct Wiring {
    pub exits: Vec<Exit>,
    pub generators: Vec<StationId>,
    /// By api.
    pub requests: Vec<StationId>,
    pub responds: Vec<StationId>,
    /// By writer (apis, then workers) and shard.
    pub submits: Vec<Vec<StationId>>,
    pub results: Vec<Vec<StationId>>,
    /// By shard.
    pub owner: Vec<usize>,
    pub command_reads: Vec<StationId>,
    pub proposals: Vec<StationId>,
    pub group: Vec<usize>,
    /// By group and scheduler.
    pub subscriptions: Vec<Vec<StationId>>,
    /// By scheduler.
    pub evaluations: Vec<StationId>,
    /// By scheduler and worker, api, event partition.
    pub tasks: Vec<Vec<StationId>>,
    pub replies: Vec<Vec<StationId>>,
    pub events: Vec<Vec<StationId>>,
    /// By worker.
    pub task_reads: Vec<StationId>,
    pub attempts: Vec<StationId>,
    /// By api.
    pub reply_reads: Vec<StationId>,
    /// By api and event partition.
    pub event_reads: Vec<Vec<StationId>>,
    /// By group: where its entries are made, on which host, and by which threads calls are taken there.
    pub entries: Vec<(StationId, HostId, ThreadId)>,
    /// By scheduler: proposals on their way.
    pub pools: Vec<PoolId>,
    /// Whether each api reads all events, or its share.
    pub whole_history: bool,
}

/// How executions are begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// So many are always in flight.
    Closed(u32),
    /// So many begin each second, at random moments.
    Open(f64),
}

#[derive(Clone, Copy, Debug)]
struct Execution {
    begun: Ns,
    shard: u16,
    api: u16,
    left: u8,
    ended: bool,
}

/// The executions.
#[derive(Debug)]
pub(crate) struct Flow {
    wiring: Wiring,
    load: Load,
    tasks: u8,
    executions: Vec<Execution>,
    turns: Vec<usize>,
    pub ended: u64,
    /// What came twice or without having begun: there is none unless the model is wrong.
    pub wrong: u64,
    in_flight: u64,
    since: Ns,
    /// Executions in flight, summed over nanoseconds.
    area: u128,
    latency: Histogram<u64>,
    latency_sum: u128,
    measured: u64,
    /// Executions that began before are not measured.
    from: Ns,
}

impl Flow {
    pub(crate) fn new(wiring: Wiring, load: Load, tasks: u8) -> Self {
        let turns = vec![0; wiring.requests.len()];
        let latency = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self {
            wiring,
            load,
            tasks,
            executions: Vec::new(),
            turns,
            ended: 0,
            wrong: 0,
            in_flight: 0,
            since: 0,
            area: 0,
            latency,
            latency_sum: 0,
            measured: 0,
            from: 0,
        }
    }

    /// Begins the load.
    pub(crate) fn begin(&mut self, network: &mut Network) {
        for turn in &mut self.turns {
            *turn = network.random().random_range(0..1_000) * TURN;
        }
        match self.load {
            Load::Closed(count) => (0..count).for_each(|_| self.submit(network)),
            Load::Open(_) => network.alarm(0, 0),
        }
    }

    /// Forgets what was measured so far.
    pub(crate) fn reset(&mut self, now: Ns) {
        (self.since, self.area, self.from) = (now, 0, now);
        self.latency.reset();
        (self.latency_sum, self.measured, self.ended) = (0, 0, 0);
    }

    pub(crate) fn begun(&self) -> u64 {
        self.executions.len() as u64
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Executions in flight on average since the last reset.
    pub(crate) fn mean_in_flight(&mut self, now: Ns) -> f64 {
        let window_began = self.from;
        self.count(now, 0);
        self.area as f64 / (now - window_began).max(1) as f64
    }

    /// Milliseconds from begin to end, of those that ended.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.latency_sum as f64 / self.measured.max(1) as f64 / 1e6
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    fn count(&mut self, now: Ns, change: i64) {
        self.area += u128::from(self.in_flight) * u128::from(now - self.since);
        self.since = now;
        self.in_flight = self.in_flight.saturating_add_signed(change);
    }

    fn submit(&mut self, network: &mut Network) {
        let number = self.executions.len();
        let api = number % self.wiring.requests.len();
        let begun = network.now();
        self.count(begun, 1);
        self.executions.push(Execution { begun, shard: 0, api: api as u16, left: self.tasks, ended: false });
        let generator = self.wiring.generators[number % self.wiring.generators.len()];
        network.push(generator, Token::Item(Item { execution: number as u32, kind: SUBMIT }));
    }

    fn end(&mut self, network: &mut Network, number: usize) {
        let now = network.now();
        let it = &mut self.executions[number];
        if it.ended || it.left > 0 {
            self.wrong += 1;
            return;
        }
        it.ended = true;
        let took = now - it.begun;
        self.count(now, -1);
        self.ended += 1;
        self.measured += 1;
        self.latency_sum += u128::from(took);
        self.latency.saturating_record(took / 1_000);
        if matches!(self.load, Load::Closed(_)) {
            self.submit(network);
        }
    }

    /// What applying a command puts into the outbox.
    fn applied(&mut self, network: &mut Network, group: usize, item: Item) {
        let execution = &mut self.executions[item.execution as usize];
        let said: &[u8] = match item.kind {
            SUBMIT => &[ACCEPTED, TASK, EVENTS],
            RESULT => {
                execution.left -= 1;
                if execution.left > 0 { &[TASK, EVENTS] } else { &[OFFER, EVENTS] }
            }
            _ => &[FINISHED, EVENTS],
        };
        let subscription = self.wiring.subscriptions[group][self.wiring.owner[usize::from(execution.shard)]];
        for kind in said {
            network.push(subscription, Token::Item(Item { kind: *kind, ..item }));
        }
    }
}

impl Router for Flow {
    fn route(&mut self, network: &mut Network, station: StationId, item: Item) {
        let number = item.execution as usize;
        let it = self.executions[number];
        let (shard, api) = (usize::from(it.shard), usize::from(it.api));
        let w = &self.wiring;
        let worker = number % w.attempts.len();
        let owner = w.owner[shard];
        let next = match w.exits[station.0] {
            Exit::Nowhere => return,
            Exit::Sent => w.requests[api],
            Exit::Requested(api) => {
                let shard = self.turns[api] / TURN % w.owner.len();
                self.turns[api] += 1;
                self.executions[number].shard = shard as u16;
                w.submits[api][shard]
            }
            Exit::CommandOnBus => w.command_reads[shard],
            Exit::CommandRead => w.proposals[shard],
            Exit::Applied { group } => return self.applied(network, group, item),
            Exit::OutOfOutbox => match item.kind {
                TASK => w.tasks[owner][worker],
                OFFER => w.evaluations[owner],
                EVENTS => w.events[owner][shard % w.events[owner].len()],
                _ => w.replies[owner][api],
            },
            Exit::TaskOnBus => w.task_reads[worker],
            Exit::TaskRead => w.attempts[worker],
            Exit::Attempted => w.results[worker][shard],
            Exit::ReplyOnBus => w.reply_reads[api],
            Exit::ReplyRead if item.kind == FINISHED => w.responds[api],
            Exit::ReplyRead => return,
            Exit::Responded => return self.end(network, number),
            Exit::EventsOnBus => {
                let partition = shard % w.event_reads[0].len();
                for (reader, reads) in w.event_reads.iter().enumerate() {
                    if w.whole_history || reader == number % w.event_reads.len() {
                        network.push(reads[partition], Token::Item(item));
                    }
                }
                return;
            }
        };
        let kind = match w.exits[station.0] {
            Exit::Attempted => RESULT,
            Exit::OutOfOutbox if item.kind == OFFER => EVALUATED,
            _ => item.kind,
        };
        network.push(next, Token::Item(Item { kind, ..item }));
    }

    fn alarm(&mut self, network: &mut Network, _: u32) {
        let Load::Open(rate) = self.load else { return };
        self.submit(network);
        let share: f64 = network.random().random();
        network.alarm((-(1.0 - share).ln() / rate * 1e9) as Ns, 0);
    }
}
