//! What a coordinator measures.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use nova_engine::ids::ShardId;
use nova_replication::{Group, Role};

use crate::machine::{EngineMachine, View};
use crate::shards::ShardLeases;

/// Requests gathered into one entry.
pub(crate) const ENTRY_BODIES: &str = "nova_coordinator_entry_bodies";
/// From handing an entry to the log until it is applied, in seconds.
pub(crate) const COMMIT_SECONDS: &str = "nova_coordinator_commit_seconds";

/// Records whose commands could not be decoded, and count as empty.
pub(crate) const UNREADABLE: &str = "nova_coordinator_unreadable_records_total";

/// How often gauges are set.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(group: Group<EngineMachine>, view: Arc<View>, leases: ShardLeases) {
    loop {
        let status = group.status().borrow().clone();
        gauge!("nova_raft_term").set(status.term as f64);
        gauge!("nova_raft_is_leader").set(f64::from(u8::from(status.role == Role::Leader)));
        gauge!("nova_raft_leader_member").set(status.leader.unwrap_or(0) as f64);
        gauge!("nova_raft_last_index").set(status.last as f64);
        gauge!("nova_raft_committed_index").set(status.committed as f64);
        gauge!("nova_raft_applied_index").set(status.applied as f64);
        let log = group.log_stats();
        counter!("nova_raft_log_syncs_total").absolute(log.syncs);
        counter!("nova_raft_log_sync_microseconds_total").absolute(log.sync_us);
        counter!("nova_raft_log_entries_total").absolute(log.entries);
        let (stats, open, outbox_messages, outbox_bytes, offers, shards, now) = {
            let state = view.read();
            let shards = state.config.shards;
            let all = (0..shards).map(|number| state.shard_stats(ShardId(number)));
            let (mut open, mut messages, mut bytes, mut offers) = (0, 0, 0, 0);
            for shard in all {
                open += shard.open;
                messages += shard.outbox_messages;
                bytes += shard.outbox_bytes;
                offers += shard.offers;
            }
            (state.group_stats(), open, messages, bytes, offers, shards, state.now.0)
        };
        gauge!("nova_executions_open").set(open as f64);
        gauge!("nova_queue_tasks").set(stats.queued as f64);
        let age_ms = stats.oldest_queued.map_or(0, |since| now.saturating_sub(since.0));
        gauge!("nova_queue_oldest_seconds").set(age_ms as f64 / 1_000.0);
        gauge!("nova_leases").set(stats.leases as f64);
        gauge!("nova_slots").set(stats.slots as f64);
        gauge!("nova_worker_sessions").set(stats.sessions as f64);
        gauge!("nova_timers").set(stats.timers as f64);
        gauge!("nova_offers").set(offers as f64);
        gauge!("nova_outbox_messages").set(outbox_messages as f64);
        gauge!("nova_outbox_bytes").set(outbox_bytes as f64);
        if status.role == Role::Leader {
            let mut lag = 0;
            for shard in 0..shards {
                lag += leases.lag(shard).await;
            }
            gauge!("nova_bus_commands_lag_records").set(lag as f64);
        }
        tokio::time::sleep(EVERY).await;
    }
}
