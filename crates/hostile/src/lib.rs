//! What must hold for each decoder, whatever bytes it is given.
//!
//! Owns: one function per decoder, which panics when something does not hold; the bytes in `corpus/` that each begins with.
//! Must not know: where bytes come from. `fuzz/` hands over those of libFuzzer, a test those of the corpus and what
//! becomes of them when they are changed a little.

mod documents;
mod files;
mod messages;
#[cfg(feature = "services")]
mod services;

pub use documents::{cron, document, expression, record, trigger};
pub use files::{bus_frame, segment, snapshot};
pub use messages::{commands, entry, envelope, outbox};
#[cfg(feature = "services")]
pub use services::{config, raft_append, snapshot_file, snapshot_of};

/// Something that must hold for all bytes.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("envelope", envelope),
    ("commands", commands),
    ("entry", entry),
    ("outbox", outbox),
    #[cfg(feature = "services")]
    ("raft_append", raft_append),
    ("segment", segment),
    ("bus_frame", bus_frame),
    ("snapshot", snapshot),
    #[cfg(feature = "services")]
    ("snapshot_file", snapshot_file),
    ("document", document),
    ("expression", expression),
    ("cron", cron),
    ("trigger", trigger),
    ("record", record),
    #[cfg(feature = "services")]
    ("config", config),
];

/// Takes one byte; zero behind the end.
fn byte(bytes: &mut &[u8]) -> u8 {
    match bytes.split_first() {
        Some((first, rest)) => {
            *bytes = rest;
            *first
        }
        None => 0,
    }
}

/// Takes so many bytes, or what is left.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

/// Takes a number of two bytes.
fn short(bytes: &mut &[u8]) -> u16 {
    u16::from_le_bytes([byte(bytes), byte(bytes)])
}
