//! What the scheduler evaluates for a node: a pure function of what it is offered.

use nova_expression::{Expression, Lazy, Object, Scope, Template, Value, moment_to_ms, parse_duration_ms};
use nova_program::{BodyIx, NodeIx, NodeKind, Program, VarIx};

use crate::limits;
use crate::plan::{Action, Adapter, Choice, NodePlan, Plan, ScopeValue, Thought};

/// What is evaluated, with all that it may see.
#[derive(Clone, Debug)]
pub struct Offered<'a> {
    /// Which evaluation of which node or body.
    pub phase: Phase,
    /// Input of the execution as JSON, if it is read.
    pub input: Option<&'a [u8]>,
    /// Nodes that are read.
    pub nodes: &'a [NodeView<'a>],
    /// Variables that are read, as JSON.
    pub vars: &'a [(VarIx, &'a [u8])],
    /// What the work came to, as JSON ([`Phase::Finish`]).
    pub raw_output: Option<&'a [u8]>,
    /// Why the node failed ([`Phase::Fallback`]).
    pub error: Option<ErrorView<'a>>,
    /// The execution.
    pub execution: ExecutionView<'a>,
    /// What `now()` says, in milliseconds since 1970.
    pub now_ms: u64,
    /// Feeds `random()` and `uuid()`.
    pub seed: u64,
}

/// Which evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// `when`, `with`, a choice, a thought.
    Prepare(NodeIx),
    /// `output` and `set` after the work.
    Finish(NodeIx),
    /// The value that stands in for a failed node's output.
    Fallback(NodeIx),
    /// The output of a scope that ends.
    ScopeOutput(BodyIx),
}

/// What an expression may see of a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    /// Which.
    pub node: NodeIx,
    /// Its state.
    pub state: NodeState,
    /// Whether one of its paths into the reader arrived.
    pub arrived: bool,
    /// Its output as JSON, once completed.
    pub output: Option<&'a [u8]>,
    /// Its error, once failed.
    pub error: Option<ErrorView<'a>>,
    /// Attempts so far.
    pub attempts: u32,
    /// When its turn came, in milliseconds since 1970.
    pub started_at_ms: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    pub ended_at_ms: Option<u64>,
}

/// State of a node, as expressions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Its turn has not come.
    Pending,
    /// A timer or an evaluation is under way, or its bodies run.
    Waiting,
    /// In the ready queue.
    Queued,
    /// A worker holds it.
    Running,
    /// Between two attempts.
    Retrying,
    /// Cancelled, but a worker still holds it.
    Cancelling,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Its paths were dead, or `when` was false.
    Skipped,
    /// Ended from outside.
    Cancelled,
}

impl NodeState {
    /// As it stands in `nodes.x.state`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Waiting => "WAITING",
            Self::Queued => "QUEUED",
            Self::Running => "RUNNING",
            Self::Retrying => "RETRYING",
            Self::Cancelling => "CANCELLING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Skipped => "SKIPPED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// What an expression may see of an error.
#[derive(Clone, Copy, Debug)]
pub struct ErrorView<'a> {
    /// Lower-case segments.
    pub code: &'a str,
    /// For people.
    pub message: &'a str,
    /// Whether a retry policy without `only` repeats it.
    pub retryable: bool,
    /// Where it began.
    pub node: &'a str,
    /// More about it, as JSON.
    pub detail: Option<&'a [u8]>,
}

