//! Compiled documents on the real engine: this file plays the scheduler and a worker with planned answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use nova_engine::ids::{Epoch, ExecutionId, Offset, OwnerId, Seq, ShardId, TimeMs, Token};
use nova_engine::input::{
    Command, Dedupe, Entry, EntryBody, Local, LocalOutcome, Proposal, PutWorkflow, Record, Register, ReplyTo, Submit,
    TaskOutcome, TaskResult, VarWrite,
};
use nova_engine::output::{Answer, Assignment, MessageBody, NodeState as EngineState, Offer, Outcome, Subject};
use nova_engine::payload::{Failure, Payload};
use nova_engine::{Config, State};
use nova_model::{Compiled, ErrorView, Evaluated, ExecutionView, NodeState, NodeView, Offered, Phase};
use nova_program::VarIx;
use serde_json::{Value, json};

use crate::rig::{compiled, spec};

const SHARD: ShardId = ShardId(0);

/// An answer of the planned worker: output, or code and whether it may be tried again.
type Answered = Result<Value, (&'static str, bool)>;

struct Run<'a> {
    compiled: &'a Compiled,
    state: State,
    now: u64,
    index: u64,
    offset: u64,
    seen: Seq,
    /// Node ids in the order in which attempts began.
    attempts: Vec<String>,
}

/// Runs to the end and gives the outcome, and the attempts in order.
fn run(
    compiled: &Compiled,
    input: &Value,
    mut work: impl FnMut(&str, u32, &Value) -> Answered,
) -> (Result<Value, String>, Vec<String>) {
    let mut run = Run {
        compiled,
        state: State::new(Config { shards: 1 }),
        now: 1_000,
        index: 0,
        offset: 0,
        seen: Seq(0),
        attempts: Vec::new(),
    };
    run.begin(input);
    for _ in 0..10_000 {
        let offers = run.state.offers(SHARD, Token(0), usize::MAX);
        let locals: Vec<Local> = offers
            .iter()
            .map(|offer| Local { execution: offer.execution, token: offer.token, outcome: evaluate(compiled, offer) })
            .collect();
        let messages: Vec<_> = run.state.outbox(SHARD, run.seen, usize::MAX).cloned().collect();
        run.seen = messages.last().map_or(run.seen, |message| message.seq);
        let mut results = Vec::new();
        for message in &messages {
            match &message.body {
                MessageBody::Assign(assignment) => results.push(run.attempt(assignment, &mut work)),
                MessageBody::Reply { answer: Answer::Finished { outcome, .. }, .. } => {
                    return (told(outcome), run.attempts);
                }
                MessageBody::Reply { answer: Answer::Rejected { why, .. }, .. } => panic!("{why:?}"),
                _ => {}
            }
        }
        if locals.is_empty() && results.is_empty() {
            let due = run.state.next_due().expect("something is due, else it hangs");
            run.now = run.now.max(due.0);
            run.entry(EntryBody::Tick);
        } else {
            run.propose(results, locals);
        }
    }
    panic!("it does not end");
}

fn told(outcome: &Outcome) -> Result<Value, String> {
    match outcome {
        Outcome::Completed(output) => Ok(value(output)),
        Outcome::Failed(failure) => Err(format!("{} at {}: {}", failure.code, failure.node, failure.message)),
        Outcome::Cancelled(reason) => Err(format!("cancelled: {reason}")),
    }
}

fn bytes(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Inline(bytes) => bytes,
        Payload::Stored { .. } => panic!("nothing is stored here"),
    }
}

fn value(payload: &Payload) -> Value {
    serde_json::from_slice(bytes(payload)).expect("JSON")
}

fn inline(value: &Value) -> Payload {
    Payload::Inline(Bytes::from(serde_json::to_vec(value).expect("JSON")))
}

