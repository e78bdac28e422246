//! What workers did (C1, C3, C5).

use std::collections::{BTreeMap, BTreeSet};

use crate::{Effect, Execution, Findings, History, Id};

/// Gives how many attempts were carried out, and how many of them were not the first of their visit.
pub(crate) fn check(
    history: &History,
    executions: &BTreeMap<Id, Execution>,
    findings: &mut Findings,
) -> (usize, usize) {
    let mut visits: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
    let mut carried: BTreeSet<(Id, u64)> = BTreeSet::new();
    for effect in &history.effects {
        visits.entry(&effect.key).or_default().push(effect);
        let given = executions.get(&effect.execution).is_some_and(|it| it.given.contains(&effect.token));
        findings.check(given, "C5", || format!("an attempt was carried out that was not given: {effect:?}"));
        let first = carried.insert((effect.execution, effect.token));
        findings.check(first, "C5", || format!("an attempt was carried out twice: {effect:?}"));
    }
    let repeated = visits.values().map(|attempts| attempts.len() - 1).sum();
    for (key, attempts) in &mut visits {
        attempts.sort_by_key(|effect| effect.begun_ns);
        for pair in attempts.windows(2) {
            findings.check(pair[0].ended_ns <= pair[1].begun_ns, "C3", || {
                format!("two attempts at once of {key}: {:?}, {:?}", pair[0], pair[1])
            });
            // The numbers of attempts may stay, when one was declined; an older one never comes back.
            let newer = pair[0].attempt <= pair[1].attempt && pair[0].token <= pair[1].token;
            findings.check(newer, "C1", || {
                format!("an older attempt of {key} behind a newer one: {:?}, {:?}", pair[0], pair[1])
            });
        }
    }
    (history.effects.len(), repeated)
}
