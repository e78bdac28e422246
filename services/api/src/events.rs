//! Events as JSON.

use nova_history::EventRow;
use nova_program::Program;
use nova_wire::v1;
use serde_json::{Map, Value, json};

use crate::view::{Paths, error, json as raw, moment, node_path, outcome};

/// Turns the events of one execution into JSON, in order.
pub(crate) struct Renderer<'a> {
    program: &'a Program,
    paths: Paths,
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(program: &'a Program) -> Self {
        let mut paths = Paths::default();
        paths.enter(program, 0, 0, 0);
        Self { program, paths }
    }

    /// The events of one entry above `after`.
    pub(crate) fn entry(&mut self, row: &EventRow, after: u64) -> Vec<Value> {
        let mut all = Vec::new();
        for (event, number) in row.happened.events.iter().zip(row.happened.first_number..) {
            let rendered = self.event(event, number, row.at_ms);
            if number > after {
                all.push(rendered);
            }
        }
        all
    }

    fn event(&mut self, event: &v1::ExecutionEvent, number: u64, at_ms: u64) -> Value {
        use v1::execution_event::Kind;
        let mut out = Map::new();
        out.insert("number".into(), number.into());
        out.insert("at".into(), moment(at_ms).into());
        let kind = match &event.kind {
            Some(Kind::Accepted(it)) => {
                out.insert("workflow".into(), it.workflow.clone().into());
                out.insert("version".into(), it.version.into());
                out.insert("startedBy".into(), it.started_by.clone().into());
                out.insert("input".into(), value(it.input.as_ref()));
                "accepted"
            }
            Some(Kind::ScopeEntered(it)) => {
                self.paths.enter(self.program, it.scope, it.body, it.parent);
                out.insert("scope".into(), it.scope.into());
                "scopeEntered"
            }
            Some(Kind::NodeStarted(place)) => {
                self.place(&mut out, Some(place));
                "nodeStarted"
            }
            Some(Kind::AttemptStarted(it)) => {
                self.place(&mut out, it.node.as_ref());
                out.insert("attempt".into(), it.attempt.into());
                out.insert("worker".into(), it.worker.into());
                "attemptStarted"
            }
            Some(Kind::AttemptFailed(it)) => {
                self.place(&mut out, it.node.as_ref());
                out.insert("attempt".into(), it.attempt.into());
                out.insert("error".into(), failure(it.failure.as_ref()));
                out.insert("retryAt".into(), moment(it.retry_at_ms).into());
                "attemptFailed"
            }
            Some(Kind::NodeCompleted(it)) => {
                self.place(&mut out, it.node.as_ref());
                out.insert("output".into(), value(it.output.as_ref()));
                if it.degraded {
                    out.insert("degraded".into(), true.into());
                }
                "nodeCompleted"
            }
            Some(Kind::NodeFailed(it)) => {
                self.place(&mut out, it.node.as_ref());
                out.insert("error".into(), failure(it.failure.as_ref()));
                out.insert("handled".into(), it.handled.into());
                "nodeFailed"
            }
            Some(Kind::NodeSkipped(place)) => {
                self.place(&mut out, Some(place));
                "nodeSkipped"
            }
            Some(Kind::NodeCancelled(place)) => {
                self.place(&mut out, Some(place));
                "nodeCancelled"
            }
            Some(Kind::VarSet(it)) => {
                out.insert("scope".into(), it.scope.into());
                let name = self.program.variables.get(it.var as usize).map(|var| var.name.to_string());
                out.insert("var".into(), name.into());
                out.insert("value".into(), value(it.value.as_ref()));
                "varSet"
            }
            Some(Kind::CancelRequested(reason)) => {
                out.insert("reason".into(), reason.clone().into());
                "cancelRequested"
            }
            Some(Kind::Ended(it)) => {
                let (state, output, error) = outcome(it);
                out.insert("state".into(), state.into());
                if let Some(output) = output {
                    out.insert("output".into(), json!(output));
                }
                if let Some(error) = error {
                    out.insert("error".into(), json!(error));
                }
                "ended"
            }
            Some(Kind::Rejected(rejection)) => {
                let problem = crate::problem::Problem::rejected("", rejection);
                out.insert("error".into(), json!({ "code": problem.code, "message": problem.title }));
                "rejected"
            }
            None => "unknown",
        };
        out.insert("type".into(), kind.into());
        Value::Object(out)
    }

    fn place(&self, out: &mut Map<String, Value>, place: Option<&v1::NodeRef>) {
        out.insert("node".into(), node_path(&self.paths, self.program, place).into());
        if let Some(place) = place.filter(|place| place.visit > 1) {
            out.insert("visit".into(), place.visit.into());
        }
    }
}

/// Whether nothing follows this event.
pub(crate) fn is_last(row: &EventRow) -> bool {
    use v1::execution_event::Kind;
    let last = row.happened.events.last().and_then(|event| event.kind.as_ref());
    matches!(last, Some(Kind::Ended(_) | Kind::Rejected(_)))
}

fn value(payload: Option<&v1::Payload>) -> Value {
    raw(payload).map_or(Value::Null, |raw| json!(raw))
}

fn failure(it: Option<&v1::Failure>) -> Value {
    it.map_or(Value::Null, |it| json!(error(it)))
}
