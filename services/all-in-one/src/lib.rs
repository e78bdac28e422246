//! All five services in one process, on the embedded bus: what `nova dev` runs.
//!
//! Owns: the order of start and stop, and the one directory of data.
//! Must not know: anything about workflows.
