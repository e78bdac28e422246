//! Load on real processes, by the rules of a fair measurement: durable defaults, latencies corrected for coordinated
//! omission, CPU per execution apart for each kind of process, and every result verified afterwards.
//!
//! Owns: the generator, the scenarios, what is read of the machine, the table and the record of a run.
//! Must not know: what is inside a service. It starts `nova` as an operator does and speaks HTTP to it.
//!
//! ```text
//! machine facts → start target → first results → scenario: load, kills, restarts … → read all back → table, JSON
//! ```

pub mod args;
mod bench;
mod compare;
mod cpu;
mod error;
#[cfg(test)]
mod fake;
mod first;
mod http;
mod load;
pub mod machine;
mod pace;
mod report;
mod request;
mod run;
mod scenario;
mod steady;
mod tally;
mod target;
mod verify;
mod workflow;

pub use compare::Old;
pub use error::Error;
pub use report::{Figure, Phase, Record};
pub use run::run;
pub use verify::Verdict;
