//! Reads all executions back and compares them with what was sent.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;
use crate::http::Connection;
use crate::request::{FIRST, Said};
use crate::tally::{Sent, histogram};
use crate::workflow::{Expect, Workflow};

const LOOK: Duration = Duration::from_millis(250);
const LONG_LOOK: Duration = Duration::from_secs(10);
const PAGE: u32 = 500;
const EXAMPLES: usize = 5;

/// One execution of the list, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Row<'a> {
    pub id: &'a str,
    pub state: &'a str,
    #[serde(borrow)]
    pub input: Option<Input<'a>>,
    #[serde(borrow)]
    pub output: Option<&'a RawValue>,
    pub events: u64,
    #[serde(rename = "endedAt")]
    pub ended_at: Option<&'a str>,
}

/// The input of every execution here.
#[derive(Debug, Deserialize)]
pub(crate) struct Input<'a> {
    pub n: u64,
    /// When it was to wake, if it waited.
    pub at: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    executions: Vec<Row<'a>>,
    cursor: Option<String>,
}

/// What reading back brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Sent by the generator.
    pub submitted: u64,
    /// Turned away with 429, and nowhere to be found.
    pub refused: u64,
    /// Answered and read back with the right output, once.
    pub completed: u64,
    /// Answered and read back once, where they are to wait.
    pub parked: u64,
    /// Answered with an error or a wrong output.
    pub answered_wrong: u64,
    /// Answered as completed, not found.
    pub missing: u64,
    /// More executions than one for a number.
    pub duplicates: u64,
    /// Found, and not ended.
    pub unfinished: u64,
    /// Found with another id, state, output or input than there should be, or never sent.
    pub wrong: u64,
    /// Found with more events than attempts that each ran once make: an attempt was repeated, which is allowed.
    pub repeated_attempts: u64,
    /// Some of what is not right.
    pub examples: Vec<String>,
}

impl Verdict {
    /// That every result is right.
    #[must_use]
    pub fn is_right(&self) -> bool {
        let faults = self.answered_wrong + self.missing + self.unfinished + self.duplicates + self.wrong;
        faults == 0 && self.completed + self.parked + self.refused == self.submitted
    }

    /// Adds what was found of another workflow.
    pub(crate) fn add(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.refused += other.refused;
        self.completed += other.completed;
        self.parked += other.parked;
        self.answered_wrong += other.answered_wrong;
        self.missing += other.missing;
        self.duplicates += other.duplicates;
        self.unfinished += other.unfinished;
        self.wrong += other.wrong;
        self.repeated_attempts += other.repeated_attempts;
        other.examples.into_iter().for_each(|example| self.example(example));
    }

    pub(crate) fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }
}

/// All executions of a workflow, as they were read back.
#[derive(Debug)]
pub(crate) struct Found {
    pub verdict: Verdict,
    /// From when those that waited were due until they had ended, in microseconds. The times of the history are of whole
    /// milliseconds.
    pub late_us: Histogram<u64>,
    /// When each ended.
    pub ended: Vec<Timestamp>,
}

/// Compares executions with what was sent. Numbers are given out in order from [`FIRST`].
pub(crate) struct Verifier<'a> {
    workflow: &'a Workflow,
    base: u64,
    said: Vec<Option<Said>>,
    seen: Vec<u8>,
    found: Found,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(workflow: &'a Workflow, sent: &[Sent]) -> Self {
        let numbers = || sent.iter().map(|sent| sent.number);
        let (base, last) = (numbers().min().unwrap_or(FIRST), numbers().max().unwrap_or(FIRST));
        let count = (last + 1 - base) as usize;
        let mut found = Found { verdict: Verdict::default(), late_us: histogram(), ended: Vec::new() };
        let mut said = vec![None; count];
        for Sent { number, said: this } in sent {
            found.verdict.submitted += 1;
            said[(number - base) as usize] = Some(*this);
        }
        Self { workflow, base, said, seen: vec![0; count], found }
    }

    /// One execution that is there.
    pub(crate) fn row(&mut self, row: &Row<'_>) {
        let verdict = &mut self.found.verdict;
        let number = row.input.as_ref().map_or(0, |input| input.n);
        let index = number.checked_sub(self.base).map(|index| index as usize);
        let said = index.and_then(|index| *self.said.get(index)?);
        let (Some(index), Some(said)) = (index, said) else {
            verdict.wrong += 1;
            return verdict.example(format!("{} has the input {number}, which was never sent", row.id));
        };
        self.seen[index] = self.seen[index].saturating_add(1);
        if self.seen[index] > 1 {
            verdict.duplicates += 1;
            return verdict.example(format!("{} is one more execution of {number}", row.id));
        }
        let parked = self.workflow.expect == Expect::Parked;
        let runs = matches!(row.state, "RUNNING" | "CANCELLING");
        if runs && !parked {
            verdict.unfinished += 1;
            return verdict.example(format!("{} of {number} is still {}", row.id, row.state));
        }
        let output = row.output.map_or("null", RawValue::get);
        let right_result = match parked {
            true => row.state == "RUNNING",
            false => row.state == "COMPLETED" && self.workflow.expect.is(output, number),
        };
        let right_id = match said {
            Said::Completed(id) | Said::Accepted(id) => u128::from_str_radix(row.id, 16) == Ok(id),
            Said::Refused => false,
            Said::Other => true,
        };
        // What waits may not have been told of its first steps.
        let too_few = !parked && row.events < self.workflow.events;
        let lateness = lateness(row);
        if !right_result || !right_id || too_few || lateness == Lateness::TooEarly {
            verdict.wrong += 1;
            let Row { id, state, events, .. } = row;
            let early = if lateness == Lateness::TooEarly { ", before it was due" } else { "" };
            let text =
                format!("{id} of {number} is {state} with {output} after {events} events{early}; said was {said:?}");
            return verdict.example(text);
        }
        if row.events > self.workflow.events {
            verdict.repeated_attempts += 1;
        }
        if matches!(said, Said::Completed(_) | Said::Accepted(_)) {
            *(if parked { &mut verdict.parked } else { &mut verdict.completed }) += 1;
        }
        if let Lateness::Us(us) = lateness {
            self.found.late_us.saturating_record(us);
        }
        self.found.ended.extend(row.ended_at.and_then(|at| at.parse::<Timestamp>().ok()));
    }

    /// After the last row.
    pub(crate) fn end(mut self) -> Found {
        let verdict = &mut self.found.verdict;
        for (index, said) in self.said.iter().enumerate() {
            let number = self.base + index as u64;
            match said {
                Some(Said::Completed(id) | Said::Accepted(id)) if self.seen[index] == 0 => {
                    verdict.missing += 1;
                    verdict.example(format!("{id:032x} of {number} was answered and is not found"));
                }
                Some(Said::Refused) if self.seen[index] == 0 => verdict.refused += 1,
                Some(Said::Other) => verdict.answered_wrong += 1,
                _ => {}
            }
        }
        self.found
    }
}

