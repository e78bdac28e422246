//! One shard of the engine with workers and a workflow of one task.

use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, OwnerId, Seq, SessionId, ShardId, TimeMs};
use nova_engine::input::{Entry, EntryBody, PutWorkflow, Register};
use nova_engine::output::{Message, MessageBody, Verdict};
use nova_engine::{Config, State};
use nova_wire::v1;
use prost::Message as _;

const SHARD: ShardId = ShardId(0);
const NOW_MS: u64 = 1_000;
const NOOP: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: noop }, spec: { do: [ { id: a, type: task, kind: noop } ] } }";

/// A state and the place in the log where it stands. Entries must be applied in the order in which they were made.
pub struct Shard {
    state: State,
    index: u64,
    offset: u64,
    submitted: u64,
    seen: Seq,
}

impl Shard {
    /// With so many workers, each of so many slots.
    #[must_use]
    pub fn new(workers: u32, slots: u32) -> Self {
        let state = State::new(Config { shards: 1 });
        let mut shard = Self { state, index: 0, offset: 0, submitted: 0, seen: Seq(0) };
        let document = nova_model::parse(NOOP.as_bytes(), "noop", nova_model::Format::Yaml);
        let compiled = document.and_then(|document| nova_model::compile(&document));
        let workflow = PutWorkflow {
            namespace: "default".into(),
            name: "noop".into(),
            hash: [7; 32],
            program: Arc::new(compiled.expect("it is valid").program),
            document: Bytes::from_static(b"{}"),
        };
        let worker = |n: u32| Register {
            name: format!("worker-{n}").into(),
            pool: "default".into(),
            kinds: vec!["noop".into()],
            labels: vec![],
            capacity: slots,
            boot: 1,
            last_session: SessionId(0),
            fenced: false,
            inboxes: workers,
        };
        let grant = EntryBody::Grant { shard: SHARD, after: Epoch(0), owner: OwnerId(1) };
        let registers = (0..workers).map(|n| EntryBody::Register(worker(n)));
        for body in [grant, EntryBody::PutWorkflow(workflow)].into_iter().chain(registers) {
            let entry = shard.entry(body);
            shard.apply(&entry);
        }
        shard
    }

    /// The state as it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where the next entry will stand.
    pub fn next_index(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    /// The next entry of the log.
    pub fn entry(&mut self, body: EntryBody) -> Entry {
        Entry { now: TimeMs(NOW_MS), index: self.next_index(), term: 1, body }
    }

    /// The next entry, of one proposal.
    ///
    /// # Panics
    /// When it is not one that the wire takes.
    pub fn proposed(&mut self, proposal: v1::Proposal) -> Entry {
        let body = v1::EntryBody { kind: Some(v1::entry_body::Kind::Propose(proposal)) };
        self.entry(nova_wire::entry_body_from_wire(body).expect("it was made here"))
    }

    /// Applies an entry.
    ///
    /// # Panics
    /// When it is refused: then nothing would be measured.
    pub fn apply(&mut self, entry: &Entry) -> Verdict {
        let verdict = self.state.apply(entry);
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
        verdict
    }

    /// A submission of the workflow, as the api writes it.
    pub fn submission(&mut self) -> v1::Command {
        self.submitted += 1;
        let submit = v1::Submit {
            execution: nova_wire::execution_bytes(ExecutionId::new(SHARD, NOW_MS, self.submitted)),
            namespace: "default".into(),
            workflow: "noop".into(),
            version: 1,
            hash: vec![7; 32].into(),
            input: Some(inline(b"{\"n\":1}")),
            content_hash: vec![1; 32].into(),
            reply_to: Some(v1::ReplyTo { inbox: 0, boot: 1, request: self.submitted }),
            started_by: "api".into(),
            ..v1::Submit::default()
        };
        v1::Command { kind: Some(v1::command::Kind::Submit(submit)) }
    }

    /// So many submissions.
    pub fn submissions(&mut self, count: usize) -> Vec<v1::Command> {
        (0..count).map(|_| self.submission()).collect()
    }

    /// What came into the outbox since this was asked last; the next proposal acknowledges it.
    pub fn news(&mut self) -> Vec<Arc<Message>> {
        let news: Vec<_> = self.state.outbox(SHARD, self.seen, usize::MAX).cloned().collect();
        self.seen = news.last().map_or(self.seen, |last| last.seq);
        news
    }

    /// The results of all that was assigned since [`Shard::news`] was asked last, as workers write them.
    pub fn results(&mut self) -> Vec<v1::Command> {
        let news = self.news();
        let result = |message: &Arc<Message>| {
            let MessageBody::Assign(assignment) = &message.body else { return None };
            let lease = v1::LeaseRef {
                execution: nova_wire::execution_bytes(assignment.lease.execution),
                token: assignment.lease.token.0,
                worker: assignment.lease.worker.0,
                session: assignment.lease.session.0,
            };
            let outcome = v1::task_result::Outcome::Completed(inline(b"null"));
            let result = v1::TaskResult { lease: Some(lease), outcome: Some(outcome), trace: None };
            Some(v1::Command { kind: Some(v1::command::Kind::Result(result)) })
        };
        news.iter().filter_map(result).collect()
    }

    /// Ends all that was assigned since.
    pub fn finish(&mut self) {
        let results = self.results();
        if !results.is_empty() {
            let proposal = self.proposal(results);
            let entry = self.proposed(proposal);
            self.apply(&entry);
        }
    }

    /// A proposal of these commands in one record; what was read of the outbox is acknowledged.
    pub fn proposal(&mut self, commands: Vec<v1::Command>) -> v1::Proposal {
        let first = self.offset;
        self.offset += 1;
        let commands = v1::CommandBatch { commands }.encode_to_vec().into();
        v1::Proposal {
            shard: u32::from(SHARD.0),
            epoch: 1,
            first_offset: first,
            next_offset: first + 1,
            before: first,
            records: vec![v1::CommandRecord { offset: first, checksum: first + 1, commands }],
            locals: vec![],
            outbox_acked: self.seen.0,
        }
    }

    /// A proposal as the coordinator appends it: an entry of one body.
    #[must_use]
    pub fn log_entry(proposal: v1::Proposal) -> v1::LogEntry {
        let body = v1::EntryBody { kind: Some(v1::entry_body::Kind::Propose(proposal)) };
        v1::LogEntry { version: 1, now_ms: NOW_MS, bodies: vec![body], shards: 1 }
    }
}

fn inline(json: &'static [u8]) -> v1::Payload {
    v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from_static(json))) }
}
