//! Who gets the next free slot.

use std::collections::BTreeMap;

use nova_engine::ids::ExecutionId;
use nova_engine::input::{Command, EntryBody, Namespace};
use nova_engine::limits::HEAD_START_MS;
use nova_engine::output::Assignment;
use nova_program::{NodeKind, Program};
use proptest::prelude::*;

use crate::build::program;
use crate::invariants;
use crate::rig::{Rig, completed, registration};

/// The workflow `w` of another namespace.
fn put(rig: &mut Rig, namespace: &str, program: Program) {
    let spec = Namespace { name: namespace.into(), max_open_executions: 1_000, max_keys: 1_000 };
    rig.entry(EntryBody::PutNamespace(spec));
    rig.put(namespace, "w", [7; 32], program);
}

fn submit(rig: &mut Rig, namespace: &str, count: usize) -> Vec<ExecutionId> {
    let mut ids = Vec::new();
    let commands = (0..count).map(|_| {
        let mut submit = rig.submission();
        submit.namespace = namespace.into();
        ids.push(submit.execution);
        Command::Submit(submit)
    });
    let commands = commands.collect();
    rig.commands(commands);
    ids
}

fn names(assignments: &[Assignment]) -> Vec<&str> {
    assignments.iter().map(|it| &*it.namespace).collect()
}

#[test]
fn what_was_begun_is_finished_before_more_is_begun() {
    let mut rig = Rig::new(program("list\n  a noop\n  b noop\n  c noop\n"));
    rig.register("one", 1, 0);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.submit());
        rig.now += 10;
    }
    let mut said = Vec::new();
    while let [assignment] = &*rig.assignments() {
        let execution = ids.iter().position(|id| *id == assignment.lease.execution).expect("it was submitted");
        said.push(format!("{execution}{}", assignment.node_id));
        rig.now += 10;
        rig.complete(assignment.lease);
    }
    assert_eq!(said, ["0a", "0b", "0c", "1a", "1b", "1c", "2a", "2b", "2c"]);
}

#[test]
fn an_execution_that_always_makes_more_work_gives_way_after_its_head_start() {
    let mut rig =
        Rig::new(program(&format!("list\n{}", (0..100).map(|n| format!("  s{n} noop\n")).collect::<String>())));
    rig.register("one", 1, 0);
    rig.submit();
    let begun = rig.now + 60_000;
    let mut younger = None;
    loop {
        let [assignment] = &*rig.assignments() else { panic!("one slot, and always work for it") };
        if younger == Some(assignment.lease.execution) {
            break;
        }
        rig.now += 1_000;
        if rig.now == begun {
            younger = Some(rig.submit());
        }
        rig.complete(assignment.lease);
    }
    assert_eq!(rig.now - begun, HEAD_START_MS);
}

#[test]
fn a_flood_does_not_keep_other_namespaces_waiting() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    put(&mut rig, "quiet", program("list\n  a noop\n"));
    rig.register("one", 8, 0);
    submit(&mut rig, "default", 100);
    let flood = rig.assignments();
    assert_eq!(flood.len(), 8);
    rig.now += 1_000;
    submit(&mut rig, "quiet", 100);
    assert!(rig.assignments().is_empty(), "all slots are taken");
    let (mut held, mut given) = (flood, Vec::new());
    for _ in 0..12 {
        let lease = held.remove(0).lease;
        rig.complete(lease);
        invariants::check(&rig.state);
        let next = rig.assignments();
        given.extend(names(&next).into_iter().map(str::to_owned));
        held.extend(next);
    }
    // Four slots come free until both hold as many; from then on who gave one back gets it again.
    assert_eq!(given[..4], ["quiet"; 4]);
    let mut used = BTreeMap::new();
    held.iter().for_each(|it| *used.entry(&*it.namespace).or_insert(0) += 1);
    assert_eq!(used, [("default", 4), ("quiet", 4)].into());
}

#[test]
fn one_slot_goes_round_whatever_priority_somebody_gives_himself() {
    let mut loud = program("list\n  a noop\n");
    loud.priority = 9;
    let mut rig = Rig::new(program("list\n  a noop\n"));
    put(&mut rig, "loud", loud);
    rig.register("one", 1, 0);
    for _ in 0..3 {
        submit(&mut rig, "loud", 1);
        rig.now += 10;
        submit(&mut rig, "default", 1);
        rig.now += 10;
    }
    let mut said = Vec::new();
    while let [assignment] = &*rig.assignments() {
        said.push(assignment.namespace.to_string());
        rig.complete(assignment.lease);
    }
    assert_eq!(said, ["loud", "default", "loud", "default", "loud", "default"]);
}

