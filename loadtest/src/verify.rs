//! Reads all executions back and compares them with what was sent.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;
use crate::http::Connection;
use crate::request::{FIRST, Said};
use crate::scenario::Scenario;
use crate::tally::Sent;

const LOOK: Duration = Duration::from_millis(250);
const PAGE: u32 = 500;
const EXAMPLES: usize = 5;

/// One execution of the list, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Row<'a> {
    pub id: &'a str,
    pub state: &'a str,
    pub input: Option<Input>,
    #[serde(borrow)]
    pub output: Option<&'a RawValue>,
    pub events: u64,
}

/// The input of every execution here.
#[derive(Debug, Deserialize)]
pub(crate) struct Input {
    pub n: u64,
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
        faults == 0 && self.completed + self.refused == self.submitted
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }
}

/// Compares executions with what was sent. Numbers are given out in order from [`FIRST`].
pub(crate) struct Verifier<'a> {
    scenario: &'a Scenario,
    said: Vec<Option<Said>>,
    seen: Vec<u8>,
    verdict: Verdict,
}

impl<'a> Verifier<'a> {
    pub(crate) fn new(scenario: &'a Scenario, sent: &[Sent]) -> Self {
        let last = sent.iter().map(|sent| sent.number).max().unwrap_or(FIRST);
        let numbers = (last + 1 - FIRST) as usize;
        let mut verifier =
            Self { scenario, said: vec![None; numbers], seen: vec![0; numbers], verdict: Verdict::default() };
        for Sent { number, said } in sent {
            verifier.verdict.submitted += 1;
            verifier.said[(number - FIRST) as usize] = Some(*said);
        }
        verifier
    }

    /// One execution that is there.
    pub(crate) fn row(&mut self, row: &Row<'_>) {
        let number = row.input.as_ref().map_or(0, |input| input.n);
        let index = number.checked_sub(FIRST).map(|index| index as usize);
        let said = index.and_then(|index| *self.said.get(index)?);
        let (Some(index), Some(said)) = (index, said) else {
            self.verdict.wrong += 1;
            return self.verdict.example(format!("{} has the input {number}, which was never sent", row.id));
        };
        self.seen[index] = self.seen[index].saturating_add(1);
        if self.seen[index] > 1 {
            self.verdict.duplicates += 1;
            return self.verdict.example(format!("{} is one more execution of {number}", row.id));
        }
        if matches!(row.state, "RUNNING" | "CANCELLING") {
            self.verdict.unfinished += 1;
            return self.verdict.example(format!("{} of {number} is still {}", row.id, row.state));
        }
        let output = row.output.map_or("null", RawValue::get);
        let right_result = row.state == "COMPLETED" && self.scenario.expect.is(output, number);
        let right_id = match said {
            Said::Completed(id) => u128::from_str_radix(row.id, 16) == Ok(id),
            Said::Refused => false,
            Said::Other => true,
        };
        if !right_result || !right_id || row.events < self.scenario.events {
            self.verdict.wrong += 1;
            let Row { id, state, events, .. } = row;
            let text = format!("{id} of {number} is {state} with {output} after {events} events; said was {said:?}");
            return self.verdict.example(text);
        }
        if row.events > self.scenario.events {
            self.verdict.repeated_attempts += 1;
        }
        if matches!(said, Said::Completed(_)) {
            self.verdict.completed += 1;
        }
    }

    /// After the last row.
    pub(crate) fn end(mut self) -> Verdict {
        for (index, said) in self.said.iter().enumerate() {
            let number = FIRST + index as u64;
            match said {
                Some(Said::Completed(id)) if self.seen[index] == 0 => {
                    self.verdict.missing += 1;
                    self.verdict.example(format!("{id:032x} of {number} was answered and is not found"));
                }
                Some(Said::Refused) if self.seen[index] == 0 => self.verdict.refused += 1,
                Some(Said::Other) => self.verdict.answered_wrong += 1,
                _ => {}
            }
        }
        self.verdict
    }
}

/// Reads all executions of the scenario back, again for up to `patience` while some are missing that the history may
/// not have yet.
pub(crate) async fn read_back(
    connection: &mut Connection,
    host: &str,
    scenario: &Scenario,
    sent: &[Sent],
    patience: Duration,
) -> Result<Verdict, Error> {
    let end = Instant::now() + patience;
    loop {
        let mut verifier = Verifier::new(scenario, sent);
        let mut cursor = None;
        loop {
            cursor = page(connection, host, &mut verifier, cursor.as_deref()).await?;
            if cursor.is_none() {
                break;
            }
        }
        let verdict = verifier.end();
        // What is late looks missing, or not ended; all else does not go away.
        if verdict.missing + verdict.unfinished == 0 || Instant::now() >= end {
            return Ok(verdict);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn page(
    connection: &mut Connection,
    host: &str,
    verifier: &mut Verifier<'_>,
    cursor: Option<&str>,
) -> Result<Option<String>, Error> {
    let after = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let path = format!("/api/v1/executions?workflow={}&limit={PAGE}{after}", verifier.scenario.workflow);
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
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
    use crate::args::{ScenarioName, Work};

    /// What is found of three executions that were sent: the first completed, the second turned away, the third wrong.
    fn verdict(said: &[Said], rows: &[(u128, &str, u64, &str, u64)]) -> Verdict {
        let scenario = Scenario::new(ScenarioName::S1, Work::Noop);
        let sent: Vec<_> = (FIRST..).zip(said).map(|(number, said)| Sent { number, said: *said }).collect();
        let mut verifier = Verifier::new(&scenario, &sent);
        for (id, state, number, output, events) in rows {
            let text = format!(
                r#"{{"id":"{id:032x}","namespace":"default","state":"{state}","input":{{"n":{number}}},"output":{output},"events":{events}}}"#
            );
            verifier.row(&serde_json::from_str(&text).unwrap());
        }
        verifier.end()
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
}
