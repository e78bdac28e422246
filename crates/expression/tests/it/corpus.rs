//! What expressions come to, as a table.

use nova_expression::{Expression, Lazy, Scope};

const INPUT: &str = r#"{"n":7,"price":2.5,"name":"Ann","nothing":null,"tags":["b","a"],"lines":[{"sku":"x","qty":2},{"sku":"y","qty":0}],"who":{"first":"Ann","a-b":1}}"#;
const OUTPUT: &str = r#"{"status":200,"body":{"total":120}}"#;

fn outcome(source: &str) -> String {
    let expression = match Expression::compile(source) {
        Ok(expression) => expression,
        Err(error) => {
            let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
            return format!("{:?}@{}: {error}{help}", error.kind(), error.offset());
        }
    };
    let fetch = Lazy::Object(vec![
        ("output", Lazy::json(OUTPUT.as_bytes())),
        ("state", Lazy::Value("COMPLETED".into())),
        ("error", Lazy::Value(nova_expression::Value::Null)),
    ]);
    let scope = Scope::new(1_700_000_000_123, 42)
        .with("input", Lazy::json(INPUT.as_bytes()))
        .with("nodes", Lazy::Object(vec![("fetch", fetch)]));
    match expression.evaluate(&scope) {
        Ok(value) => String::from_utf8(value.to_json().expect("small")).expect("JSON is UTF-8"),
        Err(error) => format!("{}@{}", error.code(), error.offset()),
    }
}

