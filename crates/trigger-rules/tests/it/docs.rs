//! The page of the reference names what there is.

use std::collections::BTreeSet;
use std::path::Path;

fn codes(text: &str, open: char) -> BTreeSet<&str> {
    let starts = text.match_indices("trigger.").filter(|(at, _)| text[..*at].ends_with(open));
    starts.map(|(at, _)| text[at..].split([open, ' ']).next().unwrap()).collect()
}

#[test]
fn each_code_is_on_the_page_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let page = read("docs/reference/triggers.md");
    let source = ["crates/trigger-rules/src/problem.rs", "crates/trigger-rules/src/record.rs"].map(read).concat();
    let mut there = codes(&source, '"');
    // This one is the service's own.
    there.insert("trigger.input.schema");
    let mut told = codes(&page, '`');
    // The code of the whole answer.
    assert!(told.remove("trigger.invalid"));
    assert_eq!(told, there);
}
