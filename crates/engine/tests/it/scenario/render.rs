//! What came out, as text.

use nova_engine::ids::{ExecutionId, WorkerId};
use nova_engine::output::{
    Answer, Applied, ExecutionEvent, Message, MessageBody, NodeRef, NodeState, Offer, Outcome, Refusal, Rejection,
    Subject, Verdict,
};
use nova_engine::payload::{Failure, Payload};

use super::world::World;

impl World {
    /// What is worth saying of a verdict: everything but that it was applied.
    pub fn verdict(&self, verdict: &Verdict) -> Option<String> {
        Some(match verdict {
            Verdict::Applied(Applied::Done | Applied::Proposal { .. }) => return None,
            Verdict::Applied(Applied::Granted(at)) => {
                format!(
                    "granted epoch {} next {} before {} acked {} last {}",
                    at.epoch, at.next_offset, at.before, at.outbox_acked, at.outbox_last
                )
            }
            Verdict::Applied(Applied::Registered(it)) => {
                format!("worker {} session {} inbox {}", it.worker, it.session, it.inbox)
            }
            Verdict::Applied(Applied::Workflow { version, new }) => {
                format!("workflow version {version}{}", if *new { " new" } else { "" })
            }
            Verdict::Refused(refusal) => format!("refused: {}", refusal_text(refusal)),
        })
    }

    pub fn message(&self, message: &Message) -> Vec<String> {
        match &message.body {
            MessageBody::Assign(it) => {
                let mut line = format!(
                    "assign {} {}.{} to {} attempt {}",
                    token(it.lease.token.0),
                    self.execution_name(it.lease.execution),
                    it.node_id,
                    self.worker_name(it.lease.worker),
                    it.attempt
                );
                if it.with != Payload::null() {
                    line.push_str(&format!(" with {}", payload(&it.with)));
                }
                vec![line]
            }
            MessageBody::Revoke { lease, .. } => {
                vec![format!("revoke {} at {}", token(lease.token.0), self.worker_name(lease.worker))]
            }
            MessageBody::StaleToken { lease, .. } => {
                vec![format!("stale {} told to {}", token(lease.token.0), self.worker_name(lease.worker))]
            }
            MessageBody::Reply { to, answer } => vec![format!("reply {}: {}", to.request, self.answer(answer))],
            MessageBody::Events(events) => {
                let name = self.execution_name(events.execution);
                let numbered = events.events.iter().zip(events.first_number..);
                numbered
                    .map(|(event, number)| format!("{name} #{number} {}", self.event(events.execution, event)))
                    .collect()
            }
        }
    }

    fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Accepted { execution, version, repeated } => {
                let repeated = if *repeated { " again" } else { "" };
                format!("{} accepted{repeated}, version {version}", self.execution_name(*execution))
            }
            Answer::Rejected { execution, why } => {
                format!("{} rejected: {}", self.execution_name(*execution), self.rejection(why))
            }
            Answer::Finished { execution, outcome: it } => {
                format!("{} {}", self.execution_name(*execution), outcome(it))
            }
            Answer::Cancelling { execution } => format!("{} cancelling", self.execution_name(*execution)),
        }
    }

    fn rejection(&self, why: &Rejection) -> String {
        match why {
            Rejection::KeyConflict { first } => format!("key in use by {}", self.execution_name(*first)),
            Rejection::SourceRepeated { last } => format!("source is at {last}"),
            Rejection::Invalid { what } => format!("invalid {what}"),
            other => format!("{other:?}"),
        }
    }

    fn event(&self, id: ExecutionId, event: &ExecutionEvent) -> String {
        let node = |node: &NodeRef| self.node_name(id, node.scope, node.node);
        match event {
            ExecutionEvent::Accepted { workflow, version, .. } => format!("accepted {workflow} {version}"),
            ExecutionEvent::ScopeEntered { scope, body, parent } => {
                format!("scope {scope} entered in {parent}, body {}", body.0)
            }
            ExecutionEvent::NodeStarted(it) => format!("{} started", node(it)),
            ExecutionEvent::AttemptStarted { node: it, attempt, worker, token: by } => {
                format!("{} attempt {attempt} on {} {}", node(it), self.worker_name(*worker), token(by.0))
            }
            ExecutionEvent::AttemptFailed { node: it, attempt, failure: why, retry_at } => {
                format!("{} attempt {attempt} failed {}, again at {retry_at}", node(it), failure(why))
            }
            ExecutionEvent::NodeCompleted { node: it, output, cases, degraded } => {
                let cases = if *cases == 0 { String::new() } else { format!(" cases {cases:#b}") };
                let degraded = if *degraded { " degraded" } else { "" };
                format!("{} completed {}{cases}{degraded}", node(it), payload(output))
            }
            ExecutionEvent::NodeFailed { node: it, failure: why, handled } => {
                format!("{} failed {}{}", node(it), failure(why), if *handled { " handled" } else { "" })
            }
            ExecutionEvent::NodeSkipped(it) => format!("{} skipped", node(it)),
            ExecutionEvent::NodeCancelled(it) => format!("{} cancelled", node(it)),
            ExecutionEvent::VarSet { scope, var, value } => {
                format!("scope {scope} {} = {}", self.var_name(id, *var), payload(value))
            }
            ExecutionEvent::CancelRequested { reason } => format!("cancel requested: {reason}"),
            ExecutionEvent::Ended(it) => outcome(it),
            ExecutionEvent::Rejected(why) => format!("rejected: {}", self.rejection(why)),
        }
    }

    pub fn offer(&self, offer: &Offer) -> String {
        let id = offer.execution;
        let what = match offer.subject {
            Subject::Prepare(node) => format!("prepare {}", self.node_name(id, offer.scope, node)),
            Subject::Finish(node) => format!("finish {}", self.node_name(id, offer.scope, node)),
            Subject::Fallback(node) => format!("fallback {}", self.node_name(id, offer.scope, node)),
            Subject::ScopeOutput(_) => format!("output of scope {}", offer.scope),
        };
        let mut line = format!("offer {} {}: {what}", token(offer.token.0), self.execution_name(id));
        if let Some(input) = &offer.input {
            line.push_str(&format!(" input {}", payload(input)));
        }
        for view in &offer.nodes {
            let id = self.node_id(id, view.node);
            let arrived = if view.arrived { "+" } else { "" };
            line.push_str(&format!(" {arrived}{id}={}", state(view.state)));
            if let Some(output) = &view.output {
                line.push_str(&format!("({})", payload(output)));
            }
            if let Some(why) = &view.failure {
                line.push_str(&format!("({})", why.code));
            }
        }
        for (var, value) in &offer.vars {
            line.push_str(&format!(" {}={}", self.var_name(id, *var), payload(value)));
        }
        if let Some(raw) = &offer.raw_output {
            line.push_str(&format!(" raw {}", payload(raw)));
        }
        if let Some(why) = &offer.failure {
            line.push_str(&format!(" error {}", failure(why)));
        }
        line
    }

    pub fn worker_name(&self, id: WorkerId) -> String {
        self.state.worker(id).map_or_else(|| format!("worker {id}"), |worker| worker.name.to_string())
    }
}

pub fn token(number: u64) -> String {
    format!("t{number}")
}

pub fn state(state: NodeState) -> String {
    format!("{state:?}").to_lowercase()
}

pub fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Inline(bytes) if bytes.len() > 200 => format!("({} bytes)", bytes.len()),
        Payload::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Payload::Stored { store, key, size, .. } => format!("({store}/{key}, {size} bytes)"),
    }
}

pub fn failure(failure: &Failure) -> String {
    let at = if failure.node.is_empty() { String::new() } else { format!(" at {}", failure.node) };
    format!("{}{at}", failure.code)
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed(output) => format!("COMPLETED {}", payload(output)),
        Outcome::Failed(why) => format!("FAILED {}", failure(why)),
        Outcome::Cancelled(reason) => format!("CANCELLED {reason}"),
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::StaleEpoch { current } => format!("stale epoch, current is {current}"),
        Refusal::Gap { next_offset } => format!("gap, next is {next_offset}"),
        Refusal::Rewritten { next_offset, expected } => format!("rewritten before {next_offset}, expected {expected}"),
        Refusal::NameTaken { session } => format!("name taken by session {session}"),
        Refusal::NotLastSession { last } => format!("not the last session, that is {last}"),
        Refusal::LeasesOpen { count } => format!("{count} leases open"),
        Refusal::Invalid { what } => format!("invalid {what}"),
        other => format!("{other:?}"),
    }
}
