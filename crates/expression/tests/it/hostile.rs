//! Nothing that is typed or computed brings the process down or keeps it busy.

use nova_expression::{Expression, Lazy, Scope, Template};
use proptest::prelude::*;

/// As little stack as a thread of the runtime has.
fn on_a_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic")
}

#[test]
fn deep_and_long_sources_are_refused() {
    let sources = [
        "(".repeat(4_000),
        format!("{}1{}", "(".repeat(2_000), ")".repeat(2_000)),
        "[".repeat(4_000),
        "{'a':".repeat(800),
        "a.b(c[d{e:".repeat(300),
        "a.map(x,".repeat(400),
        format!("a{}", ".a".repeat(2_000)),
        format!("1{}", "+1".repeat(2_000)),
        format!("a{}", "[0]".repeat(1_300)),
        format!("{}c", "a?b:".repeat(1_000)),
        format!("a{}", "&&a".repeat(1_300)),
        format!("f{}", "(f".repeat(2_000)),
        "x".repeat(5_000),
    ];
    for source in sources {
        let shown: String = source.chars().take(20).collect();
        assert!(on_a_small_stack(move || Expression::compile(&source).is_err()), "{shown}");
    }
}

#[test]
fn the_deepest_allowed_sources_run_on_a_small_stack() {
    on_a_small_stack(|| {
        let deep = format!("{}1{}", "(".repeat(48), ")".repeat(48));
        assert_eq!(Expression::compile(&deep).expect("allowed").evaluate(&Scope::new(0, 0)).expect("1"), 1i64.into());
        let lists = format!("{}1{}", "[".repeat(48), "]".repeat(48));
        assert!(Expression::compile(&lists).is_ok());
        let sum = format!("input{}", "+1".repeat(98));
        let scope = Scope::new(0, 0).with("input", Lazy::json(b"1"));
        assert_eq!(Expression::compile(&sum).expect("allowed").evaluate(&scope).expect("99"), 99i64.into());
        assert!(Expression::compile(&format!("{}true", "!".repeat(4_000))).is_ok());
        assert!(Expression::compile(&format!("a{}", "||a".repeat(400))).is_ok());
    });
}

#[test]
fn work_is_bounded() {
    let list = format!("[{}1]", "1,".repeat(9_999));
    for source in [
        "input.map(x, input.map(y, x * y))",
        "input.all(x, input.all(y, x == y))",
        "input.map(x, input)  == input.map(x, input)",
        "[input, input, input, input, input].map(x, sort(x + x))",
        "range(input.size() + 1)",
        "range(0 - input.size(), 9223372036854775807)",
        "input + input",
        "input.map(x, string(input))",
        "json(input.map(x, input))",
        "input.map(x, 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'.matches('(a+)+$'))",
        "'a'.replace('', json(input))",
    ] {
        let expression = Expression::compile(source).expect(source);
        let scope = Scope::new(0, 0).with("input", Lazy::json(list.as_bytes()));
        let result = expression.evaluate(&scope);
        if let Err(error) = result {
            assert!(["expression.limit", "expression.type"].contains(&error.code().as_str()), "{source}: {error}");
        }
    }
}

#[test]
fn a_result_cannot_be_blown_up() {
    let text = "x".repeat(500_000);
    let json = serde_json::to_vec(&text).expect("JSON");
    let scope = Scope::new(0, 0).with("input", Lazy::json(&json));
    let template = Template::compile(&serde_json::json!("${ range(100).map(i, input) }")).expect("a template");
    assert_eq!(template.evaluate_json(&scope).expect_err("50 MB").code().as_str(), "expression.limit");
    let parts = serde_json::json!(vec!["${ input }"; 100]);
    let template = Template::compile(&parts).expect("a template");
    assert_eq!(template.evaluate_json(&scope).expect_err("50 MB").code().as_str(), "expression.limit");
    let joined = serde_json::json!("${ input }".repeat(100));
    let template = Template::compile(&joined).expect("a template");
    assert_eq!(template.evaluate_json(&scope).expect_err("50 MB").code().as_str(), "expression.limit");
}

#[test]
fn long_texts_cost_what_they_weigh() {
    let text = serde_json::to_vec(&["x".repeat(400_000), "x".repeat(400_000)]).expect("JSON");
    for source in [
        "range(10000).all(i, input[0] == input[1])",
        "range(10000).all(i, input[0] <= input[1])",
        "size(sort(range(10000).map(i, input[i % 2]))) > 0",
        "range(10000).all(i, input[0].matches('y') == false)",
        "range(10000).all(i, input[0].contains('y') == false)",
        "range(10000).all(i, input[0].lower() != '')",
        "range(10000).all(i, hash(input) != '')",
    ] {
        let began = std::time::Instant::now();
        let scope = Scope::new(0, 0).with("input", Lazy::json(&text));
        let error = Expression::compile(source).expect(source).evaluate(&scope).expect_err(source);
        assert_eq!(error.code().as_str(), "expression.limit", "{source}");
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{source}");
    }
    // Many short ones with a fixed pattern are everyday work.
    let names = serde_json::to_vec(&vec!["name"; 5_000]).expect("JSON");
    let scope = Scope::new(0, 0).with("input", Lazy::json(&names));
    let all = Expression::compile("input.all(x, x.matches('^[a-z]+$'))").expect("compiles").evaluate(&scope);
    assert_eq!(all, Ok(true.into()));
    // A payload that is handed on many times counts each time.
    let parts = serde_json::json!(vec!["${ input }"; 2_000]);
    let scope = Scope::new(0, 0).with("input", Lazy::json(&text));
    let error = Template::compile(&parts).expect("a template").evaluate_json(&scope).expect_err("1.6 GB");
    assert_eq!(error.code().as_str(), "expression.limit");
}

fn fragment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "input",
        ".",
        "a",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        "'",
        "\"",
        "\\",
        "1",
        "1.5",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "<",
        "&&",
        "||",
        "!",
        "?",
        ":",
        ",",
        "map",
        "x",
        "size",
        "has",
        "in",
        " ",
        "//",
        "\n",
        "true",
        "null",
        "r'",
        "'''",
        "0x",
        "1e",
        "ä",
        "get",
        "range",
        "sort",
        "matches",
        "duration",
        "'7d'",
        "timestamp",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_source_is_answered(source in fragment()) {
        if let Ok(expression) = Expression::compile(&source) {
            let scope = Scope::new(0, 0).with("input", Lazy::json(br#"{"a":[1,2.5,"x",null,{"a":1}]}"#));
            let _ = expression.evaluate(&scope);
        }
        let _ = Template::compile(&serde_json::Value::String(format!("a ${{{source}}} b $${{")));
    }

    #[test]
    fn any_text_is_answered(source in "\\PC{0,60}") {
        let _ = Expression::compile(&source);
        let _ = Template::compile(&serde_json::Value::String(source.clone()));
    }
}
