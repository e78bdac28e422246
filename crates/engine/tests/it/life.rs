//! Executions from submission to end.

use nova_engine::input::{LeaseRef, LocalOutcome};
use nova_engine::output::{Answer, ExecutionEvent, MessageBody, Outcome, Subject};
use nova_engine::payload::Payload;

use crate::build::program;
use crate::rig::{Rig, json};

fn outcome(rig: &mut Rig) -> Option<Outcome> {
    rig.news().into_iter().find_map(|message| match &message.body {
        MessageBody::Reply { answer: Answer::Finished { outcome, .. }, .. } => Some(outcome.clone()),
        _ => None,
    })
}

#[test]
fn a_list_runs_step_by_step_and_leaves_nothing() {
    let mut rig = Rig::new(program("list\n  a noop\n  b noop\n"));
    rig.register("one", 1, 0);
    let id = rig.submit();
    for node in ["a", "b"] {
        let assignments = rig.assignments();
        assert_eq!(assignments.iter().map(|a| &*a.node_id).collect::<Vec<_>>(), [node]);
        rig.complete(assignments[0].lease);
    }
    assert_eq!(outcome(&mut rig), Some(Outcome::Completed(json("1"))));
    assert!(!rig.state.is_open(id));
    assert!(rig.state.timers.is_empty() && rig.state.work.is_empty() && rig.state.queue.is_empty());
    assert!(rig.state.workers.all[0].leases.is_empty());
}

#[test]
fn a_graph_joins_and_evaluates_its_output() {
    let mut rig = Rig::new(program("graph\n  a noop\n  b noop\n  c noop needs a.ok b.ok\n"));
    rig.register("one", 8, 0);
    rig.submit();
    let first = rig.assignments();
    assert_eq!(first.len(), 2);
    rig.complete(first[0].lease);
    assert!(rig.assignments().is_empty(), "c waits for both");
    rig.complete(first[1].lease);
    let last = rig.assignments();
    assert_eq!(&*last[0].node_id, "c");
    rig.complete(last[0].lease);
    let offers = rig.offers();
    assert!(matches!(offers[0].subject, Subject::ScopeOutput(_)));
    rig.answer(&offers[0], LocalOutcome::Done { output: json("{\"c\":1}"), cases: 0, sets: vec![] });
    assert_eq!(outcome(&mut rig), Some(Outcome::Completed(json("{\"c\":1}"))));
}

#[test]
fn a_dead_path_is_skipped_to_its_end() {
    let text = "graph\n  i think cases true false\n  a noop needs i.0\n  b noop needs a.ok\n  z noop needs b.ok i.1\n";
    let mut rig = Rig::new(program(text));
    rig.register("one", 8, 0);
    rig.submit();
    let offer = rig.offers().remove(0);
    rig.answer(&offer, LocalOutcome::Done { output: Payload::null(), cases: 2, sets: vec![] });
    let news = rig.news();
    let skipped = news.iter().flat_map(|m| match &m.body {
        MessageBody::Events(events) => events.events.clone(),
        _ => vec![],
    });
    assert_eq!(skipped.filter(|event| matches!(event, ExecutionEvent::NodeSkipped(_))).count(), 2);
    let assigned: Vec<_> = news
        .iter()
        .filter_map(|m| match &m.body {
            MessageBody::Assign(a) => Some(a.node_id.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(assigned, ["z"]);
}

#[test]
fn a_failure_is_repeated_then_handled_then_fails_the_scope() {
    let mut rig = Rig::new(program("list\n  a noop retry 2 100\n  b noop\n"));
    rig.register("one", 1, 0);
    rig.submit();
    let first = rig.assignments().remove(0);
    rig.fail(first.lease, "task.bad", true);
    assert!(rig.assignments().is_empty());
    rig.advance(99);
    assert!(rig.assignments().is_empty(), "not before its delay");
    rig.advance(1);
    let second = rig.assignments().remove(0);
    assert_eq!((second.attempt, second.visit), (2, 1));
    assert!(second.lease.token > first.lease.token);
    rig.fail(second.lease, "task.bad", true);
    match outcome(&mut rig) {
        Some(Outcome::Failed(failure)) => assert_eq!((&*failure.code, &*failure.node), ("task.bad", "a")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_a_scope_of_its_own_and_hands_its_output_on() {
    let mut rig = Rig::new(program("list\n  g group\n    list\n    a noop\n    b noop\n  c noop\n"));
    rig.register("one", 1, 0);
    rig.submit();
    for node in ["a", "b", "c"] {
        let assignment = rig.assignments().remove(0);
        assert_eq!(&*assignment.node_id, node);
        rig.complete(assignment.lease);
    }
    assert_eq!(outcome(&mut rig), Some(Outcome::Completed(json("1"))));
}

#[test]
fn a_wide_graph_is_cut_into_slices_and_still_ends() {
    let mut text = String::from("graph\n  start think\n");
    for n in 0..3_000 {
        text.push_str(&format!("  n{n} think needs start.error\n"));
    }
    let mut rig = Rig::new(program(&text));
    let id = rig.submit();
    let offer = rig.offers().remove(0);
    rig.answer(&offer, LocalOutcome::Done { output: Payload::null(), cases: 0, sets: vec![] });
    let mut entries = 0;
    while rig.state.next_due().is_some_and(|due| due.0 <= rig.now) {
        rig.advance(0);
        entries += 1;
    }
    assert!(entries > 3, "the cascade was cut, took {entries} more entries");
    let output = rig.offers().remove(0);
    assert!(matches!(output.subject, Subject::ScopeOutput(_)));
    rig.answer(&output, LocalOutcome::Done { output: Payload::null(), cases: 0, sets: vec![] });
    assert!(!rig.state.is_open(id));
}

#[test]
fn a_result_in_the_name_of_another_session_or_worker_changes_nothing() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    rig.register("one", 1, 0);
    let (other, session) = rig.register("two", 1, 0);
    let id = rig.submit();
    let lease = rig.assignments()[0].lease;
    let session_of = |number| nova_engine::ids::SessionId(number);
    let mut wrong = vec![LeaseRef { session: session_of(lease.session.0 + 7), ..lease }];
    let thief = if lease.worker == other { nova_engine::ids::WorkerId(1) } else { other };
    wrong.push(LeaseRef { worker: thief, ..lease });
    wrong.push(LeaseRef { worker: thief, session, ..lease });
    wrong.push(LeaseRef { worker: nova_engine::ids::WorkerId(99), ..lease });
    for lease in wrong {
        rig.complete(lease);
        assert!(rig.state.is_open(id), "{lease:?} is nobody's");
    }
    rig.complete(lease);
    assert!(!rig.state.is_open(id));
}
