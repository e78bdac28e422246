//! Runs attempts.
//!
//! Owns: its session, its inbox, the attempts it runs, the results that are not acknowledged yet.
//! Must not know: workflows, other workers, how a task is chosen for it.
//!
//! ```text
//! registered ──▶ open ──▶ (renewal answered) ──▶ open …
//!                 │ no answer until TTL − margin, or closed by the leader
//!                 ▼
//!          everything stops ──▶ registers anew
//! ```

mod attempt;
mod config;
mod drain;
mod feed;
mod inbox;
mod ledger;
mod live;
mod memory;
mod metrics;
mod name;
mod renewal;
mod results;
mod running;
mod session;
mod validity;

pub use config::Config;
pub use session::{RunError, Worker};
