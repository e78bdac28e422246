//! Looks at a cluster when the faults are over: whether all has ended, and what members and shards say.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use nova_bus::{Bus, MemoryBus, Topic};
use nova_checker::{Member, Shard};
use nova_client::{ClientError, Coordinators, Repeat};
use nova_trigger_rules::{Kind, TriggerSpec};
use nova_wire::v1;
use parking_lot::Mutex;

use crate::client::{BY_RECORDS, BY_TIME, NAMESPACE, ORDERS, ORDERS_PARTITIONS, trigger};
use crate::hosts::{self, Ground, LAYOUT};

const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing more happens when nothing did for so long.
const QUIET: Duration = Duration::from_secs(12);

/// What is there at the end.
#[derive(Default)]
pub(crate) struct Seen {
    pub members: Vec<Member>,
    pub shards: Vec<Shard>,
}

pub(crate) struct Observer {
    pub coordinators: Coordinators,
    pub ground: Ground,
}

impl Observer {
    /// Looks until nothing is left to do.
    pub(crate) async fn settle(&self) -> Seen {
        self.until(|| self.are_sources_read()).await;
        for id in [BY_RECORDS, BY_TIME] {
            self.until(|| async {
                let delete = v1::DeleteTrigger { namespace: NAMESPACE.into(), id: id.into() };
                let asking = self.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
                    let delete = delete.clone();
                    async move { member.delete_trigger(delete).await }
                });
                asking.await.map(|_| Some(()))
            })
            .await;
        }
        loop {
            let before = self.until(|| self.shards()).await;
            // A trigger service may hear late that there are no triggers any more.
            tokio::time::sleep(QUIET).await;
            let members = self.until(|| self.members()).await;
            let shards = self.until(|| self.shards()).await;
            if shards == before {
                return Seen { members, shards };
            }
        }
    }

    async fn until<T, F: Future<Output = Result<Option<T>, ClientError>>>(&self, mut look: impl FnMut() -> F) -> T {
        loop {
            if let Ok(Some(found)) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn are_sources_read(&self) -> Result<Option<()>, ClientError> {
        for partition in 0..ORDERS_PARTITIONS {
            let source = source(BY_RECORDS, partition);
            let own = nova_trigger_rules::Source::of_name(&source);
            let shard = nova_trigger_rules::shard_of(NAMESPACE, &own, LAYOUT.shards as u16);
            let request =
                v1::GetSourcePositionRequest { namespace: NAMESPACE.into(), source, shard: u32::from(shard.0) };
            let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| {
                let request = request.clone();
                async move { member.get_source_position(request).await }
            });
            let written = read(&self.ground.broker, &Topic::Named(ORDERS.into()), partition).len() as u64;
            if asking.await?.last.unwrap_or(0) < written {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    async fn shards(&self) -> Result<Option<Vec<Shard>>, ClientError> {
        let asking = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        let shards: Vec<Shard> = asking
            .await?
            .shards
            .into_iter()
            .map(|it| {
                let position = it.position.unwrap_or_default();
                Shard {
                    shard: it.shard,
                    next_offset: position.next_offset,
                    outbox_last: position.outbox_last,
                    outbox_acked: position.outbox_acked,
                    open: it.open_executions,
                }
            })
            .collect();
        let over = |it: &Shard| {
            let written = self.ground.broker.offsets(&Topic::Commands, it.shard).now_or_never();
            let written = written.and_then(Result::ok).map_or(0, |range| range.end);
            it.open == 0 && it.outbox_acked == it.outbox_last && it.next_offset == written
        };
        Ok(shards.iter().all(over).then_some(shards))
    }

    /// Tells what may be the matter, for people.
    pub(crate) async fn explain(&self, said: &Mutex<Vec<String>>) -> Result<(), ClientError> {
        let asking = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        let shards = asking.await?.shards;
        said.lock().extend(shards.into_iter().map(|shard| format!("{shard:?}")));
        let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
            member.list_workers(v1::ListWorkersRequest {}).await
        });
        let workers = asking.await?.workers;
        said.lock().extend(workers.into_iter().map(|worker| format!("{worker:?}")));
        for host in hosts::members() {
            let one = hosts::one(&self.ground.net, "explainer", host);
            let describing = one.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.describe(v1::DescribeRequest::default()).await
            });
            let described = describing.await;
            said.lock().push(format!("{host}: {described:?}"));
        }
        Ok(())
    }

    /// Members that all applied as much.
    async fn members(&self) -> Result<Option<Vec<Member>>, ClientError> {
        let mut members = Vec::new();
        for host in hosts::members() {
            let one = hosts::one(&self.ground.net, "observer", host);
            let describing = one.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.describe(v1::DescribeRequest::default()).await
            });
            let it = describing.await?;
            members.push(Member { name: host.name.into(), applied: it.applied, state_hash: it.state_hash });
        }
        Ok(members.windows(2).all(|pair| pair[0].applied == pair[1].applied).then_some(members))
    }
}

/// All values of a partition.
pub(crate) fn read(broker: &MemoryBus, topic: &Topic, partition: u32) -> Vec<Bytes> {
    broker.records(topic, partition).into_iter().map(|record| record.value).collect()
}

/// Name of the source of a trigger.
pub(crate) fn source(id: &str, partition: u32) -> String {
    let spec = TriggerSpec::from_value(&trigger(id, "w0")).expect("it is a trigger");
    match spec.kind {
        Kind::Cron(cron) => nova_trigger_rules::Source::of_cron(id, &cron),
        Kind::Kafka(kafka) => nova_trigger_rules::Source::of_kafka(id, &kafka, partition),
    }
    .name()
    .to_owned()
}
