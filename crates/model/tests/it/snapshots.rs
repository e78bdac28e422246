//! `=== title (file)`, a document, `---`, and what is told about it. `NOVA_UPDATE=1` writes what is told now.

use std::fmt::Write;
use std::path::PathBuf;

use crate::rig::problems;

/// Compares every case of a file under `tests/it/cases`.
#[track_caller]
pub fn check(file: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/cases").join(file);
    let text = std::fs::read_to_string(&path).expect("a file of cases");
    let mut now = String::new();
    let mut wrong = Vec::new();
    for case in text.split("=== ").skip(1) {
        let (title, rest) = case.split_once('\n').expect("a title");
        let (document, wanted) = rest.split_once("\n---\n").unwrap_or((rest.trim_end(), ""));
        let name = title.rsplit_once('(').map_or("order.yaml", |(_, name)| name.trim_end_matches(')'));
        let told = problems(document.as_bytes(), name);
        if told.trim() != wanted.trim() {
            wrong.push(format!("=== {title}\nwanted:\n{}\ntold:\n{told}\n", wanted.trim()));
        }
        write!(now, "=== {title}\n{document}\n---\n{told}\n\n").expect("text");
    }
    if std::env::var_os("NOVA_UPDATE").is_some() {
        std::fs::write(&path, format!("{}\n", now.trim_end())).expect("the file is written");
    } else {
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}
