//! Joins against an oracle that knows nothing of orders: each node's end is drawn beforehand, and the rules of the
//! language's table are applied to the whole graph at once. Whatever order the nodes end in, the engine must agree.

use nova_engine::ids::ScopeId;
use nova_engine::input::{Command, LocalOutcome, TaskOutcome, TaskResult};
use nova_engine::output::{ExecutionEvent, MessageBody, NodeState, Subject};
use nova_program::{Join, Port, Program};
use proptest::prelude::*;

use crate::build::program;
use crate::invariants;
use crate::rig::{Rig, failure};
use crate::tape::Tape;

/// How a node would end if it ran.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Complete,
    Fail,
    TimeOut,
    WhenFalse,
}

/// A graph of work nodes in which every failure is handled.
fn graph(tape: &mut Tape<'_>) -> (Program, Vec<Fate>) {
    let count = 2 + tape.below(9);
    let mut text = String::from("graph");
    if tape.one_in(3) {
        text.push_str(&format!(" parallel {}", 1 + tape.below(3)));
    }
    text.push('\n');
    let mut fates = Vec::new();
    for n in 0..count {
        let fate = [Fate::Complete, Fate::Complete, Fate::Fail, Fate::TimeOut, Fate::WhenFalse][tape.below(5)];
        text.push_str(&format!("  n{n} noop{}", if fate == Fate::WhenFalse { " when" } else { "" }));
        let mut paths: Vec<String> = Vec::new();
        for _ in 0..tape.below(4).min(n) {
            let port = ["ok", "error", "timeout", "ended"][tape.below(4)];
            let path = format!("n{}.{port}", tape.below(n));
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        if !paths.is_empty() {
            text.push_str(&format!(" needs {}", paths.join(" ")));
            match tape.below(4) {
                0 => text.push_str(" join all"),
                1 => text.push_str(" join every"),
                2 => text.push_str(" join any"),
                _ => text.push_str(&format!(" join count {}", 1 + tape.below(paths.len()))),
            }
        }
        text.push('\n');
        fates.push(fate);
    }
    let program = program(&text);
    // A failure that nobody needs would fail the execution: such a node completes instead.
    for (n, fate) in fates.iter_mut().enumerate() {
        let needs = |port: Port| program.edges_of(nova_program::NodeIx(n as u32)).iter().any(|edge| edge.port == port);
        let handled = match fate {
            Fate::Fail => needs(Port::Error) || needs(Port::Ended),
            Fate::TimeOut => needs(Port::Timeout) || needs(Port::Error) || needs(Port::Ended),
            Fate::Complete | Fate::WhenFalse => true,
        };
        if !handled {
            *fate = Fate::Complete;
        }
    }
    (program, fates)
}

/// The table of §3 of the language, applied in order of the document (edges only lead forward).
fn oracle(program: &Program, fates: &[Fate]) -> Vec<NodeState> {
    let mut states: Vec<NodeState> = Vec::new();
    for (n, node) in program.nodes.iter().enumerate() {
        let (mut arrived, mut total) = (0_u32, 0_u32);
        for (source, state) in states.iter().enumerate() {
            let edges = program.edges_of(nova_program::NodeIx(source as u32));
            let timeout_needed = edges.iter().any(|edge| edge.port == Port::Timeout);
            for edge in edges.iter().filter(|edge| edge.target.0 as usize == n) {
                total += 1;
                let alive = match (state, edge.port) {
                    (NodeState::Completed, Port::Ok | Port::Ended) | (NodeState::Failed, Port::Ended) => true,
                    (NodeState::Failed, Port::Error) => fates[source] == Fate::Fail || !timeout_needed,
                    (NodeState::Failed, Port::Timeout) => fates[source] == Fate::TimeOut,
                    _ => false,
                };
                arrived += u32::from(alive);
            }
        }
        let runs = total == 0
            || match node.join {
                Join::All | Join::Any => arrived > 0,
                Join::Every => arrived == total,
                Join::Count(n) => arrived >= u32::from(n),
            };
        states.push(match fates[n] {
            _ if !runs => NodeState::Skipped,
            Fate::Complete => NodeState::Completed,
            Fate::Fail | Fate::TimeOut => NodeState::Failed,
            Fate::WhenFalse => NodeState::Skipped,
        });
    }
    states
}

fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let (program, fates) = graph(&mut tape);
    let expected = oracle(&program, &fates);
    let mut rig = Rig::new(program.clone());
    rig.register("one", 1 + tape.below(4) as u32, 0);
    rig.submit();
    let mut actual = vec![NodeState::Pending; fates.len()];
    let mut leases = Vec::new();
    for _ in 0..200 {
        for message in rig.news() {
            match &message.body {
                MessageBody::Assign(it) => leases.push((it.lease, it.node)),
                MessageBody::Events(events) => {
                    for event in &events.events {
                        let (node, state) = match event {
                            ExecutionEvent::NodeCompleted { node, .. } => (node, NodeState::Completed),
                            ExecutionEvent::NodeFailed { node, handled, .. } => {
                                assert!(*handled);
                                (node, NodeState::Failed)
                            }
                            ExecutionEvent::NodeSkipped(node) => (node, NodeState::Skipped),
                            _ => continue,
                        };
                        assert_eq!(node.scope, ScopeId(0));
                        let known = std::mem::replace(&mut actual[node.node.0 as usize], state);
                        assert_eq!(known, NodeState::Pending, "a node ends once");
                    }
                }
                _ => {}
            }
        }
        invariants::check(&rig.state);
        let offers = rig.offers();
        if let [offer] = &offers[..]
            && matches!(offer.subject, Subject::ScopeOutput(_))
        {
            assert_eq!(actual, expected);
            return;
        }
        // One of what may end does, in any order.
        let choice = tape.below(leases.len() + offers.len());
        if choice < leases.len() {
            let (lease, node) = leases.swap_remove(choice);
            let outcome = match fates[node.0 as usize] {
                Fate::Complete => TaskOutcome::Completed(crate::rig::json("1")),
                Fate::Fail => TaskOutcome::Failed(failure("task.bad", true)),
                Fate::TimeOut => TaskOutcome::Failed(failure("timeout.attempt", true)),
                Fate::WhenFalse => panic!("its `when` is false, and yet it runs"),
            };
            rig.commands(vec![Command::Result(TaskResult { lease, outcome })]);
        } else if let Some(offer) = offers.get(choice - leases.len()) {
            rig.answer(offer, LocalOutcome::Skip);
        }
    }
    panic!("not over: {actual:?}, expected {expected:?}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn joins_agree_with_the_table_in_any_order(bytes in proptest::collection::vec(any::<u8>(), 10..150)) {
        run(&bytes);
    }
}
