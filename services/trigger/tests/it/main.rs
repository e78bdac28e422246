//! The loops, against a coordinator that only knows what triggers ask for, and a bus in memory.

// A panic in a test is the report.
#![allow(clippy::unwrap_used)]

mod coordinator;
mod cron;
mod engine;
mod kafka;
mod rig;
