//! Executions as JSON, live or from history.

use std::collections::BTreeMap;

use nova_history::{EventRow, ExecutionRow};
use nova_program::{BodyIx, NodeIx, Program};
use nova_wire::v1;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// An execution.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionBody {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Tenant.
    pub namespace: String,
    /// Name of its workflow.
    pub workflow: String,
    /// Version of its workflow.
    pub version: u32,
    /// RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED, REJECTED.
    pub state: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Who started it: `api`, `trigger:<id>`.
    pub started_by: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input: Option<Box<RawValue>>,
    /// Output, once completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<RawValue>>,
    /// Why it failed, was cancelled or was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// Its nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeBody>,
    /// Number of its last event.
    pub events: u64,
    /// How old the answer may be, in milliseconds; 0 when it was read from the leader.
    pub age_ms: u64,
}

/// A node of an execution.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBody {
    /// Its id, behind those of the groups around it: `group/node`.
    pub path: String,
    /// Scope instance; 0 is the execution itself.
    pub scope: u32,
    /// PENDING, WAITING, QUEUED, RUNNING, RETRYING, CANCELLING, COMPLETED, FAILED, SKIPPED, CANCELLED.
    pub state: String,
    /// Attempts begun.
    pub attempts: u32,
    /// Worker that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<u32>,
    /// Output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<RawValue>>,
    /// Why it failed, or the last attempt did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// An error.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// Lower-case segments: `http.5xx.503`.
    pub code: String,
    /// For people.
    pub message: String,
    /// Node where it began.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Box<RawValue>>,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn moment(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(ms as i64).map_or_else(|_| ms.to_string(), |at| at.to_string())
}

/// JSON of a user; a payload that is kept elsewhere is shown by its place.
pub(crate) fn json(payload: Option<&v1::Payload>) -> Option<Box<RawValue>> {
    let text = match payload?.kind.as_ref()? {
        v1::payload::Kind::Inline(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        v1::payload::Kind::Stored(stored) => {
            serde_json::json!({ "$stored": { "store": stored.store, "key": stored.key, "size": stored.size } })
                .to_string()
        }
    };
    RawValue::from_string(text).ok()
}

pub(crate) fn error(failure: &v1::Failure) -> ErrorBody {
    let detail = failure.detail.as_ref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    ErrorBody {
        code: failure.code.clone(),
        message: failure.message.clone(),
        node: failure.node.clone(),
        detail: detail.and_then(|text| RawValue::from_string(text.to_owned()).ok()),
    }
}

/// State, output and error of an outcome.
pub(crate) fn outcome(outcome: &v1::Outcome) -> (&'static str, Option<Box<RawValue>>, Option<ErrorBody>) {
    match &outcome.kind {
        Some(v1::outcome::Kind::Completed(output)) => ("COMPLETED", json(Some(output)), None),
        Some(v1::outcome::Kind::Failed(failure)) => ("FAILED", None, Some(error(failure))),
        Some(v1::outcome::Kind::Cancelled(reason)) => ("CANCELLED", None, Some(cancelled(reason))),
        None => ("FAILED", None, None),
    }
}

fn cancelled(reason: &str) -> ErrorBody {
    ErrorBody { code: "cancelled".into(), message: reason.into(), node: String::new(), detail: None }
}

pub(crate) fn execution_state(state: i32) -> &'static str {
    match v1::ExecutionState::try_from(state).unwrap_or_default() {
        v1::ExecutionState::Cancelling => "CANCELLING",
        v1::ExecutionState::Completed => "COMPLETED",
        v1::ExecutionState::Failed => "FAILED",
        v1::ExecutionState::Cancelled => "CANCELLED",
        v1::ExecutionState::Running | v1::ExecutionState::Unspecified => "RUNNING",
    }
}

fn node_state(state: i32) -> &'static str {
    match v1::NodeState::try_from(state).unwrap_or_default() {
        v1::NodeState::Pending => "PENDING",
        v1::NodeState::Evaluating | v1::NodeState::Waiting => "WAITING",
        v1::NodeState::Queued => "QUEUED",
        v1::NodeState::Running => "RUNNING",
        v1::NodeState::Retrying => "RETRYING",
        v1::NodeState::Cancelling => "CANCELLING",
        v1::NodeState::Completed => "COMPLETED",
        v1::NodeState::Failed => "FAILED",
        v1::NodeState::Skipped => "SKIPPED",
        v1::NodeState::Cancelled => "CANCELLED",
    }
}

/// Paths of scope instances: what stands before the ids of their nodes.
#[derive(Default)]
pub(crate) struct Paths(BTreeMap<u32, String>);

impl Paths {
    pub(crate) fn enter(&mut self, program: &Program, scope: u32, body: u32, parent: u32) {
        let owner = program.bodies.get(body as usize).and_then(|body| body.owner);
        let prefix = match owner {
            None => String::new(),
            Some(owner) => {
                let body = program.body(BodyIx(body));
                let case = program.node(owner).cases.get(usize::from(body.case)).map(|case| format!("[{}]", case.name));
                let above = self.0.get(&parent).cloned().unwrap_or_default();
                format!("{above}{}{}/", program.node(owner).id, case.unwrap_or_default())
            }
        };
        self.0.insert(scope, prefix);
    }

    pub(crate) fn of(&self, program: &Program, scope: u32, node: u32) -> String {
        let prefix = self.0.get(&scope).map_or("", String::as_str);
        let id = program.nodes.get(node as usize).map_or("?", |node| &*node.id);
        format!("{prefix}{id}")
    }
}

