//! The pages of the reference say what the code does.

mod api;
mod config;
mod errors;
mod topics;

use std::fs;

use crate::rig::root;

/// A file of the project.
fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn page(name: &str) -> String {
    file(&format!("docs/reference/{name}"))
}

/// What stands under a heading, up to the next one of its level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(&format!("{heading}\n")));
    section.unwrap_or_else(|| panic!("no heading '{heading}'"))
}

/// Rows of tables that begin with code, as cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// Code, tests and pages name the rules by their numbers.
#[test]
fn the_protocol_has_its_37_rules_in_order() {
    let page = page("protocol.md");
    let numbers: Vec<usize> = page.lines().filter_map(|line| line.split_once(". **")?.0.parse().ok()).collect();
    assert_eq!(numbers, (1..=37).collect::<Vec<_>>());
}

/// The index of decisions names each of them once.
#[test]
fn every_decision_is_in_the_index() {
    let index = file("docs/decisions/README.md");
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root().join("docs/decisions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some((number, _)) = name.split_once('-') {
            assert_eq!(index.matches(&format!("| [{number}]({name}) |")).count(), 1, "{name}");
            numbers.push(number.parse::<usize>().unwrap());
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}
