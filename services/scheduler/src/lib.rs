//! Carries commands to the coordinator and its messages to the bus, and evaluates expressions.
//!
//! Owns: reading the shards it was granted, batching, proposing, publishing the outbox, evaluating offers.
//! Must not know: what a command comes to, where slots are free, what time it is.
//!
//! Holds nothing that cannot be rebuilt: a new owner of a shard begins where the coordinator says.
//!
//! ```text
//! granted ─▶ checked (the record before next is re-read) ─▶ read, proposed, published ─▶ dropped: another epoch, no
//!                │ not what was applied, or newer              │                          bus, not renewed
//!                ▼                                             ▼ refused, no answer, stream broken
//!            halted: an alarm, looked at again             its position is asked, and it begins there
//! ```

mod config;
mod evaluate;
mod evaluator;
mod link;
mod metrics;
mod outbox;
mod run;
mod shard;

pub use config::Config;
pub use run::Scheduler;
