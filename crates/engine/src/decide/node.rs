//! The life of a node: its turn, its end, and the ladder of a failure.

use nova_program::{Backoff, BodyForm, BodyIx, Jitter, Join, Jump, NodeIx, NodeKind, VarIx, WaitTime};

use super::Decider;
use crate::event::Event;
use crate::find::{Found, in_body, is_handled, port_alive, reads_of, scope_of_body};
use crate::ids::{ScopeId, TimeMs};
use crate::input::VarWrite;
use crate::limits;
use crate::output::{NodeState, Subject};
use crate::payload::{Failure, MAX_INLINE_BYTES, Payload};
use crate::state::{AfterStop, Ending, Phase};
use crate::work::{At, Work};

impl Decider<'_> {
    /// A node's turn has come.
    pub(super) fn begin(&mut self, at: At) {
        let Some(found) = self.state.at(at) else { return };
        if found.record.state != NodeState::Pending || !in_body(found.execution, found.scope) {
            return;
        }
        let parallel = found.program.body(found.scope.body).parallel;
        if parallel > 0 && found.scope.live >= parallel {
            self.say(Event::Held(at));
        } else if found.node.prepare || matches!(found.node.kind, NodeKind::Think | NodeKind::Choose) {
            self.offer(at, Subject::Prepare(at.node));
        } else {
            self.start(at, &found, None);
        }
    }

    pub(super) fn offer(&mut self, at: At, subject: Subject) {
        let token = self.token();
        self.say(Event::Offered(at.execution, at.scope, subject, token));
    }

    /// `when` was true, or there is none: the node's own matter begins.
    pub(super) fn start(&mut self, at: At, found: &Found<'_>, with: Option<Payload>) {
        match &found.node.kind {
            NodeKind::Work { .. } => self.say(Event::Queued(at, with)),
            NodeKind::Wait(WaitTime::ForMs(ms)) => {
                self.say(Event::Waiting(at, TimeMs(self.state.now.0.saturating_add(*ms))));
            }
            NodeKind::Scope(body) if self.scopes_fit(at, found, 1) => self.enter_scope(at, found, *body),
            NodeKind::Scope(_) => {}
            NodeKind::Wait(WaitTime::Evaluated) | NodeKind::Think | NodeKind::Choose => {
                self.fail(at, found, internal("the evaluation did not fit the node"), Repeat::Never);
            }
        }
    }

    /// Whether that many more scope instances may live; if not, the node has failed. Asked before the first of them
    /// begins, so that a node that fails has no bodies.
    fn scopes_fit(&mut self, at: At, found: &Found<'_>, more: usize) -> bool {
        let fit = found.execution.scopes.len() + more <= limits::SCOPES_PER_EXECUTION;
        if !fit {
            let message = format!("more than {} live scope instances", limits::SCOPES_PER_EXECUTION);
            self.fail(at, found, failure("limit.scopes", &message, false), Repeat::Never);
        }
        fit
    }

    /// One more scope instance on a node.
    fn enter_scope(&mut self, at: At, found: &Found<'_>, body: BodyIx) {
        let scope = ScopeId(found.execution.next_scope + self.scopes);
        self.scopes += 1;
        self.say(Event::ScopeEntered { at, scope, body, attempt: found.record.attempt });
    }

    /// The chosen bodies of an `if` or `switch` begin; without any the node is done.
    pub(super) fn enter_cases(&mut self, at: At, found: &Found<'_>, cases: u64) {
        let chosen = found.node.cases.iter().enumerate().take(64).filter(|(index, _)| cases & (1 << index) != 0);
        let bodies: Vec<_> = chosen.filter_map(|(_, case)| case.body).collect();
        if bodies.is_empty() {
            self.worked(at, found, Payload::null(), cases);
        } else if self.scopes_fit(at, found, bodies.len()) {
            for body in bodies {
                self.enter_scope(at, found, body);
            }
        }
    }

    /// The work is done; what is left is `output` and `set`.
    pub(super) fn worked(&mut self, at: At, found: &Found<'_>, output: Payload, cases: u64) {
        if let Some(failure) = too_large(&output) {
            self.fail(at, found, failure, Repeat::Never);
        } else if found.node.finish {
            self.say(Event::OutputKept(at, output));
            self.offer(at, Subject::Finish(at.node));
        } else {
            self.complete(at, found, output, cases, &[], false);
        }
    }

    pub(super) fn complete(
        &mut self,
        at: At,
        found: &Found<'_>,
        output: Payload,
        cases: u64,
        sets: &[VarWrite],
        degraded: bool,
    ) {
        let large = sets.iter().map(|set| &set.value).chain([&output]).find_map(too_large);
        if let Some(failure) = large {
            self.fail(at, found, failure, Repeat::Never);
            return;
        }
        self.write_vars(at, found, sets);
        self.say(Event::Completed { at, output, cases, degraded });
    }

    /// Writes variables; evaluations under way that read one of them are asked for anew.
    pub(super) fn write_vars(&mut self, at: At, found: &Found<'_>, sets: &[VarWrite]) {
        for set in sets {
            let Some(variable) = found.program.variables.get(set.var.0 as usize) else { continue };
            if let Some((scope, _)) = scope_of_body(found.execution, at.scope, variable.body) {
                self.say(Event::VarSet(at.execution, scope, set.var, set.value.clone()));
            }
        }
        if sets.is_empty() {
            return;
        }
        let written = |var: &VarIx| sets.iter().any(|set| set.var == *var);
        let Some(shard) = self.state.shard(at.execution.shard()) else { return };
        for token in &found.execution.offers {
            let Some(offer) = shard.offers.get(token) else { continue };
            let own = offer.scope == at.scope && crate::find::node_of(offer.subject) == Some(at.node);
            if !own && reads_of(found.program, offer.subject).vars.iter().any(written) {
                let anew = self.token();
                self.say(Event::Reoffered(at.execution, *token, anew));
            }
        }
    }

    /// The ladder: retry → fallback → paths or the scope around.
    pub(super) fn fail(&mut self, at: At, found: &Found<'_>, mut failure: Failure, repeat: Repeat) {
        if failure.node.is_empty() {
            failure.node = found.node.id.clone();
        }
        let attempts = found.record.attempt;
        let retry = found.node.retry.as_ref().filter(|retry| {
            repeat == Repeat::IfPolicySays
                && attempts < retry.max_attempts
                && retry.covers(&failure.code, failure.retryable)
        });
        if let Some(retry) = retry {
            let seed = self.state.index ^ found.record.token.0.rotate_left(32) ^ u64::from(attempts);
            let delay = backoff_ms(&retry.backoff, attempts, seed).max(failure.retry_after_ms.unwrap_or(0));
            self.say(Event::Retrying(at, failure, TimeMs(self.state.now.0.saturating_add(delay))));
        } else if found.node.fallback && repeat != Repeat::FallbackFailed {
            self.say(Event::FailureKept(at, failure));
            self.offer(at, Subject::Fallback(at.node));
        } else {
            let handled = is_handled(found.program, at.node, &failure.code);
            self.say(Event::Failed { at, failure, handled });
        }
    }

    /// What was promised for the time after the stop.
    pub(super) fn after_stop(&mut self, at: At, found: &Found<'_>) {
        match found.record.after_stop.as_deref().cloned() {
            Some(AfterStop::FailAttempt(failure)) => self.fail(at, found, failure, Repeat::IfPolicySays),
            Some(AfterStop::Fail(failure)) => self.fail(at, found, failure, Repeat::Never),
            Some(AfterStop::Cancel) | None => self.say(Event::Cancelled(at)),
        }
    }

    /// A path into a node was decided: does it run, is it skipped, or does it go on waiting?
    pub(super) fn join(&mut self, at: At) {
        let Some(found) = self.state.at(at) else { return };
        if found.scope.phase != Phase::Body || found.record.state != NodeState::Pending {
            return;
        }
        match joined(found.node.join, found.node.in_degree, found.record.arrived, found.record.dead) {
            Joined::Run => self.begin(at),
            Joined::Skip => self.say(Event::Skipped(at)),
            Joined::Wait => {}
        }
    }

    /// A node ended: its paths are decided, or its list goes on, or its scope fails.
    pub(super) fn ended(&mut self, at: At, from: u32) {
        let Some(found) = self.state.at(at) else { return };
        if found.scope.phase != Phase::Body {
            return;
        }
        let record = found.record;
        if let (NodeState::Failed, Some(failure)) = (record.state, &record.failure)
            && !is_handled(found.program, at.node, &failure.code)
        {
            self.say(Event::ScopeStopping(at.execution, at.scope, Ending::Failed((**failure).clone())));
            return;
        }
        match found.program.body(found.scope.body).form {
            BodyForm::List => self.advance(at, &found),
            BodyForm::Graph => {
                let edges = found.program.edges_of(at.node);
                let slice = edges.iter().enumerate().skip(from as usize).take(limits::SLICE as usize);
                for (_, edge) in slice {
                    let arrived = port_alive(found.program, at.node, record, edge.port);
                    self.say(Event::PathDecided { target: At { node: edge.target, ..at }, arrived });
                }
                let next = from.saturating_add(limits::SLICE);
                if (next as usize) < edges.len() {
                    self.say(Event::Wanted(Work::Ended(at, next)));
                }
            }
        }
    }

    fn advance(&mut self, at: At, found: &Found<'_>) {
        let record = found.record;
        let range = &found.program.body(found.scope.body).nodes;
        let following = (at.node.0 + 1 < range.end).then_some(NodeIx(at.node.0 + 1));
        let jump = if record.state == NodeState::Completed {
            let chosen = found.node.cases.iter().enumerate().filter(|(i, _)| record.cases & (1 << i) != 0);
            chosen.filter_map(|(_, case)| case.next).next().or(found.node.next)
        } else {
            None
        };
        let next = match jump {
            Some(Jump::To(node)) => Some(node),
            Some(Jump::End) => None,
            None => following,
        };
        self.say(Event::ListAdvanced(at.execution, at.scope, next));
    }
}

