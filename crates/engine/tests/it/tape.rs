//! A tape of random bytes from which programs and commands are read: what proptest shrinks is the tape.

/// Reads choices; past its end every choice is the first one.
pub struct Tape<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Tape<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        usize::from(byte) * limit / 256
    }

    /// True in about one of `n` cases, never past the end.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of them, unless there is none.
    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> Option<&'b T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())) }
    }
}

/// The text of a random program: lists and graphs, groups and choices, policies, timeouts, variables.
pub fn program_text(tape: &mut Tape<'_>) -> String {
    let mut text = String::new();
    let mut ids = 0;
    body(tape, &mut text, 0, &mut ids, "", true);
    text
}

const PORTS: [&str; 4] = ["ok", "ended", "error", "timeout"];

fn body(tape: &mut Tape<'_>, text: &mut String, depth: usize, ids: &mut usize, name: &str, root: bool) {
    let graph = tape.below(2) == 1;
    let indent = "  ".repeat(depth);
    text.push_str(&format!("{indent}{}{name}", if graph { "graph" } else { "list" }));
    if graph && tape.one_in(4) {
        text.push_str(&format!(" parallel {}", 1 + tape.below(3)));
    }
    if root {
        text.push_str(" vars v=0 w=0");
        if tape.one_in(6) {
            text.push_str(" total 3000");
        }
        if tape.one_in(3) {
            text.push_str(&format!(" priority {}", tape.below(10)));
        }
    }
    if !graph && tape.one_in(4) {
        text.push_str(" output reads v");
    }
    text.push('\n');
    let mut earlier: Vec<(String, usize)> = Vec::new();
    for _ in 0..1 + tape.below(5) {
        *ids += 1;
        let id = format!("n{ids}");
        let cases = node(tape, text, depth + 1, ids, &id, graph, &earlier);
        earlier.push((id, cases));
    }
}

/// Writes a node and tells how many case ports it has.
fn node(
    tape: &mut Tape<'_>,
    text: &mut String,
    depth: usize,
    ids: &mut usize,
    id: &str,
    graph: bool,
    earlier: &[(String, usize)],
) -> usize {
    let deep = depth > 3;
    let kind = match tape.below(10) {
        0..=4 => "noop",
        5 => "wait 300",
        6 => "think",
        7 => "wait-until",
        8 if !deep => "group",
        9 if !deep => "choose",
        _ => "http",
    };
    text.push_str(&format!("{}{id} {kind}", "  ".repeat(depth)));
    if graph && !earlier.is_empty() && tape.below(3) > 0 {
        text.push_str(" needs");
        let mut seen = Vec::new();
        for _ in 0..1 + tape.below(3) {
            let (source, cases) = &earlier[tape.below(earlier.len())];
            let port = if *cases > 0 && tape.one_in(2) {
                tape.below(*cases).to_string()
            } else {
                PORTS[tape.below(PORTS.len())].to_owned()
            };
            let path = format!(" {source}.{port}");
            if !seen.contains(&path) {
                text.push_str(&path);
                seen.push(path);
            }
        }
        let join = ["all", "every", "any", "count"][tape.below(4)];
        text.push_str(&format!(" join {join}"));
        if join == "count" {
            text.push_str(&format!(" {}", 1 + tape.below(seen.len())));
        }
    }
    if kind != "think" && tape.one_in(3) {
        let jitter = ["", " full", " equal"][tape.below(3)];
        text.push_str(&format!(" retry {} {}{jitter}", 1 + tape.below(3), [0, 50, 400][tape.below(3)]));
    }
    for (word, ms) in [("total", 900), ("attempt", 250), ("queue", 350)] {
        if tape.one_in(6) {
            text.push_str(&format!(" {word} {ms}"));
        }
    }
    for word in ["when", "out", "fallback"] {
        if tape.one_in(6) {
            text.push_str(&format!(" {word}"));
        }
    }
    if tape.one_in(4) {
        text.push_str(" reads v");
    }
    text.push('\n');
    let inner = "  ".repeat(depth + 1);
    match kind {
        "group" => {
            body(tape, text, depth + 1, ids, "", false);
            0
        }
        "choose" => {
            for case in ["x", "y"] {
                if tape.one_in(4) {
                    text.push_str(&format!("{inner}go {case}\n"));
                } else {
                    body(tape, text, depth + 1, ids, &format!(" {case}"), false);
                }
            }
            2
        }
        _ => 0,
    }
}
