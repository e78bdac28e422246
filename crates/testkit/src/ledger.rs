//! Reads what workers noted of their attempts and tells whether two ever ran under one node at once.
//!
//! It asks nothing of the cluster: all it knows are the ledgers and the moments at which processes were killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;

use crate::{Error, Result};

/// Nanoseconds of the machine's boot clock, by which ledgers are written.
#[must_use]
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// One line: an attempt begins or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Line {
    /// `begin` or `end`.
    pub what: String,
    /// When, on the boot clock.
    pub boot_ns: u64,
    /// 32 hexadecimal digits.
    pub execution: String,
    /// Scope instance within the execution.
    pub scope: u32,
    /// Node.
    pub node: String,
    /// Which visit of the node.
    pub visit: u32,
    /// Which attempt of the visit, from 1.
    pub attempt: u32,
    /// Fencing token of the lease.
    pub token: u64,
    /// Number of the worker.
    pub worker: u32,
    /// Its session.
    pub session: u64,
}

/// The ledger of one worker, and when its process was killed.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Its lines, in order.
    pub lines: Vec<Line>,
    /// Moments on the boot clock by which a process that wrote it was dead.
    pub deaths: Vec<u64>,
}

/// What the ledgers say, when nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Attempts that began.
    pub attempts: usize,
    /// Visits of nodes that had at least one attempt.
    pub visits: usize,
    /// Attempts that a killed process did not end.
    pub cut: usize,
    /// Visits that more than one attempt was made for.
    pub repeated: usize,
}

/// A visit of a node: execution, scope, node, visit.
type Visit<'a> = (&'a str, u32, &'a str, u32);

impl Line {
    fn visit(&self) -> Visit<'_> {
        (&self.execution, self.scope, &self.node, self.visit)
    }
}

#[derive(Debug)]
struct Attempt {
    begin: u64,
    end: u64,
    token: u64,
    cut: bool,
}

impl Attempt {
    fn of(begin: &Line, end: u64, cut: bool) -> Self {
        Self { begin: begin.boot_ns, end, token: begin.token, cut }
    }
}

impl Ledger {
    /// Reads a ledger. A last line without its end is what a kill leaves, and is left out.
    ///
    /// # Errors
    /// When the file cannot be read, or has a line that is none of a ledger.
    pub fn read(path: &Path, deaths: Vec<u64>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let line = |(number, line): (usize, &str)| {
            serde_json::from_str(line).map_err(|error| Error::Unexpected {
                what: format!("line {} of {}", number + 1, path.display()),
                why: error.to_string(),
            })
        };
        let lines = whole.lines().enumerate().filter(|(_, line)| !line.is_empty()).map(line).collect::<Result<_>>()?;
        Ok(Self { lines, deaths })
    }
}

impl Ledger {
    /// Attempts that have begun and not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        let mut open = BTreeSet::new();
        for line in &self.lines {
            let id = (line.execution.as_str(), line.token);
            if line.what == "begin" {
                open.insert(id);
            } else {
                open.remove(&id);
            }
        }
        open.len()
    }
}

