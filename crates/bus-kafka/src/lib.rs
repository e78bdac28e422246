//! The bus on Apache Kafka.
//!
//! Owns: the producer, the consumers and the admin client, their settings, the settings of the topics.
//! Must not know: what a record says, consumer groups, transactions (nothing here rests on them).
//!
//! An append that is answered is on all replicas in sync. One that was refused has left nothing behind. Between the two
//! is an unknown outcome: after it the caller goes on from the last record that it knows to be written. For 250 ms
//! after a refusal or a loss the partition refuses, so that what a caller had under way behind it is not written
//! without it.

mod bounds;
mod config;
mod context;
mod names;
mod producer;
mod reader;
mod topics;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use nova_bus::{Ack, AppendError, Bus, BusError, MAX_RECORD_BYTES, Outgoing, Reader, Topic, TopicSpec};

pub use config::{ALLOWED_PROPERTIES, Config};
use names::Names;
use producer::Publisher;
use reader::KafkaReader;
use topics::Topics;

/// A bus on Apache Kafka.
pub struct KafkaBus {
    config: Config,
    names: Arc<Names>,
    topics: Topics,
    /// For the topics of the cluster.
    own: Publisher,
    /// For the users' topics, made when one is written to: a topic of theirs that refuses a record costs a whole
    /// generation of the producer, and the cluster's own records must not be among it.
    users: OnceLock<Result<Publisher, BusError>>,
}

impl KafkaBus {
    /// Makes the clients. Does not wait for a broker: [`Bus::health`] does, and appends are refused until one answers.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn connect(config: Config) -> Result<Self, BusError> {
        config.check()?;
        let names = Arc::new(Names::new(&config.prefix));
        let topics = Topics::new(&config, Arc::clone(&names))?;
        let own = Publisher::start(&config, "kafka-producer")?;
        Ok(Self { config, names, topics, own, users: OnceLock::new() })
    }

    fn publisher(&self, topic: &Topic) -> Result<&Publisher, BusError> {
        match topic {
            Topic::Named(_) => {
                let made = self.users.get_or_init(|| Publisher::start(&self.config, "kafka-producer-u"));
                made.as_ref().map_err(Clone::clone)
            }
            _ => Ok(&self.own),
        }
    }

    async fn ready(&self, topic: &Topic, wait: Duration) -> Result<(), BusError> {
        self.publisher(topic)?.ready(wait).await
    }
}

#[async_trait]
impl Bus for KafkaBus {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        if let Some(large) = records.iter().map(Outgoing::size).find(|size| *size > MAX_RECORD_BYTES) {
            return Ack::ready(Err(AppendError::TooLarge { bytes: large }));
        }
        match self.publisher(topic) {
            Ok(publisher) => publisher.append(&self.names.of(topic), partition, records),
            Err(error) => Ack::ready(Err(AppendError::NotSent { why: error.to_string() })),
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(KafkaReader::start(&self.config, Arc::clone(&self.names))?))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        self.topics.offsets(topic, partition).await
    }

    async fn bounds(&self, topic: &Topic, partitions: &[u32], within: Duration) -> BTreeMap<u32, Range<u64>> {
        self.topics.bounds(topic, partitions, within).await
    }

    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        self.topics.partitions(topic).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        self.topics.ensure(topics).await?;
        for spec in topics {
            self.ready(&spec.topic, self.config.request_timeout).await?;
        }
        Ok(())
    }

    async fn health(&self) -> Result<(), BusError> {
        self.own.ready(self.config.request_timeout).await?;
        self.topics.partitions(&Topic::Commands).await.map(drop)
    }
}
