//! Questions to the brokers, and topics made or checked.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nova_bus::{BusError, Topic, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::time::{Instant, sleep, timeout};

use crate::bounds::{self, Key};
use crate::config::{Config, MAX_WIRE_BYTES};
use crate::context::Quiet;
use crate::names::Names;

/// Wait between looks at something that takes the brokers a moment.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How far a broker may be behind with what topics there are.
pub(crate) const LAG: Duration = Duration::from_secs(2);

/// A setting that a topic must have, and why.
struct Setting {
    name: &'static str,
    value: String,
    holds: Holds,
}

enum Holds {
    /// Exactly the value.
    Same,
    /// At least the value.
    Least,
    /// At least the value, or -1 for no limit.
    LeastOrNone,
}

/// What every topic must be set to.
fn settings(spec: &TopicSpec, replicas: u16) -> Vec<Setting> {
    let set = |name, value: &str, holds| Setting { name, value: value.to_owned(), holds };
    vec![
        // Compaction would take records out of the middle, and readers count on there being no holes.
        set("cleanup.policy", "delete", Holds::Same),
        set("retention.ms", &spec.retention_ms.to_string(), Holds::LeastOrNone),
        // A limit on bytes would cut a log by how busy it is, however far its reader has come.
        set("retention.bytes", "-1", Holds::Same),
        // The broker counts a whole batch, as the client sends it.
        set("max.message.bytes", &(MAX_WIRE_BYTES + (64 << 10)).to_string(), Holds::Least),
        // With three replicas an acknowledged record is on two, so one broker may be lost for good.
        set("min.insync.replicas", if replicas >= 3 { "2" } else { "1" }, Holds::Least),
        // The time is that of whoever produced the record; a broker's clock is not one of ours.
        set("message.timestamp.type", "CreateTime", Holds::Same),
        // A replica that was left behind would become the log, without what was acknowledged.
        set("unclean.leader.election.enable", "false", Holds::Same),
    ]
}

impl Setting {
    fn holds(&self, found: &str) -> bool {
        let at_least = || {
            let numbers = (found.parse::<i64>(), self.value.parse::<i64>());
            matches!(numbers, (Ok(found), Ok(least)) if found >= least)
        };
        match self.holds {
            Holds::Same => found == self.value,
            Holds::Least => at_least(),
            Holds::LeastOrNone => found == "-1" || at_least(),
        }
    }
}

/// What metadata says about one topic.
struct Seen {
    partitions: u32,
    /// Partitions that have a leader.
    led: u32,
    /// Fewest and most replicas of its partitions.
    replicas: Range<usize>,
}

/// Asks the brokers. Everything that waits for them is done on threads where waiting is allowed.
pub(crate) struct Topics {
    /// A consumer, for it can ask for the bounds of many partitions at once. It reads nothing.
    client: Arc<Closing<BaseConsumer<Quiet>>>,
    /// For clients that make and look at topics, which is done once.
    queries: ClientConfig,
    names: Arc<Names>,
    replicas: u16,
    request_timeout: Duration,
}

/// A client that says good-bye to its brokers and waits for its threads, which an async thread must not.
struct Closing<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Closing<T> {
    fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the client is taken only when this is dropped")
    }
}

impl<T: Send + 'static> Drop for Closing<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        drop(std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(client)));
    }
}

impl Topics {
    pub(crate) fn new(config: &Config, names: Arc<Names>) -> Result<Self, BusError> {
        let queries = config.queries();
        let client = BaseConsumer::from_config_and_context(&queries, Quiet).map_err(|e| unavailable(&e))?;
        let (replicas, request_timeout) = (config.replicas, config.request_timeout);
        Ok(Self { client: Arc::new(Closing::new(client)), queries, names, replicas, request_timeout })
    }