/// What an expression may see of the execution.
#[derive(Clone, Copy, Debug)]
pub struct ExecutionView<'a> {
    /// Its id.
    pub id: &'a str,
    /// Name of its workflow.
    pub workflow: &'a str,
    /// Version of its workflow.
    pub version: u32,
    /// Tenant.
    pub namespace: &'a str,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// Who started it.
    pub started_by: &'a str,
}

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// `when` was false.
    Skip,
    /// The node's own matter may begin, with this argument (JSON) if it has an evaluated one.
    Run {
        /// Argument of the worker.
        with: Option<Vec<u8>>,
    },
    /// A wait lasts until this moment.
    WaitUntil {
        /// Milliseconds since 1970.
        at_ms: u64,
    },
    /// A wait lasts this long from now on.
    WaitFor {
        /// Milliseconds.
        for_ms: u64,
    },
    /// Bodies to run: bit n is case n.
    Chosen {
        /// Chosen cases.
        bits: u64,
    },
    /// The node, or the scope's output, is done.
    Done {
        /// Its output as JSON.
        output: Vec<u8>,
        /// Chosen cases of an `if` or `switch` without bodies: bit n is case n.
        chosen: u64,
        /// Variables written, as JSON.
        sets: Vec<(VarIx, Vec<u8>)>,
    },
    /// The evaluation failed.
    Failed {
        /// `expression.*`, or `engine.internal` for a fault of ours.
        code: &'static str,
        /// For people; begins with the field.
        message: String,
        /// More, as JSON.
        detail: Option<Vec<u8>>,
    },
}

impl Plan {
    /// Evaluates what is offered. The same offer gives the same result, wherever it is evaluated.
    #[must_use]
    pub fn evaluate(&self, program: &Program, offered: &Offered<'_>) -> Evaluated {
        // Nothing here is known to panic; should it, one node fails and not the process.
        let run = std::panic::AssertUnwindSafe(|| self.run(program, offered));
        match std::panic::catch_unwind(run) {
            Ok(Ok(evaluated)) => evaluated,
            Ok(Err(failed)) => {
                let detail =
                    failed.offset.map(|offset| format!("{{\"field\":\"{}\",\"offset\":{offset}}}", failed.field));
                let message = format!("{}: {}", failed.field, failed.message);
                Evaluated::Failed { code: failed.code, message, detail: detail.map(String::into_bytes) }
            }
            Err(_) => internal("the evaluation broke off"),
        }
    }

    fn run(&self, program: &Program, offered: &Offered<'_>) -> Result<Evaluated, Failed> {
        let ix = match offered.phase {
            Phase::Prepare(ix) | Phase::Finish(ix) | Phase::Fallback(ix) => ix,
            Phase::ScopeOutput(body) => return self.scope_output(program, offered, body),
        };
        let (Some(plan), Some(node)) = (self.nodes.get(ix.0 as usize), program.nodes.get(ix.0 as usize)) else {
            return Ok(internal("there is no such node"));
        };
        let scope = scope(program, offered, error_of(offered, plan));
        match offered.phase {
            Phase::Prepare(_) => prepare(plan, &node.kind, program, offered, scope),
            Phase::Finish(_) => {
                let raw = offered.raw_output.unwrap_or(b"null");
                finish(plan, raw, 0, scope.with("output", Lazy::json(raw)))
            }
            _ => match &plan.fallback {
                Some(template) => {
                    let output = json("fallback", template, &scope)?;
                    Ok(Evaluated::Done { output, chosen: 0, sets: Vec::new() })
                }
                None => Ok(internal("the node has no fallback")),
            },
        }
    }

    fn scope_output(&self, program: &Program, offered: &Offered<'_>, body: BodyIx) -> Result<Evaluated, Failed> {
        let output = match self.bodies.get(body.0 as usize) {
            Some(ScopeValue::Template(template)) => json("output", template, &scope(program, offered, None))?,
            Some(ScopeValue::Finals(finals)) => {
                let completed = |view: &NodeView<'_>| view.state == NodeState::Completed;
                outputs(program, offered, finals, completed)
            }
            Some(ScopeValue::LastStep) | None => return Ok(internal("the output of this scope is not evaluated")),
        };
        Ok(Evaluated::Done { output, chosen: 0, sets: Vec::new() })
    }
}

struct Failed {
    code: &'static str,
    field: &'static str,
    message: String,
    offset: Option<usize>,
}

impl Failed {
    fn of_type(field: &'static str, message: impl Into<String>) -> Self {
        Self { code: "expression.type", field, message: message.into(), offset: None }
    }

