//! S9b: the engine alone, in this process: entries with submissions are applied to a state with many workers, and each of
//! their tasks is given to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, SessionId, ShardId, TimeMs};
use nova_engine::input::{
    Command, Dedupe, Entry, EntryBody, LeaseRef, Proposal, PutWorkflow, Record, Register, Submit,
};
use nova_engine::output::{MessageBody, Verdict};
use nova_engine::payload::Payload;
use nova_engine::{Config, State};

use crate::Error;
use crate::args::{Args, Work};
use crate::report::Figure;
use crate::verify::Verdict as Found;
use crate::workflow::Workflow;

const SHARD: ShardId = ShardId(0);
/// Submissions in one entry: those that the engine leases with it.
const BATCH: u64 = 1_000;
/// Workers that share an inbox.
const PER_INBOX: u32 = 8;

/// What came of it.
pub(crate) struct Placed {
    pub figures: Vec<Figure>,
    pub verdict: Found,
    pub note: String,
}

/// Places tasks as often as is asked for, each time in a new state.
pub(crate) fn run(args: &Args) -> Result<Placed, Error> {
    let (workers, tasks) = (args.workers(), args.tasks.unwrap_or(1_000_000));
    let mut verdict = Found::default();
    let (mut per_second, mut slowest) = (Vec::new(), Vec::new());
    for run in 1..=args.repeat() {
        let mut engine = Engine::new(workers, tasks)?;
        let took = engine.place(tasks)?;
        eprintln!("placed   {tasks} tasks in {:.3} s, run {run}", took.all.as_secs_f64());
        per_second.push(tasks as f64 / took.all.as_secs_f64());
        slowest.push(took.longest.as_secs_f64() * 1e3);
        verdict.add(engine.check(tasks));
    }
    let figures = [
        Figure::of("placements", "tasks/s", per_second),
        Figure::of("the slowest entry of 1,000 submissions", "ms", slowest),
    ];
    let note = format!(
        "{tasks} tasks on {workers} workers: applying entries of {BATCH} submissions of a workflow of one task to the state machine, on one core, in this process. Each submission is accepted, its task given a lease on a worker, and the messages of both made. No log, no network, no scheduler, no worker: the rate at which the leader's state machine alone can place"
    );
    Ok(Placed { figures: figures.into_iter().flatten().collect(), verdict, note })
}

struct Engine {
    state: State,
    index: u64,
    offset: u64,
    submitted: u64,
    seen: Seq,
    capacity: u32,
    leases: BTreeMap<u32, u32>,
    given: u64,
    tokens: BTreeSet<u64>,
    placed: BTreeSet<ExecutionId>,
}

struct Took {
    all: Duration,
    longest: Duration,
}

impl Engine {
    /// With so many workers, which have room for so many tasks together.
    fn new(workers: u32, tasks: u64) -> Result<Self, Error> {
        let capacity = tasks.div_ceil(u64::from(workers)) as u32;
        let mut engine = Self {
            state: State::new(Config { shards: 1 }),
            index: 0,
            offset: 0,
            submitted: 0,
            seen: Seq(0),
            capacity,
            leases: BTreeMap::new(),
            given: 0,
            tokens: BTreeSet::new(),
            placed: BTreeSet::new(),
        };
        engine.apply(EntryBody::Grant { shard: SHARD, after: Epoch(0), owner: OwnerId(1) })?;
        let document = Workflow::chain("s9b", 1, Work::Bare).document;
        let wrong = |why: String| Error::Engine { why };
        let document = nova_model::parse(document.as_bytes(), "s9b", nova_model::Format::Yaml)
            .map_err(|error| wrong(format!("{error:?}")))?;
        let compiled = nova_model::compile(&document).map_err(|error| wrong(format!("{error:?}")))?;
        engine.apply(EntryBody::PutWorkflow(PutWorkflow {
            namespace: "default".into(),
            name: "s9b".into(),
            hash: [7; 32],
            program: Arc::new(compiled.program),
            document: Bytes::from_static(b"{}"),
        }))?;
        for number in 0..workers {
            engine.apply(EntryBody::Register(Register {
                name: format!("worker-{number}").into(),
                pool: "default".into(),
                kinds: vec!["noop".into()],
                labels: vec![],
                capacity,
                boot: u64::from(number) + 1,
                last_session: SessionId(0),
                fenced: false,
                inboxes: workers.div_ceil(PER_INBOX),
            }))?;
        }
        Ok(engine)
    }

