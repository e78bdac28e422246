//! The api over HTTP, with a bus in memory and coordinators that know one workflow.

// A panic in a test is the report.
#![allow(clippy::unwrap_used)]

mod overload;
mod rig;
