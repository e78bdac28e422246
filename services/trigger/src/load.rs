//! Which shards have enough to do (protocol rule 34).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use nova_client::{Coordinators, Repeat};
use nova_wire::v1;
use tokio::sync::watch;

use crate::config::Config;
use crate::metrics as names;

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// Three quarters of the outbox above which a shard takes no more (rule 35).
const OUTBOX_BYTES: u64 = nova_engine::limits::OUTBOX_BYTES / 4 * 3;

/// The shards that take nothing from triggers now.
#[derive(Clone)]
pub(crate) struct Load(watch::Receiver<Option<Arc<BTreeSet<u32>>>>);

impl Load {
    /// Until the load is known, every shard counts as busy: a service that begins during an overload must not add to it.
    pub(crate) fn is_busy(&self, shard: u32) -> bool {
        self.0.borrow().as_ref().is_none_or(|busy| busy.contains(&shard))
    }
}

/// Looks at the shards again and again. Without an answer the last one holds: what cannot be asked for its load cannot
/// tell its positions either, and windows fill.
pub(crate) fn watch(coordinators: Coordinators, config: &Config) -> (Load, impl Future<Output = ()> + use<>) {
    let (sender, receiver) = watch::channel(None);
    let (most_open, most_lag) = (config.max_open_per_shard, config.max_read_lag);
    let busy = move |shard: &v1::ShardView| {
        shard.open_executions >= most_open || shard.read_lag >= most_lag || shard.outbox_bytes >= OUTBOX_BYTES
    };
    let looking = async move {
        loop {
            let asking = coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.get_shards(v1::GetShardsRequest {}).await
            });
            match asking.await {
                Ok(answer) => {
                    let now: BTreeSet<u32> = answer.shards.iter().filter(|it| busy(it)).map(|it| it.shard).collect();
                    sender.send_if_modified(|known| {
                        let changed = known.as_deref() != Some(&now);
                        if changed {
                            tracing::debug!(shards = now.len(), "shards that take nothing from triggers");
                            *known = Some(Arc::new(now));
                        }
                        changed
                    });
                }
                Err(error) => {
                    counter!(names::ERRORS, "what" => "load").increment(1);
                    tracing::debug!(%error, "the load of the shards is not known");
                }
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    (Load(receiver), looking)
}
