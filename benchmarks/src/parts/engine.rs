//! Steps of the engine, and an entry as the coordinator applies it.

use std::hint::black_box;

use bytes::Bytes;
use nova_engine::input::Entry;
use nova_engine::output::Verdict;
use nova_wire::v1;
use prost::Message;

use super::{Part, Work};
use crate::shard::Shard;

/// Entries of one run, where each holds one command.
const STEPS: usize = 256;
/// Commands of one entry.
const BATCH: usize = 512;
/// Workers of the run that chooses among many.
const WORKERS: u32 = 1_000;

pub(super) const PARTS: [Part; 5] = [
    Part {
        name: "engine-submit",
        per: "entry",
        operations: STEPS as u64,
        prepare: || Box::new(Steps::new(Of::Submissions, 1)),
    },
    Part {
        name: "engine-result",
        per: "entry",
        operations: STEPS as u64,
        prepare: || Box::new(Steps::new(Of::Results, 1)),
    },
    Part {
        name: "placement",
        per: "task",
        operations: STEPS as u64,
        prepare: || Box::new(Steps::new(Of::Submissions, WORKERS)),
    },
    Part {
        name: "batch-apply-submit",
        per: "command",
        operations: BATCH as u64,
        prepare: || Box::new(Batch::new(Of::Submissions)),
    },
    Part {
        name: "batch-apply-result",
        per: "command",
        operations: BATCH as u64,
        prepare: || Box::new(Batch::new(Of::Results)),
    },
];

/// What the entries hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The first half of an execution of one task: accepted, its task given to a worker.
    Submissions,
    /// The second half: the result taken, the execution ended.
    Results,
}

/// The engine alone, one command per entry: what an entry costs beside its commands is in here.
struct Steps {
    shard: Shard,
    of: Of,
    entries: Vec<Entry>,
}

impl Steps {
    fn new(of: Of, workers: u32) -> Self {
        Self { shard: Shard::new(workers, STEPS as u32), of, entries: Vec::new() }
    }
}

impl Work for Steps {
    fn ready(&mut self) {
        self.shard.finish();
        let mut commands = self.shard.submissions(STEPS);
        if self.of == Of::Results {
            let proposal = self.shard.proposal(commands);
            let entry = self.shard.proposed(proposal);
            self.shard.apply(&entry);
            commands = self.shard.results();
        }
        let entry = |command| {
            let proposal = self.shard.proposal(vec![command]);
            self.shard.proposed(proposal)
        };
        self.entries = commands.into_iter().map(entry).collect();
        assert_eq!(self.entries.len(), STEPS);
    }

    fn run(&mut self) {
        for entry in &self.entries {
            black_box(self.shard.apply(entry));
        }
    }
}

/// An entry as the coordinator applies it: its bytes are decoded, applied, and the verdict is encoded.
struct Batch {
    shard: Shard,
    of: Of,
    index: u64,
    entry: Bytes,
    verdict: Bytes,
}

impl Batch {
    fn new(of: Of) -> Self {
        Self { shard: Shard::new(1, BATCH as u32), of, index: 0, entry: Bytes::new(), verdict: Bytes::new() }
    }
}

impl Work for Batch {
    fn ready(&mut self) {
        self.shard.finish();
        let mut commands = self.shard.submissions(BATCH);
        if self.of == Of::Results {
            let proposal = self.shard.proposal(commands);
            let entry = self.shard.proposed(proposal);
            self.shard.apply(&entry);
            commands = self.shard.results();
        }
        assert_eq!(commands.len(), BATCH);
        let proposal = self.shard.proposal(commands);
        self.entry = Shard::log_entry(proposal).encode_to_vec().into();
        self.index = self.shard.next_index();
    }

    fn run(&mut self) {
        let entry = v1::LogEntry::decode(self.entry.clone()).expect("it was encoded");
        let mut verdicts = Vec::with_capacity(entry.bodies.len());
        for body in entry.bodies {
            let body = nova_wire::entry_body_from_wire(body).expect("it was made here");
            let now = nova_engine::ids::TimeMs(entry.now_ms);
            let entry = Entry { now, index: self.index, term: 1, body };
            let verdict: Verdict = self.shard.apply(&entry);
            verdicts.push(nova_wire::verdict_to_wire(&verdict));
        }
        self.verdict = v1::Verdicts { verdicts }.encode_to_vec().into();
    }
}
