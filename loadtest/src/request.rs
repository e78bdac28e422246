//! The bytes of a submission, and what its answer says.

use jiff::Timestamp;

use crate::workflow::Expect;

/// The first number: all have the same length, so that a request is a template.
pub(crate) const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
const HOLE: &str = "0000000000";
/// Milliseconds, always all of them.
const TIME: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";
const TIME_HOLE: &str = "0000-00-00T00:00:00.000Z";

/// What the answer to a submission is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// What came of it.
    End,
    /// That it is durable.
    Commit,
}

/// When the executions of a workflow that waits are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// All at this time.
    At(Timestamp),
    /// The execution of number `first` at `begin`, those after it so many per second.
    Paced { begin: Timestamp, first: u64, per_second: u64 },
}

impl Due {
    fn of(self, number: u64) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Paced { begin, first, per_second } => {
                let after_ms = number.saturating_sub(first) * 1_000 / per_second;
                begin + jiff::SignedDuration::from_millis(after_ms as i64)
            }
        }
    }
}

/// What a request is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submission<'a> {
    pub host: &'a str,
    /// The line that says whose it is, if it needs one.
    pub whose: &'a str,
    pub workflow: &'a str,
    /// Executions in it.
    pub lines: u32,
    pub asks: Asks,
    /// Longest wait for the end, where that is asked for.
    pub wait_seconds: u64,
    /// The input has this time too.
    pub due: Option<Due>,
    /// One execution per number, however often it is sent.
    pub keyed: bool,
}

/// A request in which only the numbers change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where numbers are, and of which line.
    numbers: Vec<(usize, u64)>,
    /// Where times are, one in each line.
    times: Vec<usize>,
    due: Option<Due>,
}

