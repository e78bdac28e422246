//! Evaluations by the shard's owner. The first with its token counts (rule 13).

use super::node::Repeat;
use super::{Decider, Nothing};
use crate::event::Event;
use crate::find::Found;
use crate::ids::{ShardId, TimeMs};
use crate::input::{Local, LocalOutcome};
use crate::limits;
use crate::output::Subject;
use crate::payload::Failure;
use crate::state::{Ending, OfferRecord};
use crate::work::At;

impl Decider<'_> {
    pub(super) fn local(&mut self, shard: ShardId, local: &Local) -> Result<(), Nothing> {
        // Only the shard's own offers: the proposer's epoch was compared for that shard.
        let shard = self.state.shard(shard).ok_or(Nothing::Stale)?;
        let offer = *shard.offers.get(&local.token).ok_or(Nothing::Stale)?;
        if offer.execution != local.execution {
            return Err(Nothing::Stale);
        }
        self.say(Event::Evaluated(local.execution, local.token));
        match offer.subject {
            Subject::ScopeOutput(_) => self.scope_output(&offer, &local.outcome),
            Subject::Prepare(node) | Subject::Finish(node) | Subject::Fallback(node) => {
                let at = At { execution: offer.execution, scope: offer.scope, node };
                if let Some(found) = self.state.at(at) {
                    self.evaluated(at, &found, offer.subject, &local.outcome);
                }
            }
        }
        Ok(())
    }

    fn scope_output(&mut self, offer: &OfferRecord, outcome: &LocalOutcome) {
        let result = match outcome {
            LocalOutcome::Done { output, .. } => match super::node::too_large(output) {
                Some(failure) => Err(Ending::Failed(failure)),
                None => Ok(output.clone()),
            },
            LocalOutcome::Failed(failure) => Err(Ending::Failed(fitting(failure))),
            _ => Err(Ending::Failed(super::node::internal("the evaluation did not fit the output of a scope"))),
        };
        self.leave(offer.execution, offer.scope, result);
    }

    fn evaluated(&mut self, at: At, found: &Found<'_>, subject: Subject, outcome: &LocalOutcome) {
        let now = self.state.now.0;
        match (subject, outcome) {
            (Subject::Prepare(_), LocalOutcome::Skip) => self.say(Event::Skipped(at)),
            (Subject::Prepare(_), LocalOutcome::Run { with }) => match with.as_ref().and_then(super::node::too_large) {
                Some(failure) => self.fail(at, found, failure, Repeat::Never),
                None => self.start(at, found, with.clone()),
            },
            (Subject::Prepare(_), LocalOutcome::WaitUntil(due)) => {
                self.say(Event::Waiting(at, TimeMs(due.0.max(now))));
            }
            (Subject::Prepare(_), LocalOutcome::WaitFor { ms }) => {
                self.say(Event::Waiting(at, TimeMs(now.saturating_add(*ms))));
            }
            (Subject::Prepare(_), LocalOutcome::Chosen { cases, sets }) => {
                match sets.iter().find_map(|set| super::node::too_large(&set.value)) {
                    Some(failure) => self.fail(at, found, failure, Repeat::Never),
                    None => {
                        self.write_vars(at, found, sets);
                        self.say(Event::Chosen(at, *cases));
                        self.enter_cases(at, found, *cases);
                    }
                }
            }
            (Subject::Prepare(_), LocalOutcome::Done { output, cases, sets }) => {
                self.complete(at, found, output.clone(), *cases, sets, false);
            }
            (Subject::Finish(_), LocalOutcome::Done { output, sets, .. }) => {
                self.complete(at, found, output.clone(), found.record.cases, sets, false);
            }
            (Subject::Fallback(_), LocalOutcome::Done { output, sets, .. }) => {
                self.complete(at, found, output.clone(), 0, sets, true);
            }
            (Subject::Fallback(_), LocalOutcome::Failed(failure)) => {
                self.fail(at, found, fitting(failure), Repeat::FallbackFailed);
            }
            (_, LocalOutcome::Failed(failure)) => self.fail(at, found, fitting(failure), Repeat::Never),
            _ => {
                let failure = super::node::internal("the evaluation did not fit its node");
                self.fail(at, found, failure, Repeat::FallbackFailed);
            }
        }
    }
}

/// A failure without the detail that is more than may stand in the state.
fn fitting(failure: &Failure) -> Failure {
    let mut failure = failure.clone();
    failure.detail = failure.detail.filter(|detail| detail.len() <= limits::MAX_DETAIL);
    failure
}
