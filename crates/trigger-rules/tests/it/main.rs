//! Documents, slots, names.

mod record;
mod schedule;
mod source;
mod spec;
