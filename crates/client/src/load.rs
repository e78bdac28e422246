//! How much the shards have to do, looked at again and again (protocol rule 34).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_wire::v1;
use tokio::sync::watch;

use crate::{Coordinators, Repeat};

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Above any of these a shard has enough to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Open executions.
    pub open_executions: u64,
    /// Records that its owner has not read.
    pub read_lag: u64,
    /// Bytes of messages that the bus has not acknowledged.
    pub outbox_bytes: u64,
}

impl Marks {
    fn are_reached(&self, shard: &v1::ShardView) -> bool {
        shard.open_executions >= self.open_executions
            || shard.read_lag >= self.read_lag
            || shard.outbox_bytes >= self.outbox_bytes
    }
}

#[derive(Clone, Default)]
struct Known {
    at: Option<Instant>,
    busy: Arc<BTreeSet<u32>>,
}

/// The load as it was last seen.
#[derive(Clone)]
pub struct Load(watch::Receiver<Known>);

impl Load {
    /// Whether a shard has enough to do. Until the load is known, every shard has: who begins during an overload must
    /// not add to it.
    #[must_use]
    pub fn is_busy(&self, shard: u32) -> bool {
        let known = self.0.borrow();
        known.at.is_none() || known.busy.contains(&shard)
    }

    /// How long ago a leader with a quorum last answered; none: never.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.0.borrow().at.map(|at| at.elapsed())
    }
}

/// Looks at the shards for as long as the future is polled. Without an answer the last one holds.
pub fn watch(coordinators: Coordinators, marks: Marks) -> (Load, impl Future<Output = ()> + use<>) {
    let (sender, receiver) = watch::channel(Known::default());
    let looking = async move {
        loop {
            let asking = coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.get_shards(v1::GetShardsRequest {}).await
            });
            match asking.await {
                Ok(answer) => {
                    let busy: BTreeSet<u32> =
                        answer.shards.iter().filter(|it| marks.are_reached(it)).map(|it| it.shard).collect();
                    if *sender.borrow().busy != busy {
                        tracing::debug!(shards = busy.len(), "shards that have enough to do");
                    }
                    sender.send_replace(Known { at: Some(Instant::now()), busy: Arc::new(busy) });
                }
                Err(error) => tracing::debug!(%error, "the load of the shards is not known"),
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    (Load(receiver), looking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_alone_makes_a_shard_busy() {
        let marks = Marks { open_executions: 10, read_lag: 20, outbox_bytes: 30 };
        let quiet = v1::ShardView { open_executions: 9, read_lag: 19, outbox_bytes: 29, ..v1::ShardView::default() };
        assert!(!marks.are_reached(&quiet));
        assert!(marks.are_reached(&v1::ShardView { open_executions: 10, ..quiet }));
        assert!(marks.are_reached(&v1::ShardView { read_lag: 20, ..quiet }));
        assert!(marks.are_reached(&v1::ShardView { outbox_bytes: 30, ..quiet }));
    }

    #[test]
    fn what_was_never_seen_is_busy() {
        let (sender, receiver) = watch::channel(Known::default());
        let load = Load(receiver);
        assert!(load.is_busy(0) && load.age().is_none());
        sender.send_replace(Known { at: Some(Instant::now()), busy: Arc::new([3].into()) });
        assert!(!load.is_busy(0) && load.is_busy(3));
    }
}
