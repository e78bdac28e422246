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
