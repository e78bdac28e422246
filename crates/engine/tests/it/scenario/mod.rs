//! Scenarios: text files of commands and what they come to.
//!
//! ```text
//! # A comment.
//! > worker one slots 1          a command
//! worker 1 session 1 inbox 0    what it came to
//! > workflow w
//! | list                        lines that belong to the command
//! |   a noop
//! > submit
//! e1 #1 accepted w 1
//! ```
//! `UPDATE_SCENARIOS=1 cargo test -p nova-engine scenario` writes what comes out into the files: read it before you keep
//! it. Commands are explained in [`world`].

mod render;
mod world;

use std::fs;
use std::path::Path;

use world::World;

#[test]
fn scenarios_come_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some_and(|it| !it.is_empty());
    let only = std::env::var("SCENARIO").unwrap_or_default();
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .filter(|path| path.to_string_lossy().contains(&only))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scenario matches");
    let mut differ = Vec::new();
    for path in files {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let expected = fs::read_to_string(&path).expect("a scenario");
        let Ok(actual) = std::panic::catch_unwind(|| run(&name, &expected)) else {
            differ.push(format!("{name}: see the panic above"));
            continue;
        };
        if update {
            fs::write(&path, actual).expect("the scenario can be written");
        } else if actual != expected {
            differ.push(difference(&name, &expected, &actual));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// Runs the commands of a scenario and gives its text with what they came to.
fn run(name: &str, text: &str) -> String {
    let mut out = String::new();
    let mut world = World::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        let Some(command) = line.strip_prefix('>') else {
            // Anything else is what the command before it came to, and is written anew.
            if line.trim().is_empty() || line.starts_with('#') {
                out.push_str(line);
                out.push('\n');
            }
            if line == "# ----" {
                world = World::new();
            }
            continue;
        };
        let mut block = String::new();
        out.push_str(line);
        out.push('\n');
        while let Some(more) = lines.get(at).and_then(|line| line.strip_prefix("| ")) {
            block.push_str(more);
            block.push('\n');
            out.push_str(lines[at]);
            out.push('\n');
            at += 1;
        }
        let place = format!("{name}:{at}: {command}");
        for said in world.command(&place, command.trim(), &block) {
            out.push_str(said.trim_end());
            out.push('\n');
        }
    }
    out
}

fn difference(name: &str, expected: &str, actual: &str) -> String {
    let mut text = format!("{name}: - as written, + as it came out\n");
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let same = expected.iter().zip(&actual).take_while(|(a, b)| a == b).count();
    for line in &expected[same.saturating_sub(4)..same] {
        text.push_str(&format!("  {line}\n"));
    }
    for line in expected.iter().skip(same).take(12) {
        text.push_str(&format!("- {line}\n"));
    }
    for line in actual.iter().skip(same).take(12) {
        text.push_str(&format!("+ {line}\n"));
    }
    text
}
