//! What happens at the limits: cascades that are cut, outboxes that are full, scopes that are too many.

use nova_engine::input::{Command, LocalOutcome, TaskOutcome, TaskResult};
use nova_engine::limits;
use nova_engine::output::{Answer, MessageBody, Outcome, Refusal, Verdict};
use nova_engine::payload::Payload;

use crate::build::program;
use crate::invariants;
use crate::rig::{Rig, json};

/// Ticks until no cascade goes on.
fn settle(rig: &mut Rig) {
    for _ in 0..1_000 {
        if rig.state.work.is_empty() {
            invariants::check(&rig.state);
            return;
        }
        rig.advance(0);
    }
    panic!("the cascade does not end: {} steps are left", rig.state.work.len());
}

fn finished(rig: &mut Rig) -> Vec<Outcome> {
    let news = rig.news().into_iter();
    news.filter_map(|message| match &message.body {
        MessageBody::Reply { answer: Answer::Finished { outcome, .. }, .. } => Some(outcome.clone()),
        _ => None,
    })
    .collect()
}

fn cancel(execution: nova_engine::ids::ExecutionId) -> Command {
    Command::Cancel { execution, reason: "stop".into(), reply_to: None }
}

#[test]
fn a_cancelled_execution_starts_no_node_though_its_cascade_is_cut() {
    let mut text = String::from("graph\n");
    for n in 0..3_000 {
        text.push_str(&format!("  n{n} noop\n"));
    }
    let mut rig = Rig::new(program(&text));
    rig.register("one", 1, 0);
    let id = rig.submit();
    settle(&mut rig);
    let held = rig.assignments();
    assert_eq!(held.len(), 1);
    // The slot becomes free in the entry of the cancel, when most nodes are still in the queue.
    rig.commands(vec![cancel(id), crate::rig::completed(held[0].lease)]);
    settle(&mut rig);
    assert_eq!(rig.assignments().len(), 0, "nothing is leased after the cancel");
    assert!(!rig.state.is_open(id));
}

#[test]
fn scopes_inside_a_cancelled_execution_begin_nothing_though_the_cascade_is_cut() {
    for entries in 0..16 {
        cancel_after(entries);
    }
}

fn cancel_after(entries: u32) {
    let mut text = String::from("graph\n");
    for n in 0..1_100 {
        text.push_str(&format!(
            "  g{n} group\n    list\n      h{n} group\n        graph\n          a{n} noop\n          b{n} think\n"
        ));
    }
    let mut rig = Rig::new(program(&text));
    rig.register("one", 1_000, 0);
    // At each depth of the cascade: what is leased was leased before the cancel.
    let id = rig.submit();
    for _ in 0..entries {
        rig.advance(0);
    }
    let before = rig.assignments();
    rig.commands(vec![cancel(id)]);
    assert_eq!(rig.assignments().len(), 0, "nothing is leased in the entry of the cancel");
    for _ in 0..50 {
        rig.advance(0);
    }
    invariants::check(&rig.state);
    assert_eq!(rig.assignments().len(), 0, "nothing is leased after the cancel");
    for batch in before.chunks(500) {
        rig.commands(batch.iter().map(|it| Command::Stopped { lease: it.lease }).collect());
    }
    settle(&mut rig);
    assert!(!rig.state.is_open(id));
    assert!(rig.offers().is_empty());
}

#[test]
fn a_full_proposal_is_done_within_its_entry() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    rig.register("one", 2_000, 0);
    for _ in 0..4 {
        let submits = (0..512).map(|_| Command::Submit(rig.submission())).collect();
        rig.commands(submits);
        assert_eq!(rig.state.work.len(), 0, "submissions leave nothing over");
        let assignments = rig.assignments();
        assert_eq!(assignments.len(), 512);
        rig.commands(assignments.iter().map(|it| crate::rig::completed(it.lease)).collect());
        assert_eq!(rig.state.work.len(), 0, "results leave nothing over");
        assert_eq!(finished(&mut rig).len(), 512);
    }
}