/// Whether the ladder begins at the retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// An attempt failed.
    IfPolicySays,
    /// The node failed: its time is up, an expression failed.
    Never,
    /// So did its fallback.
    FallbackFailed,
}

enum Joined {
    Run,
    Skip,
    Wait,
}

fn joined(join: Join, degree: u16, arrived: u16, dead: u16) -> Joined {
    let decided = u32::from(arrived) + u32::from(dead) >= u32::from(degree);
    match join {
        Join::All if decided && arrived > 0 => Joined::Run,
        Join::All if decided => Joined::Skip,
        Join::Every if dead > 0 => Joined::Skip,
        Join::Every if decided => Joined::Run,
        Join::Any if arrived > 0 => Joined::Run,
        Join::Any if decided => Joined::Skip,
        Join::Count(n) if arrived >= n => Joined::Run,
        Join::Count(n) if degree.saturating_sub(dead) < n => Joined::Skip,
        _ => Joined::Wait,
    }
}

/// A failure that the engine itself makes.
pub(super) fn failure(code: &str, message: &str, retryable: bool) -> Failure {
    Failure {
        code: code.into(),
        message: message.into(),
        retryable,
        retry_after_ms: None,
        detail: None,
        node: "".into(),
    }
}

pub(super) fn internal(message: &str) -> Failure {
    failure("engine.internal", message, false)
}

