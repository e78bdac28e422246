//! Nothing that is sent brings the process down, fills its memory or keeps it busy.

use std::time::{Duration, Instant};

use nova_model::Format;
use proptest::prelude::*;

use crate::rig::problems;

/// The code and place of the only problem, on as little stack as a thread of the runtime has.
#[track_caller]
fn only(source: impl Into<Vec<u8>>, file: &'static str) -> String {
    let source = source.into();
    let began = Instant::now();
    let run = move || problems(&source, file);
    let told = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic");
    assert!(began.elapsed() < Duration::from_secs(20), "bounded work");
    let (first, rest) = told.split_once('\n').unwrap_or((&told, ""));
    assert_eq!(rest, "", "only one problem");
    first.split("  ").take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn ten_thousand_open_brackets() {
    assert_eq!(only("[".repeat(10_000), "a.yaml"), "a.yaml:1:101 depth");
    assert_eq!(only("[".repeat(10_000), "a.json"), "a.json:1:101 depth");
    assert_eq!(only("{\"a\":".repeat(10_000), "a.json"), "a.json:1:501 depth");
    assert_eq!(only("{a: ".repeat(10_000), "a.yaml").split(' ').next_back(), Some("depth"));
    assert_eq!(only("- ".repeat(10_000), "a.yaml").split(' ').next_back(), Some("depth"));
    let closed = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(only(closed, "a.yaml"), "a.yaml:1:101 depth");
    let stairs: String = (0..500).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(only(stairs, "a.yaml").split(' ').next_back(), Some("depth"));
}

#[test]
fn a_bomb_of_aliases() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
    }
    assert_eq!(only(bomb, "a.yaml"), "a.yaml:6:15 limit");
    // Anchors inside of anchors: each would hold all that is inside once more.
    let nested: String = (0..90).map(|level| format!("&a{level} [")).collect();
    let nested = format!("{nested}{}{}", "x,".repeat(200_000), "]".repeat(90));
    assert_eq!(only(nested, "a.yaml").split(' ').next_back(), Some("limit"));
}

#[test]
fn too_large_and_not_utf_8() {
    assert_eq!(only(vec![b'#'; (1 << 20) + 1], "a.yaml"), "a.yaml:1:1 limit");
    assert_eq!(only(b"a: 1\nb: \xff\xfe\n".to_vec(), "a.yaml"), "a.yaml:2:4 yaml");
    assert_eq!(
        only("{\"ä\": \"".as_bytes().iter().copied().chain([0xff]).collect::<Vec<_>>(), "a.json"),
        "a.json:1:8 yaml"
    );
    assert_eq!(only("", "a.yaml"), "a.yaml:1:1 yaml");
    assert_eq!(only(" \n\n", "a.json"), "a.json:1:1 yaml");
    assert_eq!(only("a: 1\n---\nb: 2\n", "a.yaml"), "a.yaml:2:1 yaml");
    assert_eq!(only("a: \"\u{0}\"\n", "a.yaml").split(' ').next_back(), Some("yaml"));
}

fn many(nodes: usize) -> String {
    let mut text = "apiVersion: nova/v1\nkind: Workflow\nmetadata: { name: many }\nspec:\n  nodes:\n".to_owned();
    for node in 0..nodes {
        text.push_str(&format!("    - {{ id: n{node}, type: wait, for: 1s }}\n"));
    }
    text
}

#[test]
fn ten_thousand_nodes_and_one_more() {
    assert_eq!(problems(many(10_000).as_bytes(), "a.yaml"), "ok");
    assert_eq!(only(many(10_001), "a.yaml"), "a.yaml:6:5 limit");
}

#[test]
fn a_chain_written_backwards_and_a_wide_join() {
    let mut text = "apiVersion: nova/v1\nkind: Workflow\nmetadata: { name: x }\nspec:\n  nodes:\n".to_owned();
    for node in 0..5_000 {
        text.push_str(&format!("    - {{ id: n{node}, type: wait, for: 1s, needs: [n{}] }}\n", node + 1));
    }
    text.push_str("    - { id: n5000, type: wait, for: 1s }\n");
    assert_eq!(problems(text.as_bytes(), "a.yaml"), "ok");
    let mut text = many(1_001);
    let needs: Vec<String> = (0..1_001).map(|node| format!("n{node}")).collect();
    text.push_str(&format!("    - {{ id: last, type: wait, for: 1s, needs: [{}] }}\n", needs.join(", ")));
    assert_eq!(only(text, "a.yaml").split(' ').next_back(), Some("limit"));
}

#[test]
fn a_long_list_of_problems_is_cut() {
    let text = many(2_000).replace("for: 1s", "fro: 1s");
    assert_eq!(problems(text.as_bytes(), "a.yaml").lines().count(), nova_model::limits::PROBLEMS);
}

#[test]
fn input_is_bounded_too() {
    let it =
        crate::rig::spec("input: { type: array, items: { type: string } }\ndo: [ { id: a, type: wait, for: 1s } ]");
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    assert!(it.check_input(&deep).expect_err("too deep")[0].message.contains("not JSON"));
    let many = serde_json::to_vec(&vec![1; 1_000]).expect("JSON");
    assert_eq!(it.check_input(&many).expect_err("problems").len(), nova_model::limits::INPUT_PROBLEMS);
    let evil = crate::rig::spec("input: { type: string, pattern: '(a+)+$' }\ndo: [ { id: a, type: wait, for: 1s } ]");
    let began = Instant::now();
    let _ = evil.check_input(format!("\"{}b\"", "a".repeat(50_000)).as_bytes());
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn piece() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "apiVersion: nova/v1\n",
        "kind: Workflow\n",
        "metadata: { name: x }\n",
        "spec:\n",
        "  do:\n",
        "  nodes:\n",
        "    - { id: a, type: task, kind: noop }\n",
        "    - id: b\n",
        "      type: if\n",
        "      test: \"input.x\"\n",
        "      then: [ { id: c, type: http, with: { url: x } } ]\n",
        "      needs: [a, b.true]\n",
        "      next: a\n",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "'",
        "&a ",
        "*a ",
        "!x ",
        "|\n",
        ">\n",
        "#",
        "${ nodes.a.output }",
        "\t",
        "\n",
        "  ",
        "? ",
        "true",
        "1e9",
        "on",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "ä",
        "\u{feff}",
        "\\",
        "workflow",
        "edges",
        "<<: *a\n",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for format in [Format::Yaml, Format::Json, Format::Detect] {
            if let Ok(document) = nova_model::parse(&bytes, "x", format) {
                let _ = nova_model::compile(&document);
            }
        }
    }

    #[test]
    fn any_text_is_answered_with_places_inside_of_it(text in piece()) {
        for file in ["x.yaml", "x.json"] {
            let result = nova_model::parse(text.as_bytes(), file, Format::Detect)
                .and_then(|document| nova_model::compile(&document));
            if let Err(problems) = result {
                prop_assert!(!problems.is_empty());
                for problem in problems.iter() {
                    prop_assert!(problem.line >= 1 && problem.line as usize <= text.lines().count() + 1, "{}", problem);
                    prop_assert!(nova_model::codes::ALL.contains(&problem.code));
                }
            }
        }
    }
}
