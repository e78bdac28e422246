//! Codes of errors.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::page;
use crate::rig::root;

/// Where codes of nodes, and of what triggers put aside, are given.
const SOURCES: [&str; 8] = [
    "crates/engine/src",
    "crates/executors/src",
    "crates/expression/src",
    "crates/model/src/evaluate.rs",
    "crates/trigger-rules/src",
    "services/scheduler/src",
    "services/trigger/src",
    "services/worker/src",
];
/// Who gives a code stands before its first point.
const GIVERS: [&str; 8] = ["engine", "expression", "http", "limit", "task", "timeout", "trigger", "worker"];

fn sources(path: &Path, visit: &mut dyn FnMut(&str)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), visit);
        }
    } else if path.extension().is_some_and(|it| it == "rs") {
        let text = fs::read_to_string(path).unwrap();
        visit(text.split("#[cfg(test)]").next().unwrap_or_default());
    }
}

fn is_code(text: &str) -> bool {
    let mut segments = text.split('.');
    let given = segments.next().is_some_and(|first| GIVERS.contains(&first));
    let plain = |segment: &str| !segment.is_empty() && segment.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
    given && text.contains('.') && segments.all(plain)
}

fn codes() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for source in SOURCES {
        sources(&root().join(source), &mut |text| {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let literals = code.flat_map(|line| line.split('"').skip(1).step_by(2));
            codes.extend(literals.filter(|literal| is_code(literal)).map(str::to_owned));
        });
    }
    codes
}

#[test]
fn every_code_has_one_heading_and_every_heading_a_code() {
    let mut known = codes();
    assert!(known.contains("worker.lost") && known.contains("http.dns") && known.contains("expression.null"));
    known.extend(nova_model::codes::ALL.iter().map(|code| (*code).to_owned()));
    known.extend(nova_api::PROBLEM_CODES.iter().map(|code| (*code).to_owned()));
    // Of places in a problem, of cancelled executions, of status codes.
    known.extend(["input.schema", "cancelled", "http.4xx.404"].map(str::to_owned));
    let page = page("errors.md");
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let once: BTreeSet<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    assert_eq!(once.len(), headings.len(), "a heading is there twice");
    assert_eq!(known, once, "codes, headings");
}

/// The list that the service holds itself to has no code that nobody gives.
#[test]
fn every_listed_code_of_a_problem_is_given() {
    let mut text = String::new();
    sources(&root().join("services/api/src"), &mut |source| text.push_str(source));
    for code in nova_api::PROBLEM_CODES {
        assert!(text.matches(&format!("\"{code}\"")).count() >= 2, "{code} is listed and never given");
    }
}
