//! What applying costs: numbers to look at, measured without a harness.
//!
//! `cargo test --release -p nova-engine --test it cost -- --ignored --nocapture --test-threads 1`

use std::hint::black_box;
use std::time::{Duration, Instant};

use nova_engine::ids::TimeMs;
use nova_engine::input::{Command, Entry, EntryBody, Proposal};

use crate::build::program;
use crate::rig::Rig;

/// Applies a proposal of these commands and gives the time that only this took.
fn timed(rig: &mut Rig, commands: Vec<Command>) -> Duration {
    let outbox_acked = rig.seen;
    let proposal = Proposal { outbox_acked, ..rig.proposal(commands) };
    rig.offset = proposal.next_offset.0;
    let entry = Entry { now: TimeMs(rig.now), index: rig.state.index + 1, term: 1, body: EntryBody::Propose(proposal) };
    let begin = Instant::now();
    black_box(rig.state.apply(black_box(&entry)));
    begin.elapsed()
}

/// Runs executions of one noop through submit and result, so many per entry, and prints what one costs.
fn noops(rig: &mut Rig, what: &str, executions: usize, per_entry: usize) {
    let (mut submitting, mut finishing) = (Duration::ZERO, Duration::ZERO);
    let rounds = executions / per_entry;
    for _ in 0..rounds {
        let submits = (0..per_entry).map(|_| Command::Submit(rig.submission())).collect();
        submitting += timed(rig, submits);
        let assignments = rig.assignments();
        assert_eq!(assignments.len(), per_entry);
        let results = assignments.iter().map(|it| crate::rig::completed(it.lease)).collect();
        finishing += timed(rig, results);
        rig.news();
        rig.now += 1;
    }
    let each = |time: Duration| time.as_nanos() as f64 / 1_000.0 / (rounds * per_entry) as f64;
    println!(
        "{what}, {per_entry} per entry: submit {:.2} µs + result {:.2} µs = {:.2} µs per execution",
        each(submitting),
        each(finishing),
        each(submitting + finishing)
    );
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_of_a_noop_execution() {
    for per_entry in [1, 32, 512] {
        let mut rig = Rig::new(program("list\n  a noop\n"));
        rig.register("one", 2_000, 0);
        noops(&mut rig, "alone", 100_000, per_entry);
    }
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_beside_many_workers_and_waiting_kinds() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    let mut other = crate::rig::registration("w", 100, 0);
    other.inboxes = 1_000;
    for n in 0..1_000 {
        other.name = format!("w{n}").into();
        rig.entry(EntryBody::Register(other.clone()));
    }
    noops(&mut rig, "1,000 workers", 100_000, 512);
    // Work of a kind that nobody carries waits in the same pool.
    rig.put("default", "stuck", [8; 32], program("list\n  a nobody-carries-this\n"));
    let mut stuck = rig.submission();
    stuck.workflow = "stuck".into();
    stuck.hash = [8; 32];
    rig.commands(vec![Command::Submit(stuck)]);
    rig.news();
    noops(&mut rig, "1,000 workers, a kind that nobody carries", 20_480, 512);
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_beside_many_open_executions() {
    let mut rig = Rig::new(program("list\n  w think\n  a noop\n"));
    let before = resident_kib().unwrap_or_default();
    for _ in 0..400 {
        let submits = (0..512).map(|_| Command::Submit(rig.submission())).collect();
        timed(&mut rig, submits);
        rig.news();
    }
    if let Some(kib) = resident_kib() {
        println!("204,800 open: {:.2} KiB each, with their messages", (kib - before) as f64 / 204_800.0);
    }
    rig.put("default", "n", [7; 32], program("list\n  a noop\n"));
    rig.register("one", 2_000, 0);
    others(&mut rig, "before a freeze");
    let begin = Instant::now();
    let copy = rig.state.clone();
    println!("204,800 open: clone {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    black_box(rig.state.hash());
    println!("204,800 open: hash {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    // The first changes after a freeze copy what they touch.
    let submits = (0..512).map(|_| Command::Submit(rig.submission())).collect();
    println!("204,800 open: 512 submits after a freeze {:.1} ms", timed(&mut rig, submits).as_secs_f64() * 1e3);
    let begin = Instant::now();
    drop(copy);
    println!("204,800 open: dropping the copy {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    others(&mut rig, "after it");
}

/// Noop executions beside those that are open.
fn others(rig: &mut Rig, what: &str) {
    let (mut submitting, mut finishing) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..100 {
        let submits = (0..512).map(|_| {
            let mut submit = rig.submission();
            submit.workflow = "n".into();
            Command::Submit(submit)
        });
        let submits = submits.collect();
        submitting += timed(rig, submits);
        let assignments = rig.assignments();
        let results = assignments.iter().map(|it| crate::rig::completed(it.lease)).collect();
        finishing += timed(rig, results);
        rig.news();
    }
    println!(
        "204,800 open, {what}: submit {:.2} µs + result {:.2} µs per noop execution",
        submitting.as_nanos() as f64 / 1e3 / 51_200.0,
        finishing.as_nanos() as f64 / 1e3 / 51_200.0
    );
}

/// Memory of this process, where the system tells.
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_of_a_wide_graph() {
    let mut text = String::from("graph\n  start think\n");
    for n in 0..10_000 {
        text.push_str(&format!("  n{n} think needs start.error\n"));
    }
    let mut rig = Rig::new(program(&text));
    rig.submit();
    let offer = rig.offers().remove(0);
    let done = nova_engine::input::LocalOutcome::Done {
        output: nova_engine::payload::Payload::null(),
        cases: 0,
        sets: vec![],
    };
    let begin = Instant::now();
    rig.answer(&offer, done);
    let mut entries = 1;
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        rig.advance(0);
        entries += 1;
    }
    let each = begin.elapsed().as_secs_f64() * 1e6 / 10_000.0;
    println!("10,000 skipped nodes in {entries} entries: {each:.2} µs per node");
}

#[test]
#[ignore = "a measurement, in release"]
fn cost_of_cancelling_many_scopes() {
    let mut text = String::from("graph\n");
    for n in 0..9_000 {
        text.push_str(&format!("  g{n} group\n    list\n      w{n} wait 1000000\n"));
    }
    let mut rig = Rig::new(program(&text));
    let execution = rig.submit();
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        rig.advance(0);
    }
    let begin = Instant::now();
    rig.commands(vec![Command::Cancel { execution, reason: "stop".into(), reply_to: None }]);
    let (mut longest, mut entries) = (begin.elapsed(), 1);
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        let begin = Instant::now();
        rig.advance(0);
        longest = longest.max(begin.elapsed());
        entries += 1;
    }
    println!("9,000 scopes cancelled in {entries} entries, the longest took {:.1} ms", longest.as_secs_f64() * 1e3);
}
