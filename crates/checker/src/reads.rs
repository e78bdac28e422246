//! Whether reads of a set that only grows are linearizable (F2).
//!
//! For such a set that is: each read has all that was added before it began, or before something that it has began to be
//! added, and nothing that nobody had asked to add by its end; and of two reads one has all that the other has: the later
//! one, if one ended before the other began.

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
        // What was added before something else began to be is there when that is.
        let newest =
            adds().filter(|(_, number)| there.contains(number)).map(|(add, _)| add.begun_ns).max().unwrap_or(0);
        let older = adds().filter(|(add, _)| add.answer == Answer::Added && add.ended_ns < newest);
        let missing: Vec<u64> = older.map(|(_, number)| number).filter(|number| !there.contains(number)).collect();
        findings.check(missing.is_empty(), "F2", || {
            format!("a read that began at {at} ns has what was added later, and has not {missing:?}")
        });
        let asked: BTreeSet<u64> = adds().filter(|(add, _)| add.begun_ns <= read.ended_ns).map(|(_, n)| n).collect();
        let extra: Vec<&u64> = there.difference(&asked).collect();
        findings.check(extra.is_empty(), "F2", || {
            format!("a read that began at {at} ns has {extra:?}, which nobody added")
        });
    }
    reads.sort_by_key(|(_, there)| there.len());
    for pair in reads.windows(2) {
        let ((_, less), (_, more)) = (pair[0], pair[1]);
        findings.check(less.is_subset(more), "F2", || {
            format!("neither of two reads has all of the other: {less:?}, {more:?}")
        });
    }
    // From the fullest down: when the first of those had ended that have more.
    let mut more_ended = u64::MAX;
    for group in reads.chunk_by(|(_, one), (_, other)| one.len() == other.len()).rev() {
        for (read, there) in group {
            findings.check(read.begun_ns <= more_ended, "F2", || {
                format!("a read that began at {} ns has less than one that ended before: {there:?}", read.begun_ns)
            });
        }
        more_ended = group.iter().map(|(read, _)| read.ended_ns).min().unwrap_or(u64::MAX).min(more_ended);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

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

    /// The set as one that is asked by one after the other.
    #[derive(Clone, Default)]
    struct Set(BTreeSet<u64>);

    #[derive(Clone, Debug, PartialEq)]
    enum Ask {
        Add(u64),
        Read,
    }

    impl SequentialSpec for Set {
        type Op = Ask;
        type Ret = Option<BTreeSet<u64>>;

        fn invoke(&mut self, ask: &Ask) -> Option<BTreeSet<u64>> {
            match ask {
                Ask::Add(number) => {
                    self.0.insert(*number);
                    None
                }
                Ask::Read => Some(self.0.clone()),
            }
        }
    }

    /// What a search through all orders says.
    fn wrong_by_search(operations: &[Operation]) -> bool {
        let mut steps: Vec<(u64, bool, usize)> = Vec::new();
        for (place, operation) in operations.iter().enumerate() {
            steps.push((operation.begun_ns, false, place));
            if operation.answer != Answer::Unknown {
                steps.push((operation.ended_ns, true, place));
            }
        }
        steps.sort_unstable();
        let mut tester = LinearizabilityTester::new(Set::default());
        for (_, is_end, place) in steps {
            // Each is asked by somebody of its own.
            let taken = match (&operations[place].kind, &operations[place].answer, is_end) {
                (Kind::Add(number), _, false) => tester.on_invoke(place, Ask::Add(*number)),
                (_, _, false) => tester.on_invoke(place, Ask::Read),
                (_, Answer::There(there), true) => tester.on_return(place, Some(there.clone())),
                _ => tester.on_return(place, None),
            };
            taken.unwrap();
        }
        !tester.is_consistent()
    }

    /// What somebody may have seen who asked at random; now and then what nobody can have seen.
    fn random_history(random: &mut StdRng) -> Vec<Operation> {
        let mut times: Vec<u64> = (0..24).collect();
        times.shuffle(random);
        let mut adds = Vec::new();
        let mut reads = Vec::new();
        for n in 0..random.random_range(2..8_u64) {
            let (a, b) = (times.pop().unwrap(), times.pop().unwrap());
            // In halves, so that each happens at a time of its own.
            let (begun, ended, at) = (a.min(b), a.max(b), random.random_range(2 * a.min(b)..2 * a.max(b)));
            if random.random_bool(0.5) {
                adds.push((at, add(begun, ended, n), random.random_bool(0.2)));
            } else {
                reads.push((at, begun, ended));
            }
        }
        let mut all = Vec::new();
        for (at, begun, ended) in reads {
            let seen = adds.iter().filter(|(then, ..)| *then < at).filter_map(|(_, add, _)| match add.kind {
                Kind::Add(number) => Some(number),
                _ => None,
            });
            let mut seen: BTreeSet<u64> = seen.collect();
            if random.random_bool(0.2) {
                let number = random.random_range(0..8);
                if !seen.remove(&number) {
                    seen.insert(number);
                }
            }
            all.push(operation(begun, ended, Kind::Read, Answer::There(seen)));
        }
        all.extend(adds.into_iter().map(|(_, mut add, unknown)| {
            if unknown {
                add.answer = Answer::Unknown;
            }
            add
        }));
        all
    }

    #[test]
    fn it_says_what_a_search_through_all_orders_says() {
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut found = 0;
        for _ in 0..3_000 {
            let operations = random_history(&mut random);
            let by_search = wrong_by_search(&operations);
            assert_eq!(wrong(&operations), by_search, "{operations:#?}");
            found += u32::from(by_search);
        }
        assert!((300..2_700).contains(&found), "{found} of 3000 are wrong: too one-sided to say anything");
    }
}