    fn apply(&mut self, body: EntryBody) -> Result<Duration, Error> {
        self.index += 1;
        let entry = Entry { now: TimeMs(1_000 + self.index), index: self.index, term: 1, body };
        let begun = Instant::now();
        let verdict = self.state.apply(&entry);
        let took = begun.elapsed();
        match verdict {
            Verdict::Applied(_) => Ok(took),
            other => Err(Error::Engine { why: format!("{other:?}") }),
        }
    }

    /// Submits all and measures what applying takes; making the entries and reading the messages is not measured.
    fn place(&mut self, tasks: u64) -> Result<Took, Error> {
        let mut took = Took { all: Duration::ZERO, longest: Duration::ZERO };
        let mut idle = 0;
        // What an entry leaves over goes on with the next one.
        while (self.tokens.len() as u64) < tasks && idle < 3 {
            let count = BATCH.min(tasks - self.submitted);
            let entry = self.submissions(count);
            let this = self.apply(entry)?;
            took.all += this;
            took.longest = took.longest.max(this);
            let before = self.tokens.len();
            self.read();
            idle = if count == 0 && self.tokens.len() == before { idle + 1 } else { 0 };
        }
        Ok(took)
    }

    fn submissions(&mut self, count: u64) -> EntryBody {
        let first = self.offset;
        self.offset += 1;
        let submit = |number: u64| {
            Command::Submit(Submit {
                execution: ExecutionId::new(SHARD, 1_000, number),
                namespace: "default".into(),
                workflow: "s9b".into(),
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
        let commands = (self.submitted + 1..=self.submitted + count).map(submit).collect();
        self.submitted += count;
        EntryBody::Propose(Proposal {
            shard: SHARD,
            epoch: Epoch(1),
            first_offset: Offset(first),
            next_offset: Offset(first + 1),
            before: first,
            records: vec![Record { offset: Offset(first), checksum: first + 1, commands }],
            locals: vec![],
            outbox_acked: self.seen,
        })
    }

    /// Reads the messages since the last time, as a scheduler does.
    fn read(&mut self) {
        let mut seen = self.seen;
        let mut leased = Vec::new();
        for message in self.state.outbox(SHARD, self.seen, usize::MAX) {
            seen = message.seq;
            if let MessageBody::Assign(assignment) = &message.body {
                leased.push(assignment.lease);
            }
        }
        self.seen = seen;
        leased.into_iter().for_each(|lease| self.note(lease));
    }

    fn note(&mut self, lease: LeaseRef) {
        self.given += 1;
        self.tokens.insert(lease.token.0);
        self.placed.insert(lease.execution);
        *self.leases.entry(lease.worker.0).or_default() += 1;
    }

    /// Each task must have been given away once, under a token of its own, to a worker with room for it.
    fn check(&self, tasks: u64) -> Found {
        let (placed, over) = (self.placed.len() as u64, self.leases.values().filter(|it| **it > self.capacity).count());
        let mut found = Found {
            submitted: tasks,
            completed: placed,
            missing: tasks - placed.min(tasks),
            duplicates: self.given - placed,
            wrong: over as u64 + (self.given - self.tokens.len() as u64),
            ..Found::default()
        };
        if over > 0 {
            found.example(format!("{over} workers were given more than {} tasks", self.capacity));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use nova_engine::ids::{Token, WorkerId};

    use super::*;

    fn placed(workers: u32, tasks: u64) -> Engine {
        let mut engine = Engine::new(workers, tasks).unwrap();
        engine.place(tasks).unwrap();
        engine
    }

    #[test]
    fn every_task_is_placed_once() {
        let engine = placed(30, 2_500);
        let found = engine.check(2_500);
        assert!(found.is_right() && found.completed == 2_500, "{found:?}");
        assert_eq!(engine.leases.len(), 30);
    }

    #[test]
    fn a_task_that_is_missing_doubled_or_too_much_is_found() {
        assert_eq!(placed(3, 30).check(31).missing, 1);
        let lease = |execution: u64, token| LeaseRef {
            execution: ExecutionId::new(SHARD, 1_000, execution),
            token: Token(token),
            worker: WorkerId(1),
            session: SessionId(1),
        };
        let mut engine = placed(3, 30);
        engine.note(lease(1, 1 << 60));
        let found = engine.check(30);
        assert!(!found.is_right() && found.duplicates == 1, "{found:?}");
        let mut engine = placed(3, 30);
        (1..=11).for_each(|extra| engine.note(lease(100 + extra, (1 << 60) + extra)));
        assert!(engine.check(41).wrong > 0);
    }
}
