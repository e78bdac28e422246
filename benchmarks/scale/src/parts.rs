//! What a network of queues is made of and tells, as those who build it and look at it see it.

use std::rc::Rc;

use crate::agenda::Ns;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub usize);
    )*};
}
index!(
    /// A machine.
    HostId,
    /// What runs on one machine, one thing at a time or several.
    ThreadId,
    /// A queue with its service.
    StationId,
    /// A batch in service.
    BatchId,
    /// A number of batches that several stations may have in service together.
    PoolId
);

/// What an execution wants done: the execution, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub execution: u32,
    pub kind: u8,
}

/// What waits at a station.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    Item(Item),
    /// A batch that goes on when this is done.
    Batch(BatchId),
}

/// CPU of one batch in nanoseconds: for itself, for each token, for each item within.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    pub batch: f64,
    pub token: f64,
    pub item: f64,
}

/// One thing after the other that happens to a batch.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Cpu(ThreadId, Cost),
    Delay(Ns),
    /// A data sync of a log: mostly the first time, in the given share of cases the second.
    Sync {
        usual: Ns,
        slow: Ns,
        slow_share: f64,
    },
    /// Other stations get the batch; it goes on when so many have joined.
    Fork {
        stations: Rc<[StationId]>,
        need: u32,
    },
    /// The tokens go to another station.
    Pass(StationId),
    /// The batches among the tokens hear that this is done.
    Join,
    /// The items go where the router says.
    Route,
}

/// How a station serves.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub name: String,
    /// Batches at once.
    pub slots: u32,
    /// Tokens of one batch.
    pub limit: usize,
    /// How long a batch gathers before it begins.
    pub gather: Ns,
    pub pool: Option<PoolId>,
    /// Whether a batch is what waits when its slot is free, and not what waits when it has a core: runtimes run next what the
    /// running task wakes.
    pub prompt: bool,
    pub phases: Vec<Phase>,
}

impl Service {
    /// One batch at once, of all that waits.
    pub(crate) fn new(name: impl Into<String>, phases: Vec<Phase>) -> Self {
        Self { name: name.into(), slots: 1, limit: usize::MAX, gather: 0, pool: None, prompt: false, phases }
    }
}

/// What a station did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub arrived: u64,
    pub begun: u64,
    pub batches: u64,
    pub syncs: u64,
}

/// What one thread was used, for reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ThreadUse {
    pub name: String,
    pub kind: &'static str,
    pub host: usize,
    pub width: u32,
    pub used: Ns,
    /// Of what arrived at its stations, the share that was begun; the least of them.
    pub served: f64,
}
