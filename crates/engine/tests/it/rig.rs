//! A rig around the engine: one shard, its log, and what came out.

use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, ShardId, TimeMs, Token, WorkerId};
use nova_engine::input::{
    Command, Dedupe, Entry, EntryBody, LeaseRef, Local, LocalOutcome, Proposal, PutWorkflow, Record, Register, ReplyTo,
    Submit, TaskOutcome, TaskResult,
};
use nova_engine::output::{Assignment, Message, MessageBody, Offer, Verdict};
use nova_engine::payload::{Failure, Payload};
use nova_engine::{Config, State};
use nova_program::Program;

pub const SHARD: ShardId = ShardId(0);

pub struct Rig {
    pub state: State,
    pub log: Vec<Entry>,
    pub now: u64,
    pub epoch: Epoch,
    pub offset: u64,
    pub sent: Vec<Command>,
    pub seen: Seq,
    pub submitted: u64,
}

pub fn json(text: &str) -> Payload {
    Payload::Inline(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn failure(code: &str, retryable: bool) -> Failure {
    Failure {
        code: code.into(),
        message: "planned".into(),
        retryable,
        retry_after_ms: None,
        detail: None,
        node: "".into(),
    }
}

/// A submission of the workflow `w` that wants to hear of its start and end.
pub fn submission(execution: ExecutionId, request: u64) -> Submit {
    Submit {
        execution,
        namespace: "default".into(),
        workflow: "w".into(),
        version: 1,
        hash: [7; 32],
        input: json("{}"),
        content_hash: [1; 32],
        dedupe: Dedupe::None,
        reply_to: Some(ReplyTo { inbox: 0, boot: 1, request }),
        reply_at_end: true,
        started_by: "test".into(),
        labels: vec![],
        trace: None,
    }
}

impl Rig {
    /// A shard with an owner and the workflow `w`, version 1.
    pub fn new(program: Program) -> Self {
        let mut rig = Self {
            state: State::new(Config { shards: 2 }),
            log: Vec::new(),
            now: 1_000,
            epoch: Epoch(0),
            offset: 0,
            sent: Vec::new(),
            seen: Seq(0),
            submitted: 0,
        };
        rig.grant(1);
        rig.put("default", "w", [7; 32], program);
        rig
    }

    /// A version of a workflow.
    pub fn put(&mut self, namespace: &str, name: &str, hash: [u8; 32], program: Program) {
        let verdict = self.entry(EntryBody::PutWorkflow(PutWorkflow {
            namespace: namespace.into(),
            name: name.into(),
            hash,
            program: Arc::new(program),
            document: Bytes::from_static(b"{}"),
        }));
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    }

    pub fn entry(&mut self, body: EntryBody) -> Verdict {
        let entry = Entry { now: TimeMs(self.now), index: self.log.len() as u64 + 1, term: 1, body };
        let verdict = self.state.apply(&entry);
        self.log.push(entry);
        verdict
    }

    pub fn grant(&mut self, owner: u64) {
        let verdict = self.entry(EntryBody::Grant { shard: SHARD, after: self.epoch, owner: OwnerId(owner) });
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
        self.epoch.0 += 1;
    }

    pub fn proposal(&self, commands: Vec<Command>) -> Proposal {
        let first = self.offset;
        let records: Vec<_> = commands
            .into_iter()
            .enumerate()
            .map(|(i, command)| {
                let offset = Offset(first + i as u64);
                Record { offset, checksum: checksum(offset.0), commands: vec![command] }
            })
            .collect();
        Proposal {
            shard: SHARD,
            epoch: self.epoch,
            first_offset: Offset(first),
            next_offset: Offset(first + records.len() as u64),
            before: if first == 0 { 0 } else { checksum(first - 1) },
            records,
            locals: Vec::new(),
            outbox_acked: Seq(0),
        }
    }

    /// Commands of one proposal, in order.
    pub fn commands(&mut self, commands: Vec<Command>) -> Verdict {
        let proposal = self.proposal(commands.clone());
        self.offset = proposal.next_offset.0;
        self.sent.extend(commands);
        self.entry(EntryBody::Propose(proposal))
    }

    pub fn locals(&mut self, locals: Vec<Local>) -> Verdict {
        let proposal = Proposal { locals, ..self.proposal(vec![]) };
        self.entry(EntryBody::Propose(proposal))
    }

    pub fn advance(&mut self, ms: u64) {
        self.now += ms;
        self.entry(EntryBody::Tick);
    }

    pub fn register(&mut self, name: &str, capacity: u32, last: u64) -> (WorkerId, SessionId) {
        let verdict = self.entry(EntryBody::Register(registration(name, capacity, last)));
        match verdict {
            Verdict::Applied(nova_engine::output::Applied::Registered(it)) => (it.worker, it.session),
            other => panic!("{other:?}"),
        }
    }

    pub fn submit(&mut self) -> ExecutionId {
        let submit = self.submission();
        let id = submit.execution;
        self.commands(vec![Command::Submit(submit)]);
        id
    }

    pub fn submission(&mut self) -> Submit {
        self.submitted += 1;
        submission(ExecutionId::new(SHARD, self.now, self.submitted), self.submitted)
    }

    /// Messages that nobody has looked at.
    pub fn news(&mut self) -> Vec<Arc<Message>> {
        let news: Vec<_> = self.state.outbox(SHARD, self.seen, usize::MAX).cloned().collect();
        if let Some(last) = news.last() {
            self.seen = last.seq;
        }
        news
    }

    pub fn assignments(&mut self) -> Vec<Assignment> {
        let assignments = self.news().into_iter().filter_map(|message| match &message.body {
            MessageBody::Assign(assignment) => Some(assignment.clone()),
            _ => None,
        });
        assignments.collect()
    }

    pub fn offers(&self) -> Vec<Offer> {
        self.state.offers(SHARD, Token(0), usize::MAX)
    }

    pub fn complete(&mut self, lease: LeaseRef) -> Verdict {
        self.commands(vec![completed(lease)])
    }

    pub fn fail(&mut self, lease: LeaseRef, code: &str, retryable: bool) -> Verdict {
        let outcome = TaskOutcome::Failed(failure(code, retryable));
        self.commands(vec![Command::Result(TaskResult { lease, outcome })])
    }

    pub fn answer(&mut self, offer: &Offer, outcome: LocalOutcome) -> Verdict {
        self.locals(vec![Local { execution: offer.execution, token: offer.token, outcome }])
    }
}

pub fn completed(lease: LeaseRef) -> Command {
    Command::Result(TaskResult { lease, outcome: TaskOutcome::Completed(json("1")) })
}

pub fn checksum(offset: u64) -> u64 {
    offset.wrapping_mul(31) + 17
}

pub fn registration(name: &str, capacity: u32, last: u64) -> Register {
    Register {
        name: name.into(),
        pool: "default".into(),
        kinds: vec!["noop".into(), "http".into()],
        labels: vec![],
        capacity,
        boot: 1,
        last_session: SessionId(last),
        fenced: false,
        inboxes: 4,
    }
}