#[track_caller]
fn table(rows: &[(&str, &str)]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|(source, wanted)| {
            let got = outcome(source);
            (got != *wanted).then(|| format!("{source}\n  wanted {wanted}\n  got    {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn numbers() {
    table(&[
        ("input.n + 1", "8"),
        ("7 / 2", "3"),
        ("7 / 2 == 3", "true"),
        ("7 % 4", "3"),
        ("input.n * 2.0", "14.0"),
        ("input.price + 1", "3.5"),
        ("1 == 1.0", "true"),
        ("1 < 1.5", "true"),
        ("-input.n", "-7"),
        ("--3", "3"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("input.n / (input.n - 7)", "expression.overflow@8"),
        ("input.price / 0", "expression.overflow@12"),
        ("input.n + 9223372036854775807", "expression.overflow@8"),
        ("9223372036854775808", "Syntax@0: not a whole number of 64 bits"),
        ("1u", "Syntax@0: there are no unsigned numbers (leave the 'u' away: whole numbers are signed)"),
        ("0x1F", "31"),
        ("1e3", "1000.0"),
        ("sum([1, 2, 3])", "6"),
        ("sum([1, 2.5])", "3.5"),
        ("sum(input.lines.map(l, l.qty))", "2"),
        ("range(3)", "[0,1,2]"),
        ("range(2, 4)", "[2,3]"),
        ("int('12') + int(2.9)", "14"),
        ("double('1.5')", "1.5"),
        ("1 + 'a'", "AlwaysFails@2: '+' does not fit an int and text"),
        ("input.n + 'a'", "expression.type@8"),
    ]);
}

#[test]
fn reading() {
    table(&[
        ("input.name", r#""Ann""#),
        ("input.missing", "expression.no_field@6"),
        ("input.nothing", "null"),
        ("input.nothing.x", "expression.null@14"),
        ("input.name.x", "expression.type@11"),
        ("input.who['a-b']", "1"),
        ("input.tags[1]", r#""a""#),
        ("input.tags[2]", "expression.no_field@10"),
        ("input.tags[-1]", "expression.no_field@10"),
        ("has(input.nothing)", "true"),
        ("has(input.missing)", "false"),
        ("has(input.nothing.x)", "expression.null@10"),
        ("get(input, 'who.first', 'x')", r#""Ann""#),
        ("get(input, 'who.last', 'x')", r#""x""#),
        ("get(input, 'nothing.a.b', 0)", "0"),
        ("get(input, 'lines[1].sku', '')", r#""y""#),
        ("get(input, 'lines[9].sku', '')", r#""""#),
        ("input.get('n', 0)", "7"),
        ("default(input.nothing, 5)", "5"),
        ("nodes.fetch.output.body.total > 100", "true"),
        ("nodes['fetch'].state == 'COMPLETED'", "true"),
        ("nodes.fetch.error", "null"),
        ("nodes.other", "expression.no_field@6"),
        ("elsewhere", "expression.no_field@0"),
        ("'n' in input", "true"),
        ("'a' in input.tags", "true"),
        ("3 in [1, 2.0, 3.0]", "true"),
    ]);
}

#[test]
fn logic() {
    table(&[
        ("true && false || true", "true"),
        ("input.n > 3 ? 'big' : 'small'", r#""big""#),
        ("input.missing || true", "true"),
        ("true || input.missing", "true"),
        ("input.missing && false", "false"),
        ("input.missing || false", "expression.no_field@6"),
        ("input.n && true", "expression.type@6"),
        ("!(1 == 2)", "true"),
        ("!input.n", "expression.type@7"),
        ("null == null", "true"),
        ("input.nothing == 1", "false"),
        ("'a' == 1", "false"),
        ("[1, 2] == [1.0, 2.0]", "true"),
        ("{'a': 1} == {'a': 1}", "true"),
        ("'a' < 'b'", "true"),
        ("input.n < 'b'", "expression.type@8"),
    ]);
}

#[test]
fn loops() {
    table(&[
        ("input.lines.map(l, l.sku)", r#"["x","y"]"#),
        ("input.lines.map(l, l.qty > 0, l.sku)", r#"["x"]"#),
        ("input.lines.filter(l, l.qty > 0).size()", "1"),
        ("input.lines.all(l, l.qty >= 0)", "true"),
        ("input.lines.exists(l, l.qty > 1)", "true"),
        ("input.lines.exists_one(l, l.qty > 1)", "true"),
        ("input.lines.existsOne(l, true)", "false"),
        ("{'b': 1, 'a': 2}.map(k, k)", r#"["a","b"]"#),
        ("[1, 2].map(i, [10, 20].map(j, i * j))", "[[10,20],[20,40]]"),
        ("[[1]].map(i, i.map(j, j.map(k, k)))", "Bounds@24: loops are nested deeper than 2"),
        ("input.lines.map(l, l.none)", "expression.no_field@21"),
        ("input.lines.exists(l, l.none || l.qty == 0)", "true"),
        ("input.nothing.map(x, x)", "expression.null@14"),
        ("input.n.map(x, x)", "expression.type@8"),
        ("input.map(1, 2)", "Syntax@10: found '1' where the name of a variable is wanted"),
    ]);
}

#[test]
fn texts() {
    table(&[
        ("'a' + \"b\"", r#""ab""#),
        (r"'it\'s \u00e4\n'", r#""it's ä\n""#),
        (r"r'\d'", r#""\\d""#),
        ("'''a\n'b''' ", r#""a\n'b""#),
        ("input.tags.join('-')", r#""b-a""#),
        ("'a,b,,c'.split(',')", r#"["a","b","","c"]"#),
        ("' x '.trim().upper()", r#""X""#),
        ("'ABC'.lower()", r#""abc""#),
        ("'a-b-c'.replace('-', '+')", r#""a+b+c""#),
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"),
        ("'ab12'.matches('^[a-z]+[0-9]+$')", "true"),
        ("'a'.matches('(')", "Syntax@12: not a pattern, or too large a one"),
        ("size('äö')", "2"),
        ("string(1) + string(2.5) + string(true)", r#""12.5true""#),
        ("json({'a': [1, null]})", r#""{\"a\":[1,null]}""#),
        ("parseJson('{\"a\": 1}').a", "1"),
        ("base64('hello')", r#""aGVsbG8=""#),
        ("hash('')", r#""af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262""#),
        ("sort(['b', 'a'])", r#"["a","b"]"#),
        ("sort([2, 1.5, 1])", "[1,1.5,2]"),
        ("sort([input.n, 'a'])", "expression.type@0"),
        ("merge({'a': 1}, {'a': 2, 'b': 3})", r#"{"a":2,"b":3}"#),
        ("type(1) + type(1.0)", r#""intdouble""#),
        ("'nr ' + input.n", "expression.type@6"),
    ]);
}

#[test]
fn time() {
    table(&[
        ("timestamp('2026-11-20T08:00:00Z') + duration('1h30m')", r#""2026-11-20T09:30:00Z""#),
        ("timestamp('2026-11-20T08:00:00Z') - timestamp('2026-11-19T08:00:00Z')", r#""86400s""#),
        ("duration('7d') > duration('6d23h')", "true"),
        ("duration('90s')", r#""90s""#),
        ("timestamp('2026-11-20T08:00:00Z').getHours('+02:00')", "10"),
        ("timestamp('2026-11-20T08:00:00Z').getFullYear()", "2026"),
        ("timestamp('2026-11-20T08:00:00Z').getMonth()", "10"),
        ("timestamp('2026-11-20T08:00:00Z').getDayOfWeek()", "5"),
        ("duration('90m').getHours()", "1"),
        ("now()", r#""2023-11-14T22:13:20.123Z""#),
        ("int(now())", "1700000000"),
        ("timestamp(input.name)", "expression.type@0"),
        (
            "duration('10')",
            "AlwaysFails@0: duration('10'): not a duration: write numbers with units, such as '500ms', '10s', '1h30m' or '7d'",
        ),
        ("random() == random()", "false"),
        ("random() >= 0.0 && random() < 1.0", "true"),
        ("uuid().size()", "36"),
        ("uuid().matches('^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$')", "true"),
    ]);
}

#[test]
fn mistakes() {
    table(&[
        ("", "Syntax@0: the expression is empty"),
        ("a +", "Syntax@3: found the end where a value is wanted"),
        ("a b", "Syntax@2: found 'b' where an operator or the end is wanted"),
        ("a = 1", "Syntax@2: unexpected '=' (to compare write '==')"),
        ("'abc", "Syntax@0: the text has no closing quote"),
        ("sise(input)", "Function@0: unknown function 'sise' (did you mean 'size'?)"),
        ("input.filtre(x, x)", "Function@6: unknown function 'filtre' (did you mean 'filter'?)"),
        ("size()", "Function@0: 'size' takes 1 arguments, not 0"),
        ("secret('x')", "NotYet@0: 'secret' is not yet supported here"),
        (
            "has(a)",
            "Syntax@0: has() takes one field (write has(a.b), or get(a, 'b', other) for a value that may be missing)",
        ),
        ("if", "Syntax@0: 'if' is a reserved word"),
        ("a.?b", "Syntax@2: found '?' where a name is wanted"),
        ("[1, 2", "Syntax@5: found the end where ']' is wanted"),
        ("{'a' 1}", "Syntax@5: found '1' where ':' is wanted"),
        ("{1: 2}", "AlwaysFails@1: the key of an object is text, not an int"),
        ("b'x'", "Syntax@0: there are no bytes here: JSON has none"),
    ]);
}

#[test]
fn reads_are_told_from_the_form() {
    let reads = |source: &str| {
        let expression = Expression::compile(source).expect("an expression");
        let reads: Vec<String> =
            expression.reads().iter().map(|r| format!("{}.{}@{}", r.root, r.path.join("."), r.offset)).collect();
        reads.join(" ")
    };
    assert_eq!(reads("nodes.a.output.b[0].c + vars.n"), "nodes.a.output.b@0 vars.n@24");
    assert_eq!(reads("nodes['my-node'].output"), "nodes.my-node.output@0");
    assert_eq!(reads("input.lines.map(input, input.x + vars.y)"), "input.lines@0 vars.y@33");
    assert_eq!(
        reads("has(input.a.b) ? get(nodes.x, 'output', 0) : nodes[input.k]"),
        "input.a.b@4 nodes.x@21 nodes.@45 input.k@51"
    );
    assert!(Expression::compile("[1].map(x, x)").expect("an expression").reads().is_constant());
    assert!(!Expression::compile("now()").expect("an expression").reads().is_constant());
}

#[test]
fn the_same_seed_gives_the_same_draws() {
    let expression = Expression::compile("[uuid(), string(random())]").expect("an expression");
    let draw = |seed| expression.evaluate(&Scope::new(0, seed)).expect("a value");
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
