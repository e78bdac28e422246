//! The same work on NovaFlow and on other engines, each alone on this machine with its durable defaults, and the ratios.
//!
//! Owns: how each engine is started and asked, the load on it, its CPU from `/proc`, the record and the table.
//! Must not know: what is inside an engine, NovaFlow too. It starts programs that `setup.sh` has put there.
//!
//! ```text
//! for each round, for each system: start → first results → for each case: warm up | measure, all results verified → end
//! then: medians → record (JSON) → table with ratios
//! ```

mod args;
mod case;
mod cpu;
mod error;
mod http;
mod load;
mod novaflow;
mod record;
mod restate;
mod run;
mod system;
mod table;
mod temporal;

pub use args::Args;
pub use error::Error;
pub use run::run;
