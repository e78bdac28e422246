//! What clients were told, against what happened.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Answer, End, Execution, Findings, History, Id, Kind, Submission};

pub(crate) fn check(history: &History, executions: &BTreeMap<Id, Execution>, findings: &mut Findings) {
    let mut cancelled = BTreeSet::new();
    for operation in &history.operations {
        let Kind::Cancel(id) = operation.kind else { continue };
        match operation.answer {
            Answer::NotSent | Answer::Rejected { .. } => continue,
            Answer::Cancelling => {
                let end = executions.get(&id).and_then(|it| it.end.as_ref());
                findings.check(end == Some(&End::Cancelled), "D2", || {
                    format!("a cancel of {id} was accepted, and it came to {end:?}")
                });
            }
            _ => {}
        }
        cancelled.insert(id);
    }
    let submissions = history.operations.iter().filter_map(|operation| match &operation.kind {
        Kind::Submit(submission) => Some((submission, &operation.answer)),
        Kind::Cancel(_) | Kind::Add(_) | Kind::Read | Kind::OldEpoch(..) => None,
    });
    for operation in &history.operations {
        if let (Kind::OldEpoch(shard, epoch), Answer::Added) = (&operation.kind, &operation.answer) {
            let at = operation.begun_ns;
            findings.add(
                "C7",
                format!("a proposal for shard {shard} in epoch {epoch} was taken after {at} ns, which is over"),
            );
        }
    }
    for (submission, answer) in submissions.clone() {
        one(submission, answer, executions, &cancelled, findings);
    }
    keys(submissions, executions, findings);
}

fn one(
    submission: &Submission,
    answer: &Answer,
    executions: &BTreeMap<Id, Execution>,
    cancelled: &BTreeSet<Id>,
    findings: &mut Findings,
) {
    let own = executions.get(&submission.id);
    match answer {
        Answer::Accepted { id, repeated } => {
            let Some(execution) = executions.get(id).filter(|it| it.accepted == 1) else {
                findings.add("A1", format!("{id} was accepted and is not there"));
                return;
            };
            findings.check(*repeated || *id == submission.id, "A2", || {
                format!("{} was accepted as {id}, and as the first", submission.id)
            });
            let right = match &execution.end {
                Some(End::Completed(output)) => *output == submission.expected,
                Some(End::Cancelled) => cancelled.contains(id),
                Some(End::Failed(_)) | None => false,
            };
            findings.check(right, "J5", || {
                format!("{id} ({}) should come to {}: {:?}", submission.content, submission.expected, execution.end)
            });
        }
        Answer::Rejected { why, .. } => {
            let began = own.is_some_and(|it| it.accepted > 0);
            findings.check(!began, "A4", || format!("{} was refused ({why}), and runs", submission.id));
        }
        Answer::NotSent => {
            findings.check(own.is_none(), "A4", || format!("{} was not sent, and is there: {own:?}", submission.id));
        }
        // At most one, which `executions` looked at.
        Answer::Unknown | Answer::Cancelling | Answer::Added | Answer::There(_) => {}
    }
}

/// A3: one key, one execution; another content is refused.
fn keys<'a>(
    submissions: impl Iterator<Item = (&'a Submission, &'a Answer)>,
    executions: &BTreeMap<Id, Execution>,
    findings: &mut Findings,
) {
    let mut by_key: BTreeMap<&(String, String), Vec<(&Submission, &Answer)>> = BTreeMap::new();
    for (submission, answer) in submissions {
        if let Some(key) = &submission.key {
            by_key.entry(key).or_default().push((submission, answer));
        }
    }
    for (key, all) in by_key {
        let began: BTreeSet<Id> = all
            .iter()
            .map(|(submission, _)| submission.id)
            .filter(|id| executions.get(id).is_some_and(|it| it.accepted > 0))
            .collect();
        findings.check(began.len() <= 1, "A3", || format!("{key:?} began {began:?}"));
        let Some((first, _)) = all.iter().find(|(submission, _)| began.contains(&submission.id)) else { continue };
        for (submission, answer) in &all {
            let right = match answer {
                Answer::Accepted { id, .. } => *id == first.id && submission.content == first.content,
                Answer::Rejected { conflict: true, .. } => submission.content != first.content,
                _ => true,
            };
            findings.check(right, "A3", || format!("{key:?} is {}, and {answer:?} was said", first.id));
        }
    }
}