    fn expression(field: &'static str, error: &nova_expression::EvalError) -> Self {
        let message = error.message().to_owned();
        Self { code: error.code().as_str(), field, message, offset: Some(error.offset()) }
    }
}

fn internal(message: &str) -> Evaluated {
    Evaluated::Failed { code: "engine.internal", message: message.to_owned(), detail: None }
}

fn test(field: &'static str, condition: &Expression, scope: &Scope<'_>) -> Result<bool, Failed> {
    condition.test(scope).map_err(|error| Failed::expression(field, &error))
}

fn json(field: &'static str, template: &Template, scope: &Scope<'_>) -> Result<Vec<u8>, Failed> {
    template.evaluate_json(scope).map_err(|error| Failed::expression(field, &error))
}

fn prepare(
    plan: &NodePlan,
    kind: &NodeKind,
    program: &Program,
    offered: &Offered<'_>,
    scope: Scope<'_>,
) -> Result<Evaluated, Failed> {
    if let Some(when) = &plan.when
        && !test("when", when, &scope)?
    {
        return Ok(Evaluated::Skip);
    }
    match &plan.action {
        Action::Pass if matches!(kind, NodeKind::Think | NodeKind::Choose) => {
            Ok(internal("the node has nothing to do"))
        }
        Action::Pass => Ok(Evaluated::Run { with: None }),
        Action::With(template) => Ok(Evaluated::Run { with: Some(json("with", template, &scope)?) }),
        Action::WaitFor(template) => wait_for(template, &scope),
        Action::WaitAt { at, zone } => wait_at(at, zone.as_ref(), &scope),
        Action::Choose(choice) => Ok(Evaluated::Chosen { bits: choose(choice, &scope)? }),
        Action::Think(thought) => {
            let mut chosen = 0;
            let raw = match thought {
                Thought::Set => b"null".to_vec(),
                Thought::Merge(parents) => outputs(program, offered, parents, |view| view.arrived),
                Thought::Transform(template) => json("with", template, &scope)?,
                Thought::Choose(choice) => {
                    chosen = choose(choice, &scope)?;
                    b"null".to_vec()
                }
                Thought::Adapt(adapter) => adapt(adapter, offered)?,
            };
            finish(plan, &raw, chosen, rebind(program, offered, plan, &raw))
        }
    }
}

/// The scope again, with what a thought came to as `output`.
fn rebind<'a>(program: &'a Program, offered: &'a Offered<'a>, plan: &NodePlan, raw: &'a [u8]) -> Scope<'a> {
    scope(program, offered, error_of(offered, plan)).with("output", Lazy::json(raw))
}

fn finish(plan: &NodePlan, raw: &[u8], chosen: u64, scope: Scope<'_>) -> Result<Evaluated, Failed> {
    let mut sets = Vec::with_capacity(plan.set.len());
    for (var, template) in &plan.set {
        sets.push((*var, json("set", template, &scope)?));
    }
    let output = match &plan.output {
        Some(template) => json("output", template, &scope)?,
        None => raw.to_vec(),
    };
    Ok(Evaluated::Done { output, chosen, sets })
}

fn choose(choice: &Choice, scope: &Scope<'_>) -> Result<u64, Failed> {
    let mut bits = 0u64;
    for (number, condition) in choice.cases.iter().enumerate() {
        if test("when", condition, scope)? {
            bits |= 1 << number;
            if !choice.all {
                break;
            }
        }
    }
    // The last case stands for none of the others. There are at most 63 before it.
    Ok(if bits == 0 { 1 << choice.cases.len() } else { bits })
}

fn wait_for(template: &Template, scope: &Scope<'_>) -> Result<Evaluated, Failed> {
    let value = template.evaluate(scope).map_err(|error| Failed::expression("for", &error))?;
    let ms = match &value {
        Value::Text(text) => parse_duration_ms(text).map_err(|error| Failed::of_type("for", error.to_string()))?,
        Value::Duration(span) if !span.is_negative() => u64::try_from(span.as_millis()).unwrap_or(u64::MAX),
        Value::Duration(_) => 0,
        other => return Err(Failed::of_type("for", format!("a duration is wanted, not {}", other.kind_name()))),
    };
    if ms > limits::TIMEOUT_MS {
        return Err(Failed {
            code: "expression.limit",
            field: "for",
            message: "longer than 10 years".to_owned(),
            offset: None,
        });
    }
    Ok(Evaluated::WaitFor { for_ms: ms })
}

