//! Documents without problems: their program, and what their evaluations come to.

use nova_model::{Compiled, NodeState, Phase};
use nova_program::{BodyForm, Jitter, Join, Jump, NodeIx, NodeKind, Port, ScopeOutput, WaitTime, With};
use serde_json::json;

use crate::rig::{Seen, compiled, evaluate, finish, node, prepare, scope_output, spec, told};

#[test]
fn a_list_of_work() {
    let it = compiled(
        r#"
apiVersion: nova/v1
kind: Workflow
metadata: { namespace: shop, name: hello, labels: { team: orders } }
spec:
  timeout: 1h
  priority: 7
  do:
    - { id: fetch, type: http, with: { url: "https://shop.test/${ input.id }" }, retry: { maxAttempts: 5, initial: 500ms, factor: 1.5, jitter: none, only: [http.5xx] }, timeout: { attempt: 10s, total: 2m }, output: "${ output.body }" }
    - { id: echo, type: task, kind: echo, with: { a: [1, true] }, pool: small }
    - { id: note, type: task, kind: noop }
  output: { total: "${ nodes.fetch.output.total }" }
"#,
    );
    assert_eq!((it.namespace.as_deref(), it.name.as_str()), (Some("shop"), "hello"));
    assert_eq!(it.labels, [("team".to_owned(), "orders".to_owned())]);
    assert_eq!((it.program.priority, it.program.timeouts.total_ms), (7, Some(3_600_000)));
    let [fetch, echo, note] = it.program.nodes.as_slice() else { panic!("three nodes") };
    assert!(fetch.prepare && fetch.finish && !fetch.fallback && fetch.prepare_reads.input);
    assert!(
        matches!(&fetch.kind, NodeKind::Work { kind, pool, with: With::Evaluated } if &**kind == "http" && &**pool == "default")
    );
    let retry = fetch.retry.as_ref().expect("a policy");
    assert_eq!((retry.max_attempts, retry.backoff.initial_ms, retry.backoff.factor_milli), (5, 500, 1_500));
    assert_eq!((retry.backoff.jitter, retry.only[0].as_ref()), (Jitter::None, "http.5xx"));
    assert_eq!((fetch.timeouts.attempt_ms, fetch.timeouts.total_ms), (Some(10_000), Some(120_000)));
    assert!(!echo.prepare && !echo.finish);
    assert!(
        matches!(&echo.kind, NodeKind::Work { pool, with: With::Constant(json), .. } if &**json == br#"{"a":[1,true]}"# && &**pool == "small")
    );
    assert!(matches!(&note.kind, NodeKind::Work { with: With::Absent, .. }));
    let root = &it.program.bodies[0];
    assert_eq!((root.form, root.nodes.clone(), root.output), (BodyForm::List, 0..3, ScopeOutput::Evaluated));
    assert_eq!(root.output_reads.nodes, [NodeIx(0)]);
    assert_eq!(prepare(&it, "fetch", &Seen::input(json!({"id": 7}))), json!({"run": {"url": "https://shop.test/7"}}));
    assert_eq!(
        finish(&it, "fetch", &Seen::default().output(json!({"status": 200, "body": {"total": 3}}))),
        json!({"done": {"total": 3}})
    );
    assert_eq!(
        scope_output(&it, 0, &Seen::default().done("fetch", json!({"total": 3}))),
        json!({"done": {"total": 3}})
    );
    let failed = json!({"failed": "expression.null", "message": "output: 'total' is read of null"});
    assert_eq!(scope_output(&it, 0, &Seen::default().state("fetch", NodeState::Skipped)), failed);
}

#[test]
fn a_graph_with_ports_and_joins() {
    let it = spec(
        r#"
timeout: 1h
nodes:
  - { id: a, type: task, kind: noop }
  - { id: b, type: task, kind: noop, needs: [a], when: "input.b" }
  - { id: c, type: task, kind: noop, needs: [a.error, a.timeout], join: any }
  - { id: d, type: merge, needs: [b, c] }
edges:
  - { source: a, port: ended, target: d }
"#,
    );
    let a = it.program.edges_of(NodeIx(0));
    let told: Vec<_> = a.iter().map(|edge| (edge.port, edge.target.0)).collect();
    assert_eq!(told, [(Port::Ok, 1), (Port::Error, 2), (Port::Timeout, 2), (Port::Ended, 3)]);
    assert_eq!((it.program.nodes[2].join, it.program.nodes[2].in_degree), (Join::Any, 2));
    assert_eq!((it.program.nodes[3].join, it.program.nodes[3].in_degree), (Join::All, 3));
    assert_eq!(it.program.nodes[3].prepare_reads.nodes, [NodeIx(0), NodeIx(1), NodeIx(2)]);
    let seen = Seen::default().done("b", json!(1)).state("c", NodeState::Skipped).done("a", json!({"x": 2}));
    assert_eq!(prepare(&it, "d", &seen), json!({"done": {"a": {"x": 2}, "b": 1}}));
    assert_eq!(prepare(&it, "b", &Seen::input(json!({"b": false}))), json!("skip"));
    assert_eq!(prepare(&it, "b", &Seen::input(json!({"b": true}))), json!("run"));
    let failed = json!({"failed": "expression.type", "message": "when: a condition must be true or false, not an int"});
    assert_eq!(prepare(&it, "b", &Seen::input(json!({"b": 1}))), failed);
    // Without `output` a graph gives what nobody needs.
    let seen = Seen::default().done("d", json!({"b": 1}));
    assert_eq!(scope_output(&it, 0, &seen), json!({"done": {"d": {"b": 1}}}));
    assert_eq!(scope_output(&it, 0, &Seen::default().state("d", NodeState::Skipped)), json!({"done": {}}));
}

#[test]
fn variables_and_thoughts() {
    let it = spec(
        r#"
vars: { total: 0, list: [1, 2] }
do:
  - { id: add, type: set, set: { total: "${ vars.total + input.n }", list: "${ vars.list + [vars.total] }" } }
  - { id: form, type: transform, with: { sum: "${ vars.total }", fixed: x }, output: "${ output.sum }", set: { total: "${ output.sum * 2 }" } }
  - { id: fixed, type: transform, with: [1, 2] }
"#,
    );
    assert_eq!(it.program.variables.len(), 2);
    assert_eq!(&*it.program.variables[1].start, b"[1,2]");
    let seen = Seen::input(json!({"n": 2})).var("total", json!(5)).var("list", json!([]));
    assert_eq!(prepare(&it, "add", &seen), json!({"done": null, "sets": {"total": 7, "list": [5]}}));
    assert_eq!(prepare(&it, "form", &seen), json!({"done": 5, "sets": {"total": 10}}));
    assert_eq!(prepare(&it, "fixed", &seen), json!({"done": [1, 2]}));
    assert!(it.program.nodes.iter().all(|node| node.prepare && !node.finish && node.kind == NodeKind::Think));
    assert_eq!(it.program.bodies[0].output, ScopeOutput::LastStep);
}

#[test]
fn choices_with_and_without_bodies() {
    let it = spec(
        r#"
timeout: 1h
do:
  - { id: big, type: if, test: "input.n > 10", then: [ { id: yes1, type: task, kind: noop } ], else: [ { id: no1, type: task, kind: noop } ] }
  - id: which
    type: switch
    cases:
      - { name: low, when: "input.n < 5", next: last }
      - { name: mid, when: "input.n < 50", do: [ { id: m, type: task, kind: noop } ] }
    else: [ { id: e, type: task, kind: noop } ]
  - { id: all, type: switch, mode: all, cases: [ { name: one, when: "input.n > 1" }, { name: two, when: "input.n > 2" } ], default: none }
  - { id: last, type: task, kind: noop, next: end }
"#,
    );
    let big = &it.program.nodes[0];
    assert_eq!(big.kind, NodeKind::Choose);
    assert_eq!(
        big.cases.iter().map(|case| (&*case.name, case.body.map(|b| b.0))).collect::<Vec<_>>(),
        [("true", Some(1)), ("false", Some(2))]
    );
    assert_eq!(it.program.bodies[2].case, 1);
    assert_eq!(it.program.bodies[2].owner, Some(NodeIx(0)));
    assert_eq!(prepare(&it, "big", &Seen::input(json!({"n": 11}))), json!({"chosen": 1}));
    assert_eq!(prepare(&it, "big", &Seen::input(json!({"n": 1}))), json!({"chosen": 2}));
    let which = &it.program.nodes[1];
    assert_eq!(which.cases.iter().map(|case| &*case.name).collect::<Vec<_>>(), ["low", "mid", "default"]);
    assert_eq!(which.cases[0].next, Some(Jump::To(node(&it, "last"))));
    assert_eq!(prepare(&it, "which", &Seen::input(json!({"n": 1}))), json!({"chosen": 1}));
    assert_eq!(prepare(&it, "which", &Seen::input(json!({"n": 99}))), json!({"chosen": 4}));
    assert_eq!(it.program.nodes[2].kind, NodeKind::Think);
    assert_eq!(prepare(&it, "all", &Seen::input(json!({"n": 3}))), json!({"done": null, "chosen": 3}));
    assert_eq!(prepare(&it, "all", &Seen::input(json!({"n": 0}))), json!({"done": null, "chosen": 4}));
    assert_eq!(it.program.nodes[3].next, Some(Jump::End));
    // Bodies follow one another, level by level.
    for body in &it.program.bodies {
        for ix in body.nodes.clone() {
            assert_eq!(it.program.bodies[it.program.nodes[ix as usize].body.0 as usize], *body);
        }
    }
}

#[test]
fn groups_hold_variables_and_their_output_is_made_inside() {
    let it = spec(
        r#"
vars: { seen: 0 }
timeout: 1h
do:
  - id: first
    type: task
    kind: noop
  - id: both
    vars: { seen: 1, own: 2 }
    parallel: 2
    nodes:
      - { id: a, type: task, kind: noop, with: "${ nodes.first.output }" }
      - { id: b, type: set, set: { seen: "${ vars.own }" } }
    output: { a: "${ nodes.a.output }", seen: "${ vars.seen }" }
    retry: 2
    set: { seen: "${ output.seen }" }
  - { id: after, type: task, kind: noop, with: "${ nodes.both.output.a }" }
"#,
    );
    let both = node(&it, "both");
    assert!(matches!(it.program.node(both).kind, NodeKind::Scope(body) if body.0 == 1));
    let body = &it.program.bodies[1];
    assert_eq!((body.parallel, body.vars.clone(), body.form), (2, 1..3, BodyForm::Graph));
    assert!(it.program.node(both).finish);
    // Inside it is the group's own variable, outside the one of the root.
    assert_eq!(body.output_reads.vars.iter().map(|var| var.0).collect::<Vec<_>>(), [1]);
    assert_eq!(
        told(&it, evaluate(&it, Phase::Prepare(node(&it, "b")), &Seen::default().var("own", json!(5)))),
        json!({"done": null, "sets": {"seen": 5}})
    );
    let nova_model::Evaluated::Done { sets, .. } =
        evaluate(&it, Phase::Finish(both), &Seen::default().output(json!({"seen": 9})))
    else {
        panic!("done")
    };
    assert_eq!(sets[0].0.0, 0);
}

#[test]
fn waits() {
    let it = spec(
        r#"
do:
  - { id: a, type: wait, for: 1h30m }
  - { id: b, type: wait, for: "${ input.minutes }m" }
  - { id: c, type: wait, at: "2026-11-20T08:00:00Z" }
  - { id: d, type: wait, at: "${ input.at }", zone: UTC }
  - { id: e, type: wait, for: 1s, when: "input.minutes > 100" }
  - { id: f, type: wait, at: "${ now() + duration('1m') }" }
"#,
    );
    assert_eq!(it.program.nodes[0].kind, NodeKind::Wait(WaitTime::ForMs(5_400_000)));
    assert!(!it.program.nodes[0].prepare);
    let seen = Seen::input(json!({"minutes": 5, "at": "2026-11-20T08:00:00"}));
    assert_eq!(prepare(&it, "b", &seen), json!({"for": 300_000}));
    assert_eq!(prepare(&it, "c", &seen), json!({"until": 1_795_161_600_000u64}));
    assert_eq!(prepare(&it, "d", &seen), json!({"until": 1_795_161_600_000u64}));
    assert_eq!(prepare(&it, "e", &seen), json!("skip"));
    assert_eq!(prepare(&it, "f", &seen), json!({"until": 1_700_000_060_000u64}));
    let failed = prepare(&it, "b", &Seen::input(json!({"minutes": "x"})));
    assert_eq!(failed["failed"], "expression.type");
}

#[test]
fn errors_are_seen_by_fallbacks_and_behind_error_ports() {
    let it = spec(
        r#"
timeout: 1h
nodes:
  - { id: a, type: task, kind: noop }
  - { id: b, type: task, kind: noop, fallback: { why: "${ error.code }" } }
  - { id: c, type: task, kind: echo, needs: [a.error], with: "${ error.message + nodes.a.error.code }" }
"#,
    );
    let b = node(&it, "b");
    assert!(it.program.node(b).fallback);
    let seen = Seen::default().error("http.5xx.503");
    assert_eq!(told(&it, evaluate(&it, Phase::Fallback(b), &seen)), json!({"done": {"why": "http.5xx.503"}}));
    let seen = Seen::default().state("a", NodeState::Failed);
    assert_eq!(prepare(&it, "c", &seen), json!({"run": "it brokenone"}));
}

#[test]
fn what_expressions_see_of_the_execution_and_of_nodes() {
    let it = spec(
        r#"
timeout: 1h
do:
  - { id: a, type: task, kind: noop }
  - { id: b, type: transform, with: ["${ execution.id }", "${ execution.version }", "${ nodes.a.state }", "${ nodes.a.attempts }", "${ nodes.a.startedAt }", "${ nodes.a.endedAt }", "${ execution.startedAt }"] }
"#,
    );
    let seen = Seen::default().done("a", json!(1));
    let wanted = json!({"done": ["e1", 3, "COMPLETED", 1, "1970-01-01T00:00:01Z", null, "1970-01-01T00:00:00Z"]});
    assert_eq!(prepare(&it, "b", &seen), wanted);
}

#[test]
fn defaults_fill_what_a_node_leaves_out() {
    let it = spec(
        r#"
defaults: { task: { retry: 4, timeout: { attempt: 5s }, pool: big } }
do:
  - { id: a, type: task, kind: noop }
  - { id: b, type: task, kind: noop, retry: 2, pool: small }
"#,
    );
    let told: Vec<_> = it
        .program
        .nodes
        .iter()
        .map(|node| {
            let NodeKind::Work { pool, .. } = &node.kind else { panic!("work") };
            (node.retry.as_ref().expect("a policy").max_attempts, node.timeouts.attempt_ms, &**pool)
        })
        .collect();
    assert_eq!(told, [(4, Some(5_000), "big"), (2, Some(5_000), "small")]);
}

#[test]
fn the_stored_form_gives_the_same_again() {
    let it = spec(
        "input: { type: object, required: [n] }\ntimeout: 1h\ndo:\n  - { id: a, type: task, kind: echo, with: { b: 1.0, a: \"\\u0085 ${ input.n }\" } }",
    );
    let again = Compiled::from_canonical(&it.canonical).expect("the same");
    assert_eq!((again.hash, &again.canonical, &again.program), (it.hash, &it.canonical, &it.program));
    assert_eq!(again.input_schema, it.input_schema);
    // The order of fields and the form do not count.
    let json = serde_json::from_slice::<serde_json::Value>(&it.canonical).expect("JSON");
    let pretty = serde_json::to_string_pretty(&json).expect("JSON");
    assert_eq!(compiled(&pretty).hash, it.hash);
    let other = spec("timeout: 1h\ndo:\n  - { id: a, type: task, kind: echo }");
    assert_ne!(other.hash, it.hash);
}

#[test]
fn inputs_are_checked_against_the_schema() {
    let it = spec(
        "input: { type: object, required: [id], properties: { id: { type: string, pattern: '^[a-z]+$' }, n: { type: integer } } }\ndo:\n  - { id: a, type: wait, for: 1s }",
    );
    assert_eq!(it.check_input(br#"{"id": "abc"}"#), Ok(()));
    let told = |input: &[u8]| -> Vec<String> {
        it.check_input(input)
            .expect_err("problems")
            .into_iter()
            .map(|p| format!("{} {}", p.pointer, p.message))
            .collect()
    };
    assert_eq!(told(br#"{"n": "x"}"#), [" \"id\" is a required property", "/n \"x\" is not of type \"integer\""]);
    assert_eq!(told(br#"{"id": "ABC"}"#).len(), 1);
    assert!(told(b"{")[0].contains("not JSON"));
    assert!(spec("do:\n  - { id: a, type: wait, for: 1s }").check_input(b"[1]").is_ok());
}

#[test]
fn compiled_forms_may_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Compiled>();
    shared::<nova_model::Plan>();
}

#[test]
fn a_foreign_offer_is_an_answer_and_no_panic() {
    let it = spec("do:\n  - { id: a, type: wait, for: 1s }");
    for phase in [Phase::Prepare(NodeIx(7)), Phase::Fallback(NodeIx(0)), Phase::ScopeOutput(nova_program::BodyIx(9))] {
        let evaluated = told(&it, evaluate_blind(&it, phase));
        assert_eq!(evaluated["failed"], "engine.internal", "{phase:?}");
    }
}

/// Without looking up what is read.
fn evaluate_blind(compiled: &Compiled, phase: Phase) -> nova_model::Evaluated {
    let execution = nova_model::ExecutionView {
        id: "e",
        workflow: "w",
        version: 1,
        namespace: "n",
        started_at_ms: 0,
        started_by: "api",
    };
    let offered = nova_model::Offered {
        phase,
        input: None,
        nodes: &[],
        vars: &[],
        raw_output: None,
        error: None,
        execution,
        now_ms: 0,
        seed: 0,
    };
    compiled.plan.evaluate(&compiled.program, &offered)
}
