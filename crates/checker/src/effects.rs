//! What workers did (C3, C5).

use std::collections::BTreeMap;

use crate::{Effect, Execution, Findings, History, Id};

/// Gives how many attempts were carried out, and how many of them were not the first of their visit.
pub(crate) fn check(
    history: &History,
    executions: &BTreeMap<Id, Execution>,
    findings: &mut Findings,
) -> (usize, usize) {
    let mut visits: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
    let mut made: BTreeMap<Id, u32> = BTreeMap::new();
    for effect in &history.effects {
        visits.entry(&effect.key).or_default().push(effect);
        *made.entry(effect.execution).or_default() += 1;
    }
    let repeated = visits.values().map(|attempts| attempts.len() - 1).sum();
    for (key, attempts) in &mut visits {
        attempts.sort_by_key(|effect| effect.begun_ns);
        for pair in attempts.windows(2) {
            findings.check(pair[0].ended_ns <= pair[1].begun_ns, "C3", || {
                format!("two attempts at once of {key}: {:?}, {:?}", pair[0], pair[1])
            });
            // The numbers of attempts may stay, when one was declined; an older one never comes back.
            findings.check(pair[0].attempt <= pair[1].attempt, "C1", || {
                format!("an older attempt of {key} behind a newer one: {:?}, {:?}", pair[0], pair[1])
            });
        }
    }
    for (id, count) in made {
        let leased = executions.get(&id).map_or(0, Execution::attempts);
        findings
            .check(count <= leased, "C5", || format!("{id}: {count} attempts were carried out, and {leased} given"));
    }
    (history.effects.len(), repeated)
}
