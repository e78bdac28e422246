//! Limits, each with its reason.

/// Longest id, in bytes: with the mark of its schedule and a partition it is still a source name of at most 256.
pub const MAX_ID: usize = 200;

/// Longest name of a workflow, in bytes; the engine's limit.
pub const MAX_WORKFLOW: usize = 256;

/// Longest name of a topic, in bytes; Kafka's limit.
pub const MAX_TOPIC: usize = 249;

/// Longest schedule, in bytes: an honest one is far shorter, and a parser should not be fed more.
pub const MAX_SCHEDULE: usize = 256;

/// Largest document, in bytes: an input of the largest size, and room for the rest.
pub const MAX_DOCUMENT: usize = 64 * 1024;

/// Problems told of one document.
pub const MAX_PROBLEMS: usize = 64;

/// Missed slots that `"catchUp": "all"` makes up for; of more, the newest. A schedule of seconds that was down for a day
/// would otherwise begin with 86,400 executions.
pub const MAX_MISSED: usize = 1_000;

/// A slot is missed when it is later than this, in milliseconds. Until then it is only late, and fired whatever
/// `catchUp` says: a restart must not cost a slot.
pub const LATE_MS: u64 = 60_000;

/// A schedule must be due within this many years of any moment: the 29th of February comes after eight at most.
pub const MAX_YEARS_BETWEEN: i16 = 30;
