//! Parked executions: packed and unpacked they are the same to everybody.

use nova_engine::ids::{ExecutionId, TimeMs};
use nova_engine::input::{Command, Entry, EntryBody, LocalOutcome};
use nova_engine::output::{Answer, ExecutionState, MessageBody, NodeState, Rejection};
use nova_engine::packed::{pack, unpack};
use nova_engine::state::Execution;
use nova_engine::{Config, State};
use proptest::prelude::*;

use crate::build::program;
use crate::invariants;
use crate::rig::{Rig, SHARD};
use crate::walker::walk;

fn parked(state: &State) -> usize {
    state.shards.iter().map(|shard| shard.executions.parked()).sum()
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// The same log on two members, one of which unpacks everything again and again: verdicts, states, hashes, messages
    /// and views stay equal, whatever is packed on either.
    #[test]
    fn what_is_packed_is_seen_by_nobody(bytes in proptest::collection::vec(any::<u8>(), 20..600), every in 1..4_usize) {
        let (rig, _) = walk(&bytes);
        let (mut one, mut other) = (State::new(Config { shards: 2 }), State::new(Config { shards: 2 }));
        for (entry, number) in rig.log.iter().zip(0_usize..) {
            if number % every == 0 {
                other.unpack_all();
                prop_assert_eq!(parked(&other), 0);
            }
            prop_assert!(one == other && one.hash() == other.hash());
            let versions = &one.catalogue.versions;
            for (id, execution) in one.shards[0].executions.iter(versions) {
                let views = [&one, &other].map(|state| state.execution(id).expect("it is open"));
                prop_assert!(views.iter().all(|view| view.execution == execution && view.state == views[0].state));
            }
            prop_assert_eq!(one.apply(entry), other.apply(entry));
            prop_assert!(one.outbox(SHARD, one.shards[0].outbox.acked, 999).eq(other.outbox(SHARD, other.shards[0].outbox.acked, 999)));
            prop_assert_eq!(one.next_due(), other.next_due());
        }
        prop_assert!(one == rig.state && other == rig.state);
        invariants::check(&other);
    }

    /// At any moment of any walk, whether it rests or not; and bytes that were cut are refused, and changed ones
    /// are that or another execution.
    #[test]
    fn bytes_are_the_execution(bytes in proptest::collection::vec(any::<u8>(), 50..500), at in 0.0..1.0_f64, flip: u64) {
        let (rig, _) = walk(&bytes);
        let mut state = State::new(Config { shards: 2 });
        for entry in &rig.log[..(rig.log.len() as f64 * at) as usize] {
            state.apply(entry);
        }
        let versions = &state.catalogue.versions;
        for (id, execution) in state.shards[0].executions.iter(versions) {
            let mut packed = Vec::new();
            pack(&execution, &mut packed);
            let unpacked = unpack(id, &packed, versions).expect("it was packed just now");
            prop_assert_eq!(&Execution { offers: execution.offers.clone(), ..unpacked }, &*execution);
            prop_assert!(unpack(id, &packed[..flip as usize % packed.len()], versions).is_err(), "it was cut");
            let place = (flip >> 8) as usize % packed.len();
            packed[place] ^= 1 << (flip % 8);
            if let Ok(other) = unpack(id, &packed, versions) {
                let mut again = Vec::new();
                pack(&other, &mut again);
                prop_assert_eq!(unpack(id, &again, versions), Ok(other));
            }
        }
    }
}

fn open(rig: &Rig, id: ExecutionId) -> std::sync::Arc<Execution> {
    rig.state.execution(id).expect("it is open").execution
}

fn is_parked(rig: &Rig, id: ExecutionId) -> bool {
    rig.state.shards[0].executions.is_parked(id)
}

#[test]
fn what_waits_is_parked_until_its_time_has_come() {
    let mut rig = Rig::new(program("list\n  a wait 500\n  b wait 500\n  c noop\n"));
    let id = rig.submit();
    assert!(is_parked(&rig, id) && rig.state.is_open(id));
    assert_eq!(open(&rig, id).scopes[&nova_engine::ids::ScopeId(0)].nodes[0].state, NodeState::Waiting);
    rig.advance(499);
    assert!(is_parked(&rig, id));
    rig.advance(1);
    let nodes = |rig: &Rig| {
        open(rig, id).scopes[&nova_engine::ids::ScopeId(0)].nodes.iter().map(|it| it.state).collect::<Vec<_>>()
    };
    assert_eq!(nodes(&rig), [NodeState::Completed, NodeState::Waiting, NodeState::Pending]);
    assert!(is_parked(&rig, id), "it waits again");
    rig.advance(500);
    assert_eq!(nodes(&rig)[2], NodeState::Queued);
    assert!(!is_parked(&rig, id), "what is queued is not parked");
    rig.register("one", 1, 0);
    assert!(!is_parked(&rig, id), "what runs is not parked");
    let lease = rig.assignments()[0].lease;
    rig.complete(lease);
    assert!(!rig.state.is_open(id) && rig.state.shards[0].executions.is_empty());
}