fn wait_at(at: &Template, zone: Option<&Template>, scope: &Scope<'_>) -> Result<Evaluated, Failed> {
    let value = at.evaluate(scope).map_err(|error| Failed::expression("at", &error))?;
    let zone = match zone {
        Some(zone) => match zone.evaluate(scope).map_err(|error| Failed::expression("zone", &error))? {
            Value::Text(zone) => Some(zone),
            other => return Err(Failed::of_type("zone", format!("text is wanted, not {}", other.kind_name()))),
        },
        None => None,
    };
    let at_ms = match &value {
        Value::Timestamp(at) => u64::try_from(at.as_millisecond()).unwrap_or(0),
        Value::Text(text) => moment_to_ms(text, zone.as_deref()).map_err(|message| Failed::of_type("at", message))?,
        other => return Err(Failed::of_type("at", format!("a moment is wanted, not {}", other.kind_name()))),
    };
    Ok(Evaluated::WaitUntil { at_ms })
}

/// `{ id: output }` of those that qualify; the outputs are copied unread.
fn outputs(
    program: &Program,
    offered: &Offered<'_>,
    nodes: &[NodeIx],
    qualifies: impl Fn(&NodeView<'_>) -> bool,
) -> Vec<u8> {
    let mut json = vec![b'{'];
    for ix in nodes {
        let Some(view) = offered.nodes.iter().find(|view| view.node == *ix).filter(|view| qualifies(view)) else {
            continue;
        };
        if json.len() > 1 {
            json.push(b',');
        }
        // Ids hold nothing that JSON would escape.
        json.extend_from_slice(format!("\"{}\":", program.node(*ix).id).as_bytes());
        json.extend_from_slice(view.output.unwrap_or(b"null"));
    }
    json.push(b'}');
    json
}

fn adapt(adapter: &Adapter, offered: &Offered<'_>) -> Result<Vec<u8>, Failed> {
    let data = |bytes: &[u8]| {
        Value::from_json(bytes).map_err(|error| Failed {
            code: "expression.payload",
            field: "input",
            message: format!("not JSON: {error}"),
            offset: None,
        })
    };
    let mut merged = None;
    for (parent, answers) in &adapter.parents {
        let view = offered.nodes.iter().find(|view| view.node == *parent);
        let Some(output) = view.and_then(|view| view.output) else { continue };
        let value = data(output)?;
        let value = if *answers { value.field("body").cloned().unwrap_or_default() } else { value };
        merged = Some(match merged {
            None => value,
            Some(before) => merge(before, value)?,
        });
    }
    let input = match merged {
        Some(value) => value,
        None => data(offered.input.unwrap_or(b"null"))?,
    };
    let renamed = match &input {
        Value::List(items) => Value::list(items.iter().map(|item| rename(item, &adapter.mapping)).collect()),
        other => rename(other, &adapter.mapping),
    };
    renamed.to_json().map_err(|error| Failed {
        code: "expression.limit",
        field: "output",
        message: error.to_string(),
        offset: None,
    })
}

/// Objects by field, the later one winning; lists end to end; null gives way.
fn merge(a: Value, b: Value) -> Result<Value, Failed> {
    Ok(match (a, b) {
        (Value::Null, other) | (other, Value::Null) => other,
        (Value::Object(a), Value::Object(b)) => {
            let mut all = a.as_ref().clone();
            all.extend(b.iter().map(|(key, value)| (key.clone(), value.clone())));
            Value::object(all)
        }
        (Value::List(a), Value::List(b)) => Value::list(a.iter().chain(b.iter()).cloned().collect()),
        (a, b) => {
            let message = format!("{} and {} cannot be merged", a.kind_name(), b.kind_name());
            return Err(Failed::of_type("input", message));
        }
    })
}

/// Fields that are not named keep their names; a name that is not there changes nothing.
fn rename(value: &Value, mapping: &[(Box<str>, Box<str>)]) -> Value {
    let Value::Object(object) = value else { return value.clone() };
    // All at once, so that two fields can change places.
    let moved = |key: &str| mapping.iter().any(|(_, old)| **old == *key);
    let mut renamed: Object =
        object.iter().filter(|(key, _)| !moved(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    for (new, old) in mapping {
        if let Some(value) = dotted(object, old) {
            renamed.insert(new.as_ref().into(), value);
        }
    }
    Value::object(renamed)
}

/// A field by its name, or by its path where the name holds points.
fn dotted(object: &Object, path: &str) -> Option<Value> {
    if let Some(value) = object.get(path) {
        return Some(value.clone());
    }
    let (first, rest) = path.split_once('.')?;
    match object.get(first)? {
        Value::Object(inner) => dotted(inner, rest),
        _ => None,
    }
}

fn error_of<'a>(offered: &Offered<'a>, plan: &NodePlan) -> Option<ErrorView<'a>> {
    if let Phase::Fallback(_) = offered.phase {
        return offered.error;
    }
    let view = |ix: &NodeIx| offered.nodes.iter().find(|view| view.node == *ix);
    plan.errors_before
        .iter()
        .filter_map(view)
        .filter(|view| view.arrived)
        .find_map(|view| view.error)
        .or_else(|| plan.errors_before.iter().filter_map(view).find_map(|view| view.error))
}

fn moment(ms: Option<u64>) -> Lazy<'static> {
    let text = ms.and_then(nova_expression::moment_to_text);
    Lazy::Value(text.map_or(Value::Null, Value::from))
}

