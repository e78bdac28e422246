//! Where a partition of a user's topic stands.

use nova_trigger_rules::offset_of_position;
use tokio::time::{Duration, Instant};

use crate::submit::Outlet;

/// How often the position is asked for while something is unanswered and the window is not half full.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A partition that is read.
pub(crate) struct Partition {
    pub outlet: Outlet,
    /// Offset of the next record to be submitted.
    pub next: u64,
    /// Offset behind the last record, as last seen.
    pub end: u64,
    /// Whether the reader has it.
    pub reading: bool,
    /// Its topic is not the one that its position belongs to.
    pub halted: bool,
    submitted: u64,
    applied: u64,
    asked: Option<Instant>,
    asking: bool,
    full: bool,
}

impl Partition {
    /// Reads on from `position`, of a partition that ends at `end`.
    pub(crate) fn new(outlet: Outlet, position: u64, end: u64) -> Self {
        Self {
            outlet,
            next: offset_of_position(position),
            end,
            reading: false,
            halted: false,
            submitted: position,
            applied: position,
            asked: None,
            asking: false,
            full: false,
        }
    }

    /// Numbers that were submitted and are not known to be applied.
    pub(crate) fn unanswered(&self) -> u64 {
        self.submitted.saturating_sub(self.applied)
    }

    /// Whether it may be read on. A window that was full opens when it is half empty, since each opening is a seek.
    pub(crate) fn is_open(&mut self, window: u64) -> bool {
        let unanswered = self.unanswered();
        self.full = unanswered >= window || (self.full && unanswered > window / 2);
        !self.full && !self.halted
    }

    /// Everything up to this number has been submitted.
    pub(crate) fn submitted(&mut self, number: u64) {
        self.submitted = self.submitted.max(number);
        self.next = self.next.max(offset_of_position(number));
    }

    /// Whether its position is to be asked for now; then it is being asked for.
    pub(crate) fn asks(&mut self, window: u64, now: Instant) -> bool {
        let waited = self.asked.is_none_or(|asked| now - asked >= ASK_EVERY);
        let asks = !self.asking && self.unanswered() > 0 && (waited || self.unanswered() >= window / 2);
        if asks {
            self.asking = true;
            self.asked = Some(now);
        }
        asks
    }

    /// The position that was asked for; true when others have submitted what is still to be read here, so that reading
    /// goes on further ahead.
    pub(crate) fn answered(&mut self, position: Option<u64>) -> bool {
        self.asking = false;
        let Some(position) = position else { return false };
        self.applied = self.applied.max(position);
        let ahead = offset_of_position(position) > self.next;
        if ahead {
            self.submitted(position);
        }
        ahead
    }

    /// The records up to here are gone.
    pub(crate) fn skip_to(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    /// Records that are not known to be decided.
    pub(crate) fn lag(&self) -> u64 {
        self.end.saturating_sub(offset_of_position(self.applied))
    }
}
