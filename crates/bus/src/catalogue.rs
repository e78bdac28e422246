//! The topics of a cluster and their settings.

use std::fmt;
use std::sync::Arc;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Submit, cancel, task result; partition n is shard n.
    Commands,
    /// Assignments and revocations; a partition is the inbox of at most 8 workers.
    Tasks,
    /// Answers to the apis; one inbox partition per api instance.
    Replies,
    /// What happened; a shard has one of the partitions, and shares it.
    Events,
    /// Records that nobody could read.
    DeadLetter,
    /// A topic of the users.
    Named(Arc<str>),
}

impl Topic {
    /// The topics of every cluster.
    pub const OWN: [Self; 5] = [Self::Commands, Self::Tasks, Self::Replies, Self::Events, Self::DeadLetter];

    /// Whether nobody asks for what was written before a restart: leases and requests end with their processes, and those
    /// who come after begin at the end.
    #[must_use]
    pub const fn is_momentary(&self) -> bool {
        matches!(self, Self::Tasks | Self::Replies)
    }

    /// Whether somebody waits for what is written. Events are read behind all else.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        !matches!(self, Self::Events)
    }

    /// Its name, without prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Commands => "nova.commands.v1",
            Self::Tasks => "nova.tasks.v1",
            Self::Replies => "nova.replies.v1",
            Self::Events => "nova.events.v1",
            Self::DeadLetter => "nova.dead-letter.v1",
            Self::Named(name) => name,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The partition of the event topic that belongs to a shard.
#[must_use]
pub const fn event_partition(shard: u32, partitions: u32) -> u32 {
    shard % partitions
}

/// How many partitions the topics of a cluster have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Shards: partitions of commands. Fixed when the cluster is made.
    pub shards: u32,
    /// Partitions of events. Fixed too; brokers and readers pay for each.
    pub events: u32,
    /// Partitions of the task topic.
    pub inboxes: u32,
    /// Partitions of the reply topic: api instances.
    pub apis: u32,
}

impl Default for Layout {
    fn default() -> Self {
        Self { shards: 24, events: 4, inboxes: 64, apis: 16 }
    }
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Which.
    pub topic: Topic,
    /// Exactly this many: the number of shards never changes.
    pub partitions: u32,
    /// How long records are kept, in milliseconds.
    pub retention_ms: u64,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

impl Layout {
    /// The topics of a cluster.
    #[must_use]
    pub fn topics(self) -> Vec<TopicSpec> {
        let spec = |topic, partitions, days| TopicSpec { topic, partitions, retention_ms: days * DAY_MS };
        vec![
            // A week: longer than any outage of all schedulers that leaves a cluster worth saving.
            spec(Topic::Commands, self.shards, 7),
            // An assignment lives as long as a lease; the rest is for looking back.
            spec(Topic::Tasks, self.inboxes, 1),
            // A reply is worth nothing once its request has timed out.
            spec(Topic::Replies, self.apis, 1),
            // History can be rebuilt from this; a longer history needs a longer retention.
            spec(Topic::Events, self.events, 30),
            spec(Topic::DeadLetter, 1, 30),
        ]
    }
}