/// An open execution.
pub(crate) fn live(view: &v1::ExecutionView, program: &Program) -> ExecutionBody {
    let mut paths = Paths::default();
    let mut nodes = Vec::new();
    for scope in &view.scopes {
        paths.enter(program, scope.scope, scope.body, scope.parent);
        for node in &scope.nodes {
            nodes.push(NodeBody {
                path: paths.of(program, scope.scope, node.node),
                scope: scope.scope,
                state: node_state(node.state).into(),
                attempts: node.attempts,
                worker: node.worker,
                output: json(node.output.as_ref()),
                error: node.failure.as_ref().map(error),
                started_at: node.started_at_ms.map(moment),
                ended_at: node.ended_at_ms.map(moment),
            });
        }
    }
    ExecutionBody {
        id: hex(&view.execution),
        namespace: view.namespace.clone(),
        workflow: view.workflow.clone(),
        version: view.version,
        state: execution_state(view.state).into(),
        started_at: moment(view.started_at_ms),
        ended_at: None,
        started_by: view.started_by.clone(),
        labels: view.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect(),
        input: json(view.input.as_ref()),
        output: None,
        error: None,
        nodes,
        events: view.events,
        age_ms: 0,
    }
}

/// An execution from history, without its nodes.
pub(crate) fn row(row: &ExecutionRow, age_ms: u64) -> ExecutionBody {
    let (_, output, mut error) = row.outcome.as_ref().map(outcome).unwrap_or_default();
    if let Some(rejection) = &row.rejection {
        let problem = crate::problem::Problem::rejected("", rejection);
        error = Some(ErrorBody { code: problem.code, message: problem.title, node: String::new(), detail: None });
    }
    ExecutionBody {
        id: hex(&row.id),
        namespace: row.namespace.clone(),
        workflow: row.workflow.clone(),
        version: row.version,
        state: row.state.clone(),
        started_at: moment(row.started_at_ms),
        ended_at: row.ended_at_ms.map(moment),
        started_by: row.started_by.clone(),
        labels: serde_json::from_str(&row.labels).unwrap_or_default(),
        input: json(row.input.as_ref()),
        output,
        error,
        nodes: Vec::new(),
        events: row.events,
        age_ms,
    }
}

/// Nodes as their events tell.
pub(crate) fn nodes(events: &[EventRow], program: &Program) -> Vec<NodeBody> {
    use v1::execution_event::Kind;
    let mut paths = Paths::default();
    let mut nodes: BTreeMap<(u32, u32), NodeBody> = BTreeMap::new();
    let enter = |paths: &mut Paths, nodes: &mut BTreeMap<_, _>, scope, body, parent| {
        paths.enter(program, scope, body, parent);
        let Some(body) = program.bodies.get(body as usize) else { return };
        for node in body.nodes.clone() {
            let path = paths.of(program, scope, node);
            nodes.insert((scope, node), NodeBody { path, scope, state: "PENDING".into(), ..NodeBody::default() });
        }
    };
    enter(&mut paths, &mut nodes, 0, 0, 0);
    for row in events {
        let at = moment(row.at_ms);
        for event in &row.happened.events {
            let change = |place: Option<&v1::NodeRef>, state: &str, nodes: &mut BTreeMap<(u32, u32), NodeBody>| {
                let node = nodes.get_mut(&place.map(|it| (it.scope, it.node))?)?;
                node.state = state.into();
                if matches!(state, "COMPLETED" | "FAILED" | "SKIPPED" | "CANCELLED") {
                    node.ended_at = Some(at.clone());
                    node.worker = None;
                } else if node.started_at.is_none() {
                    node.started_at = Some(at.clone());
                }
                Some((node.scope, place?.node))
            };
            match &event.kind {
                Some(Kind::ScopeEntered(it)) => enter(&mut paths, &mut nodes, it.scope, it.body, it.parent),
                Some(Kind::NodeStarted(place)) => {
                    change(Some(place), "QUEUED", &mut nodes);
                }
                Some(Kind::AttemptStarted(it)) => {
                    let key = change(it.node.as_ref(), "RUNNING", &mut nodes);
                    if let Some(node) = key.and_then(|key| nodes.get_mut(&key)) {
                        (node.attempts, node.worker) = (it.attempt, Some(it.worker));
                    }
                }
                Some(Kind::AttemptFailed(it)) => {
                    let key = change(it.node.as_ref(), "RETRYING", &mut nodes);
                    if let Some(node) = key.and_then(|key| nodes.get_mut(&key)) {
                        (node.error, node.worker) = (it.failure.as_ref().map(error), None);
                    }
                }
                Some(Kind::NodeCompleted(it)) => {
                    let key = change(it.node.as_ref(), "COMPLETED", &mut nodes);
                    if let Some(node) = key.and_then(|key| nodes.get_mut(&key)) {
                        (node.output, node.error) = (json(it.output.as_ref()), None);
                    }
                }
                Some(Kind::NodeFailed(it)) => {
                    let key = change(it.node.as_ref(), "FAILED", &mut nodes);
                    if let Some(node) = key.and_then(|key| nodes.get_mut(&key)) {
                        node.error = it.failure.as_ref().map(error);
                    }
                }
                Some(Kind::NodeSkipped(place)) => drop(change(Some(place), "SKIPPED", &mut nodes)),
                Some(Kind::NodeCancelled(place)) => drop(change(Some(place), "CANCELLED", &mut nodes)),
                _ => {}
            }
        }
    }
    nodes.into_values().collect()
}

/// Where a node stands in a program, for events.
pub(crate) fn node_path(paths: &Paths, program: &Program, place: Option<&v1::NodeRef>) -> Option<String> {
    let place = place?;
    let known = program.nodes.get(place.node as usize).is_some();
    known.then(|| paths.of(program, place.scope, NodeIx(place.node).0))
}
