//! The log: what the CPU does for an append. Waiting for the disk counts no instruction.

use std::hint::black_box;

use bytes::Bytes;
use nova_journal::{Journal, Options};
use nova_wire::raft_v1 as v1;
use prost::Message;

use super::{Part, Work, plain};

/// Entries of one append.
const ENTRIES: u64 = 16;
/// Bytes of each.
const ENTRY_BYTES: usize = 8 << 10;

pub(super) const PARTS: [Part; 1] = [Part { name: "log-append", per: "entry", operations: ENTRIES, prepare: append }];

/// As the log in files does it: entries become a frame, which is written and synced.
fn append() -> Box<dyn Work> {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { magic: *b"NOVABNCH", cluster: [1; 16], segment_bytes: 64 << 20 };
    let mut journal = Journal::open(dir.path(), options, |_, _, _| {}).expect("it is empty");
    let command = Bytes::from(vec![7; ENTRY_BYTES]);
    let mut index = 0;
    plain(move || {
        let _kept = &dir;
        let entry = |_| {
            index += 1;
            let payload = v1::entry::Payload::Command(black_box(&command).clone());
            v1::Entry { id: Some(v1::LogId { term: 1, node: 1, index }), payload: Some(payload) }
        };
        let entries = v1::log_operation::Entries { entries: (0..ENTRIES).map(entry).collect() };
        let append = v1::LogOperation { kind: Some(v1::log_operation::Kind::Append(entries)) };
        let frame = v1::LogFrame { operations: vec![append] };
        journal.commit(&[frame.encode_to_vec().into()]).expect("the disk has room");
    })
}
