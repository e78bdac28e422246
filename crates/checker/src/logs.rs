//! What the logs of members say: one order of the same entries (F1).

use std::collections::BTreeMap;

use crate::{Entry, Findings, History};

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let mut leaders: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    let mut entries: BTreeMap<u64, (&Entry, &str)> = BTreeMap::new();
    for log in &history.logs {
        // All have their ends in common, so that there is something to compare.
        let last = log.entries.last().map(|it| it.index);
        let applied = history.members.iter().find(|it| it.name == log.member).map(|it| it.applied);
        findings.check(applied.is_none() || last == applied, "F1", || {
            format!("{} has applied {applied:?}, and its log ends at {last:?}", log.member)
        });
        for pair in log.entries.windows(2) {
            let (one, next) = (pair[0], pair[1]);
            findings.check(one.index + 1 == next.index, "F1", || {
                format!("in the log of {} entry {} follows {}", log.member, next.index, one.index)
            });
            findings.check(one.term <= next.term, "F1", || {
                format!("in the log of {} the term goes back: {one:?}, {next:?}", log.member)
            });
        }
        for entry in &log.entries {
            let (leader, who) = *leaders.entry(entry.term).or_insert((entry.leader, &log.member));
            findings.check(leader == entry.leader, "F1", || {
                format!("in term {} both {leader} ({who}) and {} ({}) led", entry.term, entry.leader, log.member)
            });
            let (same, who) = *entries.entry(entry.index).or_insert((entry, &log.member));
            findings.check(same == entry, "F1", || {
                format!(
                    "entry {} is {same:?} in the log of {who}, and {entry:?} in that of {}",
                    entry.index, log.member
                )
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Log, Member};

    fn log(member: &str, entries: &[(u64, u64, u64, u32)]) -> Log {
        let entry = |&(index, term, leader, crc)| Entry { index, term, leader, crc };
        Log { member: member.into(), entries: entries.iter().map(entry).collect() }
    }

    fn found(logs: &[Log]) -> usize {
        found_in(logs, &[])
    }

    fn found_in(logs: &[Log], members: &[Member]) -> usize {
        let mut findings = Findings(Vec::new());
        let history = History { logs: logs.to_vec(), members: members.to_vec(), ..History::default() };
        check(&history, &mut findings);
        findings.0.len()
    }

    #[test]
    fn logs_that_are_of_one_order_are_right() {
        let all = [(1, 1, 1, 5), (2, 1, 1, 6), (3, 4, 2, 7)];
        // Whoever has dropped the first ones, or has not all yet, has the same of the rest.
        assert_eq!(found(&[log("a", &all), log("b", &all[1..]), log("c", &all[..2])]), 0);
    }

    #[test]
    fn logs_that_differ_are_found() {
        let all = log("a", &[(1, 1, 1, 5), (2, 1, 1, 6)]);
        assert_eq!(found(&[all.clone(), log("b", &[(1, 1, 1, 5), (2, 1, 1, 9)])]), 1, "another content");
        assert_eq!(found(&[all.clone(), log("b", &[(1, 1, 1, 5), (2, 2, 1, 6)])]), 1, "another term");
        assert_eq!(found(&[all.clone(), log("b", &[(3, 1, 2, 6)])]), 1, "two led in one term");
        assert_eq!(found(&[log("a", &[(1, 1, 1, 5), (3, 1, 1, 6)])]), 1, "a gap");
        assert_eq!(found(&[log("a", &[(1, 2, 1, 5), (2, 1, 3, 6)])]), 1, "a term that goes back");
        let member = |applied| Member { name: "a".into(), applied, state_hash: 1 };
        assert_eq!(found_in(std::slice::from_ref(&all), &[member(2)]), 0, "it has all that its member applied");
        assert_eq!(found_in(std::slice::from_ref(&all), &[member(3)]), 1, "it has less");
        assert_eq!(found_in(&[log("a", &[])], &[member(3)]), 1, "it has nothing");
    }
}
