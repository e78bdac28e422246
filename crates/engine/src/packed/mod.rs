//! Executions as bytes: how parked ones are kept, and how all of them stand in a snapshot.
//!
//! ```text
//! execution = flags workflow started_at input started_by [labels] [key] [reply] [trace] events next_scope [total] scopes
//! scope     = flags id body [parent] [attempt] [phase] vars live left [last] [held] nodes that are not as at the beginning
//! node      = position state mask, and what the mask names
//! ```
//! Numbers are varints, moments are told from the start of the execution, its id stands outside. The same execution has
//! the same bytes, whoever packs it, so that they can be compared and hashed in its place. The evaluations that it waits
//! for are not among them: [`crate::State::rebuild_indexes`] knows them from the shard's offers.
//!
//! Bytes outlive a build only in snapshots: whoever changes what is written here raises [`FORM`].

mod read;
mod write;

pub use read::{BadPack, unpack};
pub use write::pack;

/// The form of the bytes.
pub const FORM: u32 = 2;

/// Bits of the flags of an execution.
mod has {
    pub(super) const LABELS: u64 = 1;
    pub(super) const KEY: u64 = 1 << 1;
    pub(super) const REPLY: u64 = 1 << 2;
    pub(super) const TRACE: u64 = 1 << 3;
    pub(super) const TOTAL: u64 = 1 << 4;
    pub(super) const ALL: u64 = (1 << 5) - 1;
}

/// Bits of the flags of a scope instance. The two lowest are its phase.
mod scope {
    pub(super) const BODY: u64 = 0;
    pub(super) const OUTPUT: u64 = 1;
    pub(super) const FAILED: u64 = 2;
    pub(super) const CANCELLED: u64 = 3;
    pub(super) const PHASE: u64 = 3;
    pub(super) const PARENT: u64 = 1 << 2;
    pub(super) const ATTEMPT: u64 = 1 << 3;
    pub(super) const AT_END: u64 = 1 << 4;
    pub(super) const LAST: u64 = 1 << 5;
    pub(super) const HELD: u64 = 1 << 6;
    pub(super) const ALL: u64 = (1 << 7) - 1;
}

/// Bits of the mask of a node; those of a node that waits fit into the first byte.
mod node {
    pub(super) const TIMER: u64 = 1;
    pub(super) const STARTED: u64 = 1 << 1;
    pub(super) const VISIT: u64 = 1 << 2;
    pub(super) const ATTEMPT: u64 = 1 << 3;
    pub(super) const OUTPUT: u64 = 1 << 4;
    pub(super) const ENDED: u64 = 1 << 5;
    pub(super) const ARRIVED: u64 = 1 << 6;
    pub(super) const DEAD: u64 = 1 << 7;
    pub(super) const HELD: u64 = 1 << 8;
    pub(super) const TOKEN: u64 = 1 << 9;
    pub(super) const WORKER: u64 = 1 << 10;
    pub(super) const AFTER_STOP: u64 = 1 << 11;
    pub(super) const TOTAL: u64 = 1 << 12;
    pub(super) const QUEUED: u64 = 1 << 13;
    pub(super) const CASES: u64 = 1 << 14;
    pub(super) const CHILDREN: u64 = 1 << 15;
    pub(super) const WITH: u64 = 1 << 16;
    pub(super) const FAILURE: u64 = 1 << 17;
    pub(super) const CASE_OUTPUTS: u64 = 1 << 18;
    pub(super) const ALL: u64 = (1 << 19) - 1;
}
