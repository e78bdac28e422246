//! What a million parked executions cost: numbers to look at, measured without a harness.
//!
//! `cargo test --release -p nova-wire --test it parked -- --ignored --nocapture --test-threads 1`

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, ShardId, TimeMs};
use nova_engine::input::{Command, Dedupe, Entry, EntryBody, Proposal, PutWorkflow, Record};
use nova_engine::output::{MessageBody, Verdict};
use nova_engine::{Config, State};
use nova_wire::{read_snapshot, write_snapshot};

use crate::build::program;
use crate::rig::{completed, json, registration, submission};

const SHARDS: u16 = 64;
const PARKED: u64 = 1_000_000;
/// Commands per entry.
const BATCH: u64 = 128;

/// A group of which every shard has an owner, with what its owners remember.
struct Group {
    state: State,
    now: u64,
    offsets: Vec<u64>,
    seen: Vec<Seq>,
    submitted: u64,
    longest: Duration,
    spent: Duration,
}

impl Group {
    fn new() -> Self {
        let shards = usize::from(SHARDS);
        let state = State::new(Config { shards: SHARDS });
        let (offsets, seen) = (vec![0; shards], vec![Seq(0); shards]);
        let (longest, spent) = (Duration::ZERO, Duration::ZERO);
        let mut group = Self { state, now: 1_700_000_000_000, offsets, seen, submitted: 0, longest, spent };
        for shard in (0..SHARDS).map(ShardId) {
            group.apply(EntryBody::Grant { shard, after: Epoch(0), owner: OwnerId(1) });
        }
        for (name, text, hash) in [("noop", "list\n  a noop\n", 1), ("wait", "list\n  a wait 600000\n", 2)] {
            group.apply(EntryBody::PutWorkflow(PutWorkflow {
                namespace: "default".into(),
                name: name.into(),
                hash: [hash; 32],
                program: Arc::new(program(text)),
                document: Bytes::from_static(b"{}"),
            }));
        }
        group.apply(EntryBody::Register(registration("one", 2_000, 0)));
        group
    }

    fn apply(&mut self, body: EntryBody) {
        let entry = Entry { now: TimeMs(self.now), index: self.state.index + 1, term: 1, body };
        let begin = Instant::now();
        let verdict = self.state.apply(black_box(&entry));
        let took = begin.elapsed();
        self.longest = self.longest.max(took);
        self.spent += took;
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    }

    fn propose(&mut self, shard: ShardId, commands: Vec<Command>) {
        let at = usize::from(shard.0);
        let first = self.offsets[at];
        self.offsets[at] += 1;
        self.apply(EntryBody::Propose(Proposal {
            shard,
            epoch: Epoch(1),
            first_offset: Offset(first),
            next_offset: Offset(first + 1),
            before: first,
            records: vec![Record { offset: Offset(first), checksum: first + 1, commands }],
            locals: vec![],
            outbox_acked: self.seen[at],
        }));
    }

    fn submissions(&mut self, shard: ShardId, workflow: &str, hash: u8, keys: bool) -> Vec<Command> {
        let one = |group: &mut Self| {
            group.submitted += 1;
            let number = group.submitted;
            let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut submit = submission(ExecutionId::new(shard, group.now, random), number);
            (submit.workflow, submit.hash) = (workflow.into(), [hash; 32]);
            submit.input = json(&format!("{{\"n\":{number}}}"));
            (submit.reply_to, submit.reply_at_end) = (None, false);
            if keys {
                submit.dedupe = Dedupe::Key(format!("order-{random:016x}").into());
            }
            Command::Submit(submit)
        };
        (0..BATCH).map(|_| one(self)).collect()
    }

    /// Submissions and results of one-task executions, in entries that go round the shards; gives nanoseconds for each
    /// and the longest entry.
    fn noops(&mut self, rounds: u16) -> (f64, Duration) {
        (self.longest, self.spent) = (Duration::ZERO, Duration::ZERO);
        for shard in (0..rounds).map(|round| ShardId(round % SHARDS)) {
            self.now += 1;
            let commands = self.submissions(shard, "noop", 1, false);
            self.propose(shard, commands);
            let at = usize::from(shard.0);
            let news: Vec<_> = self.state.outbox(shard, self.seen[at], usize::MAX).cloned().collect();
            let lease = |body: &MessageBody| match body {
                MessageBody::Assign(it) => Some(it.lease),
                _ => None,
            };
            let results: Vec<_> = news.iter().filter_map(|it| lease(&it.body)).map(completed).collect();
            assert_eq!(results.len() as u64, BATCH);
            self.seen[at] = self.state.shards[at].outbox.last();
            self.propose(shard, results);
            self.seen[at] = self.state.shards[at].outbox.last();
        }
        (self.spent.as_nanos() as f64 / (f64::from(rounds) * BATCH as f64), self.longest)
    }

