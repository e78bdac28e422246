//! The group's clock (protocol rule 6): the median of the members' wall clocks, as each member knows them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// One clock for what is stamped and for what waits for it.
pub(crate) type SharedClock = Arc<Clock>;

/// What another member's clock said is forgotten after this long, in milliseconds: two clocks part by some seconds a day.
const KEPT_MS: i64 = 60 * 60 * 1_000;
/// An answer that took longer says too little, in milliseconds.
const LONGEST_MS: i64 = 400;

/// The time that entries are stamped with. Its own wall clock is read once in a term; what others have is read again and
/// again, and the median counts. So a clock that is wrong, or set anew, moves nothing as long as most are right.
///
/// Time never stands still: where the last entry is ahead, it goes on at half the pace until the clocks have come up with
/// it (as adjtime does). So timers fire late after a leader whose clock was fast, and not only once it is as late as that.
pub(crate) struct Clock(Mutex<Known>);

/// Milliseconds of a wall clock, less those of this machine's boot clock: it stays as it is while both run.
type Offset = i64;

struct Known {
    term: u64,
    own: Offset,
    others: BTreeMap<u64, Told>,
    /// What was stamped last, and the boot clock then, in nanoseconds.
    last_ns: i128,
    boot_ns: i128,
}

struct Told {
    offset: Offset,
    at_ms: i64,
}

impl Known {
    /// The offset that most are near to. Of two in the middle the one that is nearer to our own counts.
    fn median(&self, now_ms: i64) -> Offset {
        let fresh = self.others.values().filter(|told| now_ms - told.at_ms < KEPT_MS).map(|told| told.offset);
        let mut all: Vec<Offset> = fresh.chain([self.own]).collect();
        all.sort_unstable();
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        if (self.own - low).abs() <= (high - self.own).abs() { low } else { high }
    }

    fn stamp(&mut self, boot_ns: i128, floor_ms: u64) -> u64 {
        let offset = self.median((boot_ns / 1_000_000) as i64);
        let clocks = boot_ns + i128::from(offset) * 1_000_000;
        let slow = self.last_ns + (boot_ns - self.boot_ns) / 2;
        self.last_ns = clocks.max(slow).max(i128::from(floor_ms) * 1_000_000);
        self.boot_ns = boot_ns;
        (self.last_ns / 1_000_000) as u64
    }
}

impl Clock {
    pub(crate) fn new() -> Self {
        let known = Known { term: 0, own: own(), others: BTreeMap::new(), last_ns: 0, boot_ns: boot_ns() };
        Self(Mutex::new(known))
    }

    /// The time for an entry of `term`: never below `floor_ms`, nor below what was given in the term before.
    pub(crate) fn stamp(&self, term: u64, floor_ms: u64) -> u64 {
        let mut known = self.0.lock();
        if term != known.term {
            // What was stamped in another term, and is not in the log, was not.
            (known.term, known.own, known.last_ns) = (term, own(), 0);
        }
        known.stamp(boot_ns(), floor_ms)
    }

    /// Notes what the wall clock of another member showed, in milliseconds, between two readings of our boot clock.
    pub(crate) fn told(&self, member: u64, wall_ms: u64, asked_ms: i64, answered_ms: i64) {
        if answered_ms - asked_ms <= LONGEST_MS {
            let offset = wall_ms as i64 - (asked_ms + answered_ms) / 2;
            self.0.lock().others.insert(member, Told { offset, at_ms: answered_ms });
        }
    }

    /// Only these are other members.
    pub(crate) fn keep(&self, members: &[u64]) {
        self.0.lock().others.retain(|member, _| members.contains(member));
    }

    /// How far our wall clock is ahead of the median, in milliseconds.
    pub(crate) fn off_ms(&self) -> i64 {
        let mut known = self.0.lock();
        let at_begin = std::mem::replace(&mut known.own, own());
        let off = known.own - known.median(boot_ms());
        known.own = at_begin;
        off
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What passes while the machine sleeps counts.
fn boot_ns() -> i128 {
    let now = clock_gettime(ClockId::Boottime);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

/// Milliseconds of the boot clock.
pub(crate) fn boot_ms() -> i64 {
    (boot_ns() / 1_000_000) as i64
}

fn own() -> Offset {
    wall_ms() as i64 - boot_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;

    fn known(own: Offset, others: &[Offset]) -> Known {
        let told = |(member, offset): (u64, &Offset)| (member, Told { offset: *offset, at_ms: 0 });
        Known { term: 1, own, others: (2..).zip(others).map(told).collect(), last_ns: 0, boot_ns: 0 }
    }

    #[test]
    fn time_never_runs_backwards_not_even_into_a_new_term() {
        let clock = Clock::new();
        let first = clock.stamp(1, 0);
        let ahead = clock.stamp(1, first + 1_000_000);
        assert_eq!(ahead, first + 1_000_000);
        assert!(clock.stamp(1, 0) >= ahead);
        assert!(clock.stamp(2, ahead) >= ahead);
    }

    #[test]
    fn what_an_older_leader_stamped_and_nobody_has_does_not_count() {
        let clock = Clock::new();
        let first = clock.stamp(1, 0);
        clock.stamp(1, first + 1_000_000);
        assert!(clock.stamp(2, first) < first + 500_000);
    }

    #[test]
    fn a_clock_that_is_wrong_moves_nothing_when_most_are_right() {
        for (own, others, median) in [
            (60_000, &[3, -4][..], 3),
            (5, &[60_000, -4], 5),
            (5, &[60_000, -60_000], 5),
            // Of two nobody knows who is right.
            (60_000, &[0], 60_000),
            (60_000, &[], 60_000),
            (60_000, &[0, 10, 20], 20),
            (-60_000, &[0, 10, 20], 0),
            (60_000, &[0, 10, 20, 90_000], 20),
        ] {
            assert_eq!(known(own, others).median(0), median, "{own} {others:?}");
        }
    }

    #[test]
    fn a_clock_that_nobody_has_asked_for_long_is_forgotten() {
        assert_eq!(known(60_000, &[3, -4]).median(KEPT_MS - 1), 3);
        assert_eq!(known(60_000, &[3, -4]).median(KEPT_MS), 60_000);
    }

    #[test]
    fn behind_an_entry_that_is_ahead_time_goes_at_half_the_pace() {
        let mut known = known(0, &[]);
        let mut stamp = |boot_ms: i128, floor_ms| known.stamp(boot_ms * MS, floor_ms);
        assert_eq!(stamp(1_000, 0), 1_000);
        assert_eq!(stamp(1_000, 61_000), 61_000);
        assert_eq!(stamp(3_000, 61_000), 62_000);
        // In small steps too.
        for ms in 0..2_000 {
            stamp(3_000 + ms, 0);
        }
        assert_eq!(stamp(5_000, 0), 63_000);
        assert_eq!(stamp(121_000, 0), 121_000);
        assert_eq!(stamp(122_000, 0), 122_000);
    }

    #[test]
    fn an_answer_that_was_slow_says_nothing() {
        let clock = Clock::new();
        clock.told(2, 1_000_000, 0, LONGEST_MS + 1);
        assert!(clock.0.lock().others.is_empty());
        clock.told(2, 1_000_000, 0, 100);
        assert_eq!(clock.0.lock().others[&2].offset, 999_950);
        clock.keep(&[3]);
        assert!(clock.0.lock().others.is_empty());
    }
}