    fn admin(&self) -> Result<Closing<AdminClient<Quiet>>, BusError> {
        AdminClient::from_config_and_context(&self.queries, Quiet).map(Closing::new).map_err(|e| unavailable(&e))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Quiet>, Duration) -> T + Send + 'static,
    ) -> Result<T, BusError> {
        let (client, wait) = (Arc::clone(&self.client), self.request_timeout);
        let asked = tokio::task::spawn_blocking(move || {
            // Its queue fills with errors that whoever asks hears of anyway.
            while client.poll(Duration::ZERO).is_some() {}
            question(&client, wait)
        });
        // The library keeps the time; this is for a machine with no thread to spare.
        match timeout(wait * 2, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(BusError::Unavailable { why: error.to_string() }),
            Err(_) => Err(BusError::Unavailable { why: format!("no answer within {:?}", wait * 2) }),
        }
    }

    async fn see(&self, topic: &Topic) -> Result<Option<Seen>, BusError> {
        let known = self.names.known_partitions(topic).is_some();
        let deadline = Instant::now() + LAG;
        loop {
            let name = self.names.of(topic);
            let asked =
                self.ask(move |client, wait| client.fetch_metadata(Some(&name), wait).map(|all| read_seen(&all)));
            let seen = asked.await?.map_err(|error| unavailable(&error))??;
            // A topic that was there is not gone because one broker has not heard of it.
            if seen.is_none() && known && Instant::now() < deadline {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            self.names.learn(topic, seen.as_ref().map(|seen| seen.partitions));
            return Ok(seen);
        }
    }

    pub(crate) async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        Ok(self.see(topic).await?.map(|seen| seen.partitions))
    }

    pub(crate) async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        let missing = || BusError::NoSuchPartition { topic: topic.clone(), partition };
        let number = i32::try_from(partition).map_err(|_| missing())?;
        let deadline = Instant::now() + self.request_timeout;
        loop {
            let name = self.names.of(topic);
            let found = self.ask(move |client, wait| client.fetch_watermarks(&name, number, wait)).await?;
            let error = match found {
                Ok((low, high)) => return Ok(low.max(0).cast_unsigned()..high.max(0).cast_unsigned()),
                Err(error) => error,
            };
            // A broker that has just started denies what it leads. Metadata decides, and for the rest there is time.
            if self.partitions(topic).await?.is_none_or(|count| partition >= count) {
                return Err(missing());
            }
            if Instant::now() >= deadline {
                return Err(unavailable(&error));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// The bounds of those partitions that are known within the time. All are asked for at once, in two requests to each
    /// broker: one by one they would be the most that an idle cluster asks, and too many for brokers that have just
    /// started. Partitions that were not answered are asked for by themselves, since one without a leader holds up all.
    pub(crate) async fn bounds(
        &self,
        topic: &Topic,
        partitions: &[u32],
        within: Duration,
    ) -> BTreeMap<u32, Range<u64>> {
        let deadline = Instant::now() + within;
        let keys: Vec<Key> = {
            let name = self.names.of(topic);
            partitions.iter().map(|number| (Arc::clone(&name), number.cast_signed())).collect()
        };
        // Brokers that are well answer at once; the rest of the time is for the partitions one by one.
        let at_once = within / 3;
        let asked = self.ask(move |client, wait| bounds::ask(client, &keys, wait.min(at_once)));
        let asked = timeout(at_once, asked).await;
        let found = asked.map_or_else(|_| HashMap::new(), |found| found.ok().and_then(Result::ok).unwrap_or_default());
        let mut found: BTreeMap<u32, Range<u64>> =
            found.into_iter().map(|((_, number), range)| (number.cast_unsigned(), range)).collect();
        let missing = partitions.iter().copied().filter(|number| !found.contains_key(number));
        let mut asking: FuturesUnordered<_> =
            missing.map(|number| async move { (number, self.offsets(topic, number).await) }).collect();
        while let Ok(Some((number, range))) = tokio::time::timeout_at(deadline, asking.next()).await {
            found.extend(range.ok().map(|range| (number, range)));
        }
        drop(asking);
        found
    }

    pub(crate) async fn ensure(&self, specs: &[TopicSpec]) -> Result<(), BusError> {
        let mut missing = Vec::new();
        for spec in specs {
            if self.see(&spec.topic).await?.is_none() {
                missing.push(spec);
            }
        }
        self.create(&missing).await?;
        let mut wrong: Vec<(Topic, Vec<String>)> = Vec::new();
        let found = self.configs(specs).await?;
        for spec in specs {
            let mut problems = self.shape(spec).await?;
            let config = found.get(&spec.topic);
            for setting in settings(spec, self.replicas) {
                let value = config.and_then(|config| config.get(setting.name)).map_or("unknown", String::as_str);
                if !setting.holds(value) {
                    problems.push(format!("{} is {value} and should be {}", setting.name, setting.value));
                }
            }
            if !problems.is_empty() {
                wrong.push((spec.topic.clone(), problems));
            }
        }
        let mut wrong = wrong.into_iter();
        let Some((topic, mut problems)) = wrong.next() else { return Ok(()) };
        // One error can name one topic; whoever sets them right wants to hear of all.
        problems.extend(wrong.flat_map(|(topic, all)| all.into_iter().map(move |it| format!("{topic}: {it}"))));
        Err(BusError::WrongSettings { topic, problems })
    }

    async fn create(&self, missing: &[&TopicSpec]) -> Result<(), BusError> {
        if missing.is_empty() {
            return Ok(());
        }
        let all: Vec<_> =
            missing.iter().map(|spec| (spec, self.names.of(&spec.topic), settings(spec, self.replicas))).collect();
        let new: Vec<_> = all
            .iter()
            .map(|(spec, name, settings)| {
                let replication = TopicReplication::Fixed(i32::from(self.replicas));
                let mut new = NewTopic::new(name, spec.partitions.cast_signed(), replication);
                new.config = settings.iter().map(|setting| (setting.name, &*setting.value)).collect();
                new
            })
            .collect();
        let admin = self.admin()?;
        let wait = self.request_timeout * 3;
        let options = AdminOptions::new().request_timeout(Some(wait)).operation_timeout(Some(wait));
        let created = timeout(wait * 2, admin.create_topics(&new, &options)).await;
        let created = created.map_err(|_| BusError::Unavailable { why: "topics not created in time".into() })?;
        for result in created.map_err(|error| unavailable(&error))? {
            match result {
                Ok(name) => tracing::info!(topic = name, "kafka topic created"),
                // Another process was faster; its topic is checked like any other.
                Err((_, Code::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(BusError::Unavailable { why: format!("topic {name} cannot be created: {code}") });
                }
            }
        }
        let deadline = Instant::now() + wait;
        for spec in missing {
            while self.see(&spec.topic).await?.is_none_or(|seen| seen.led < seen.partitions) {
                if Instant::now() >= deadline {
                    return Err(BusError::Unavailable { why: format!("topic {} has no leaders yet", spec.topic) });
                }
                sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn shape(&self, spec: &TopicSpec) -> Result<Vec<String>, BusError> {
        let Some(seen) = self.see(&spec.topic).await? else {
            return Ok(vec!["it does not exist".into()]);
        };
        let mut problems = Vec::new();
        if seen.partitions != spec.partitions {
            problems.push(format!("it has {} partitions and should have {}", seen.partitions, spec.partitions));
        }
        // More replicas than asked for are no harm.
        if seen.replicas.start < usize::from(self.replicas) {
            problems.push(format!("it has {} replicas and should have {}", seen.replicas.start, self.replicas));
        }
        Ok(problems)
    }

    /// The settings of topics, as far as they may be seen.
    async fn configs(&self, specs: &[TopicSpec]) -> Result<HashMap<Topic, HashMap<String, String>>, BusError> {
        let mut all = HashMap::new();
        let deadline = Instant::now() + LAG;
        loop {
            let missing: Vec<_> = specs.iter().filter(|spec| !all.contains_key(&spec.topic)).collect();
            if missing.is_empty() {
                return Ok(all);
            }
            let names: Vec<_> = missing.iter().map(|spec| self.names.of(&spec.topic)).collect();
            let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
            let options = AdminOptions::new().request_timeout(Some(self.request_timeout));
            let admin = self.admin()?;
            let described = timeout(self.request_timeout * 2, admin.describe_configs(&resources, &options)).await;
            let described = described.map_err(|_| BusError::Unavailable { why: "no answer about settings".into() })?;
            let mut refused = None;
            // The answers come in the order of the questions.
            for (spec, resource) in missing.iter().zip(described.map_err(|error| unavailable(&error))?) {
                match resource {
                    Ok(resource) => {
                        let entries = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
                        let entries: HashMap<_, _> = entries.collect();
                        if entries.is_empty() {
                            // Each topic has settings: this broker does not know the new one yet.
                            refused = Some((&spec.topic, Code::UnknownTopicOrPartition));
                        } else {
                            all.insert(spec.topic.clone(), entries);
                        }
                    }
                    Err(code) => refused = Some((&spec.topic, code)),
                }
            }
            let Some((topic, code)) = refused else { return Ok(all) };
            if Instant::now() >= deadline {
                return Err(BusError::Unavailable { why: format!("settings of {topic} cannot be seen: {code}") });
            }
            // A topic that is new may not be known to the broker that was asked; the next one may have heard of it.
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn read_seen(metadata: &rdkafka::metadata::Metadata) -> Result<Option<Seen>, BusError> {
    let Some(topic) = metadata.topics().first() else { return Ok(None) };
    match topic.error().map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => return Ok(None),
        Some(code) => return Err(BusError::Unavailable { why: code.to_string() }),
    }
    let all = topic.partitions();
    let replicas = all.iter().map(|partition| partition.replicas().len());
    Ok(Some(Seen {
        partitions: u32::try_from(all.len()).unwrap_or(u32::MAX),
        led: u32::try_from(all.iter().filter(|partition| partition.leader() >= 0).count()).unwrap_or(u32::MAX),
        replicas: replicas.clone().min().unwrap_or(0)..replicas.max().unwrap_or(0),
    }))
}

fn unavailable(error: &KafkaError) -> BusError {
    BusError::Unavailable { why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_compared_by_what_they_mean() {
        let spec = TopicSpec { topic: Topic::Commands, partitions: 1, retention_ms: 1_000 };
        let all = settings(&spec, 3);
        let named = |name: &str| all.iter().find(|setting| setting.name == name).unwrap();
        assert!(named("retention.ms").holds("1000") && named("retention.ms").holds("-1"));
        assert!(!named("retention.ms").holds("999") && !named("retention.ms").holds("unknown"));
        assert!(named("min.insync.replicas").holds("3") && !named("min.insync.replicas").holds("1"));
        assert!(!named("cleanup.policy").holds("compact,delete"));
    }
}
