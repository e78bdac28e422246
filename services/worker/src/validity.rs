//! Until when a session is alive (rule 24). Once it is over, it is over for good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use nova_plants::Plant;
use tokio_util::sync::CancellationToken;

pub(crate) struct Validity {
    began: Instant,
    /// For a planted bug only.
    began_wall: SystemTime,
    /// Nanoseconds after `began`; 0 when it was ended. Read at every step of every attempt, so without a lock.
    until: AtomicU64,
    over: CancellationToken,
}

impl Validity {
    pub(crate) fn new(until: Instant) -> Self {
        let began = Instant::now();
        Self {
            began,
            began_wall: SystemTime::now(),
            until: AtomicU64::new(nanos(began, until)),
            over: CancellationToken::new(),
        }
    }

    /// Whether anything may be done in the name of the session now.
    pub(crate) fn is_alive(&self) -> bool {
        self.now() < self.until.load(Ordering::Acquire)
    }

    /// Nanoseconds after `began`.
    fn now(&self) -> u64 {
        if nova_plants::is(Plant::LeaseByWallClock) {
            let since = self.began_wall.elapsed();
            return since.map_or(0, |since| since.as_nanos() as u64);
        }
        nanos(self.began, Instant::now())
    }

    pub(crate) fn until(&self) -> Instant {
        self.began + std::time::Duration::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// False when it was over before: such a session is never renewed.
    pub(crate) fn extend(&self, until: Instant) -> bool {
        let (now, until) = (self.now(), nanos(self.began, until));
        let longer = |known: u64| (now < known).then_some(known.max(until));
        self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, longer).is_ok()
    }

    /// Ends it before its time; everything that watches [`Validity::over`] wakes.
    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
        self.over.cancel();
    }

    /// Cancelled when it ends.
    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Returns when it has lapsed.
    pub(crate) async fn lapsed(&self) {
        while self.is_alive() {
            tokio::time::sleep_until(self.until().into()).await;
            if nova_plants::is(Plant::LeaseByWallClock) {
                // The other clock may be behind for long.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

fn nanos(began: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(began).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_that_is_over_is_never_renewed() {
        let later = Instant::now() + Duration::from_secs(60);
        let lapsed = Validity::new(Instant::now());
        assert!(!lapsed.extend(later));
        assert!(!lapsed.is_alive());
        let ended = Validity::new(later);
        ended.end();
        assert!(!ended.extend(later));
        assert!(!ended.is_alive() && ended.over().is_cancelled());
    }

    #[test]
    fn an_older_renewal_does_not_shorten_it() {
        let now = Instant::now();
        let validity = Validity::new(now + Duration::from_secs(60));
        assert!(validity.extend(now + Duration::from_secs(30)));
        assert!(validity.until() > now + Duration::from_secs(59));
    }
}
