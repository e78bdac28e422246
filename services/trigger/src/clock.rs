//! What time it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

/// Tells the time and waits for it; tests bring their own.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Comes back at this moment, or somewhat earlier or later: who waits looks at the clock again.
    async fn sleep_until(&self, at_ms: u64);
}

/// A clock that is shared.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A clock may be set meanwhile; so long a sleep does not notice.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

#[async_trait]
impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_until(&self, at_ms: u64) {
        let wait = Duration::from_millis(at_ms.saturating_sub(self.now_ms()));
        tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
    }
}
