//! Whether reads of a set that only grows are linearizable (F2).
//!
//! For such a set that is: each read has all that was added before it began, and nothing that nobody had asked to add by
//! its end; and of two reads one has all that the other has: the later one, if one ended before the other began.

use std::collections::BTreeSet;

use crate::{Answer, Findings, History, Kind, Operation};

pub(crate) fn check(history: &History, findings: &mut Findings) {
    let mut reads: Vec<(&Operation, &BTreeSet<u64>)> = history
        .operations
        .iter()
        .filter_map(|operation| match &operation.answer {
            Answer::There(there) => Some((operation, there)),
            _ => None,
        })
        .collect();
    let adds = || {
        history.operations.iter().filter_map(|operation| match operation.kind {
            Kind::Add(number) => Some((operation, number)),
            _ => None,
        })
    };
    for (read, there) in &reads {
        let at = read.begun_ns;
        let added = adds().filter(|(add, _)| add.answer == Answer::Added && add.ended_ns < at);
        let missing: Vec<u64> = added.map(|(_, number)| number).filter(|number| !there.contains(number)).collect();
        findings.check(missing.is_empty(), "F2", || format!("a read that began at {at} ns has not {missing:?}"));
        let asked: BTreeSet<u64> = adds().filter(|(add, _)| add.begun_ns <= read.ended_ns).map(|(_, n)| n).collect();
        let extra: Vec<&u64> = there.difference(&asked).collect();
        findings.check(extra.is_empty(), "F2", || {
            format!("a read that began at {at} ns has {extra:?}, which nobody added")
        });
    }
    reads.sort_by_key(|(_, there)| there.len());
    for pair in reads.windows(2) {
        let ((first, less), (second, more)) = (pair[0], pair[1]);
        findings.check(less.is_subset(more), "F2", || {
            format!("neither of two reads has all of the other: {less:?}, {more:?}")
        });
        findings.check(less.len() == more.len() || first.begun_ns <= second.ended_ns, "F2", || {
            format!("a read that began at {} ns has less than one that ended before", first.begun_ns)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(begun_ns: u64, ended_ns: u64, kind: Kind, answer: Answer) -> Operation {
        Operation { begun_ns, ended_ns, kind, answer }
    }

    fn add(begun: u64, ended: u64, number: u64) -> Operation {
        operation(begun, ended, Kind::Add(number), Answer::Added)
    }

    fn read(begun: u64, ended: u64, there: &[u64]) -> Operation {
        operation(begun, ended, Kind::Read, Answer::There(there.iter().copied().collect()))
    }

    fn wrong(operations: &[Operation]) -> bool {
        let mut findings = Findings(Vec::new());
        check(&History { operations: operations.to_vec(), ..History::default() }, &mut findings);
        !findings.0.is_empty()
    }

    #[test]
    fn reads_that_are_in_order_are_right() {
        assert!(!wrong(&[
            add(0, 10, 1),
            add(5, 20, 2),
            read(11, 12, &[1]),
            read(13, 14, &[1, 2]),
            read(30, 31, &[1, 2])
        ]));
        // One whose outcome nobody knows may be there or not.
        let unknown = operation(0, 10, Kind::Add(3), Answer::Unknown);
        assert!(!wrong(&[unknown.clone(), read(20, 21, &[])]));
        assert!(!wrong(&[unknown, read(20, 21, &[3])]));
    }

    #[test]
    fn stale_reads_and_reads_of_nothing_are_found() {
        assert!(wrong(&[add(0, 10, 1), read(11, 12, &[])]), "stale");
        assert!(wrong(&[add(5, 20, 2), read(6, 7, &[2]), read(8, 9, &[])]), "back in time");
        assert!(wrong(&[add(5, 20, 2), read(1, 4, &[2])]), "before it was asked for");
        assert!(wrong(&[add(0, 20, 1), add(0, 20, 2), read(1, 19, &[1]), read(1, 19, &[2])]), "two orders");
    }
}
