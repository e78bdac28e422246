//! Limits, each with its reason.

/// What is fixed when a cluster is made, and equal on all members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Number of shards; never changes (protocol rule 30).
    pub shards: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { shards: 64 }
    }
}

/// Node touches per entry; the rest of a cascade goes on with the next entry, so that no entry holds up the others.
pub const SLICE: u32 = 1_000;

/// Node touches that each command, evaluation, timer or lost lease adds to its entry: enough for what it ordinarily
/// sets off, so that a full proposal leaves nothing over and cascades do not pile up under load.
pub const TOUCHES_PER_STEP: u32 = 16;

/// Nodes leased per entry; the rest follows with the next one, for the same reason as [`SLICE`].
pub const LEASES_PER_ENTRY: u32 = 1_000;

/// By how much the next node of an execution stands before others in the queue because the execution has begun, at most,
/// in milliseconds: as long as an overloaded queue may be, and what an execution that always makes more work can keep
/// others waiting for.
pub const HEAD_START_MS: u64 = 10_000;

/// Timers fired per entry, for the same reason.
pub const TIMERS_PER_ENTRY: u32 = 1_000;

/// Bytes waiting in a shard's outbox above which it takes no more records (rule 35).
pub const OUTBOX_BYTES: u64 = 64 << 20;

/// Attempts of a node without a retry policy when workers are lost (rule 20).
pub const ATTEMPTS_WHEN_LOST: u32 = 3;

/// How long a key outlives its execution (rule 32), in milliseconds.
pub const KEY_TTL_MS: u64 = 10 * 60 * 1_000;

/// Workers that share one inbox partition (rule 22): each reads the others' messages too.
pub const WORKERS_PER_INBOX: u32 = 8;

/// Delay before work that a worker declined is queued again, in milliseconds: a worker that always declines must not
/// keep the log busy.
pub const DECLINED_DELAY_MS: u64 = 200;

/// Slots of one worker.
pub const MAX_CAPACITY: u32 = 100_000;

/// Open executions of one shard; above it submissions are rejected as *backlog full*.
pub const OPEN_PER_SHARD: u64 = 1_000_000;

/// Longest id, name, key, reason or label, in bytes.
pub const MAX_TEXT: usize = 256;

/// Labels of one execution or worker.
pub const MAX_LABELS: usize = 32;

/// Live scope instances of one execution.
pub const SCOPES_PER_EXECUTION: usize = 10_000;

/// Bytes of the `detail` of an error; more is dropped.
pub const MAX_DETAIL: usize = 4 * 1024;

/// Numbers that are passed over where it is not known how many were given out: more than any cluster uses between a
/// backup and its loss, and few enough that it can happen a million times.
pub const NUMBERS_SKIPPED: u64 = 1 << 40;
