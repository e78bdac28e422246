//! Carries commands to the coordinator and its messages to the bus, and evaluates expressions.
//!
//! Owns: reading the shards it was granted, batching, proposing, publishing the outbox, evaluating offers.
//! Must not know: what a command comes to, where slots are free, what time it is.
//!
//! Holds nothing that cannot be rebuilt: a new owner of a shard begins where the coordinator says.
//!
//! ```text
//! granted ─▶ checking (the record before next is re-read) ─▶ active ──▶ lost
//!                    │ not what was applied                     │ refused, no answer, stream broken
//!                    ▼                                          ▼
//!                 halted: an alarm                         positions asked anew, checking
//! ```

mod config;
mod evaluate;
mod link;
mod metrics;
mod outbox;
mod run;
mod shard;

pub use config::Config;
pub use run::Scheduler;
