//! What is known of the log without asking the disk: its bounds, its vote, its newest entries.

use std::collections::VecDeque;

use super::Recovered;
use crate::types::{Entry, LogId, Vote};

/// Bytes of recent entries kept in memory, so that replication does not read the disk: about a second of the highest load.
const RECENT_BYTES: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    /// Index of the oldest entry there is; none when there are none.
    pub(super) first: Option<u64>,
    pub(super) last: Option<LogId>,
    /// The newest entries, contiguous, up to `last`.
    pub(super) recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// Entries up to this index are on disk and may leave memory.
    pub(super) synced: u64,
}

/// About what an entry takes, in bytes.
pub(super) fn size(entry: &Entry) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len() + 64,
        _ => 256,
    }
}

impl Memory {
    pub(super) fn recovered(found: &Recovered) -> Self {
        Self {
            vote: found.vote,
            purged: found.purged,
            first: found.first,
            synced: found.last.map_or(0, |last| last.index),
            last: found.last.or(found.purged),
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.first.get_or_insert(entry.log_id.index);
        self.last = Some(entry.log_id);
        self.recent_bytes += size(&entry);
        self.recent.push_back(entry);
    }

    pub(super) fn evict(&mut self) {
        while self.recent_bytes > RECENT_BYTES
            && let Some(oldest) = self.recent.front()
            && oldest.log_id.index <= self.synced
        {
            self.recent_bytes -= size(oldest);
            self.recent.pop_front();
        }
    }

    pub(super) fn truncate_from(&mut self, from: u64, last: Option<LogId>) {
        while let Some(newest) = self.recent.back().filter(|entry| entry.log_id.index >= from) {
            self.recent_bytes -= size(newest);
            self.recent.pop_back();
        }
        self.synced = self.synced.min(from.saturating_sub(1));
        self.first = self.first.filter(|first| *first < from);
        self.last = self.last.min(last);
    }

    pub(super) fn purge_to(&mut self, to: LogId) {
        while let Some(oldest) = self.recent.front().filter(|entry| entry.log_id.index <= to.index) {
            self.recent_bytes -= size(oldest);
            self.recent.pop_front();
        }
        self.purged = Some(to);
        self.last = self.last.max(Some(to));
        let left = self.last.is_some_and(|last| last.index > to.index);
        self.first = self.first.map(|first| first.max(to.index + 1)).filter(|_| left);
    }
}
