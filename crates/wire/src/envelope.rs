//! The value of every record on every topic.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;

use crate::v1;

/// Names a cluster; records, logs and directories of another one are refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// The id that a name stands for: the first half of its hash.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(name.as_bytes()).to_be_bytes())
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClusterId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes()))
    }
}

/// The newest envelope that is understood here.
const VERSION: u32 = 1;

/// Why a record is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not an envelope.
    #[error("the record is no envelope")]
    Malformed,
    /// Written by a newer version.
    #[error("envelope version {found} is newer than {VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Of another cluster.
    #[error("the record belongs to another cluster")]
    ForeignCluster,
    /// The bytes are not those that were written.
    #[error("the record's checksum is wrong")]
    BadChecksum,
}

/// A record that may be read.
#[derive(Clone, Debug)]
pub struct Opened {
    /// What its body is.
    pub kind: v1::RecordKind,
    /// The shard it speaks of.
    pub shard: u32,
    /// A slice of the record: nothing is copied.
    pub body: Bytes,
}

/// Wraps a body.
#[must_use]
pub fn seal(cluster: ClusterId, kind: v1::RecordKind, shard: u32, body: Bytes) -> Bytes {
    let checksum = checksum(cluster, kind as i32, shard, &body);
    let envelope = v1::Envelope {
        version: VERSION,
        cluster: Bytes::copy_from_slice(&cluster.0),
        kind: kind as i32,
        shard,
        namespace: String::new(),
        trace: None,
        body,
        checksum,
    };
    Bytes::from(envelope.encode_to_vec())
}

/// Opens a record of `cluster`.
///
/// # Errors
/// Why it must not be read.
pub fn open(record: &Bytes, cluster: ClusterId) -> Result<Opened, EnvelopeError> {
    let envelope = v1::Envelope::decode(record.clone()).map_err(|_| EnvelopeError::Malformed)?;
    if envelope.version > VERSION {
        return Err(EnvelopeError::Newer { found: envelope.version });
    }
    if envelope.version == 0 {
        return Err(EnvelopeError::Malformed);
    }
    if envelope.cluster[..] != cluster.0 {
        return Err(EnvelopeError::ForeignCluster);
    }
    if envelope.checksum != checksum(cluster, envelope.kind, envelope.shard, &envelope.body) {
        return Err(EnvelopeError::BadChecksum);
    }
    let kind = v1::RecordKind::try_from(envelope.kind).unwrap_or_default();
    Ok(Opened { kind, shard: envelope.shard, body: envelope.body })
}

/// What protocol rule 3 calls the checksum of a record: over all of its bytes.
#[must_use]
pub fn record_checksum(record: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(record)
}

fn checksum(cluster: ClusterId, kind: i32, shard: u32, body: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&cluster.0);
    hasher.update(&kind.to_le_bytes());
    hasher.update(&shard.to_le_bytes());
    hasher.update(body);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{ClusterId, EnvelopeError, open, seal};
    use crate::v1::RecordKind;

    #[test]
    fn what_was_sealed_opens_only_at_home_and_whole() {
        let home = ClusterId::of_name("home");
        let record = seal(home, RecordKind::Commands, 3, Bytes::from_static(b"body"));
        let opened = open(&record, home).expect("it was sealed here");
        assert_eq!((opened.kind, opened.shard, &opened.body[..]), (RecordKind::Commands, 3, &b"body"[..]));
        assert_eq!(open(&record, ClusterId::of_name("away")).unwrap_err(), EnvelopeError::ForeignCluster);
        for at in 0..record.len() {
            let mut flipped = record.to_vec();
            flipped[at] ^= 1;
            assert!(open(&Bytes::from(flipped), home).is_err(), "byte {at} is not covered");
        }
    }
}
