//! Values with `${ }` inside.

use nova_expression::{Expression, Lazy, Scope, Template};
use serde_json::json;

fn scope() -> Scope<'static> {
    Scope::new(0, 0).with("input", Lazy::json(br#"{"n": 7, "x": {"deep": [1, 2]}, "t": "text", "none": null}"#))
}

fn evaluate(value: serde_json::Value) -> serde_json::Value {
    let template = Template::compile(&value).expect("a template");
    let json = template.evaluate_json(&scope()).expect("a value");
    let direct = template.evaluate(&scope()).expect("a value").to_json().expect("small");
    let (json, direct): (serde_json::Value, serde_json::Value) =
        (serde_json::from_slice(&json).expect("JSON"), serde_json::from_slice(&direct).expect("JSON"));
    assert_eq!(json, direct, "both ways to the value agree");
    json
}

#[test]
fn a_whole_expression_keeps_its_type() {
    assert_eq!(evaluate(json!("${ input.n }")), json!(7));
    assert_eq!(evaluate(json!("${input.x}")), json!({"deep": [1, 2]}));
    assert_eq!(evaluate(json!("${ input }")), json!({"n": 7, "x": {"deep": [1, 2]}, "t": "text", "none": null}));
    assert_eq!(evaluate(json!("${ {'a': '}'} }")), json!({"a": "}"}));
}

#[test]
fn parts_are_joined_to_text() {
    assert_eq!(evaluate(json!("nr ${ input.n }!")), json!("nr 7!"));
    assert_eq!(evaluate(json!("${ input.n }${ input.t }")), json!("7text"));
    assert_eq!(evaluate(json!(" ${ input.n }")), json!(" 7"));
    assert_eq!(evaluate(json!("${ input.x }, ${ input.none }")), json!(r#"{"deep":[1,2]}, null"#));
}

#[test]
fn a_doubled_sign_is_literal() {
    assert_eq!(evaluate(json!("$${ input.n }")), json!("${ input.n }"));
    assert_eq!(evaluate(json!("a $ b $$ {c} $${x} ${ input.n }")), json!("a $ b $$ {c} ${x} 7"));
}

#[test]
fn values_are_walked() {
    let value = json!({"a": ["${ input.n }", 1, {"b": "x${ input.t }"}], "c": null});
    assert_eq!(evaluate(value), json!({"a": [7, 1, {"b": "xtext"}], "c": null}));
}

#[test]
fn constants_are_known() {
    assert!(Template::compile(&json!({"a": [1, "$${x}"]})).expect("a template").is_constant());
    assert!(Template::compile(&json!("${ 1 + 1 }")).expect("a template").is_constant());
    assert!(!Template::compile(&json!("${ input.n }")).expect("a template").is_constant());
    assert!(!Template::compile(&json!("${ uuid() }")).expect("a template").is_constant());
}

#[test]
fn every_mistake_is_found_with_its_place() {
    let value = json!({"a": "ok ${ 1 + }", "b": ["x", "${ nope(1) } ${ "]});
    let errors = Template::compile(&value).expect_err("three mistakes");
    let told: Vec<String> =
        errors.iter().map(|e| format!("{}@{} {}", e.path.join("/"), e.error.offset(), e.error)).collect();
    assert_eq!(
        told,
        [
            "a@9 found the end where a value is wanted",
            "b/1@3 unknown function 'nope'",
            "b/1@15 '${' without a closing '}'",
        ]
    );
}

#[test]
fn conditions_may_stand_in_braces() {
    for text in ["input.n > 3", "${ input.n > 3 }", " ${input.n > 3} "] {
        assert_eq!(Expression::compile_condition(text).expect("a condition").test(&scope()), Ok(true), "{text}");
    }
    let error = Expression::compile_condition("${ input.n > }").expect_err("no condition");
    assert_eq!(error.offset(), 12);
    let error = Expression::compile_condition("input.n").expect("compiles").test(&scope()).expect_err("not a bool");
    assert_eq!(error.code().as_str(), "expression.type");
    assert!(Expression::compile_condition("${ a } == ${ b }").is_err());
}

#[test]
fn damaged_payloads_are_not_handed_on() {
    let scope = Scope::new(0, 0).with("input", Lazy::json(b"{\"a\":"));
    let template = Template::compile(&json!({"x": "${ input }"})).expect("a template");
    let error = template.evaluate_json(&scope).expect_err("not JSON");
    assert_eq!(error.code().as_str(), "expression.payload");
}

#[test]
fn a_large_payload_is_handed_on_but_not_read() {
    let large = format!("[{}1]", "1,".repeat(700_000));
    let scope = Scope::new(0, 0).with("input", Lazy::json(large.as_bytes()));
    let template = Template::compile(&json!("${ input }")).expect("a template");
    assert_eq!(template.evaluate_json(&scope).expect("handed on").len(), large.len());
    let template = Template::compile(&json!("${ input.size() }")).expect("a template");
    assert_eq!(template.evaluate_json(&scope).expect_err("too large").code().as_str(), "expression.payload");
}
