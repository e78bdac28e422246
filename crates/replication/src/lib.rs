//! A replicated log of opaque commands.
//!
//! Owns: openraft, the durable log, snapshots on disk, the network between members, membership.
//! Must not know: what a command says. The state machine is a trait over bytes; nobody else names openraft or sled.
//!
//! Nothing is answered before it is on disk: votes and entries are synced by the log's own thread, one sync for all that
//! is waiting.

mod append_stream;
mod codec;
mod error;
mod group;
#[doc(hidden)]
pub mod hostile;
mod log;
mod machine;
mod metrics;
mod network;
mod open;
mod repair;
mod server;
mod snapshot;
mod status;
#[cfg(test)]
mod suite;
mod types;

pub use error::{MembershipError, ProposeError, ReadError, RepairError, StartError};
pub use group::{Group, GroupConfig, OpenGroup, Pending, Reply};
pub use log::{LogKind, LogStats, OpenLogError};
pub use machine::{ApplyError, Committed, StateMachine};
pub use repair::{Copy, Founding, Remains, Survivor, carry_on, found, remains, unread_warning};
pub use server::RaftServer;
pub use snapshot::{DiskSpace, SnapshotStats};
pub use status::{MemberInfo, Role, Status};
