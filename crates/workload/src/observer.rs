//! Looks at a cluster when the faults are over: whether all has ended, what members and shards say, what the topics hold.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Layout, ReadError, SharedBus, Topic};
use nova_checker::{Effect, History, Member, Numbers, Place, Shard, Source};
use nova_client::{ClientError, Coordinators, Repeat};
use nova_wire::v1;

use crate::triggers;
use crate::{BY_RECORDS, BY_TIME, NAMESPACE, Noted, ORDERS, ORDERS_PARTITIONS, SLOT_INPUT, SLOT_MS, Workflow, source};

const PATIENCE: Duration = Duration::from_secs(5);
/// Nothing more happens when nothing did for so long.
const QUIET: Duration = Duration::from_secs(12);

/// What is there at the end.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Members that all applied as much.
    pub members: Vec<Member>,
    /// Shards in which nothing is left to do.
    pub shards: Vec<Shard>,
}

/// Looks at a cluster.
pub struct Observer {
    /// All members.
    pub coordinators: Coordinators,
    /// And each, with its name.
    pub members: Vec<(String, Coordinators)>,
    /// The bus, by a way that no fault is on.
    pub bus: SharedBus,
    /// Its topics.
    pub layout: Layout,
}

impl Observer {
    /// Looks until nothing is left to do.
    pub async fn settle(&self) -> Seen {
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
            let own = triggers::of(BY_RECORDS, partition);
            let shard = nova_trigger_rules::shard_of(NAMESPACE, &own, self.layout.shards as u16);
            let request = v1::GetSourcePositionRequest {
                namespace: NAMESPACE.into(),
                source: own.name().to_owned(),
                shard: u32::from(shard.0),
            };
            let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| {
                let request = request.clone();
                async move { member.get_source_position(request).await }
            });
            let Some(written) = self.end(&Topic::Named(ORDERS.into()), partition).await else { return Ok(None) };
            if asking.await?.last.unwrap_or(0) < written {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    async fn end(&self, topic: &Topic, partition: u32) -> Option<u64> {
        self.bus.offsets(topic, partition).await.ok().map(|range| range.end)
    }

    async fn shards(&self) -> Result<Option<Vec<Shard>>, ClientError> {
        let asking = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        let mut shards = Vec::new();
        for it in asking.await?.shards {
            let position = it.position.unwrap_or_default();
            let shard = Shard {
                shard: it.shard,
                next_offset: position.next_offset,
                outbox_last: position.outbox_last,
                outbox_acked: position.outbox_acked,
                open: it.open_executions,
            };
            let written = self.end(&Topic::Commands, shard.shard).await;
            if shard.open > 0 || shard.outbox_acked < shard.outbox_last || written != Some(shard.next_offset) {
                return Ok(None);
            }
            shards.push(shard);
        }
        Ok(Some(shards))
    }

    /// Tells what may be the matter, for people.
    ///
    /// # Errors
    /// When nobody leads.
    pub async fn explain(&self) -> Result<Vec<String>, ClientError> {
        let mut said = Vec::new();
        for (name, member) in &self.members {
            let describing = member
                .call(PATIENCE, Repeat::Read, |mut it| async move { it.describe(v1::DescribeRequest::default()).await })
                .await;
            said.push(format!("{name}: {describing:?}"));
        }
        let asking = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        said.extend(asking.await?.shards.into_iter().map(|shard| format!("{shard:?}")));
        let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
            member.list_workers(v1::ListWorkersRequest {}).await
        });
        said.extend(asking.await?.workers.into_iter().map(|worker| format!("{worker:?}")));
        Ok(said)
    }

    async fn members(&self) -> Result<Option<Vec<Member>>, ClientError> {
        let mut members = Vec::new();
        for (name, member) in &self.members {
            let describing = member.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.describe(v1::DescribeRequest::default()).await
            });
            let it = describing.await?;
            members.push(Member { name: name.clone(), applied: it.applied, state_hash: it.state_hash });
        }
        Ok(members.windows(2).all(|pair| pair[0].applied == pair[1].applied).then_some(members))
    }

    /// All that was noted and all that the topics hold. The schedule was there for `span`, or longer.
    ///
    /// # Errors
    /// When a topic cannot be read.
    ///
    /// # Panics
    /// When a record of the users' topic is none of ours.
    pub async fn history(
        &self,
        cluster: &str,
        noted: &Noted,
        effects: Vec<Effect>,
        triggered: &Workflow,
        span: Duration,
        seen: Seen,
    ) -> Result<History, ReadError> {
        let mut topics = BTreeMap::new();
        let Layout { shards, events, inboxes, apis } = self.layout;
        let own = [
            (Topic::Commands, nova_checker::Topic::Commands, shards),
            (Topic::Tasks, nova_checker::Topic::Tasks, inboxes),
            (Topic::Replies, nova_checker::Topic::Replies, apis),
            (Topic::Events, nova_checker::Topic::Events, events),
        ];
        for (from, topic, partitions) in own {
            for partition in 0..partitions {
                topics.insert(Place { topic, partition }, records(&self.bus, &from, partition).await?);
            }
        }
        // Clocks are wrong, and slots that are late are made up for: a quarter less is still right.
        let least = span.as_millis() as u64 / SLOT_MS * 3 / 4;
        let slots = Numbers::Every { step: SLOT_MS, least, expected: triggered.expected(SLOT_INPUT) };
        let mut sources = vec![Source { name: source(BY_TIME, 0), numbers: slots }];
        for partition in 0..ORDERS_PARTITIONS {
            let records = records(&self.bus, &Topic::Named(ORDERS.into()), partition).await?;
            let numbers = (0..).zip(&records).map(|(offset, record)| {
                let input: serde_json::Value = serde_json::from_slice(record).expect("the client writes JSON");
                let n = input["n"].as_i64().unwrap_or_default();
                (nova_trigger_rules::number_of_offset(offset), triggered.expected(n))
            });
            let name = source(BY_RECORDS, partition);
            sources.push(Source { name, numbers: Numbers::These(numbers.collect()) });
        }
        Ok(History {
            cluster: cluster.into(),
            operations: noted.operations.lock().clone(),
            effects,
            topics,
            sources,
            members: seen.members,
            shards: seen.shards,
            logs: Vec::new(),
        })
    }
}

/// All values of a partition, from its beginning to its present end.
///
/// # Errors
/// When it cannot be read.
pub async fn records(bus: &SharedBus, topic: &Topic, partition: u32) -> Result<Vec<Bytes>, ReadError> {
    let range = bus.offsets(topic, partition).await?;
    let mut all = Vec::new();
    if range.is_empty() {
        return Ok(all);
    }
    let mut reader = bus.reader()?;
    reader.assign(topic, partition, range.start)?;
    loop {
        let Some(batch) = reader.next(PATIENCE).await? else { continue };
        for record in batch.records {
            let is_last = record.offset + 1 >= range.end;
            all.push(record.value);
            if is_last {
                return Ok(all);
            }
        }
    }
}