#[test]
fn within_a_namespace_priority_goes_first_whatever_kind_it_asks_for() {
    let mut urgent = program("list\n  a http\n");
    urgent.priority = 9;
    let mut rig = Rig::new(program("list\n  a noop\n"));
    rig.put("default", "urgent", [8; 32], urgent);
    submit(&mut rig, "default", 2);
    rig.now += 10;
    let mut submit = rig.submission();
    (submit.workflow, submit.hash) = ("urgent".into(), [8; 32]);
    rig.commands(vec![Command::Submit(submit)]);
    rig.register("one", 1, 0);
    let mut kinds = Vec::new();
    while let [assignment] = &*rig.assignments() {
        kinds.push(assignment.kind.to_string());
        rig.complete(assignment.lease);
    }
    assert_eq!(kinds, ["http", "noop", "noop"]);
}

#[test]
fn a_worker_that_comes_back_in_another_pool_takes_its_slots_along() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    rig.register("one", 4, 0);
    submit(&mut rig, "default", 3);
    assert_eq!(rig.state.queue.used("default", "default"), 3);
    let mut again = registration("one", 4, 1);
    (again.pool, again.fenced) = ("other".into(), true);
    rig.entry(EntryBody::Register(again));
    invariants::check(&rig.state);
    assert_eq!((rig.state.queue.used("default", "default"), rig.state.queue.used("other", "default")), (0, 0));
    assert_eq!(rig.state.queue.len(), 3, "nobody in the pool can carry them");
    rig.register("two", 2, 0);
    assert_eq!(rig.state.queue.used("default", "default"), 2);
}

#[test]
fn who_comes_later_waits_for_one_slot_of_a_flood_and_not_for_all_that_stands_before() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    put(&mut rig, "quiet", program("list\n  a noop\n"));
    rig.register("one", 1, 0);
    submit(&mut rig, "default", 100);
    rig.now += 1_000;
    submit(&mut rig, "quiet", 3);
    let mut said = Vec::new();
    for _ in 0..8 {
        let [assignment] = &*rig.assignments() else { panic!("there is one slot") };
        said.push(if *assignment.namespace == *"quiet" { 'q' } else { 'f' });
        rig.complete(assignment.lease);
        invariants::check(&rig.state);
    }
    assert_eq!(String::from_iter(said), "fqfqfqff");
}

#[test]
fn a_turn_in_one_pool_is_none_in_another() {
    let mut rig = Rig::new(program("list\n  a noop\n"));
    put(&mut rig, "quiet", program("list\n  a noop\n"));
    let mut elsewhere = program("list\n  a noop\n");
    let NodeKind::Work { pool, .. } = &mut elsewhere.nodes[0].kind else { panic!("it is work") };
    *pool = "other".into();
    rig.put("default", "elsewhere", [9; 32], elsewhere);
    rig.register("one", 4, 0);
    submit(&mut rig, "default", 10);
    submit(&mut rig, "quiet", 10);
    let held = rig.assignments();
    assert_eq!(names(&held), ["default"; 4], "they came first");
    // It is its turn in the other pool, where it holds nothing, and that is where it gets a slot.
    let mut submit = rig.submission();
    (submit.workflow, submit.hash) = ("elsewhere".into(), [9; 32]);
    let mut worker = registration("two", 1, 0);
    worker.pool = "other".into();
    rig.commands(vec![Command::Submit(submit), completed(held[0].lease)]);
    rig.entry(EntryBody::Register(worker));
    let given: Vec<_> = rig.assignments().iter().map(|it| (it.namespace.to_string(), it.lease.worker.0)).collect();
    assert_eq!(given, [("quiet".to_owned(), 1), ("default".to_owned(), 2)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each slot that comes free goes to one of those who hold the fewest and wait.
    #[test]
    fn a_free_slot_goes_to_who_holds_the_fewest(
        floods in proptest::collection::vec(0_usize..40, 3),
        capacity in 1_u32..20,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let all = ["default", "x", "y"];
        let mut rig = Rig::new(program("list\n  a noop\n"));
        all[1..].iter().for_each(|name| put(&mut rig, name, program("list\n  a noop\n")));
        rig.register("one", capacity, 0);
        for (name, count) in all.iter().zip(&floods) {
            submit(&mut rig, name, *count);
            rig.now += 1;
        }
        let mut held = rig.assignments();
        for index in order {
            if held.is_empty() {
                break;
            }
            let lease = held.swap_remove(index.index(held.len())).lease;
            let waits = |rig: &Rig, name: &str| rig.state.queue.iter().any(|(_, namespace, ..)| **namespace == *name);
            let waited: Vec<_> = all.into_iter().filter(|name| waits(&rig, name)).collect();
            rig.commands(vec![completed(lease)]);
            invariants::check(&rig.state);
            let next = rig.assignments();
            prop_assert_eq!(next.len(), waited.len().min(1));
            let holds = |name: &str| held.iter().filter(|it| *it.namespace == *name).count();
            if let [next] = &*next {
                prop_assert_eq!(Some(holds(&next.namespace)), waited.into_iter().map(holds).min());
            }
            held.extend(next);
        }
    }
}
