//! Documents, slots, names.

// A panic in a test is the report.
#![allow(clippy::unwrap_used)]

mod docs;
mod record;
mod schedule;
mod source;
mod spec;
