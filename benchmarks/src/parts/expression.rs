//! Expressions, and a node as the scheduler evaluates it.

use std::hint::black_box;

use nova_expression::{Expression, Lazy, Scope};
use nova_model::{Evaluated, ExecutionView, NodeState, NodeView, Offered, Phase};
use nova_program::NodeIx;

use super::{Part, Work, plain};

/// Repeats of one run.
const TIMES: u64 = 64;
const INPUT: &[u8] = br#"{"name": "Ada", "lines": [{"sku": "tea", "quantity": 2}, {"sku": "cup", "quantity": 3}]}"#;
const LIST: &str = "sum(input.lines.map(l, l.quantity * 2))";

pub(super) const PARTS: [Part; 4] = [
    Part { name: "expression-compile", per: "expression", operations: TIMES, prepare: compile },
    Part { name: "expression-field", per: "evaluation", operations: TIMES, prepare: || evaluate("input.name") },
    Part { name: "expression-list", per: "evaluation", operations: TIMES, prepare: || evaluate(LIST) },
    Part { name: "node-evaluate", per: "node", operations: TIMES, prepare: node },
];

fn compile() -> Box<dyn Work> {
    plain(|| {
        for _ in 0..TIMES {
            black_box(Expression::compile(black_box(LIST)).expect("it is valid"));
        }
    })
}

fn evaluate(source: &str) -> Box<dyn Work> {
    let compiled = Expression::compile(source).expect("it is valid");
    plain(move || {
        for _ in 0..TIMES {
            let scope = Scope::new(0, 0).with("input", Lazy::json(black_box(INPUT)));
            black_box(compiled.evaluate(&scope).expect("the input has it"));
        }
    })
}

/// The sum of an order out of the outputs of two other nodes.
fn node() -> Box<dyn Work> {
    const ORDER: &str = include_str!("../../../examples/order.yaml");
    let document = nova_model::parse(ORDER.as_bytes(), "order.yaml", nova_model::Format::Yaml);
    let compiled = document.and_then(|document| nova_model::compile(&document)).expect("it is valid");
    let place = |id: &str| {
        let found = compiled.program.nodes.iter().position(|node| &*node.id == id);
        NodeIx(found.expect("the example has it") as u32)
    };
    let (order, prices, total) = (place("order"), place("prices"), place("total"));
    plain(move || {
        let node = |node, output| NodeView {
            node,
            state: NodeState::Completed,
            arrived: true,
            output: Some(output),
            error: None,
            attempts: 1,
            started_at_ms: Some(1_000),
            ended_at_ms: Some(2_000),
        };
        let nodes = [node(order, INPUT), node(prices, &br#"{"tea": 3.5, "cup": 12}"#[..])];
        for _ in 0..TIMES {
            let offered = Offered {
                phase: Phase::Prepare(total),
                input: None,
                nodes: black_box(&nodes),
                vars: &[],
                raw_output: None,
                error: None,
                execution: ExecutionView {
                    id: "00000000000000000000000000000001",
                    workflow: "order",
                    version: 1,
                    namespace: "default",
                    started_at_ms: 1_000,
                    started_by: "api",
                },
                now_ms: 2_000,
                seed: 1,
            };
            match compiled.plan.evaluate(&compiled.program, &offered) {
                Evaluated::Done { output, .. } => assert_eq!(black_box(output), b"43.0"),
                other => panic!("{other:?}"),
            }
        }
    })
}
