//! What is noted of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An execution.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub [u8; 16]);

impl Id {
    /// None when it has another length.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 32 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())?.map(|id| Self(id.to_be_bytes()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("'{text}' is no execution"))
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A run. Times are nanoseconds of one clock.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Name of the cluster.
    pub cluster: String,
    /// What clients asked for.
    pub operations: Vec<Operation>,
    /// What workers did.
    pub effects: Vec<Effect>,
    /// All that is in the topics, in order from the first offset on.
    pub topics: BTreeMap<Place, Vec<Bytes>>,
    /// Where schedules and topics of users are the cause of executions.
    pub sources: Vec<Source>,
    /// Members, as they are at the end.
    pub members: Vec<Member>,
    /// Shards, as they are at the end.
    pub shards: Vec<Shard>,
    /// Logs of members, where they were read.
    pub logs: Vec<Log>,
}

/// The log of a member, as its files hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// For people.
    pub member: String,
    /// All entries that it applied and has not dropped, in order.
    pub entries: Vec<Entry>,
}

/// An entry of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub index: u64,
    /// Term in which it was proposed.
    pub term: u64,
    /// Who led in that term.
    pub leader: u64,
    /// Checksum of what it says.
    pub crc: u32,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Which topic.
    pub topic: Topic,
    /// Partition.
    pub partition: u32,
}

/// Topics that tell what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Topic {
    /// Commands; partition n is shard n.
    Commands,
    /// Assignments and revocations.
    Tasks,
    /// Answers.
    Replies,
    /// Events.
    Events,
}

/// Something that a client asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Operation {
    /// When.
    pub begun_ns: u64,
    /// And when it was answered, or given up.
    pub ended_ns: u64,
    /// What.
    pub kind: Kind,
    /// What it came to.
    pub answer: Answer,
}

/// What a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// An execution.
    Submit(Submission),
    /// That an execution ends.
    Cancel(Id),
    /// That a number is added to the set that is read.
    Add(u64),
    /// The set.
    Read,
    /// A proposal for a shard in an epoch that is over; `Added` when it was taken.
    OldEpoch(u32, u64),
}

/// A submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// The id that the client made.
    pub id: Id,
    /// Tenant and idempotency key.
    pub key: Option<(String, String)>,
    /// Workflow and input; equal texts are the same submission.
    pub content: String,
    /// What the execution has to come to.
    pub expected: Value,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Committed; this execution it is.
    Accepted {
        /// Which.
        id: Id,
        /// The key was known.
        repeated: bool,
    },
    /// Refused: nothing was changed.
    Rejected {
        /// Why.
        why: String,
        /// The key was used with another content.
        conflict: bool,
    },
    /// A cancel was committed.
    Cancelling,
    /// A number was added.
    Added,
    /// All numbers that are in the set.
    There(BTreeSet<u64>),
    /// Certainly not handed over.
    NotSent,
    /// Nobody knows.
    Unknown,
}

/// An attempt, as the one who carried it out noted it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Effect {
    /// The same for all attempts of one visit of a node.
    pub key: String,
    /// Execution.
    pub execution: Id,
    /// From 1.
    pub attempt: u32,
    /// The token of its lease.
    pub token: u64,
    /// Which process.
    pub process: String,
    /// From.
    pub begun_ns: u64,
    /// When it did something last. One that was dropped, or whose process is dead or stands still, does nothing.
    pub ended_ns: u64,
}

/// A cause of executions besides clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// Its name in commands.
    pub name: String,
    /// Its numbers.
    pub numbers: Numbers,
}

/// Numbers of a source, and what the execution of each has to come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Numbers {
    /// These and no others.
    These(BTreeMap<u64, Value>),
    /// Multiples of a step, without a gap between the first and the last that are there.
    Every {
        /// Between two of them.
        step: u64,
        /// Fewer than so many cannot be.
        least: u64,
        /// What the execution of each has to come to.
        expected: Value,
    },
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// For people.
    pub name: String,
    /// Last entry that it applied.
    pub applied: u64,
    /// Hash of its state then.
    pub state_hash: u64,
}

/// A shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which.
    pub shard: u32,
    /// Commands below are applied.
    pub next_offset: u64,
    /// Last message of its outbox.
    pub outbox_last: u64,
    /// Messages up to here are durable.
    pub outbox_acked: u64,
    /// Executions that have not ended.
    pub open: u64,
}