impl Run<'_> {
    fn entry(&mut self, body: EntryBody) {
        self.index += 1;
        self.now += 1;
        let entry = Entry { now: TimeMs(self.now), index: self.index, term: 1, body };
        let verdict = self.state.apply(&entry);
        assert!(matches!(verdict, nova_engine::output::Verdict::Applied(_)), "{verdict:?}");
    }

    fn propose(&mut self, commands: Vec<Command>, locals: Vec<Local>) {
        let first = self.offset;
        let checksum = |offset: u64| offset + 7;
        let records: Vec<Record> = commands
            .into_iter()
            .zip(first..)
            .map(|(command, at)| Record { offset: Offset(at), checksum: checksum(at), commands: vec![command] })
            .collect();
        self.offset += records.len() as u64;
        self.entry(EntryBody::Propose(Proposal {
            shard: SHARD,
            epoch: Epoch(1),
            first_offset: Offset(first),
            next_offset: Offset(self.offset),
            before: if first == 0 { 0 } else { checksum(first - 1) },
            records,
            locals,
            outbox_acked: Seq(0),
        }));
    }

    fn begin(&mut self, input: &Value) {
        self.entry(EntryBody::Grant { shard: SHARD, after: Epoch(0), owner: OwnerId(1) });
        let kinds = ["http", "noop", "echo", "sleep", "fail", "slow"].map(Box::from).to_vec();
        self.entry(EntryBody::Register(Register {
            name: "w".into(),
            pool: "default".into(),
            kinds,
            labels: vec![],
            capacity: 100,
            boot: 1,
            last_session: nova_engine::ids::SessionId(0),
            fenced: false,
            inboxes: 1,
        }));
        self.entry(EntryBody::PutWorkflow(PutWorkflow {
            namespace: "default".into(),
            name: self.compiled.name.as_str().into(),
            hash: self.compiled.hash,
            program: Arc::new(self.compiled.program.clone()),
            document: Bytes::from(self.compiled.canonical.clone()),
        }));
        let json = serde_json::to_vec(input).expect("JSON");
        self.compiled.check_input(&json).expect("an input that fits");
        let submit = Submit {
            execution: ExecutionId::new(SHARD, self.now, 1),
            namespace: "default".into(),
            workflow: self.compiled.name.as_str().into(),
            version: 1,
            hash: self.compiled.hash,
            input: inline(input),
            content_hash: [1; 32],
            dedupe: Dedupe::None,
            reply_to: Some(ReplyTo { inbox: 0, boot: 1, request: 1 }),
            reply_at_end: true,
            started_by: "test".into(),
            labels: vec![],
            trace: None,
        };
        self.propose(vec![Command::Submit(submit)], Vec::new());
    }

    fn attempt(&mut self, assignment: &Assignment, work: &mut impl FnMut(&str, u32, &Value) -> Answered) -> Command {
        self.attempts.push(assignment.node_id.to_string());
        let outcome = match work(&assignment.node_id, assignment.attempt, &value(&assignment.with)) {
            Ok(output) => TaskOutcome::Completed(inline(&output)),
            Err((code, retryable)) => TaskOutcome::Failed(Failure {
                code: code.into(),
                message: "planned".into(),
                retryable,
                retry_after_ms: None,
                detail: None,
                node: "".into(),
            }),
        };
        Command::Result(TaskResult { lease: assignment.lease, outcome })
    }
}

fn state(state: EngineState) -> NodeState {
    match state {
        EngineState::Pending => NodeState::Pending,
        EngineState::Evaluating | EngineState::Waiting => NodeState::Waiting,
        EngineState::Queued => NodeState::Queued,
        EngineState::Running => NodeState::Running,
        EngineState::Retrying => NodeState::Retrying,
        EngineState::Cancelling => NodeState::Cancelling,
        EngineState::Completed => NodeState::Completed,
        EngineState::Failed => NodeState::Failed,
        EngineState::Skipped => NodeState::Skipped,
        EngineState::Cancelled => NodeState::Cancelled,
    }
}

fn error(failure: &Failure) -> ErrorView<'_> {
    ErrorView {
        code: &failure.code,
        message: &failure.message,
        retryable: failure.retryable,
        node: &failure.node,
        detail: failure.detail.as_deref(),
    }
}

/// As a scheduler does it.
fn evaluate(compiled: &Compiled, offer: &Offer) -> LocalOutcome {
    let id = format!("{:?}", offer.execution);
    let nodes: Vec<NodeView<'_>> = offer
        .nodes
        .iter()
        .map(|view| NodeView {
            node: view.node,
            state: state(view.state),
            arrived: view.arrived,
            output: view.output.as_ref().map(bytes),
            error: view.failure.as_ref().map(error),
            attempts: view.attempts,
            started_at_ms: view.started_at.map(|at| at.0),
            ended_at_ms: view.ended_at.map(|at| at.0),
        })
        .collect();
    let vars: Vec<(VarIx, &[u8])> = offer.vars.iter().map(|(var, payload)| (*var, bytes(payload))).collect();
    let offered = Offered {
        phase: match offer.subject {
            Subject::Prepare(node) => Phase::Prepare(node),
            Subject::Finish(node) => Phase::Finish(node),
            Subject::Fallback(node) => Phase::Fallback(node),
            Subject::ScopeOutput(body) => Phase::ScopeOutput(body),
        },
        input: offer.input.as_ref().map(bytes),
        nodes: &nodes,
        vars: &vars,
        raw_output: offer.raw_output.as_ref().map(bytes),
        error: offer.failure.as_ref().map(error),
        execution: ExecutionView {
            id: &id,
            workflow: &offer.workflow,
            version: offer.version,
            namespace: &offer.namespace,
            started_at_ms: offer.started_at.0,
            started_by: &offer.started_by,
        },
        now_ms: offer.now.0,
        seed: offer.seed,
    };
    let payload = |json: Vec<u8>| Payload::Inline(Bytes::from(json));
    match compiled.plan.evaluate(&compiled.program, &offered) {
        Evaluated::Skip => LocalOutcome::Skip,
        Evaluated::Run { with } => LocalOutcome::Run { with: with.map(payload) },
        Evaluated::WaitUntil { at_ms } => LocalOutcome::WaitUntil(TimeMs(at_ms)),
        Evaluated::WaitFor { for_ms } => LocalOutcome::WaitFor { ms: for_ms },
        Evaluated::Chosen { bits } => LocalOutcome::Chosen { cases: bits, sets: Vec::new() },
        Evaluated::Done { output, chosen, sets } => LocalOutcome::Done {
            output: payload(output),
            cases: chosen,
            sets: sets.into_iter().map(|(var, value)| VarWrite { var, value: payload(value) }).collect(),
        },
        Evaluated::Failed { code, message, detail } => LocalOutcome::Failed(Failure {
            code: code.into(),
            message: message.into(),
            retryable: false,
            retry_after_ms: None,
            detail: detail.map(Bytes::from),
            node: "".into(),
        }),
    }
}