impl Template {
    pub(crate) fn new(submission: &Submission<'_>) -> Self {
        let Submission { host, whose, workflow, lines, asks, wait_seconds, due, keyed } = *submission;
        let at = if due.is_some() { format!(r#","at":"{TIME_HOLE}""#) } else { String::new() };
        let inside = if keyed && lines > 1 { format!(r#","idempotencyKey":"load-{HOLE}""#) } else { String::new() };
        let one = format!(r#"{{"workflow":"{workflow}","input":{{"n":{HOLE}{at}}}{inside}}}"#);
        let (path, kind) = match lines {
            1 => ("/api/v1/executions", "application/json"),
            _ => ("/api/v1/executions/batch", "application/x-ndjson"),
        };
        let body = vec![one; lines as usize].join("\n");
        let prefer = if asks == Asks::End { format!("prefer: wait={wait_seconds}\r\n") } else { String::new() };
        let key = if keyed && lines == 1 { format!("idempotency-key: load-{HOLE}\r\n") } else { String::new() };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\n{whose}{prefer}{key}content-length: {}\r\n\r\n",
            body.len()
        );
        let text = [head, body].concat();
        let each = if keyed { 2 } else { 1 };
        let holes = text.match_indices(HOLE).enumerate();
        let numbers = holes.map(|(place, (at, _))| (at, (place / each) as u64)).collect();
        let times = text.match_indices(TIME_HOLE).map(|(at, _)| at).collect();
        Self { bytes: text.into_bytes(), numbers, times, due }
    }

    /// The request for executions `first` and those after it.
    pub(crate) fn fill(&mut self, first: u64) -> &[u8] {
        for (at, line) in &self.numbers {
            let mut rest = first + line;
            for digit in self.bytes[*at..*at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        if let Some(due) = self.due {
            for (number, at) in (first..).zip(&self.times) {
                let text = due.of(number).strftime(TIME).to_string();
                self.bytes[*at..*at + TIME_HOLE.len()].copy_from_slice(text.as_bytes());
            }
        }
        &self.bytes
    }
}

/// What became of one submission, as its answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It completed, with the right output.
    Completed(u128),
    /// It is durable and will run.
    Accepted(u128),
    /// It was turned away before anything was done.
    Refused,
    /// Anything else: it may exist, or its output is wrong.
    Other,
}

/// Reads the answer to one submission.
pub(crate) fn read_answer(status: u16, body: &[u8], number: u64, expect: Expect, asks: Asks) -> Said {
    match status {
        200 | 201 => good(body, number, expect, asks).unwrap_or(Said::Other),
        429 => Said::Refused,
        _ => Said::Other,
    }
}

/// Lines of a batch are answered with 200 whatever became of them; a refused one has a problem in the place of an id.
pub(crate) fn read_line(line: &[u8], number: u64, expect: Expect, asks: Asks) -> Said {
    match good(line, number, expect, asks) {
        Some(said) => said,
        None if after(line, br#""status":"#).is_some_and(|rest| rest.starts_with(b"429")) => Said::Refused,
        None => Said::Other,
    }
}

fn good(body: &[u8], number: u64, expect: Expect, asks: Asks) -> Option<Said> {
    let id = std::str::from_utf8(after(body, br#""id":""#)?.get(..32)?).ok()?;
    let id = u128::from_str_radix(id, 16).ok()?;
    let state = after(body, br#""state":""#)?;
    if asks == Asks::Commit {
        // A short one may have ended before its answer was written.
        return (state.starts_with(b"RUNNING\"") || state.starts_with(b"COMPLETED\"")).then_some(Said::Accepted(id));
    }
    if !state.starts_with(b"COMPLETED\"") {
        return None;
    }
    let output = after(body, br#""output":"#)?;
    let end = output.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(output.len());
    expect.is(std::str::from_utf8(&output[..end]).ok()?, number).then_some(Said::Completed(id))
}

/// What follows a piece of the text. The texts in these answers hold no quotes, so that a name is found only where it
/// is one.
fn after<'a>(text: &'a [u8], piece: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(piece.len()).position(|window| window == piece)?;
    text.get(at + piece.len()..)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Expect = Expect::NumberPlus(0);

    fn of(lines: u32) -> Submission<'static> {
        let (host, whose, workflow, asks) = ("h:1", "", "w", Asks::End);
        Submission { host, whose, workflow, lines, asks, wait_seconds: 30, due: None, keyed: false }
    }

    #[test]
    fn a_template_is_filled_with_numbers_of_one_length() {
        let mut template = Template::new(&of(2));
        for first in [FIRST, FIRST + 7, FIRST + 123_456] {
            let text = String::from_utf8(template.fill(first).to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /api/v1/executions/batch HTTP/1.1\r\nhost: h:1\r\n"), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())) && head.contains("prefer: wait=30"));
            let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[1], serde_json::json!({ "workflow": "w", "input": { "n": first + 1 } }));
        }
        let one = String::from_utf8(Template::new(&of(1)).fill(FIRST + 1).to_vec()).unwrap();
        assert!(one.starts_with("POST /api/v1/executions HTTP/1.1") && one.ends_with("\"n\":1000000001}}"), "{one}");
    }

    #[test]
    fn an_answer_counts_only_when_all_of_it_is_right() {
        let body = |state: &str, output: &str| {
            format!(
                r#"{{"id":"000000000000000000000000000000ff","workflow":"s1","version":1,"state":"{state}","repeated":false{output}}}"#
            )
        };
        let right = body("COMPLETED", ",\"output\":1000000007");
        let number = FIRST + 7;
        assert_eq!(read_answer(201, right.as_bytes(), number, PLAIN, Asks::End), Said::Completed(255));
        assert_eq!(read_line(right.as_bytes(), number, PLAIN, Asks::End), Said::Completed(255));
        assert_eq!(read_answer(201, right.as_bytes(), number + 1, PLAIN, Asks::End), Said::Other);
        assert_eq!(read_answer(201, right.as_bytes(), number, Expect::Null, Asks::End), Said::Other);
        let null = body("COMPLETED", ",\"output\":null");
        assert_eq!(read_answer(201, null.as_bytes(), number, Expect::Null, Asks::End), Said::Completed(255));
        assert_eq!(read_answer(201, null.as_bytes(), number, PLAIN, Asks::End), Said::Other);
        assert_eq!(read_answer(202, body("RUNNING", "").as_bytes(), number, PLAIN, Asks::End), Said::Other);
        assert_eq!(read_answer(201, body("FAILED", "").as_bytes(), number, PLAIN, Asks::End), Said::Other);
        assert_eq!(read_answer(201, b"{}", number, PLAIN, Asks::End), Said::Other);
        assert_eq!(read_answer(429, b"{}", number, PLAIN, Asks::End), Said::Refused);
        assert_eq!(read_answer(504, b"", number, PLAIN, Asks::End), Said::Other);
        assert_eq!(
            read_line(br#"{"line":1,"problem":{"status":429,"code":"x"}}"#, number, PLAIN, Asks::End),
            Said::Refused
        );
        assert_eq!(
            read_line(br#"{"line":1,"problem":{"status":504,"code":"x"}}"#, number, PLAIN, Asks::End),
            Said::Other
        );
    }

    #[test]
    fn keys_and_times_belong_to_their_numbers() {
        let begin: Timestamp = "2026-11-21T23:59:59.9Z".parse().unwrap();
        let due = Some(Due::Paced { begin, first: FIRST, per_second: 10 });
        let mut template = Template::new(&Submission { due, keyed: true, asks: Asks::Commit, ..of(2) });
        let text = String::from_utf8(template.fill(FIRST + 1).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("prefer"), "{head}");
        let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let line = |n: u64, at: &str| serde_json::json!({ "workflow": "w", "input": { "n": n, "at": at }, "idempotencyKey": format!("load-{n}") });
        assert_eq!(lines[0], line(FIRST + 1, "2026-11-22T00:00:00.000Z"));
        assert_eq!(lines[1], line(FIRST + 2, "2026-11-22T00:00:00.100Z"));
        let mut template = Template::new(&Submission { due: Some(Due::At(begin)), keyed: true, ..of(1) });
        let text = String::from_utf8(template.fill(FIRST + 7).to_vec()).unwrap();
        assert!(text.contains("idempotency-key: load-1000000007\r\n"), "{text}");
        assert!(text.ends_with(r#""input":{"n":1000000007,"at":"2026-11-21T23:59:59.900Z"}}"#), "{text}");
    }

    #[test]
    fn a_commit_is_enough_where_nothing_else_is_asked_for() {
        let body = |state: &str| format!(r#"{{"id":"000000000000000000000000000000ff","state":"{state}"}}"#);
        let read = |status, state| read_answer(status, body(state).as_bytes(), FIRST, PLAIN, Asks::Commit);
        assert_eq!((read(201, "RUNNING"), read(200, "COMPLETED")), (Said::Accepted(255), Said::Accepted(255)));
        assert_eq!((read(202, "RECEIVED"), read(201, "FAILED")), (Said::Other, Said::Other));
        assert_eq!((read(429, "RUNNING"), read(504, "RUNNING")), (Said::Refused, Said::Other));
    }
}