#[test]
fn a_full_outbox_takes_no_records_but_all_else() {
    let mut rig = Rig::new(program("graph\n  a noop\n  b think\n"));
    let (worker, session) = rig.register("one", 1, 0);
    let large = json(&format!("\"{}\"", "x".repeat(16_000)));
    let id = rig.submit();
    while rig.state.shards[0].outbox.bytes <= limits::OUTBOX_BYTES {
        let mut submit = rig.submission();
        submit.workflow = "unknown".into();
        let mut other = rig.submission();
        other.input = large.clone();
        rig.commands(vec![Command::Submit(submit), Command::Submit(other)]);
    }
    let next = rig.offset;
    let submit = Command::Submit(rig.submission());
    assert_eq!(rig.commands(vec![submit.clone()]), Verdict::Refused(Refusal::OutboxFull));
    assert_eq!(rig.state.shards[0].next_offset.0, next, "the record was not taken");
    // Evaluations, ticks and session ends are.
    let offer = rig.offers().remove(0);
    assert_eq!(offer.execution, id);
    rig.answer(&offer, LocalOutcome::Done { output: Payload::null(), cases: 0, sets: vec![] });
    assert!(rig.offers().iter().all(|other| other.token != offer.token));
    let lost = nova_engine::input::EntryBody::SessionLost { worker, session, counted_in_term: 1 };
    assert!(matches!(rig.entry(lost), Verdict::Applied(_)));
    // A watermark in the same proposal makes the room that its records need.
    rig.offset = next;
    let mut proposal = rig.proposal(vec![submit]);
    proposal.outbox_acked = rig.state.shards[0].outbox.last();
    let verdict = rig.entry(nova_engine::input::EntryBody::Propose(proposal));
    assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    invariants::check(&rig.state);
}

#[test]
fn too_many_scopes_fail_the_node_that_asks_for_one_more() {
    // One place is left when the choice is made, and it wants two.
    let mut text = String::from("graph\n  s choose\n    list x\n      x1 noop\n    list y\n      y1 noop\n");
    for n in 0..limits::SCOPES_PER_EXECUTION - 2 {
        text.push_str(&format!("  g{n} group\n    list\n      w{n} wait 1000000\n"));
    }
    let mut rig = Rig::new(program(&text));
    let id = rig.submit();
    settle(&mut rig);
    let offer = rig.offers().remove(0);
    rig.answer(&offer, LocalOutcome::Chosen { cases: 3, sets: vec![] });
    settle(&mut rig);
    assert!(!rig.state.is_open(id), "nobody handles the failure");
    match finished(&mut rig).as_slice() {
        [Outcome::Failed(failure)] => assert_eq!((&*failure.code, &*failure.node), ("limit.scopes", "s")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_too_large_fails_its_node() {
    let large = json(&format!("\"{}\"", "x".repeat(17_000)));
    let mut rig = Rig::new(program("list\n  a noop\n"));
    rig.register("one", 1, 0);
    rig.submit();
    let lease = rig.assignments()[0].lease;
    rig.commands(vec![Command::Result(TaskResult { lease, outcome: TaskOutcome::Completed(large.clone()) })]);
    assert!(matches!(&finished(&mut rig)[..], [Outcome::Failed(failure)] if &*failure.code == "limit.payload"));
    // So do variables, wherever they are written.
    let mut rig = Rig::new(program("list vars n=0\n  s choose\n    list x\n      a wait 10\n"));
    rig.submit();
    let offer = rig.offers().remove(0);
    let sets = vec![nova_engine::input::VarWrite { var: nova_program::VarIx(0), value: large }];
    rig.answer(&offer, LocalOutcome::Chosen { cases: 1, sets });
    assert!(matches!(&finished(&mut rig)[..], [Outcome::Failed(failure)] if &*failure.code == "limit.payload"));
}

#[test]
fn a_registration_that_frees_many_slots_is_cut_too() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    for _ in 0..10 {
        let submits = (0..500).map(|_| Command::Submit(rig.submission())).collect();
        rig.commands(submits);
    }
    rig.register("one", 5_000, 0);
    let first = rig.assignments().len();
    assert!(first < 5_000, "one entry leases a slice");
    let mut all = first;
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        rig.advance(0);
        all += rig.assignments().len();
    }
    assert_eq!(all, 5_000, "the next entries do the rest");
}

#[test]
fn events_of_one_execution_that_are_too_many_bytes_for_a_record_make_several_messages() {
    let mut text = String::from("graph\n");
    for n in 0..100 {
        text.push_str(&format!("  t{n} think\n"));
    }
    let mut rig = Rig::new(program(&text));
    let id = rig.submit();
    rig.news();
    let large = json(&format!("\"{}\"", "x".repeat(16_000)));
    let done = |offer: &nova_engine::output::Offer| nova_engine::input::Local {
        execution: offer.execution,
        token: offer.token,
        outcome: LocalOutcome::Done { output: large.clone(), cases: 0, sets: vec![] },
    };
    let locals = rig.offers().iter().map(done).collect();
    rig.locals(locals);
    settle(&mut rig);
    let mut next = None;
    let mut messages = 0;
    for message in rig.news() {
        let MessageBody::Events(events) = &message.body else { continue };
        assert_eq!(events.execution, id);
        assert!(next.is_none_or(|next| next == events.first_number), "the events have no gap");
        next = Some(events.first_number + events.events.len() as u64);
        let bytes = message.body.bytes();
        assert!(bytes < 300 << 10, "{bytes}");
        messages += 1;
    }
    assert_eq!(messages, 7, "100 × 16 KB in parts of 256 KiB");
}
