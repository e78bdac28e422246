//! The leader's clock (protocol rule 6).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// One clock for what is stamped and for what waits for it.
pub(crate) type SharedClock = Arc<Clock>;

/// Wall time at the start of a term plus time since: a wall clock that is set anew moves nothing within a term. What
/// passes while the machine sleeps counts.
pub(crate) struct Clock(Mutex<Term>);

struct Term {
    term: u64,
    wall_ms: u64,
    boot_ms: u64,
    last_ms: u64,
}

impl Term {
    fn begin(term: u64) -> Self {
        Self { term, wall_ms: wall_ms(), boot_ms: boot_ms(), last_ms: 0 }
    }

    fn now_ms(&self) -> u64 {
        self.wall_ms + (boot_ms() - self.boot_ms)
    }
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Term::begin(0)))
    }

    /// The time for an entry of `term`: never below `floor_ms`, nor below what was given before.
    pub(crate) fn stamp(&self, term: u64, floor_ms: u64) -> u64 {
        let mut known = self.0.lock();
        if term != known.term {
            *known = Term::begin(term);
        }
        known.last_ms = known.now_ms().max(floor_ms).max(known.last_ms);
        known.last_ms
    }

    /// What an entry would be stamped with now, as far as time goes.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.lock().now_ms()
    }
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn time_never_runs_backwards_not_even_into_a_new_term() {
        let clock = Clock::new();
        let first = clock.stamp(1, 0);
        let ahead = clock.stamp(1, first + 1_000_000);
        assert_eq!(ahead, first + 1_000_000);
        assert!(clock.stamp(1, 0) >= ahead);
        assert!(clock.stamp(2, ahead) >= ahead);
    }
}
