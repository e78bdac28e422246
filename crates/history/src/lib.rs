//! What happened, built from events, for reading.
//!
//! Owns: the read model in SQLite, how far it has read, how old it is.
//! Must not know: the live state; whatever is here can be lost and rebuilt from the event topic.

mod ingest;
mod metrics;
mod rows;
mod store;

pub use ingest::{Ingester, Told};
pub use store::{EventRow, ExecutionRow, Filter, History, HistoryError};
