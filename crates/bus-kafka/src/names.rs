//! What topics are called on the brokers, and how many partitions they are known to have.

use std::collections::HashMap;
use std::sync::Arc;

use nova_bus::Topic;
use parking_lot::RwLock;

pub(crate) struct Names {
    prefix: String,
    all: RwLock<HashMap<Topic, Known>>,
}

struct Known {
    name: Arc<str>,
    partitions: Option<u32>,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), all: RwLock::default() }
    }

    /// Its name on the brokers.
    pub(crate) fn of(&self, topic: &Topic) -> Arc<str> {
        if let Some(known) = self.all.read().get(topic) {
            return Arc::clone(&known.name);
        }
        let name: Arc<str> = match topic {
            Topic::Named(name) => Arc::clone(name),
            own => format!("{}{}", self.prefix, own.name()).into(),
        };
        let known = Known { name: Arc::clone(&name), partitions: None };
        Arc::clone(&self.all.write().entry(topic.clone()).or_insert(known).name)
    }

    /// Partitions, if a broker has told lately.
    pub(crate) fn known_partitions(&self, topic: &Topic) -> Option<u32> {
        self.all.read().get(topic)?.partitions
    }

    pub(crate) fn learn(&self, topic: &Topic, partitions: Option<u32>) {
        self.of(topic);
        if let Some(known) = self.all.write().get_mut(topic) {
            known.partitions = partitions;
        }
    }
}
