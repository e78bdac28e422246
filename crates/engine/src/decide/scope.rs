//! The life of a scope instance: entering, settling, stopping, leaving.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use nova_program::{BodyForm, NodeIx, ScopeOutput};

use super::Decider;
use super::node::Repeat;
use crate::event::Event;
use crate::find::{Found, position};
use crate::ids::{ExecutionId, ScopeId};
use crate::limits;
use crate::output::{NodeState, Outcome, Subject};
use crate::payload::Payload;
use crate::state::{AfterStop, Ending, Phase};
use crate::work::{At, Work};

impl Decider<'_> {
    /// The first nodes of a body begin: the first step of a list, those of a graph to which nothing leads.
    pub(super) fn enter(&mut self, execution: ExecutionId, scope: ScopeId, from: u32) {
        let Some((open, live)) = self.state.live_scope(execution, scope) else { return };
        if live.phase != Phase::Body {
            return;
        }
        let program = &*open.workflow.program;
        let body = program.body(live.body);
        match body.form {
            BodyForm::List => {
                let first = (!body.nodes.is_empty()).then_some(NodeIx(body.nodes.start));
                self.say(Event::ListAdvanced(execution, scope, first));
            }
            BodyForm::Graph => {
                let start = body.nodes.start + from;
                let end = body.nodes.end.min(start + limits::SLICE);
                for node in (start..end).map(NodeIx).filter(|node| program.node(*node).in_degree == 0) {
                    self.say(Event::Wanted(Work::Begin(At { execution, scope, node })));
                }
                let next = if end < body.nodes.end {
                    Work::Enter(execution, scope, from + limits::SLICE)
                } else {
                    Work::Settle(execution, scope)
                };
                self.say(Event::Wanted(next));
            }
        }
    }

    /// Does the scope end? It does when nothing is left in it, or when what lived in a stopping one has ended.
    pub(super) fn settle(&mut self, execution: ExecutionId, scope: ScopeId) {
        let Some((open, live)) = self.state.live_scope(execution, scope) else { return };
        let program = &*open.workflow.program;
        let body = program.body(live.body);
        match &live.phase {
            Phase::Body => {
                let over = match body.form {
                    BodyForm::List => live.at_end && live.live == 0,
                    BodyForm::Graph => live.left == 0,
                };
                if !over {
                    return;
                }
                match body.output {
                    ScopeOutput::Evaluated => {
                        let token = self.token();
                        self.say(Event::Offered(execution, scope, Subject::ScopeOutput(live.body), token));
                    }
                    ScopeOutput::LastStep => {
                        let last = live.last_completed.and_then(|node| position(program, live.body, node));
                        let output = last.and_then(|at| live.nodes[at].output.clone()).unwrap_or_else(Payload::null);
                        self.leave(execution, scope, Ok(output));
                    }
                }
            }
            Phase::Stopping(ending) if live.live == 0 => self.leave(execution, scope, Err(ending.clone())),
            Phase::Stopping(_) | Phase::Output(_) => {}
        }
    }

    /// Cancels what lives in a scope that is being stopped, a slice at a time.
    pub(super) fn stop(&mut self, execution: ExecutionId, scope: ScopeId, from: u32) {
        let Some((open, live)) = self.state.live_scope(execution, scope) else { return };
        let Phase::Stopping(ending) = &live.phase else { return };
        let reason = match ending {
            Ending::Cancelled(reason) => reason.clone(),
            Ending::Failed(_) => "".into(),
        };
        let start = open.workflow.program.body(live.body).nodes.start;
        let slice = live.nodes.iter().enumerate().skip(from as usize).take(limits::SLICE as usize);
        // One look over all scope instances for the whole slice: a body may have thousands of nodes with scopes.
        let mut children: BTreeMap<NodeIx, Vec<ScopeId>> = BTreeMap::new();
        if slice.clone().any(|(_, record)| record.children > 0) {
            for (child, inner) in &open.scopes {
                if let Some((_, node)) = inner.parent.filter(|(parent, _)| *parent == scope) {
                    children.entry(node).or_default().push(*child);
                }
            }
        }
        for (index, record) in slice {
            let at = At { execution, scope, node: NodeIx(start + index as u32) };
            match record.state {
                NodeState::Pending
                | NodeState::Completed
                | NodeState::Failed
                | NodeState::Skipped
                | NodeState::Cancelled => {}
                NodeState::Running => self.say(Event::Revoked(at, AfterStop::Cancel)),
                NodeState::Cancelling => self.say(Event::AfterStopChanged(at, AfterStop::Cancel)),
                NodeState::Waiting if record.children > 0 => {
                    self.say(Event::AfterStopChanged(at, AfterStop::Cancel));
                    for child in children.get(&at.node).into_iter().flatten() {
                        self.say(Event::ScopeStopping(execution, *child, Ending::Cancelled(reason.clone())));
                    }
                }
                NodeState::Evaluating | NodeState::Waiting | NodeState::Queued | NodeState::Retrying => {
                    self.say(Event::Cancelled(at));
                }
            }
        }
        let next = from.saturating_add(limits::SLICE);
        let work = if (next as usize) < live.nodes.len() {
            Work::Stop(execution, scope, next)
        } else {
            Work::Settle(execution, scope)
        };
        self.say(Event::Wanted(work));
    }

    /// Stops the scope instances that hang on a node, but for one that has just left.
    pub(super) fn stop_children(&mut self, at: At, ending: &Ending, but: Option<ScopeId>) {
        let Some(open) = self.state.open(at.execution) else { return };
        let children = open.scopes.iter().filter(|(_, scope)| scope.parent == Some((at.scope, at.node)));
        for (child, _) in children.filter(|(id, _)| Some(**id) != but) {
            self.say(Event::ScopeStopping(at.execution, *child, ending.clone()));
        }
    }

    /// A scope instance is over: its node goes on, or the execution ends.
    pub(super) fn leave(&mut self, execution: ExecutionId, scope: ScopeId, result: Result<Payload, Ending>) {
        let Some((_, live)) = self.state.live_scope(execution, scope) else { return };
        let Some((parent_scope, parent_node)) = live.parent else {
            self.say(Event::ScopeLeft(execution, scope));
            let outcome = match result {
                Ok(output) => match super::node::too_large(&output) {
                    Some(failure) => Outcome::Failed(failure),
                    None => Outcome::Completed(output),
                },
                Err(Ending::Failed(failure)) => Outcome::Failed(failure),
                Err(Ending::Cancelled(reason)) => Outcome::Cancelled(reason),
            };
            self.say(Event::ExecutionEnded(execution, outcome));
            return;
        };
        let at = At { execution, scope: parent_scope, node: parent_node };
        let Some(found) = self.state.at(at) else { return };
        let case = found.program.body(live.body).case;
        let last = found.record.children <= 1;
        self.say(Event::ScopeLeft(execution, scope));
        match (&found.record.after_stop, result) {
            (Some(_), _) if last => self.after_stop(at, &found),
            (Some(_), _) => {}
            (None, Ok(output)) if last => {
                let output = case_outputs(&found, case, output);
                self.worked(at, &found, output, found.record.cases);
            }
            (None, Ok(output)) => self.say(Event::CaseCompleted(at, case, output)),
            (None, Err(Ending::Failed(failure))) if last => self.fail(at, &found, failure, Repeat::IfPolicySays),
            (None, Err(Ending::Failed(failure))) => {
                self.say(Event::AfterStopChanged(at, AfterStop::FailAttempt(failure)));
                self.stop_children(at, &Ending::Cancelled("".into()), Some(scope));
            }
            (None, Err(Ending::Cancelled(_))) => self.say(Event::Cancelled(at)),
        }
    }
}

/// The output of a node whose bodies are all done: of its one body, or an object by case when several were chosen.
/// The parts are put side by side unread; one that is stored elsewhere counts as null.
fn case_outputs(found: &Found<'_>, case: u8, output: Payload) -> Payload {
    if found.record.case_outputs.is_empty() {
        return output;
    }
    let mut outputs = found.record.case_outputs.clone();
    outputs.push((case, output));
    outputs.sort_by_key(|(case, _)| *case);
    let mut json = BytesMut::new();
    for (index, (case, output)) in outputs.iter().enumerate() {
        json.put_u8(if index == 0 { b'{' } else { b',' });
        json.put_u8(b'"');
        // Case names are ids: nothing in them needs escaping.
        json.put_slice(found.node.cases.get(usize::from(*case)).map_or("", |case| &case.name).as_bytes());
        json.put_slice(b"\":");
        match output {
            Payload::Inline(bytes) => json.put_slice(bytes),
            Payload::Stored { .. } => json.put_slice(b"null"),
        }
    }
    json.put_u8(b'}');
    Payload::Inline(json.freeze())
}
