//! Names of things: small numbers, each with a type of its own.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/// One partition of the command topic and the state that belongs to it.
    ShardId(u16));
number!(/// Ownership of a shard: grows by one with each grant.
    Epoch(u64));
number!(/// Position of a record in a shard's command partition.
    Offset(u64));
number!(/// Position of a message in a shard's outbox; gapless, from 1.
    Seq(u64));
number!(/// The right to carry one attempt or one evaluation; only grows within a group.
    Token(u64));
number!(/// A worker, by the name it registered with; never reused.
    WorkerId(u32));
number!(/// One registration of a worker; only grows.
    SessionId(u64));
number!(/// A scheduler process, drawn at random when it starts.
    OwnerId(u64));
number!(/// A scope instance within its execution; 0 is the root. Never reused within an execution.
    ScopeId(u32));
number!(/// Milliseconds since the Unix epoch, as the leader stamped them.
    TimeMs(u64));

/// One run of a workflow version: shard (16 bits), time of submission (48 bits), random (64 bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId(pub u128);

impl ExecutionId {
    /// Puts an id together; `time_ms` is cut to 48 bits.
    #[must_use]
    pub fn new(shard: ShardId, time_ms: u64, random: u64) -> Self {
        Self((u128::from(shard.0) << 112) | (u128::from(time_ms & 0xffff_ffff_ffff) << 64) | u128::from(random))
    }

    /// The shard it lives in.
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 112) as u16)
    }
}

/// 32 lower-case hexadecimal digits.
impl std::fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is not an execution id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadExecutionId;

impl std::fmt::Display for BadExecutionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an execution id is 32 hexadecimal digits")
    }
}

impl std::error::Error for BadExecutionId {}

impl std::str::FromStr for ExecutionId {
    type Err = BadExecutionId;

    fn from_str(text: &str) -> Result<Self, BadExecutionId> {
        let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if !plain {
            return Err(BadExecutionId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| BadExecutionId)
    }
}