/// `echo`, and for everything else null.
fn echo(_: &str, _: u32, with: &Value) -> Answered {
    Ok(with.clone())
}

fn example(name: &str) -> Compiled {
    let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let source = std::fs::read(path).expect("the example");
    let document = nova_model::parse(&source, name, nova_model::Format::Detect).expect("readable");
    nova_model::compile(&document).expect("no problems")
}

/// The small server of the demo.
fn shop(attempts: &mut BTreeMap<String, u32>, with: &Value) -> Answered {
    let url = with["url"].as_str().expect("a url");
    let path = url.strip_prefix("http://shop.test").expect("the base url");
    let calls = attempts.entry(path.to_owned()).or_default();
    *calls += 1;
    let body = match path {
        "/orders/7" => json!({"customerId": "c1", "lines": [{"sku": "x", "quantity": 2}, {"sku": "y", "quantity": 1}]}),
        "/customers/c1" => json!({"name": "Ann"}),
        "/prices" => {
            assert_eq!(with["query"]["skus"], "x,y");
            json!({"x": 10.5, "y": 100})
        }
        "/stock/7" if *calls <= 2 => return Err(("http.5xx.503", true)),
        "/stock/7" => json!({"available": true}),
        "/results" => json!({"received": with["json"]}),
        other => panic!("no such path: {other}"),
    };
    Ok(json!({"status": 200, "headers": {}, "body": body}))
}

#[test]
fn the_order_of_the_demo() {
    let order = example("order.yaml");
    let mut calls = BTreeMap::new();
    let input = json!({"baseUrl": "http://shop.test", "orderId": "7"});
    let (outcome, attempts) =
        run(
            &order,
            &input,
            |_, _, with| if with["url"].is_string() { shop(&mut calls, with) } else { Ok(with.clone()) },
        );
    let decision = json!({"approved": true, "by": "the rule for large orders"});
    let wanted = json!({
        "order": "7",
        "total": 121.0,
        "stockAttempts": 3,
        "posted": {"received": {"order": "7", "customer": "Ann", "inStock": true, "total": 121.0, "decision": decision}},
    });
    assert_eq!(outcome, Ok(wanted));
    assert_eq!(attempts[0], "order");
    assert_eq!(attempts.iter().filter(|id| *id == "stock").count(), 3);
    assert!(attempts.contains(&"review".to_owned()) && !attempts.contains(&"express".to_owned()));
    let input = json!({"baseUrl": "http://shop.test", "orderId": "7", "limit": 500});
    let mut calls = BTreeMap::new();
    let (outcome, attempts) =
        run(
            &order,
            &input,
            |_, _, with| if with["url"].is_string() { shop(&mut calls, with) } else { Ok(with.clone()) },
        );
    assert_eq!(outcome.expect("completed")["posted"]["received"]["decision"]["by"], "the rule for small orders");
    assert!(!attempts.contains(&"review".to_owned()));
}

#[test]
fn hello_and_the_low_code_sample() {
    assert_eq!(run(&example("hello.yaml"), &json!({}), echo).0, Ok(json!("Hello, world!")));
    assert_eq!(run(&example("hello.yaml"), &json!({"name": "Ann"}), echo).0, Ok(json!("Hello, Ann!")));
    let users = |_: &str, _: u32, _: &Value| Ok(json!({"status": 200, "body": [{"id": 1, "name": "Ann"}]}));
    let (outcome, _) = run(&example("lowcode.json"), &json!({}), users);
    assert_eq!(outcome, Ok(json!({"adapt": [{"id": 1, "username": "Ann"}]})));
}

