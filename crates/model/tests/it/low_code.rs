//! The low-code form, taken as it is.

use nova_model::{Compiled, Format, NodeState};
use nova_program::{NodeKind, Port, With};
use serde_json::{Value, json};

use crate::rig::{Seen, node, prepare};

#[track_caller]
fn low_code(nodes: &Value, edges: &Value) -> Compiled {
    let source = json!({"workflow": {"id": "Flow 1", "name": "A flow", "nodes": nodes, "edges": edges}}).to_string();
    let document = nova_model::parse(source.as_bytes(), "flow.json", Format::Detect).unwrap_or_else(|e| panic!("{e}"));
    nova_model::compile(&document).unwrap_or_else(|e| panic!("{e}"))
}

fn http(id: &str) -> Value {
    json!({"id": id, "name": id, "type": "HTTP", "config": {"url": "https://x.test", "method": "GET"}})
}

fn adapter(id: &str, mapping: &Value) -> Value {
    json!({"id": id, "name": id, "type": "DATA_ADAPTER", "config": {"operation": "map", "mapping": mapping}})
}

fn direct(source: &str, target: &str) -> Value {
    json!({"source": source, "target": target, "type": "DIRECT"})
}

#[test]
fn the_two_nodes_of_the_sample() {
    let it = low_code(&json!([http("n1"), adapter("n2", &json!({"username": "name"}))]), &json!([direct("n1", "n2")]));
    assert_eq!(it.name, "flow-1");
    let n1 = it.program.node(node(&it, "n1"));
    assert!(matches!(&n1.kind, NodeKind::Work { kind, with: With::Constant(json), .. }
        if &**kind == "http" && &**json == br#"{"method":"GET","url":"https://x.test"}"#));
    assert_eq!(it.program.edges_of(node(&it, "n1")).len(), 1);
    // Of each element where it is a list; what is not named stays.
    let users = json!({"status": 200, "body": [{"id": 1, "name": "Ann"}, {"id": 2}, 3]});
    let wanted = json!({"done": [{"id": 1, "username": "Ann"}, {"id": 2}, 3]});
    assert_eq!(prepare(&it, "n2", &Seen::default().done("n1", users)), wanted);
    let user = json!({"status": 200, "body": {"id": 1, "name": "Ann"}});
    assert_eq!(prepare(&it, "n2", &Seen::default().done("n1", user)), json!({"done": {"id": 1, "username": "Ann"}}));
    let again = Compiled::from_canonical(&it.canonical).expect("the same");
    assert_eq!((again.hash, again.program), (it.hash, it.program));
}

#[test]
fn the_output_of_all_parents_is_merged() {
    let nodes = json!([
        http("a"),
        http("b"),
        adapter("c", &json!({"x": "y", "y": "x", "city": "address.city"})),
        adapter("d", &json!({"z": "x"}))
    ]);
    let it = low_code(&nodes, &json!([direct("a", "c"), direct("b", "c"), direct("c", "d"), direct("a", "d")]));
    let answer = |body: Value| json!({"status": 200, "body": body});
    let seen = Seen::default()
        .done("a", answer(json!({"x": 1, "k": 1})))
        .done("b", answer(json!({"y": 2, "k": 2, "address": {"city": "Ulm"}})));
    let wanted = json!({"done": {"x": 2, "y": 1, "k": 2, "address": {"city": "Ulm"}, "city": "Ulm"}});
    assert_eq!(prepare(&it, "c", &seen), wanted);
    let seen = Seen::default().done("a", answer(json!([{"x": 1}]))).done("c", json!([{"x": 2}]));
    assert_eq!(prepare(&it, "d", &seen), json!({"done": [{"z": 2}, {"z": 1}]}));
    let seen = Seen::default().done("a", answer(json!("text"))).done("c", json!({"x": 2}));
    assert_eq!(prepare(&it, "d", &seen)["failed"], "expression.type");
    let seen = Seen::default().state("a", NodeState::Skipped).done("c", json!({"x": 2}));
    assert_eq!(prepare(&it, "d", &seen), json!({"done": {"z": 2}}));
}

#[test]
fn an_adapter_without_parents_takes_the_input() {
    let it = low_code(&json!([adapter("a", &json!({"username": "name"}))]), &json!([]));
    let seen = Seen::input(json!({"name": "Ann"}));
    assert_eq!(prepare(&it, "a", &seen), json!({"done": {"username": "Ann"}}));
}

#[test]
fn braces_conditions_and_merges() {
    let nodes = json!([
        http("n-1"),
        {"id": "n2", "type": "DATA_ADAPTER", "config": {"mapping": {"size": "n-1.body.employees"}}},
        {"id": "n3", "type": "CONDITIONAL", "config": {"condition": "n2.size > 100 && 'n2.size' != ''"}},
        {"id": "n4", "type": "HTTP", "config": {"url": "https://x.test/{{ n2.size }}?a=${b}", "method": "POST"}},
        {"id": "n5", "type": "MERGE", "config": {}},
    ]);
    let edges = json!([
        direct("n-1", "n2"),
        direct("n2", "n3"),
        {"source": "n3", "target": "n4", "type": "CONDITIONAL", "label": "true"},
        {"source": "n3", "target": "n5", "type": "CONDITIONAL", "condition": "false"},
        direct("n4", "n5"),
        {"source": "n2", "target": "n5", "type": "CONDITIONAL", "condition": "n2.size > 5"},
    ]);
    let it = low_code(&nodes, &edges);
    assert_eq!(
        prepare(&it, "n2", &Seen::default().done("n-1", json!({"body": {"employees": 7}}))),
        json!({"done": {"size": 7}})
    );
    assert_eq!(
        prepare(&it, "n3", &Seen::default().done("n2", json!({"size": 101}))),
        json!({"done": null, "chosen": 1})
    );
    let ports: Vec<Port> = it.program.edges_of(node(&it, "n3")).iter().map(|edge| edge.port).collect();
    assert_eq!(ports, [Port::Case(0), Port::Case(1)]);
    let sent = prepare(&it, "n4", &Seen::default().done("n2", json!({"size": 7})));
    assert_eq!(sent["run"]["url"], "https://x.test/7?a=${b}");
    assert_eq!(
        prepare(&it, "if-n2-n5", &Seen::default().done("n2", json!({"size": 7}))),
        json!({"done": null, "chosen": 1})
    );
    let seen = Seen::default().done("n4", json!(1)).state("n3", NodeState::Completed).done("if-n2-n5", json!(null));
    assert_eq!(prepare(&it, "n5", &seen)["done"]["n4"], json!(1));
}

#[test]
fn what_is_sent_is_the_output_of_the_parents() {
    let post = json!({"id": "p", "type": "HTTP", "config": {"url": "https://x.test", "method": "POST"}});
    let it = low_code(
        &json!([http("a"), adapter("b", &json!({"u": "n"})), post]),
        &json!([direct("a", "p"), direct("b", "p")]),
    );
    let seen = Seen::default().done("a", json!({"body": {"x": 1}})).done("b", json!({"u": 2}));
    assert_eq!(prepare(&it, "p", &seen)["run"]["json"], json!({"x": 1, "u": 2}));
}
