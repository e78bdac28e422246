//! A worker against coordinators that do as they are told.

// A panic in a test is the report.
#![allow(clippy::unwrap_used)]

mod coordinator;
mod drain;
mod inbox;
mod lapse;
mod leader;
mod name;
mod results;
mod rig;
mod stop;
