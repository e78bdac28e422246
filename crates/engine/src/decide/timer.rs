//! What happens when time passes.

use nova_plants::Plant;

use super::Decider;
use super::node::{Repeat, failure};
use crate::event::Event;
use crate::ids::ScopeId;
use crate::output::NodeState;
use crate::payload::Payload;
use crate::state::{AfterStop, Ending, Phase, Timer, TimerId};
use crate::work::At;

impl Decider<'_> {
    pub(super) fn timer(&mut self, id: TimerId, timer: &Timer) {
        match timer {
            Timer::Node(execution, scope, node) => {
                let at = At { execution: *execution, scope: *scope, node: *node };
                self.state_over(id, at);
            }
            Timer::NodeTotal(execution, scope, node) => {
                let at = At { execution: *execution, scope: *scope, node: *node };
                self.total_over(id, at);
            }
            Timer::Execution(execution) => {
                if let Some((open, root)) = self.state.live_scope(*execution, ScopeId(0))
                    && open.total == Some(id)
                    && !matches!(root.phase, Phase::Stopping(_))
                {
                    let ending = Ending::Failed(failure("timeout.total", "the execution lasted too long", false));
                    self.say(Event::ScopeStopping(*execution, ScopeId(0), ending));
                }
            }
            Timer::Key(shard, namespace, key) => {
                let record = self.state.shard(*shard).and_then(|shard| shard.key(namespace, key));
                if record.is_some_and(|record| record.until == Some(id.0)) {
                    self.say(Event::KeyForgotten(*shard, namespace.clone(), key.clone()));
                }
            }
        }
    }

    /// The time of a node's present state is over.
    fn state_over(&mut self, id: TimerId, at: At) {
        let Some(found) = self.state.at(at) else { return };
        if found.record.timer != Some(id) {
            return;
        }
        match found.record.state {
            NodeState::Waiting => self.worked(at, &found, Payload::null(), 0),
            NodeState::Retrying if found.node.is_work() => self.say(Event::Queued(at, None)),
            NodeState::Retrying if found.node.cases.is_empty() => self.start(at, &found, None),
            NodeState::Retrying => self.enter_cases(at, &found, found.record.cases),
            NodeState::Queued => {
                let failure = failure("timeout.queue", "no slot was free in time", false);
                self.fail(at, &found, failure, Repeat::Never);
            }
            NodeState::Running => {
                let failure = failure("timeout.attempt", "the attempt lasted too long", true);
                if let (true, Some(worker)) = (nova_plants::is(Plant::GivenAwayEarly), found.record.worker) {
                    self.say(Event::LeaseEnded(worker, found.record.token));
                    self.fail(at, &found, failure, Repeat::IfPolicySays);
                    return;
                }
                self.say(Event::Revoked(at, AfterStop::FailAttempt(failure)));
            }
            _ => {}
        }
    }

    /// The time of a node over all its attempts is over.
    fn total_over(&mut self, id: TimerId, at: At) {
        let Some(found) = self.state.at(at) else { return };
        if found.record.total != Some(id) || found.record.ended() {
            return;
        }
        let failure = failure("timeout.total", "the node lasted too long", false);
        match found.record.state {
            NodeState::Running => self.say(Event::Revoked(at, AfterStop::Fail(failure))),
            NodeState::Cancelling => {
                if found.record.after_stop.as_deref() != Some(&AfterStop::Cancel) {
                    self.say(Event::AfterStopChanged(at, AfterStop::Fail(failure)));
                }
            }
            NodeState::Waiting if found.record.children > 0 => {
                if found.record.after_stop.as_deref() != Some(&AfterStop::Cancel) {
                    self.say(Event::AfterStopChanged(at, AfterStop::Fail(failure)));
                }
                self.stop_children(at, &Ending::Cancelled("timeout.total".into()), None);
            }
            // A failure already waits for its fallback: that one goes on.
            NodeState::Evaluating if found.record.failure.is_some() => {}
            _ => self.fail(at, &found, failure, Repeat::Never),
        }
    }
}
