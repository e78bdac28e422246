//! The loop, against the engine behind a coordinator of one member, and a bus in memory that fails on demand.

// A panic in a test is the report.
#![allow(clippy::unwrap_used)]

mod bus;
mod coordinator;
mod evaluating;
mod leases;
mod proposing;
mod reading;
mod rig;