/// When a row ended, compared with when it was due.
#[derive(PartialEq, Eq)]
enum Lateness {
    /// It did not wait, or waits still.
    None,
    TooEarly,
    Us(u64),
}

fn lateness(row: &Row<'_>) -> Lateness {
    let due = row.input.as_ref().and_then(|input| input.at?.parse::<Timestamp>().ok());
    let ended = row.ended_at.and_then(|at| at.parse::<Timestamp>().ok());
    match (due, ended) {
        (Some(due), Some(ended)) => {
            u64::try_from(ended.as_microsecond() - due.as_microsecond()).map_or(Lateness::TooEarly, Lateness::Us)
        }
        _ => Lateness::None,
    }
}

/// Reads all executions of the workflow back, again until nothing is missing that the history may not have yet, or until
/// it has brought nothing new for `patience`.
pub(crate) async fn read_back(
    connection: &mut Connection,
    host: &str,
    workflow: &Workflow,
    sent: &[Sent],
    patience: Duration,
) -> Result<Found, Error> {
    let mut progress = Instant::now();
    let mut least = u64::MAX;
    loop {
        let mut verifier = Verifier::new(workflow, sent);
        let mut cursor = None;
        loop {
            cursor = page(connection, host, &mut verifier, cursor.as_deref()).await?;
            if cursor.is_none() {
                break;
            }
        }
        let found = verifier.end();
        // What is late looks missing, or not ended; all else does not go away.
        let late = found.verdict.missing + found.verdict.unfinished;
        if late < least {
            (least, progress) = (late, Instant::now());
        }
        if late == 0 || progress.elapsed() >= patience {
            return Ok(found);
        }
        // Reading everything again is load too: the longer, the more there is left.
        tokio::time::sleep(LOOK.max(Duration::from_micros(20 * late)).min(LONG_LOOK)).await;
    }
}

