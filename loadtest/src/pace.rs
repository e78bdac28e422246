//! When the executions of an open loop are due, and a thread that says so.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Shortest sleep, in which about so many become due, but never longer than a millisecond: the clock must not become the
/// load. What is late by it counts as latency, as all lateness does.
const SHORTEST: Duration = Duration::from_micros(200);
const TOGETHER: u64 = 10;

/// A schedule: number `n` is due at `begin + n / rate`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub begin: Instant,
    pub per_second: u64,
}

impl Pace {
    pub(crate) fn due(self, number: u64) -> Instant {
        self.begin + Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(self.per_second)) as u64)
    }

    fn shortest_sleep(self) -> Duration {
        let together = Duration::from_nanos(TOGETHER * 1_000_000_000 / self.per_second.max(1));
        together.clamp(SHORTEST, SHORTEST * 5)
    }

    /// How many are due by `now`.
    fn by(self, now: Instant) -> u64 {
        let Some(since) = now.checked_duration_since(self.begin) else { return 0 };
        (since.as_nanos() * u128::from(self.per_second) / 1_000_000_000) as u64 + 1
    }
}

/// Gives a permit for each number when it is due. Timers of the runtime know milliseconds only, and would add half of
/// one to each latency; a thread's sleep is some 60 microseconds late.
pub(crate) fn keep(pace: Pace, total: u64, permits: Arc<Semaphore>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut given = 0;
        while given < total && !permits.is_closed() {
            let due = pace.by(Instant::now()).min(total);
            if due > given {
                permits.add_permits((due - given) as usize);
                given = due;
            }
            let rest = pace.due(given).saturating_duration_since(Instant::now());
            std::thread::sleep(rest.max(pace.shortest_sleep()));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_counted_from_when_it_is_due() {
        let pace = Pace { begin: Instant::now(), per_second: 3_000 };
        assert_eq!(pace.due(0), pace.begin);
        assert_eq!(pace.due(3_000), pace.begin + Duration::from_secs(1));
        for number in [0, 1, 2, 2_999, 1_000_000] {
            let due = pace.due(number) + Duration::from_nanos(1);
            assert_eq!(pace.by(due), number + 1);
        }
    }

    #[test]
    fn all_permits_come_and_no_more() {
        let permits = Arc::new(Semaphore::new(0));
        let pace = Pace { begin: Instant::now(), per_second: 50_000 };
        keep(pace, 500, Arc::clone(&permits)).join().unwrap();
        assert_eq!(permits.available_permits(), 500);
        assert!(Instant::now() >= pace.due(499));
    }
}
