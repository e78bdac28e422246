//! What a member's log measures.

/// Writing and syncing what waits for the log, in seconds.
pub(crate) const SYNC_SECONDS: &str = "nova_raft_log_sync_seconds";