/// The failure of a payload that may not stand in the state.
pub(super) fn too_large(payload: &Payload) -> Option<Failure> {
    match payload {
        Payload::Inline(bytes) if bytes.len() > MAX_INLINE_BYTES => {
            let message = format!("{} bytes are more than the {MAX_INLINE_BYTES} that may stand inline", bytes.len());
            Some(failure("limit.payload", &message, false))
        }
        _ => None,
    }
}

/// `initial × factor^(attempt − 1)`, at most `max_delay`, spread by a seed. Integers only: every member gets the same.
fn backoff_ms(backoff: &Backoff, attempt: u32, seed: u64) -> u64 {
    let mut delay = backoff.initial_ms.min(backoff.max_delay_ms);
    for _ in 1..attempt {
        delay = (u128::from(delay) * u128::from(backoff.factor_milli) / 1_000).min(u128::from(u64::MAX)) as u64;
        if delay >= backoff.max_delay_ms {
            delay = backoff.max_delay_ms;
            break;
        }
    }
    let random = mix(seed);
    match backoff.jitter {
        Jitter::None => delay,
        Jitter::Full => random % (delay.saturating_add(1)),
        Jitter::Equal => delay / 2 + random % (delay / 2 + 1),
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): spreads nearby seeds over all numbers.
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use nova_program::{Backoff, Jitter};

    use super::backoff_ms;

    #[test]
    fn backoff_grows_to_its_bound_and_jitter_stays_within() {
        let mut backoff = Backoff { initial_ms: 100, factor_milli: 2000, max_delay_ms: 1_000, jitter: Jitter::None };
        let delays: Vec<_> = (1..7).map(|attempt| backoff_ms(&backoff, attempt, 1)).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000]);
        backoff.jitter = Jitter::Equal;
        assert!((0..1_000).all(|seed| (200..=400).contains(&backoff_ms(&backoff, 3, seed))));
        backoff.jitter = Jitter::Full;
        let spread: Vec<_> = (0..1_000).map(|seed| backoff_ms(&backoff, 3, seed)).collect();
        assert!(spread.iter().all(|d| *d <= 400) && spread.iter().any(|d| *d < 50) && spread.iter().any(|d| *d > 350));
    }
}