async fn page(
    connection: &mut Connection,
    host: &str,
    verifier: &mut Verifier<'_>,
    cursor: Option<&str>,
) -> Result<Option<String>, Error> {
    let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let path = format!("/api/v1/executions?workflow={}&limit={PAGE}{after}", verifier.workflow.name);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{}\r\n", verifier.workflow.header());
    let unanswered = |source| Error::Unanswered { what: "the list of executions".into(), source };
    let answer = connection.exchange(request.as_bytes()).await.map_err(unanswered)?;
    let list = |why: String| Error::List { why };
    if answer.status != 200 {
        return Err(list(format!("{} {}", answer.status, String::from_utf8_lossy(answer.body))));
    }
    let page: Page<'_> = serde_json::from_slice(answer.body).map_err(|error| list(error.to_string()))?;
    for row in &page.executions {
        verifier.row(row);
    }
    Ok(page.cursor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Work;

    /// What is found of three executions that were sent: the first completed, the second turned away, the third wrong.
    fn verdict(said: &[Said], rows: &[(u128, &str, u64, &str, u64)]) -> Verdict {
        let workflow = Workflow::chain("s1", 1, Work::Noop);
        let sent: Vec<_> = (FIRST..).zip(said).map(|(number, said)| Sent { number, said: *said }).collect();
        let mut verifier = Verifier::new(&workflow, &sent);
        for (id, state, number, output, events) in rows {
            let text = format!(
                r#"{{"id":"{id:032x}","namespace":"default","state":"{state}","input":{{"n":{number}}},"output":{output},"events":{events}}}"#
            );
            verifier.row(&serde_json::from_str(&text).unwrap());
        }
        verifier.end().verdict
    }

    const N: u64 = FIRST;
    const ONE: &str = "1000000000";

    #[test]
    fn what_is_there_once_and_right_is_right() {
        let all = [Said::Completed(7), Said::Refused, Said::Completed(8)];
        let got = verdict(&all, &[(7, "COMPLETED", N, ONE, 4), (8, "COMPLETED", N + 2, "1000000002", 6)]);
        assert!(got.is_right(), "{got:?}");
        assert_eq!((got.submitted, got.completed, got.refused, got.repeated_attempts), (3, 2, 1, 1));
    }

    #[test]
    fn a_wrong_result_is_found() {
        for (id, state, number, output, events) in [
            (7, "COMPLETED", N, "1000000001", 4),
            (7, "COMPLETED", N, "null", 4),
            (7, "FAILED", N, ONE, 4),
            // Answered with another id.
            (9, "COMPLETED", N, ONE, 4),
            // Its task did not run.
            (7, "COMPLETED", N, ONE, 2),
            // Never sent.
            (7, "COMPLETED", N + 1, "1000000001", 4),
            (7, "COMPLETED", 5, "5", 4),
        ] {
            let got = verdict(&[Said::Completed(7)], &[(id, state, number, output, events)]);
            assert!(!got.is_right() && got.wrong == 1 && got.examples.len() == 1 + got.missing as usize, "{got:?}");
        }
    }

    #[test]
    fn what_is_missing_doubled_or_answered_with_an_error_is_found() {
        let got = verdict(&[Said::Completed(7)], &[]);
        assert!(!got.is_right() && got.missing == 1);
        let got = verdict(&[Said::Completed(7)], &[(7, "COMPLETED", N, ONE, 4), (8, "COMPLETED", N, ONE, 4)]);
        assert!(!got.is_right() && got.duplicates == 1 && got.completed == 1);
        let got = verdict(&[Said::Completed(7)], &[(7, "RUNNING", N, "null", 2)]);
        assert!(!got.is_right() && got.unfinished == 1);
        // It was turned away, so it must not exist.
        let got = verdict(&[Said::Refused], &[(7, "COMPLETED", N, ONE, 4)]);
        assert!(!got.is_right() && got.wrong == 1);
        let got = verdict(&[Said::Other], &[(7, "COMPLETED", N, ONE, 4)]);
        assert!(!got.is_right() && got.answered_wrong == 1);
    }

    /// What is found of one execution that was to wake at a time, or to wait for it.
    fn woken(expect: Expect, state: &str, due: &str, ended: Option<&str>) -> Found {
        let workflow = Workflow::sleeper("w", expect);
        let sent = [Sent { number: N, said: Said::Accepted(7) }];
        let mut verifier = Verifier::new(&workflow, &sent);
        let ended = ended.map(|at| format!(r#","endedAt":"{at}","output":{N}"#)).unwrap_or_default();
        let text =
            format!(r#"{{"id":"{:032x}","state":"{state}","input":{{"n":{N},"at":"{due}"}},"events":4{ended}}}"#, 7);
        verifier.row(&serde_json::from_str(&text).unwrap());
        verifier.end()
    }

    #[test]
    fn what_wakes_is_late_or_wrong() {
        let due = "2026-11-21T10:00:00.500Z";
        let one = Expect::NumberPlus(0);
        let found = woken(one, "COMPLETED", due, Some("2026-11-21T10:00:00.507Z"));
        assert!(found.verdict.is_right() && found.verdict.completed == 1, "{found:?}");
        assert_eq!((found.late_us.len(), found.late_us.max() / 10, found.ended.len()), (1, 700, 1));
        let found = woken(one, "COMPLETED", due, Some("2026-11-21T10:00:00.499Z"));
        assert!(found.verdict.wrong == 1 && found.verdict.examples[0].contains("before it was due"), "{found:?}");
        assert_eq!(woken(one, "RUNNING", due, None).verdict.unfinished, 1);
    }

    #[test]
    fn what_is_parked_must_be_there_and_wait() {
        let due = "2026-11-21T10:00:00.500Z";
        let found = woken(Expect::Parked, "RUNNING", due, None);
        assert!(found.verdict.is_right() && found.verdict.parked == 1, "{found:?}");
        let found = woken(Expect::Parked, "COMPLETED", due, Some("2026-11-21T10:00:00.507Z"));
        assert!(found.verdict.wrong == 1 && !found.verdict.is_right(), "{found:?}");
    }

    #[test]
    fn verdicts_add_up() {
        let mut sum = verdict(&[Said::Completed(7)], &[(7, "COMPLETED", N, ONE, 4)]);
        sum.add(verdict(&[Said::Completed(7)], &[]));
        assert_eq!((sum.submitted, sum.completed, sum.missing, sum.examples.len()), (2, 1, 1, 1));
        assert!(!sum.is_right());
    }
}
