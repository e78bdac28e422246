//! The bytes of a submission, and what its answer says.

use crate::scenario::Expect;

/// The first number: all have the same length, so that a request is a template.
pub(crate) const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
const HOLE: &str = "0000000000";

/// A request in which only the numbers change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    holes: Vec<usize>,
}

impl Template {
    /// A submission of `lines` executions of a workflow that waits for their ends.
    pub(crate) fn new(host: &str, workflow: &str, lines: u32, wait_seconds: u64) -> Self {
        let one = format!(r#"{{"workflow":"{workflow}","input":{{"n":{HOLE}}}}}"#);
        let (path, kind) = match lines {
            1 => ("/api/v1/executions", "application/json"),
            _ => ("/api/v1/executions/batch", "application/x-ndjson"),
        };
        let body = vec![one; lines as usize].join("\n");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\nprefer: wait={wait_seconds}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let holes = body.match_indices(HOLE).map(|(at, _)| head.len() + at).collect();
        Self { bytes: [head, body].concat().into_bytes(), holes }
    }

    /// The request for executions `first` and those after it.
    pub(crate) fn fill(&mut self, first: u64) -> &[u8] {
        for (number, at) in (first..).zip(&self.holes) {
            let mut rest = number;
            for digit in self.bytes[*at..*at + DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
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
    /// It was turned away before anything was done.
    Refused,
    /// Anything else: it may exist, or its output is wrong.
    Other,
}

/// Reads the answer to one submission.
pub(crate) fn read_answer(status: u16, body: &[u8], number: u64, expect: Expect) -> Said {
    match status {
        200 | 201 => completed(body, number, expect).map_or(Said::Other, Said::Completed),
        429 => Said::Refused,
        _ => Said::Other,
    }
}

/// Lines of a batch are answered with 200 whatever became of them; a refused one has a problem in the place of an id.
pub(crate) fn read_line(line: &[u8], number: u64, expect: Expect) -> Said {
    match completed(line, number, expect) {
        Some(id) => Said::Completed(id),
        None if after(line, br#""status":"#).is_some_and(|rest| rest.starts_with(b"429")) => Said::Refused,
        None => Said::Other,
    }
}

fn completed(body: &[u8], number: u64, expect: Expect) -> Option<u128> {
    let id = std::str::from_utf8(after(body, br#""id":""#)?.get(..32)?).ok()?;
    if !after(body, br#""state":""#)?.starts_with(b"COMPLETED\"") {
        return None;
    }
    let output = after(body, br#""output":"#)?;
    let end = output.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(output.len());
    let right = expect.is(std::str::from_utf8(&output[..end]).ok()?, number);
    right.then(|| u128::from_str_radix(id, 16).ok())?
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

    #[test]
    fn a_template_is_filled_with_numbers_of_one_length() {
        let mut template = Template::new("h:1", "w", 2, 30);
        for first in [FIRST, FIRST + 7, FIRST + 123_456] {
            let text = String::from_utf8(template.fill(first).to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("POST /api/v1/executions/batch HTTP/1.1\r\nhost: h:1\r\n"), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())) && head.contains("prefer: wait=30"));
            let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[1], serde_json::json!({ "workflow": "w", "input": { "n": first + 1 } }));
        }
        let one = String::from_utf8(Template::new("h:1", "w", 1, 30).fill(FIRST + 1).to_vec()).unwrap();
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
        assert_eq!(read_answer(201, right.as_bytes(), number, PLAIN), Said::Completed(255));
        assert_eq!(read_line(right.as_bytes(), number, PLAIN), Said::Completed(255));
        assert_eq!(read_answer(201, right.as_bytes(), number + 1, PLAIN), Said::Other);
        assert_eq!(read_answer(201, right.as_bytes(), number, Expect::Null), Said::Other);
        let null = body("COMPLETED", ",\"output\":null");
        assert_eq!(read_answer(201, null.as_bytes(), number, Expect::Null), Said::Completed(255));
        assert_eq!(read_answer(201, null.as_bytes(), number, PLAIN), Said::Other);
        assert_eq!(read_answer(202, body("RUNNING", "").as_bytes(), number, PLAIN), Said::Other);
        assert_eq!(read_answer(201, body("FAILED", "").as_bytes(), number, PLAIN), Said::Other);
        assert_eq!(read_answer(201, b"{}", number, PLAIN), Said::Other);
        assert_eq!(read_answer(429, b"{}", number, PLAIN), Said::Refused);
        assert_eq!(read_answer(504, b"", number, PLAIN), Said::Other);
        assert_eq!(read_line(br#"{"line":1,"problem":{"status":429,"code":"x"}}"#, number, PLAIN), Said::Refused);
        assert_eq!(read_line(br#"{"line":1,"problem":{"status":504,"code":"x"}}"#, number, PLAIN), Said::Other);
    }
}
