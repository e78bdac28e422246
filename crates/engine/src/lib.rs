//! The replicated state machine of executions.
//!
//! Owns: executions and their scope instances, joins, leases and tokens, the ready queue, retries, timeouts, timers,
//! exactly-once application of commands, the outbox, sessions of workers, the catalogue of workflows.
//! Must not know: expressions, the inside of payloads, clocks, randomness, I/O, serialisation, Raft, the bus.
//!
//! ```text
//!             entry                     step                   events
//!   log ───────────────▶ State::apply ───────▶ decide(&State) ───────▶ evolve(&mut State)
//!                            │  ▲                                          │
//!                            │  └───────────── work list, timers, queue ◀──┘
//!                            ▼
//!                        verdict; outbox and offers grow in the state
//! ```
//!
//! An execution of which nothing runs is packed when the entry is applied, and unpacked when a step is about it; what there
//! may be millions of is kept in pieces that copies of the state share, so that a copy for a snapshot costs next to nothing.
//!
//! A command is decided into events; applying an event may put steps of a cascade into the work list, which are decided
//! in the same way, at most [`limits::SLICE`] per entry.

mod apply;
mod decide;
mod event;
mod evolve;
mod executions;
mod find;
pub mod ids;
pub mod input;
mod keys;
pub mod limits;
mod memory;
pub mod output;
pub mod packed;
mod packs;
mod park;
pub mod payload;
mod pieces;
mod queue;
mod restore;
mod scopes;
mod sorted;
pub mod state;
mod timers;
mod view;
mod weight;
pub mod work;

pub use decide::{Nothing, Step, decide};
pub use event::Event;
pub use evolve::evolve;
pub use executions::{Executions, Run};
pub use limits::Config;
pub use memory::Memory;
pub use sorted::Sorted;
pub use state::State;
pub use timers::Timers;
pub use view::{ExecutionView, GroupStats, ShardStats};

use ids::{ExecutionId, ScopeId};
use output::Subject;

/// The seed of an evaluation's random functions: the same for the same place in the same execution, whoever evaluates.
pub(crate) fn decide_seed(execution: ExecutionId, scope: ScopeId, subject: Subject) -> u64 {
    let subject = match subject {
        Subject::Prepare(node) => u64::from(node.0) << 2,
        Subject::Finish(node) => u64::from(node.0) << 2 | 1,
        Subject::Fallback(node) => u64::from(node.0) << 2 | 2,
        Subject::ScopeOutput(body) => u64::from(body.0) << 2 | 3,
    };
    let id = (execution.0 >> 64) as u64 ^ execution.0 as u64;
    xxhash_rust::xxh3::xxh3_64_with_seed(&subject.to_le_bytes(), id ^ u64::from(scope.0))
}