#[test]
fn lists_branches_groups_and_variables() {
    let it = spec(
        r#"
vars: { log: [] }
timeout: 1h
do:
  - { id: a, type: task, kind: echo, with: "${ input.n }", set: { log: "${ vars.log + ['a'] }" } }
  - { id: big, type: if, test: "nodes.a.output > 5", then: [ { id: b, type: set, set: { log: "${ vars.log + ['big'] }" } } ], else: [ { id: c, type: transform, with: small } ] }
  - { id: skip, type: switch, cases: [ { name: over, when: "nodes.a.output > 100", next: last } ] }
  - id: g
    vars: { n: 1 }
    nodes:
      - { id: x, type: set, set: { n: "${ vars.n + 1 }", log: "${ vars.log + ['x'] }" } }
      - { id: y, type: set, set: { n: "${ vars.n + 10 }", log: "${ vars.log + ['y'] }" } }
      - { id: z, type: wait, for: 10m, needs: [x, y] }
    output: { n: "${ vars.n }" }
    set: { log: "${ vars.log + ['g' + string(output.n)] }" }
  - { id: never, type: task, kind: fail, when: "nodes.a.output > 1000" }
  - { id: last, type: transform, with: { log: "${ vars.log }", branch: "${ nodes.big.output }", skipped: "${ nodes.never.state }" } }
"#,
    );
    let (outcome, _) = run(&it, &json!({"n": 7}), echo);
    assert_eq!(outcome, Ok(json!({"log": ["a", "big", "x", "y", "g12"], "branch": null, "skipped": "SKIPPED"})));
    let (outcome, _) = run(&it, &json!({"n": 3}), echo);
    assert_eq!(outcome.expect("completed")["branch"], "small");
    let (outcome, _) = run(&it, &json!({"n": 101}), echo);
    assert_eq!(outcome, Ok(json!({"log": ["a", "big"], "branch": null, "skipped": "PENDING"})));
}

#[test]
fn the_ladder_of_a_failure() {
    let fails = |id: &str, _: u32, with: &Value| if id == "f" { Err(("task.broken", false)) } else { Ok(with.clone()) };
    let it = spec("timeout: 1h\ndo:\n  - { id: f, type: task, kind: fail, fallback: { why: \"${ error.code }\" } }");
    assert_eq!(run(&it, &json!(null), fails).0, Ok(json!({"why": "task.broken"})));
    let it = spec("timeout: 1h\ndo:\n  - { id: f, type: task, kind: fail, retry: { maxAttempts: 3, only: [task] } }");
    let (outcome, attempts) = run(&it, &json!(null), fails);
    assert_eq!((outcome, attempts.len()), (Err("task.broken at f: planned".to_owned()), 3));
    let it = spec(
        r#"
timeout: 1h
nodes:
  - { id: f, type: task, kind: fail }
  - { id: ok1, type: task, kind: echo, needs: [f] }
  - { id: bad, type: task, kind: echo, needs: [f.error], with: "${ error.code + ' of ' + error.node }" }
  - { id: both, type: merge, needs: [ok1, bad] }
"#,
    );
    assert_eq!(run(&it, &json!(null), fails).0, Ok(json!({"both": {"bad": "task.broken of f"}})));
    let it = spec("timeout: 1h\ndo:\n  - { id: a, type: task, kind: echo, with: \"${ input.x.y }\" }");
    let failed = "expression.null at a: with: 'y' is read of null".to_owned();
    assert_eq!(run(&it, &json!({"x": null}), echo).0, Err(failed));
}

#[test]
fn every_supported_pattern_ends() {
    let all = include_str!("cases/patterns.yaml");
    for pattern in all.split("\n---\n").skip(1) {
        let (name, body) = pattern.split_once('\n').expect("a name");
        let name = name.trim_start_matches("name: ").split(' ').next().expect("a name");
        if !crate::patterns::SUPPORTED.contains(&name) {
            continue;
        }
        let spec: String = body.lines().map(|line| format!("  {line}\n")).collect();
        let it = compiled(&format!(
            "apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: {name} }}\nspec:\n  timeout: 1h\n{spec}"
        ));
        for input in [
            json!({"total": 5, "wounded": true, "burning": false, "x": true, "y": false, "z": false}),
            json!({"total": 5000, "wounded": false, "burning": false, "x": false, "y": true, "z": true}),
        ] {
            let (outcome, _) = run(&it, &input, echo);
            assert!(outcome.is_ok(), "{name} with {input}: {outcome:?}");
        }
    }
}
