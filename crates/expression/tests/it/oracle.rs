//! The `cel` crate is the oracle: where both take an expression, both come to the same.

use cel::{Context, Program, Value as CelValue};
use nova_expression::{Expression, Scope, Value};

const SHARED: &[&str] = &[
    "1 + 2 * 3 - 4 / 2 % 3",
    "(1 + 2) * 3",
    "-(3 - 5)",
    "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2",
    "true || false && false",
    "!true || !!true",
    "true ? 1 : false ? 2 : 3",
    "false ? 1 : false ? 2 : 3",
    "'a' + 'b' == \"ab\"",
    "'a' in ['a', 'b']",
    "'x' in {'x': 1}",
    "[1, 2, 3][1]",
    "{'a': {'b': [1, 2]}}.a.b[1]",
    "{'a': {'b': [1, 2]}}['a']['b']",
    "has({'a': 1}.a) && !has({'a': 1}.b)",
    "[1, 2, 3].map(x, x * x)",
    "[1, 2, 3].map(x, x > 1, x * 10)",
    "[1, 2, 3].filter(x, x % 2 == 1)",
    "[1, 2, 3].all(x, x > 0)",
    "[1, 2, 3].exists(x, x > 2)",
    "[1, 2, 3].exists_one(x, x > 2)",
    "[[1, 2], [3]].map(l, l.map(i, i + 1))",
    "size([1, 2]) + size('abc') + size({'a': 1})",
    "[1, 2].size()",
    "'abc'.startsWith('a') && 'abc'.endsWith('c') && 'abc'.contains('b')",
    "string(12) + string(true)",
    "int('5') + int(2.7)",
    "double('2.5') * 2.0",
    "1.5 + 2.5",
    "[1] + [2, 3]",
    "r'a\\b' + 'a\\tb\\x41\\u00e4\\101'",
    "'''triple ' quote'''",
    "0x1F + 10",
    "1e3 / 4.0",
    "null == null",
    "{'a': [1, {'b': null}]} == {'a': [1, {'b': null}]}",
    "1 in [1, 2] ? 'yes' : 'no'",
    "2 + 3 == 5 && 'a' < 'b'",
    "[3, 4].map(x, {'n': x})[1].n",
];

#[test]
fn both_come_to_the_same() {
    let context = Context::default();
    for source in SHARED {
        let theirs = Program::compile(source).expect(source).execute(&context).expect(source);
        let ours = Expression::compile(source).expect(source).evaluate(&Scope::new(0, 0)).expect(source);
        assert_eq!(ours, convert(&theirs), "{source}");
    }
}

#[test]
fn what_the_oracle_cannot_parse_we_refuse_too() {
    for source in [
        "1 +", "a b", "(1", "[1", "{1 2}", "a.", "a..b", "1 ? 2", "&& a", "'a", "a[", "f(,)", "a = b", "in", "x.map(",
        "@a",
    ] {
        assert!(Program::compile(source).is_err(), "{source}");
        assert!(Expression::compile(source).is_err(), "{source}");
    }
}

fn convert(value: &CelValue) -> Value {
    match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(it) => Value::Bool(*it),
        CelValue::Int(it) => Value::Int(*it),
        CelValue::UInt(it) => Value::Int(i64::try_from(*it).expect("small")),
        CelValue::Float(it) => Value::Double(*it),
        CelValue::String(it) => Value::from(it.as_str()),
        CelValue::List(items) => Value::list(items.iter().map(convert).collect()),
        CelValue::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| (key.to_string().into(), convert(value)));
            Value::object(entries.collect())
        }
        other => panic!("not JSON: {other:?}"),
    }
}