fn error_lazy(error: Option<ErrorView<'_>>) -> Lazy<'_> {
    match error {
        None => Lazy::Value(Value::Null),
        Some(error) => Lazy::Object(vec![
            ("code", Lazy::Value(error.code.into())),
            ("message", Lazy::Value(error.message.into())),
            ("retryable", Lazy::Value(error.retryable.into())),
            ("node", Lazy::Value(error.node.into())),
            ("detail", Lazy::json_or_null(error.detail)),
        ]),
    }
}

fn scope<'a>(program: &'a Program, offered: &Offered<'a>, error: Option<ErrorView<'a>>) -> Scope<'a> {
    let nodes = offered.nodes.iter().filter_map(|view| {
        let node = program.nodes.get(view.node.0 as usize)?;
        let fields = vec![
            ("output", Lazy::json_or_null(view.output)),
            ("state", Lazy::Value(view.state.as_str().into())),
            ("error", error_lazy(view.error)),
            ("attempts", Lazy::Value(i64::from(view.attempts).into())),
            ("startedAt", moment(view.started_at_ms)),
            ("endedAt", moment(view.ended_at_ms)),
        ];
        Some((&*node.id, Lazy::Object(fields)))
    });
    let vars = offered
        .vars
        .iter()
        .filter_map(|(var, value)| Some((&*program.variables.get(var.0 as usize)?.name, Lazy::json(value))));
    let it = offered.execution;
    let execution = vec![
        ("id", Lazy::Value(it.id.into())),
        ("workflow", Lazy::Value(it.workflow.into())),
        ("version", Lazy::Value(i64::from(it.version).into())),
        ("namespace", Lazy::Value(it.namespace.into())),
        ("startedAt", moment(Some(it.started_at_ms))),
        ("startedBy", Lazy::Value(it.started_by.into())),
    ];
    Scope::new(offered.now_ms, offered.seed)
        .with("input", Lazy::json_or_null(offered.input))
        .with("nodes", Lazy::Object(nodes.collect()))
        .with("vars", Lazy::Object(vars.collect()))
        .with("execution", Lazy::Object(execution))
        .with("error", error_lazy(error))
}
