//! One shard with one worker and a workflow of one task.

use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, ShardId, TimeMs};
use nova_engine::input::{
    Command, Dedupe, Entry, EntryBody, LeaseRef, Proposal, PutWorkflow, Record, Register, Submit, TaskOutcome,
    TaskResult,
};
use nova_engine::output::{MessageBody, Verdict};
use nova_engine::payload::Payload;
use nova_engine::{Config, State};

const SHARD: ShardId = ShardId(0);
const NOOP: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: noop }, spec: { do: [ { id: a, type: task, kind: noop } ] } }";

pub struct Shard {
    state: State,
    index: u64,
    offset: u64,
    submitted: u64,
    seen: Seq,
}

impl Shard {
    pub fn new() -> Self {
        let mut shard =
            Self { state: State::new(Config { shards: 1 }), index: 0, offset: 0, submitted: 0, seen: Seq(0) };
        shard.apply(EntryBody::Grant { shard: SHARD, after: Epoch(0), owner: OwnerId(1) });
        let document = nova_model::parse(NOOP.as_bytes(), "noop", nova_model::Format::Yaml).unwrap();
        let compiled = nova_model::compile(&document).unwrap();
        shard.apply(EntryBody::PutWorkflow(PutWorkflow {
            namespace: "default".into(),
            name: "noop".into(),
            hash: [7; 32],
            program: Arc::new(compiled.program),
            document: Bytes::from_static(b"{}"),
        }));
        shard.apply(EntryBody::Register(Register {
            name: "one".into(),
            pool: "default".into(),
            kinds: vec!["noop".into()],
            labels: vec![],
            capacity: 100_000,
            boot: 1,
            last_session: SessionId(0),
            fenced: false,
            inboxes: 1,
        }));
        shard
    }

    pub fn apply(&mut self, body: EntryBody) -> Verdict {
        self.index += 1;
        let entry = Entry { now: TimeMs(1_000), index: self.index, term: 1, body };
        let verdict = self.state.apply(&entry);
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
        verdict
    }

    /// An entry with so many submissions.
    pub fn submissions(&mut self, count: usize) -> EntryBody {
        let submit = |shard: &mut Self| {
            shard.submitted += 1;
            Command::Submit(Submit {
                execution: ExecutionId::new(SHARD, 1_000, shard.submitted),
                namespace: "default".into(),
                workflow: "noop".into(),
                version: 1,
                hash: [7; 32],
                input: Payload::Inline(Bytes::from_static(b"{}")),
                content_hash: [1; 32],
                dedupe: Dedupe::None,
                reply_to: None,
                reply_at_end: false,
                started_by: "bench".into(),
                labels: vec![],
                trace: None,
            })
        };
        let commands = (0..count).map(|_| submit(self)).collect();
        self.proposal(commands)
    }

    /// An entry with the results of all that was assigned since.
    pub fn results(&mut self) -> EntryBody {
        let news: Vec<_> = self.state.outbox(SHARD, self.seen, usize::MAX).cloned().collect();
        self.seen = news.last().map_or(self.seen, |last| last.seq);
        let lease = |message: &Arc<nova_engine::output::Message>| match &message.body {
            MessageBody::Assign(assignment) => Some(assignment.lease),
            _ => None,
        };
        let result = |lease: LeaseRef| {
            let output = Payload::Inline(Bytes::from_static(b"null"));
            Command::Result(TaskResult { lease, outcome: TaskOutcome::Completed(output) })
        };
        let commands = news.iter().filter_map(lease).map(result).collect();
        self.proposal(commands)
    }

    /// All of it in one record; what was read of the outbox is acknowledged.
    fn proposal(&mut self, commands: Vec<Command>) -> EntryBody {
        let first = self.offset;
        self.offset += 1;
        let record = Record { offset: Offset(first), checksum: first + 1, commands };
        EntryBody::Propose(Proposal {
            shard: SHARD,
            epoch: Epoch(1),
            first_offset: Offset(first),
            next_offset: Offset(first + 1),
            before: first,
            records: vec![record],
            locals: vec![],
            outbox_acked: self.seen,
        })
    }
}
