//! The leader's clock (protocol rule 6).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Wall time at the start of a term plus monotonic time: a wall clock that jumps moves nothing within a term.
pub(crate) struct Clock {
    term: u64,
    wall_ms: u64,
    since: Instant,
    last_ms: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { term: 0, wall_ms: wall_ms(), since: Instant::now(), last_ms: 0 }
    }

    /// The time for an entry of `term`: never below `floor_ms`, nor below what was given before.
    pub(crate) fn now_ms(&mut self, term: u64, floor_ms: u64) -> u64 {
        if term != self.term {
            *self = Self { term, ..Self::new() };
        }
        let now = self.wall_ms + self.since.elapsed().as_millis() as u64;
        self.last_ms = now.max(floor_ms).max(self.last_ms);
        self.last_ms
    }
}

pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    #[test]
    fn time_never_runs_backwards_not_even_into_a_new_term() {
        let mut clock = Clock::new();
        let first = clock.now_ms(1, 0);
        let ahead = clock.now_ms(1, first + 1_000_000);
        assert_eq!(ahead, first + 1_000_000);
        assert!(clock.now_ms(1, 0) >= ahead);
        assert!(clock.now_ms(2, ahead) >= ahead);
    }
}
