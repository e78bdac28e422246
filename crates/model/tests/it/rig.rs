//! What the tests share: compiling, and playing the engine's part of an evaluation.

use nova_model::{Compiled, ErrorView, Evaluated, ExecutionView, Format, NodeState, NodeView, Offered, Phase};
use nova_program::{BodyIx, NodeIx, VarIx};
use serde_json::{Value, json};

/// Compiles YAML that has no problems.
#[track_caller]
pub fn compiled(source: &str) -> Compiled {
    let document = nova_model::parse(source.as_bytes(), "test.yaml", Format::Detect).unwrap_or_else(|e| panic!("{e}"));
    nova_model::compile(&document).unwrap_or_else(|e| panic!("{e}"))
}

/// Compiles the fields of a spec.
#[track_caller]
pub fn spec(spec: &str) -> Compiled {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    compiled(&format!("apiVersion: nova/v1\nkind: Workflow\nmetadata: {{ name: test }}\nspec:\n{indented}"))
}

/// All problems of a source, one per line.
pub fn problems(source: &[u8], file: &str) -> String {
    let document = match nova_model::parse(source, file, Format::Detect) {
        Ok(document) => document,
        Err(problems) => return problems.to_string(),
    };
    match nova_model::compile(&document) {
        Ok(compiled) => {
            let warnings: Vec<String> = compiled.warnings.iter().map(|w| format!("warning {w}")).collect();
            if warnings.is_empty() { "ok".to_owned() } else { warnings.join("\n") }
        }
        Err(problems) => problems.to_string(),
    }
}

pub fn node(compiled: &Compiled, id: &str) -> NodeIx {
    let position = compiled.program.nodes.iter().position(|node| &*node.id == id);
    NodeIx(position.unwrap_or_else(|| panic!("there is no node '{id}'")) as u32)
}

/// What an evaluation may see.
#[derive(Default)]
pub struct Seen {
    pub input: Value,
    /// Id, state, output.
    pub nodes: Vec<(&'static str, NodeState, Value)>,
    pub vars: Vec<(&'static str, Value)>,
    pub output: Option<Value>,
    pub error: Option<&'static str>,
}

impl Seen {
    pub fn input(input: Value) -> Self {
        Self { input, ..Self::default() }
    }

    pub fn done(mut self, id: &'static str, output: Value) -> Self {
        self.nodes.push((id, NodeState::Completed, output));
        self
    }

    pub fn state(mut self, id: &'static str, state: NodeState) -> Self {
        self.nodes.push((id, state, Value::Null));
        self
    }

    pub fn var(mut self, name: &'static str, value: Value) -> Self {
        self.vars.push((name, value));
        self
    }

    pub fn output(mut self, output: Value) -> Self {
        self.output = Some(output);
        self
    }

    pub fn error(mut self, code: &'static str) -> Self {
        self.error = Some(code);
        self
    }
}

/// Evaluates, showing no more than the program says is read.
pub fn evaluate(compiled: &Compiled, phase: Phase, seen: &Seen) -> Evaluated {
    let program = &compiled.program;
    let reads = match phase {
        Phase::Prepare(ix) => &program.node(ix).prepare_reads,
        Phase::Finish(ix) => &program.node(ix).finish_reads,
        Phase::Fallback(ix) => &program.node(ix).fallback_reads,
        Phase::ScopeOutput(body) => &program.body(body).output_reads,
    };
    let json = |value: &Value| serde_json::to_vec(value).expect("JSON");
    let input = json(&seen.input);
    let error = ErrorView {
        code: seen.error.unwrap_or("none"),
        message: "it broke",
        retryable: false,
        node: "x",
        detail: None,
    };
    let nodes: Vec<(NodeIx, NodeState, Vec<u8>)> = seen
        .nodes
        .iter()
        .map(|(id, state, output)| (node(compiled, id), *state, json(output)))
        .filter(|(ix, ..)| reads.nodes.contains(ix))
        .collect();
    let views: Vec<NodeView<'_>> = nodes
        .iter()
        .map(|(ix, state, output)| NodeView {
            node: *ix,
            state: *state,
            arrived: matches!(state, NodeState::Completed | NodeState::Failed),
            output: (*state == NodeState::Completed).then_some(output.as_slice()),
            error: (*state == NodeState::Failed).then_some(error),
            attempts: 1,
            started_at_ms: Some(1_000),
            ended_at_ms: None,
        })
        .collect();
    let vars: Vec<(VarIx, Vec<u8>)> = reads
        .vars
        .iter()
        .filter_map(|ix| {
            let name = &*program.variables[ix.0 as usize].name;
            Some((*ix, json(&seen.vars.iter().find(|(var, _)| *var == name)?.1)))
        })
        .collect();
    let vars: Vec<(VarIx, &[u8])> = vars.iter().map(|(ix, value)| (*ix, value.as_slice())).collect();
    let raw = seen.output.as_ref().map(json);
    let offered = Offered {
        phase,
        input: reads.input.then_some(input.as_slice()),
        nodes: &views,
        vars: &vars,
        raw_output: raw.as_deref(),
        error: seen.error.map(|_| error),
        execution: ExecutionView {
            id: "e1",
            workflow: "test",
            version: 3,
            namespace: "default",
            started_at_ms: 0,
            started_by: "api",
        },
        now_ms: 1_700_000_000_000,
        seed: 7,
    };
    compiled.plan.evaluate(program, &offered)
}

/// As [`evaluate`] for `when`, `with`, choices and thoughts; in words.
pub fn prepare(compiled: &Compiled, id: &str, seen: &Seen) -> Value {
    told(compiled, evaluate(compiled, Phase::Prepare(node(compiled, id)), seen))
}

pub fn finish(compiled: &Compiled, id: &str, seen: &Seen) -> Value {
    told(compiled, evaluate(compiled, Phase::Finish(node(compiled, id)), seen))
}

pub fn scope_output(compiled: &Compiled, body: u32, seen: &Seen) -> Value {
    told(compiled, evaluate(compiled, Phase::ScopeOutput(BodyIx(body)), seen))
}

/// An evaluation as JSON that is easy to compare.
pub fn told(compiled: &Compiled, evaluated: Evaluated) -> Value {
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("JSON");
    match evaluated {
        Evaluated::Skip => json!("skip"),
        Evaluated::Run { with: None } => json!("run"),
        Evaluated::Run { with: Some(with) } => json!({"run": parse(&with)}),
        Evaluated::WaitUntil { at_ms } => json!({"until": at_ms}),
        Evaluated::WaitFor { for_ms } => json!({"for": for_ms}),
        Evaluated::Chosen { bits } => json!({"chosen": bits}),
        Evaluated::Done { output, chosen, sets } => {
            let mut told = json!({"done": parse(&output)});
            if chosen != 0 {
                told["chosen"] = chosen.into();
            }
            if !sets.is_empty() {
                let sets = sets
                    .iter()
                    .map(|(var, value)| (compiled.program.variables[var.0 as usize].name.to_string(), parse(value)));
                told["sets"] = sets.collect();
            }
            told
        }
        Evaluated::Failed { code, message, .. } => json!({"failed": code, "message": message}),
    }
}
