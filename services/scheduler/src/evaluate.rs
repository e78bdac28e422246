//! What an offer comes to: a pure function of what it shows and of its workflow.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use nova_model::{Compiled, ErrorView, Evaluated, ExecutionView, NodeState, NodeView, Offered, Phase};
use nova_program::{BodyIx, NodeIx, VarIx};
use nova_telemetry::trace::{self, Context, Side, Span, keys};
use nova_wire::v1;

/// Evaluates an offer; a fault of ours fails its node and nothing else.
pub(crate) fn evaluate(compiled: &Compiled, offer: &v1::Offer) -> v1::Local {
    let span = Context::carried(offer.trace.as_ref()).and_then(|parent| span(compiled, offer, parent));
    let outcome = catch_unwind(AssertUnwindSafe(|| outcome(compiled, offer)));
    let outcome = outcome.unwrap_or_else(|_| internal("the evaluation panicked".into()));
    if let (Some(mut span), v1::local::Outcome::Failed(failure)) = (span, &outcome) {
        span.fail(failure.code.clone());
    }
    v1::Local { execution: offer.execution.clone(), token: offer.token, outcome: Some(outcome) }
}

fn span(compiled: &Compiled, offer: &v1::Offer, parent: Context) -> Option<Span> {
    let mut span = Span::begin(trace::names::EVALUATE, Side::Internal, parent)?;
    span.set(keys::EXECUTION, trace::execution_id(&offer.execution));
    span.set(keys::NAMESPACE, offer.namespace.clone());
    span.set(keys::WORKFLOW, offer.workflow.clone());
    let (phase, node) = match offer.subject? {
        v1::offer::Subject::Prepare(node) => ("prepare", Some(node)),
        v1::offer::Subject::Finish(node) => ("finish", Some(node)),
        v1::offer::Subject::Fallback(node) => ("fallback", Some(node)),
        v1::offer::Subject::ScopeOutput(_) => ("scope_output", None),
    };
    span.set(keys::PHASE, phase);
    if let Some(node) = node.and_then(|ix| compiled.program.nodes.get(ix as usize)) {
        span.set(keys::NODE, node.id.to_string());
    }
    Some(span)
}

/// What an offer comes to whose workflow cannot be used.
pub(crate) fn unusable(offer: &v1::Offer, why: &str) -> v1::Local {
    let outcome = internal(format!("the stored workflow cannot be used: {why}"));
    v1::Local { execution: offer.execution.clone(), token: offer.token, outcome: Some(outcome) }
}

fn internal(message: String) -> v1::local::Outcome {
    let code = "engine.internal".into();
    v1::local::Outcome::Failed(v1::Failure { code, message, ..Default::default() })
}

fn outcome(compiled: &Compiled, offer: &v1::Offer) -> v1::local::Outcome {
    use v1::local::Outcome;
    let execution: String = offer.execution.iter().map(|byte| format!("{byte:02x}")).collect();
    let nodes: Vec<NodeView<'_>> = offer.nodes.iter().map(node_view).collect();
    let vars: Vec<(VarIx, &[u8])> =
        offer.vars.iter().map(|var| (VarIx(var.var), var.value.as_ref().and_then(inline).unwrap_or(b"null"))).collect();
    let phase = match offer.subject {
        Some(v1::offer::Subject::Finish(node)) => Phase::Finish(NodeIx(node)),
        Some(v1::offer::Subject::Fallback(node)) => Phase::Fallback(NodeIx(node)),
        Some(v1::offer::Subject::ScopeOutput(body)) => Phase::ScopeOutput(BodyIx(body)),
        Some(v1::offer::Subject::Prepare(node)) => Phase::Prepare(NodeIx(node)),
        None => Phase::Prepare(NodeIx(0)),
    };
    let offered = Offered {
        phase,
        input: offer.input.as_ref().and_then(inline),
        nodes: &nodes,
        vars: &vars,
        raw_output: offer.raw_output.as_ref().and_then(inline),
        error: offer.failure.as_ref().map(error_view),
        execution: ExecutionView {
            id: &execution,
            workflow: &offer.workflow,
            version: offer.version,
            namespace: &offer.namespace,
            started_at_ms: offer.started_at_ms,
            started_by: &offer.started_by,
        },
        now_ms: offer.now_ms,
        seed: offer.seed,
    };
    match compiled.plan.evaluate(&compiled.program, &offered) {
        Evaluated::Skip => Outcome::Skip(v1::Nothing {}),
        Evaluated::Run { with } => Outcome::Run(v1::local::Run { with: with.map(payload) }),
        Evaluated::WaitUntil { at_ms } => Outcome::WaitUntilMs(at_ms),
        Evaluated::WaitFor { for_ms } => Outcome::WaitForMs(for_ms),
        Evaluated::Chosen { bits } => Outcome::Chosen(v1::local::Chosen { cases: bits, sets: Vec::new() }),
        Evaluated::Done { output, chosen, sets } => {
            Outcome::Done(v1::local::Done { output: Some(payload(output)), cases: chosen, sets: writes(sets) })
        }
        Evaluated::Failed { code, message, detail } => Outcome::Failed(v1::Failure {
            code: code.into(),
            message,
            retryable: false,
            retry_after_ms: None,
            detail: detail.map(Into::into),
            node: String::new(),
        }),
    }
}

fn writes(sets: Vec<(VarIx, Vec<u8>)>) -> Vec<v1::VarWrite> {
    sets.into_iter().map(|(var, value)| v1::VarWrite { var: var.0, value: Some(payload(value)) }).collect()
}

fn payload(json: Vec<u8>) -> v1::Payload {
    v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from(json))) }
}

fn inline(payload: &v1::Payload) -> Option<&[u8]> {
    match &payload.kind {
        Some(v1::payload::Kind::Inline(bytes)) => Some(bytes),
        _ => None,
    }
}

fn error_view(failure: &v1::Failure) -> ErrorView<'_> {
    ErrorView {
        code: &failure.code,
        message: &failure.message,
        retryable: failure.retryable,
        node: &failure.node,
        detail: failure.detail.as_deref(),
    }
}

fn node_view(view: &v1::NodeView) -> NodeView<'_> {
    let state = match view.state() {
        v1::NodeState::Pending => NodeState::Pending,
        v1::NodeState::Evaluating | v1::NodeState::Waiting => NodeState::Waiting,
        v1::NodeState::Queued => NodeState::Queued,
        v1::NodeState::Running => NodeState::Running,
        v1::NodeState::Retrying => NodeState::Retrying,
        v1::NodeState::Cancelling => NodeState::Cancelling,
        v1::NodeState::Completed => NodeState::Completed,
        v1::NodeState::Failed => NodeState::Failed,
        v1::NodeState::Skipped => NodeState::Skipped,
        v1::NodeState::Cancelled => NodeState::Cancelled,
    };
    NodeView {
        node: NodeIx(view.node),
        state,
        arrived: view.arrived,
        output: view.output.as_ref().and_then(inline),
        error: view.failure.as_ref().map(error_view),
        attempts: view.attempts,
        started_at_ms: view.started_at_ms,
        ended_at_ms: view.ended_at_ms,
    }
}
