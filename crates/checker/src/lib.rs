//! Looks at the whole history of a run and tells which invariants do not hold.
//!
//! Owns: what a history is, and the invariants (docs/testing.md lists them by their letters).
//! Must not know: how the history came about. It asks nothing of the system that it judges: all it has is what clients,
//! workers and the bus noted, and when faults began and ended.
//!
//! ```text
//! history ─▶ outbox (per shard, by number) ─▶ executions (per id, by number) ─▶ submissions, commands, effects
//!    └─────▶ members, logs, reads
//! ```

mod commands;
mod effects;
mod executions;
mod files;
mod history;
mod logs;
mod outbox;
mod reads;
mod submissions;
#[cfg(test)]
mod tests;

pub use executions::{End, Execution};
pub use files::HistoryError;
pub use history::{
    Answer, Effect, Entry, History, Id, Kind, Log, Member, Numbers, Operation, Place, Shard, Source, Submission, Topic,
};

use std::collections::BTreeMap;
use std::fmt;

/// An invariant that does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its letter and number in docs/testing.md.
    pub invariant: &'static str,
    /// What is wrong, for people.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a history holds: a run in which too little happened says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Submissions that were accepted.
    pub accepted: usize,
    /// Executions that ended.
    pub ended: usize,
    /// Attempts that began.
    pub attempts: usize,
    /// Attempts beyond the first of a visit.
    pub repeated: usize,
    /// Messages that were on the bus more than once.
    pub duplicates: usize,
    /// Results, renewals of leases that were refused as stale.
    pub stale: usize,
    /// Executions that sources started.
    pub triggered: usize,
}

/// All that is wrong, one violation each.
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, invariant: &'static str, what: impl Into<String>) {
        self.0.push(Violation { invariant, what: what.into() });
    }

    fn check(&mut self, holds: bool, invariant: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(invariant, what());
        }
    }
}

/// Looks at a history.
///
/// # Errors
/// With all that does not hold.
pub fn check(history: &History) -> Result<Counts, Vec<Violation>> {
    let mut findings = Findings(Vec::new());
    members(history, &mut findings);
    logs::check(history, &mut findings);
    let outbox = outbox::read(history, &mut findings);
    let executions = executions::fold(&outbox, &mut findings);
    reads::check(history, &mut findings);
    submissions::check(history, &executions, &mut findings);
    let triggered = commands::check(history, &outbox, &executions, &mut findings);
    let (attempts, repeated) = effects::check(history, &executions, &mut findings);
    let ended = executions.values().filter(|it| it.end.is_some()).count();
    let counts = Counts {
        accepted: history.operations.iter().filter(|it| matches!(it.answer, Answer::Accepted { .. })).count(),
        ended,
        attempts,
        repeated,
        duplicates: outbox.duplicates,
        stale: outbox.stale,
        triggered,
    };
    if findings.0.is_empty() { Ok(counts) } else { Err(findings.0) }
}

/// F3: members that applied as much have the same state.
fn members(history: &History, findings: &mut Findings) {
    let mut hashes: BTreeMap<u64, &Member> = BTreeMap::new();
    for member in &history.members {
        let first = hashes.entry(member.applied).or_insert(member);
        findings.check(first.state_hash == member.state_hash, "F3", || {
            let (a, b) = (&first.name, &member.name);
            format!(
                "{a} and {b} differ after entry {}: {:016x}, {:016x}",
                member.applied, first.state_hash, member.state_hash
            )
        });
    }
}