#[test]
fn the_delay_of_a_retry_parks_and_so_does_the_end_of_what_ran_beside_a_wait() {
    let mut rig = Rig::new(program("list\n  a noop retry 3 400\n"));
    rig.register("one", 1, 0);
    let id = rig.submit();
    assert!(!is_parked(&rig, id));
    let lease = rig.assignments()[0].lease;
    rig.fail(lease, "task.bad", true);
    assert!(is_parked(&rig, id));
    rig.advance(400);
    assert!(!is_parked(&rig, id));

    let mut rig = Rig::new(program("graph\n  a noop\n  b wait 900\n"));
    rig.register("one", 1, 0);
    let id = rig.submit();
    assert!(!is_parked(&rig, id));
    let lease = rig.assignments()[0].lease;
    rig.complete(lease);
    assert!(is_parked(&rig, id));
}

#[test]
fn a_parked_execution_is_cancelled_timed_out_and_known_as_any_other() {
    let mut rig = Rig::new(program("list total 700\n  a wait 5000\n"));
    let (first, second) = (rig.submit(), rig.submit());
    let mut again = rig.submission();
    again.execution = first;
    rig.news();
    rig.commands(vec![Command::Submit(again)]);
    let answers: Vec<_> = rig
        .news()
        .iter()
        .filter_map(|it| match &it.body {
            MessageBody::Reply { answer, .. } => Some(answer.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [Answer::Rejected { execution: first, why: Rejection::BadId }]);
    assert!(is_parked(&rig, first), "a look at it leaves it where it is");
    assert_eq!(rig.state.execution(first).map(|view| view.state), Some(ExecutionState::Running));
    rig.commands(vec![Command::Cancel { execution: first, reason: "stop".into(), reply_to: None }]);
    assert!(!rig.state.is_open(first) && is_parked(&rig, second));
    rig.advance(700);
    assert!(!rig.state.is_open(second) && rig.state.timers.is_empty());
}

#[test]
fn what_is_large_stays_as_it_is() {
    let mut text = String::from("graph\n");
    for n in 0..300 {
        text.push_str(&format!("  w{n} wait {}\n", 1_000 + n));
    }
    let mut rig = Rig::new(program(&text));
    let id = rig.submit();
    assert!(rig.state.is_open(id) && !is_parked(&rig, id));
    for _ in 0..26 {
        rig.advance(50);
    }
    assert!(rig.state.timers.is_empty(), "each has fired");
    assert_eq!(rig.offers().len(), 1, "what is left is the output of the graph");

    let mut rig = Rig::new(program("list\n  a wait-until\n"));
    let mut submit = rig.submission();
    submit.input = crate::rig::json(&format!("\"{}\"", "x".repeat(10_000)));
    let large = submit.execution;
    rig.commands(vec![Command::Submit(submit)]);
    let small = rig.submit();
    for offer in rig.offers() {
        assert!(!is_parked(&rig, offer.execution), "what is evaluated is not parked");
        rig.answer(&offer, LocalOutcome::WaitFor { ms: 300 });
    }
    assert!(!is_parked(&rig, large) && is_parked(&rig, small));
}

/// Timers of many executions, some of which are cancelled: each fires once, in order of moments and numbers.
#[test]
fn timers_fire_in_order_and_once() {
    let mut rig = Rig::new(program("list\n  a wait-until\n"));
    let mut due = Vec::new();
    for n in 0..3_000_u64 {
        let id = rig.submit();
        let offer = rig.offers().remove(0);
        let ms = 1 + n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 997;
        rig.answer(&offer, LocalOutcome::WaitFor { ms });
        due.push((rig.now + ms, n, id));
    }
    assert_eq!(parked(&rig.state), 3_000);
    for (_, _, id) in due.extract_if(.., |(_, n, _)| *n % 7 == 0).collect::<Vec<_>>() {
        rig.commands(vec![Command::Cancel { execution: id, reason: "stop".into(), reply_to: None }]);
    }
    due.sort_unstable();
    rig.news();
    let mut ended = Vec::new();
    while let Some(next) = rig.state.next_due() {
        rig.now = next.0.max(rig.now);
        rig.entry(EntryBody::Tick);
        for message in rig.news() {
            if let MessageBody::Reply { answer: Answer::Finished { execution, .. }, .. } = &message.body {
                ended.push((rig.now, *execution));
            }
        }
    }
    assert_eq!(ended, due.into_iter().map(|(at, _, id)| (at, id)).collect::<Vec<_>>());
    let entry = Entry { now: TimeMs(rig.now), index: 1, term: 1, body: EntryBody::Tick };
    let before = rig.state.clone();
    rig.state.apply(&entry);
    rig.state.index = before.index;
    assert!(rig.state == before, "nothing fires twice");
}