/// Checks ledgers of all workers of a cluster.
///
/// # Errors
/// With all that is wrong, one sentence each: two attempts of one visit of a node at the same time, a token used twice, a
/// later attempt with a lower token, an end without a beginning, an attempt that neither ended nor was cut by a kill.
pub fn check(ledgers: &[Ledger]) -> std::result::Result<Summary, Vec<String>> {
    let mut problems = Vec::new();
    let mut visits: BTreeMap<Visit<'_>, Vec<Attempt>> = BTreeMap::new();
    for ledger in ledgers {
        let mut open: BTreeMap<(&str, u64), &Line> = BTreeMap::new();
        for line in &ledger.lines {
            let begun = match line.what.as_str() {
                "begin" => open.insert((&line.execution, line.token), line).map(|_| "began twice"),
                _ => match open.remove(&(line.execution.as_str(), line.token)) {
                    None => Some("ended before it began"),
                    Some(begin) => {
                        visits.entry(begin.visit()).or_default().push(Attempt::of(begin, line.boot_ns, false));
                        None
                    }
                },
            };
            problems.extend(begun.map(|what| format!("{what}: {line:?}")));
        }
        for begin in open.into_values() {
            match ledger.deaths.iter().copied().filter(|death| *death >= begin.boot_ns).min() {
                Some(death) => visits.entry(begin.visit()).or_default().push(Attempt::of(begin, death, true)),
                None => problems.push(format!("never ended: {begin:?}")),
            }
        }
    }
    let mut summary = Summary { visits: visits.len(), ..Summary::default() };
    for (visit, attempts) in &mut visits {
        attempts.sort_by_key(|attempt| attempt.begin);
        summary.attempts += attempts.len();
        summary.cut += attempts.iter().filter(|attempt| attempt.cut).count();
        summary.repeated += usize::from(attempts.len() > 1);
        for pair in attempts.windows(2) {
            if pair[1].begin < pair[0].end {
                problems.push(format!("two attempts at once of {visit:?}: {pair:?}"));
            }
            if pair[1].token <= pair[0].token {
                problems.push(format!("a later attempt with no higher token of {visit:?}: {pair:?}"));
            }
        }
    }
    if problems.is_empty() { Ok(summary) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(what: &str, boot_ns: u64, token: u64) -> Line {
        let (execution, node) = ("00".repeat(16), "a".to_owned());
        Line {
            what: what.into(),
            boot_ns,
            execution,
            scope: 0,
            node,
            visit: 1,
            attempt: 1,
            token,
            worker: 1,
            session: 1,
        }
    }

    fn ledger(lines: &[(&str, u64, u64)], deaths: &[u64]) -> Ledger {
        let lines = lines.iter().map(|(what, at, token)| line(what, *at, *token)).collect();
        Ledger { lines, deaths: deaths.to_vec() }
    }

    fn problem(ledgers: &[Ledger]) -> String {
        let problems = check(ledgers).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:#?}");
        problems[0].clone()
    }

    #[test]
    fn attempts_one_after_the_other_are_counted() {
        let first = ledger(&[("begin", 10, 1), ("end", 20, 1)], &[]);
        let killed = ledger(&[("begin", 30, 2)], &[5, 35, 90]);
        let last = ledger(&[("begin", 40, 3), ("end", 50, 3)], &[]);
        let summary = Summary { attempts: 3, visits: 1, cut: 1, repeated: 1 };
        assert_eq!(check(&[last, first, killed]), Ok(summary));
    }

    #[test]
    fn two_at_once_are_found() {
        let long = ledger(&[("begin", 10, 1), ("end", 50, 1)], &[]);
        let inside = ledger(&[("begin", 20, 2), ("end", 30, 2)], &[]);
        assert!(problem(&[long, inside.clone()]).starts_with("two attempts at once"));
        // One that was cut lasted until its process was dead.
        let cut = ledger(&[("begin", 10, 1)], &[25]);
        assert!(problem(&[inside, cut]).starts_with("two attempts at once"));
    }

    #[test]
    fn tokens_that_do_not_grow_are_found() {
        let lower = ledger(&[("begin", 10, 2), ("end", 20, 2), ("begin", 30, 1), ("end", 40, 1)], &[]);
        assert!(problem(&[lower]).starts_with("a later attempt with no higher token"));
        let twice = ledger(&[("begin", 10, 2), ("end", 20, 2)], &[]);
        let again = ledger(&[("begin", 30, 2), ("end", 40, 2)], &[]);
        assert!(problem(&[twice, again]).starts_with("a later attempt with no higher token"));
    }

    #[test]
    fn beginnings_and_ends_that_do_not_fit_are_found() {
        assert!(problem(&[ledger(&[("end", 10, 1)], &[])]).starts_with("ended before it began"));
        assert!(problem(&[ledger(&[("begin", 10, 1)], &[5])]).starts_with("never ended"));
        let twice = ledger(&[("begin", 10, 1), ("begin", 11, 1), ("end", 12, 1)], &[]);
        assert!(problem(&[twice]).starts_with("began twice"));
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_torn_line_inside_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let whole = serde_json::json!({ "what": "begin", "boot_ns": 1, "execution": "00", "scope": 0, "node": "a",
            "visit": 1, "attempt": 1, "token": 1, "worker": 1, "session": 1 });
        std::fs::write(&path, format!("{whole}\n{{\"what\":")).unwrap();
        assert_eq!(Ledger::read(&path, vec![]).unwrap().lines.len(), 1);
        std::fs::write(&path, format!("{{\"what\":\n{whole}\n")).unwrap();
        assert!(matches!(Ledger::read(&path, vec![]), Err(Error::Unexpected { .. })));
    }
}
