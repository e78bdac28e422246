//! What a coordinator measures.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use nova_engine::State;
use nova_engine::ids::{ShardId, TimeMs};
use nova_replication::{Group, Role};

use crate::machine::{EngineMachine, View};
use crate::proposer::Proposer;
use crate::shards::ShardLeases;

/// Term of the group, as this member knows it.
const TERM: &str = "nova_raft_term";
/// 1 when this member leads.
const IS_LEADER: &str = "nova_raft_is_leader";
/// Number of the leader that this member knows; 0 when it knows none.
const LEADER: &str = "nova_raft_leader_member";
/// Index of the last entry of the log.
const LAST: &str = "nova_raft_last_index";
/// Index of the last entry that is known to be committed.
const COMMITTED: &str = "nova_raft_committed_index";
/// Index of the last entry that is applied.
const APPLIED: &str = "nova_raft_applied_index";
/// Entries written to the log and synced.
const LOG_ENTRIES: &str = "nova_raft_log_entries_total";
/// How far the wall clock of this member is ahead of the median of all, in seconds.
pub(crate) const CLOCK_OFF: &str = "nova_coordinator_clock_off_seconds";
/// Executions that have not ended.
const OPEN: &str = "nova_executions_open";
/// Tasks that wait for a worker.
const QUEUE: &str = "nova_queue_tasks";
/// How long the oldest of them waits, in seconds.
const QUEUE_OLDEST: &str = "nova_queue_oldest_seconds";
/// Tasks that workers have.
const LEASES: &str = "nova_leases";
/// Tasks that all workers together can have.
const SLOTS: &str = "nova_slots";
/// Sessions of workers that are open.
const SESSIONS: &str = "nova_worker_sessions";
/// Timers that run: timeouts, delays of retries, waits.
const TIMERS: &str = "nova_timers";
/// Evaluations that wait for a scheduler.
const OFFERS: &str = "nova_offers";
/// How long the oldest of them waits, in seconds.
const OFFERS_OLDEST: &str = "nova_offers_oldest_seconds";
/// Messages that are committed and not acknowledged by the bus.
const OUTBOX: &str = "nova_outbox_messages";
/// Their size, about.
const OUTBOX_BYTES: &str = "nova_outbox_bytes";
/// Age of the oldest of them, in seconds.
const OUTBOX_OLDEST: &str = "nova_outbox_oldest_seconds";
/// Records of commands that the owners of the shards have still to read; the leader knows.
const COMMANDS_LAG: &str = "nova_bus_commands_lag_records";
/// Things in the state, by kind.
const STATE_OBJECTS: &str = "nova_state_objects";
/// How much memory they take, by kind; about, and without what the allocator keeps.
const STATE_BYTES: &str = "nova_state_bytes";
/// Requests that wait for an entry.
const WAITING: &str = "nova_coordinator_requests_waiting";
/// Entries on their way: handed to the log and not applied.
const IN_FLIGHT: &str = "nova_coordinator_entries_in_flight";
/// Requests gathered into one entry.
pub(crate) const ENTRY_BODIES: &str = "nova_coordinator_entry_bodies";
/// From handing an entry to the log until it is applied, in seconds.
pub(crate) const COMMIT_SECONDS: &str = "nova_coordinator_commit_seconds";
/// Applying one entry, in seconds.
pub(crate) const APPLY_SECONDS: &str = "nova_coordinator_apply_seconds";

/// Records whose commands could not be decoded, and count as empty.
pub(crate) const UNREADABLE: &str = "nova_coordinator_unreadable_records_total";

/// Snapshots written.
const SNAPSHOTS: &str = "nova_raft_snapshots_total";
/// Snapshots that were wanted and not written: without any, the log only grows.
const SNAPSHOTS_FAILED: &str = "nova_raft_snapshots_failed_total";

/// How often gauges are set.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(group: Group<EngineMachine>, view: Arc<View>, leases: ShardLeases, proposer: Proposer) {
    loop {
        let status = group.status().borrow().clone();
        gauge!(TERM).set(status.term as f64);
        gauge!(IS_LEADER).set(f64::from(u8::from(status.role == Role::Leader)));
        gauge!(LEADER).set(status.leader.unwrap_or(0) as f64);
        gauge!(LAST).set(status.last as f64);
        gauge!(COMMITTED).set(status.committed as f64);
        gauge!(APPLIED).set(status.applied as f64);
        counter!(LOG_ENTRIES).absolute(group.log_stats().entries);
        let snapshots = group.snapshot_stats();
        counter!(SNAPSHOTS).absolute(snapshots.written);
        counter!(SNAPSHOTS_FAILED).absolute(snapshots.failed);
        let (waiting, in_flight) = proposer.load();
        gauge!(WAITING).set(waiting as f64);
        gauge!(IN_FLIGHT).set(in_flight as f64);
        let shards = measure(&view.read());
        let mut lag = 0;
        if status.role == Role::Leader {
            for shard in 0..shards {
                lag += leases.lag(shard).await;
            }
        }
        gauge!(COMMANDS_LAG).set(lag as f64);
        tokio::time::sleep(EVERY).await;
    }
}

/// Looks at the state, shortly; gives the number of shards.
fn measure(state: &State) -> u16 {
    let shards = state.config.shards;
    let all = (0..shards).map(|number| state.shard_stats(ShardId(number)));
    let (mut open, mut messages, mut bytes, mut offers) = (0, 0, 0, 0);
    for shard in all {
        open += shard.open;
        messages += shard.outbox_messages;
        bytes += shard.outbox_bytes;
        offers += shard.offers;
    }
    for memory in state.memory() {
        gauge!(STATE_OBJECTS, "kind" => memory.kind).set(memory.count as f64);
        gauge!(STATE_BYTES, "kind" => memory.kind).set(memory.bytes as f64);
    }
    let stats = state.group_stats();
    let age = |since: Option<TimeMs>| since.map_or(0, |since| state.now.0.saturating_sub(since.0)) as f64 / 1_000.0;
    gauge!(OPEN).set(open as f64);
    gauge!(QUEUE).set(stats.queued as f64);
    gauge!(QUEUE_OLDEST).set(age(stats.oldest_queued));
    gauge!(LEASES).set(stats.leases as f64);
    gauge!(SLOTS).set(stats.slots as f64);
    gauge!(SESSIONS).set(stats.sessions as f64);
    gauge!(TIMERS).set(stats.timers as f64);
    gauge!(OFFERS).set(offers as f64);
    let first = state.shards.iter().filter_map(|shard| shard.offers.first_key_value());
    gauge!(OFFERS_OLDEST).set(age(first.map(|(_, offer)| offer.at).min()));
    gauge!(OUTBOX).set(messages as f64);
    gauge!(OUTBOX_BYTES).set(bytes as f64);
    let first = state.shards.iter().filter_map(|shard| shard.outbox.messages.front());
    gauge!(OUTBOX_OLDEST).set(age(first.map(|message| message.at).min()));
    shards
}
