//! Codecs: a record of commands, an entry, messages of the outbox.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use nova_engine::output::Message as OutboxMessage;
use nova_wire::{ClusterId, v1};
use prost::Message;

use super::{Part, Work, plain};
use crate::shard::Shard;

/// Commands of one record, which is a proposal and an entry alone.
const BATCH: usize = 512;
/// Messages that an execution of one task leaves until its task is given away: the reply, events, the assignment.
const MESSAGES: usize = 3 * BATCH;

pub(super) const PARTS: [Part; 5] = [
    Part { name: "record-encode", per: "command", operations: BATCH as u64, prepare: record_encode },
    Part { name: "record-open", per: "command", operations: BATCH as u64, prepare: record_open },
    Part { name: "entry-encode", per: "command", operations: BATCH as u64, prepare: entry_encode },
    Part { name: "entry-decode", per: "command", operations: BATCH as u64, prepare: entry_decode },
    Part { name: "outbox-encode", per: "message", operations: MESSAGES as u64, prepare: outbox_encode },
];

fn shard() -> Shard {
    Shard::new(1, BATCH as u32)
}

fn seal(cluster: ClusterId, batch: &v1::CommandBatch) -> Bytes {
    nova_wire::seal(cluster, v1::RecordKind::Commands, 0, batch.encode_to_vec().into())
}

/// As the api writes submissions to the bus.
fn record_encode() -> Box<dyn Work> {
    let cluster = ClusterId::of_name("bench");
    let batch = v1::CommandBatch { commands: shard().submissions(BATCH) };
    plain(move || {
        black_box(seal(cluster, black_box(&batch)));
    })
}

/// As the scheduler takes a record: its checksum, the envelope, whether its commands can be read.
fn record_open() -> Box<dyn Work> {
    let cluster = ClusterId::of_name("bench");
    let record = seal(cluster, &v1::CommandBatch { commands: shard().submissions(BATCH) });
    plain(move || {
        black_box(nova_wire::record_checksum(&record));
        let opened = nova_wire::open(black_box(&record), cluster).expect("it was sealed here");
        let commands = nova_wire::commands_from_wire(opened.body).expect("they were encoded");
        assert_eq!(black_box(commands).len(), BATCH);
    })
}

/// As the coordinator makes an entry of a proposal, which it checks before.
fn entry_encode() -> Box<dyn Work> {
    struct Encode {
        proposal: v1::Proposal,
        bodies: Vec<v1::EntryBody>,
        entry: Vec<u8>,
    }
    impl Work for Encode {
        fn ready(&mut self) {
            self.bodies = Shard::log_entry(self.proposal.clone()).bodies;
        }

        fn run(&mut self) {
            let mut bodies = std::mem::take(&mut self.bodies);
            let unreadable = nova_wire::check_entry_body(&mut bodies[0]).expect("it was made here");
            assert_eq!(unreadable, 0);
            self.entry = v1::LogEntry { version: 1, now_ms: 1_000, bodies, shards: 1 }.encode_to_vec();
        }
    }
    let mut shard = shard();
    let commands = shard.submissions(BATCH);
    Box::new(Encode { proposal: shard.proposal(commands), bodies: Vec::new(), entry: Vec::new() })
}

/// As every member reads an entry before it is applied.
fn entry_decode() -> Box<dyn Work> {
    let mut shard = shard();
    let commands = shard.submissions(BATCH);
    let entry = Bytes::from(Shard::log_entry(shard.proposal(commands)).encode_to_vec());
    plain(move || {
        let mut entry = v1::LogEntry::decode(black_box(&entry).clone()).expect("it was encoded");
        let body = entry.bodies.pop().expect("it has one");
        black_box(nova_wire::entry_body_from_wire(body).expect("it was made here"));
    })
}

/// As the coordinator hands what it committed to the scheduler.
fn outbox_encode() -> Box<dyn Work> {
    let mut shard = shard();
    let commands = shard.submissions(BATCH);
    let proposal = shard.proposal(commands);
    let entry = shard.proposed(proposal);
    shard.apply(&entry);
    let messages: Vec<Arc<OutboxMessage>> = shard.news();
    assert_eq!(messages.len(), MESSAGES);
    plain(move || {
        for message in black_box(&messages) {
            black_box(nova_wire::message_to_wire(message).encode_to_vec());
        }
    })
}
