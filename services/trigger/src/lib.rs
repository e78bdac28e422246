//! Starts executions by schedules and by records of the users' topics.
//!
//! Owns: following the catalogue, reading topics, submitting one command per slot and record, dead letters.
//! Must not know: when a schedule is due, what an execution comes to, who else runs the same triggers.
//!
//! Holds nothing that cannot be rebuilt: the engine keeps the highest number of each source, and whoever begins asks for
//! it. Two services that run the same trigger submit the same commands, of which the engine takes the first.
//!
//! ```text
//! catalogue ─▶ one task per trigger ─▶ asks for its positions ─▶ slots, records ─▶ one lane per shard ─▶ commands
//!                                            ▲                                             │
//!                                            └──────── applied: the window moves ◀─────────┘
//! ```

mod clock;
mod config;
mod context;
mod cron;
mod kafka;
mod metrics;
mod partition;
mod run;
mod submit;
mod workflows;

pub use clock::{Clock, SharedClock, SystemClock};
pub use config::Config;
pub use run::Trigger;
