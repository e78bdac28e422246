//! What comes over the bus and the network.

use bytes::Bytes;
use nova_engine::ids::TimeMs;
use nova_engine::input::Entry;
use nova_engine::{Config, State};
use nova_wire::v1::{self, RecordKind};
use nova_wire::{ClusterId, check_entry_body, commands_from_wire, entry_body_from_wire, message_from_wire, open, seal};
use prost::Message;

use crate::{byte, short, take};

/// Entries of one run of the engine.
const ENTRIES: usize = 64;

/// A record of the bus: what opens was sealed with just this, and a sealed record that was changed does not open.
pub fn envelope(mut bytes: &[u8]) {
    let cluster = ClusterId::of_name("nova");
    let record = Bytes::copy_from_slice(bytes);
    if let Ok(opened) = open(&record, cluster) {
        let again = open(&seal(cluster, opened.kind, opened.shard, opened.body.clone()), cluster);
        let again = again.expect("what was sealed opens");
        // A kind that is not known here is read as none.
        assert!(again.body == opened.body && again.shard == opened.shard && again.kind == opened.kind);
    }
    let (kind, shard, at, bit) = (byte(&mut bytes), short(&mut bytes), short(&mut bytes), byte(&mut bytes));
    let kind = RecordKind::try_from(i32::from(kind % 4)).unwrap_or_default();
    let body = Bytes::copy_from_slice(bytes);
    let sealed = seal(cluster, kind, u32::from(shard), body.clone());
    let opened = open(&sealed, cluster).expect("what was sealed opens");
    assert!(opened.kind == kind && opened.shard == u32::from(shard) && opened.body == body);
    let mut changed = sealed.to_vec();
    let at = usize::from(at) % changed.len();
    changed[at] ^= 1 << (bit % 8);
    if let Ok(opened) = open(&changed.into(), cluster) {
        // Bytes that say nothing may change: what is read is what was sealed.
        assert!(opened.kind == kind && opened.shard == u32::from(shard) && opened.body == body);
    }
}

/// The commands of a record: the same bytes say the same.
pub fn commands(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let (first, second) = (commands_from_wire(bytes.clone()), commands_from_wire(bytes));
    assert!(first == second);
}

/// Requests to the replicated state, applied one after the other: what was let into the log can be read by every member, two
/// members come to the same, and a snapshot in the middle changes nothing.
///
/// The bytes are the bodies of entries, each behind its length.
pub fn entry(mut bytes: &[u8]) {
    let (mut one, mut other) = (State::new(Config { shards: 2 }), State::new(Config { shards: 2 }));
    for index in 1..=ENTRIES as u64 {
        if bytes.is_empty() {
            break;
        }
        let (length, seconds) = (short(&mut bytes), byte(&mut bytes));
        let Ok(mut body) = v1::EntryBody::decode(take(&mut bytes, usize::from(length))) else { continue };
        if check_entry_body(&mut body).is_err() {
            continue;
        }
        let body = Bytes::from(body.encode_to_vec());
        let body = v1::EntryBody::decode(body).expect("it was just written");
        let body = entry_body_from_wire(body).expect("it was checked before it came into the log");
        let entry = Entry { now: TimeMs(one.now.0 + u64::from(seconds) * 1_000), index, term: 1, body };
        let verdicts = (one.apply(&entry), other.apply(&entry));
        assert!(verdicts.0 == verdicts.1, "{verdicts:?}");
        let _ = nova_wire::verdict_to_wire(&verdicts.0);
        if index % 8 == 0 {
            other = again(&other);
        }
    }
    assert!(one == other, "two members differ");
    assert!(again(&one) == one, "a snapshot is not what was written");
}

/// A state, written and read.
pub(crate) fn again(state: &State) -> State {
    let mut written = Vec::new();
    nova_wire::write_snapshot(state, &mut written).expect("a vector takes it");
    nova_wire::read_snapshot(&mut &written[..]).expect("it was just written")
}

/// A message of the outbox: what is read is written and read as the same.
pub fn outbox(bytes: &[u8]) {
    let Ok(batch) = v1::OutboxBatch::decode(Bytes::copy_from_slice(bytes)) else { return };
    for message in batch.messages {
        let Ok(message) = message_from_wire(message) else { continue };
        let again = message_from_wire(nova_wire::message_to_wire(&message));
        assert!(again.as_ref() == Ok(&message), "{message:?} is read as {again:?}");
    }
}