    fn park(&mut self, rounds: u64, keys: bool) {
        (self.longest, self.spent) = (Duration::ZERO, Duration::ZERO);
        for round in 0..rounds {
            if round % 10 == 0 {
                self.now += 1;
            }
            let shard = ShardId((round % u64::from(SHARDS)) as u16);
            let commands = self.submissions(shard, "wait", 2, keys);
            self.propose(shard, commands);
            self.seen[usize::from(shard.0)] = self.state.shards[usize::from(shard.0)].outbox.last();
        }
        for shard in (0..SHARDS).map(ShardId) {
            self.propose(shard, vec![]);
        }
    }
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory of this process, where the system tells.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn cost(keys: bool) {
    let mut group = Group::new();
    group.noops(640);
    let (each, longest) = group.noops(1_280);
    println!("none parked: one-task execution {each:.0} ns, longest entry {:.2} ms", ms(longest));
    let before = resident();
    group.park(PARKED / BATCH, keys);
    let each = (resident() - before) as f64 / PARKED as f64;
    let parking = group.spent.as_nanos() as f64 / PARKED as f64;
    println!("parked, keys {keys}: {each:.0} bytes each, submitting one {parking:.0} ns");
    group.noops(128);
    let (each, longest) = group.noops(1_280);
    println!("a million parked: one-task execution {each:.0} ns, longest entry {:.2} ms", ms(longest));

    let begin = Instant::now();
    let copy = group.state.clone();
    println!("freeze {:.2} ms", ms(begin.elapsed()));
    let (each, longest) = group.noops(640);
    println!("beside the copy: one-task execution {each:.0} ns, longest entry {:.2} ms", ms(longest));
    group.park(640, keys);
    println!("beside the copy: submitting a parked one, longest entry {:.2} ms", ms(group.longest));
    let begin = Instant::now();
    drop(copy);
    println!("dropping the copy {:.2} ms", ms(begin.elapsed()));

    let copy = group.state.clone();
    let resident_before = resident();
    let writing = std::thread::spawn(move || {
        let begin = Instant::now();
        let mut out = Counted(0);
        write_snapshot(&copy, &mut out).expect("it is only counted");
        let took = begin.elapsed();
        drop(copy);
        (took, out.0)
    });
    let (mut longest, mut total, mut rounds) = (Duration::ZERO, 0.0, 0);
    while !writing.is_finished() {
        let (each, most) = group.noops(64);
        longest = longest.max(most);
        total += each;
        rounds += 1;
    }
    let (took, size) = writing.join().expect("it was written");
    println!(
        "writing {:.0} bytes each in {:.0} ms; meanwhile: one-task execution {:.0} ns, longest entry {:.2} ms, {:.0} MiB more",
        size as f64 / PARKED as f64,
        ms(took),
        total / f64::from(rounds),
        ms(longest),
        (resident() - resident_before.min(resident())) as f64 / f64::from(1 << 20),
    );
    let mut bytes = Vec::new();
    write_snapshot(&group.state, &mut bytes).expect("a vector takes it");
    let begin = Instant::now();
    let restored = read_snapshot(&mut bytes.as_slice()).expect("it was written just now");
    println!("reading {:.0} ms", ms(begin.elapsed()));
    assert!(restored == group.state);
    drop(restored);
    let begin = Instant::now();
    black_box(group.state.hash());
    println!("hash {:.0} ms", ms(begin.elapsed()));

    let open: usize = group.state.shards.iter().map(|shard| shard.executions.len()).sum();
    (group.longest, group.spent) = (Duration::ZERO, Duration::ZERO);
    let mut entries = 0;
    while group.state.shards.iter().any(|shard| !shard.executions.is_empty()) {
        group.now = group.state.next_due().expect("a timer").0.max(group.now);
        group.apply(EntryBody::Tick);
        entries += 1;
        if entries % 100 == 0 {
            for shard in (0..SHARDS).map(ShardId) {
                let at = usize::from(shard.0);
                group.seen[at] = group.state.shards[at].outbox.last();
                group.propose(shard, vec![]);
            }
        }
    }
    let each = group.spent.as_nanos() as f64 / open as f64;
    println!("waking {open} in {entries} entries: {each:.0} ns each, longest entry {:.2} ms", ms(group.longest));
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_of_a_million_parked() {
    cost(false);
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_of_a_million_parked_with_keys() {
    cost(true);
}
