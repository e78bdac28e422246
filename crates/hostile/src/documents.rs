//! What people write.

use nova_engine::payload::MAX_INLINE_BYTES;
use nova_expression::{Expression, Lazy, Scope, Template, Value, limits};
use nova_model::{Compiled, Format, compile, parse};
use nova_trigger_rules::{CatchUp, IncomingRecord, Kind, RecordInput, TriggerSpec, input_of_record};
use nova_wire::program_to_wire;

use crate::{byte, short, take};

/// The year 2026, so that schedules meet changes of clocks.
const NOW_MS: u64 = 1_767_225_600_000;

/// A workflow in YAML, JSON or the low-code form: its stored form compiles to the same, and what is compiled is taken by the
/// log. Problems are told, and not too many of them.
pub fn document(mut bytes: &[u8]) {
    let format = match byte(&mut bytes) % 3 {
        0 => Format::Detect,
        1 => Format::Yaml,
        _ => Format::Json,
    };
    let compiled = match parse(bytes, "document", format).and_then(|document| compile(&document)) {
        Ok(compiled) => compiled,
        Err(problems) => {
            let count = problems.iter().count();
            assert!((1..=nova_model::limits::PROBLEMS).contains(&count), "{count} problems");
            assert!(problems.iter().all(|it| it.line >= 1 && it.column >= 1 && !it.message.is_empty()));
            return;
        }
    };
    let stored = Compiled::from_canonical(&compiled.canonical).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert!(stored.hash == compiled.hash && stored.canonical == compiled.canonical);
    assert!(stored.program == compiled.program && stored.name == compiled.name && stored.labels == compiled.labels);
    let wire = program_to_wire(&compiled.program);
    let read = nova_wire::program_from_wire(&wire).expect("what is compiled fits the log");
    assert!(read == compiled.program);
    let _ = compiled.check_input(bytes);
}

/// An expression and the input that it reads, behind its length: its budget holds, the same gives the same, and a result can
/// be written and read.
pub fn expression(mut bytes: &[u8]) {
    let length = usize::from(short(&mut bytes));
    let Ok(source) = std::str::from_utf8(take(&mut bytes, length)) else { return };
    let scope = || Scope::new(NOW_MS, 7).with("input", Lazy::json(bytes)).with("vars", Lazy::json_or_null(None));
    let _ = Template::compile(&serde_json::json!({ "a": source, "b": [format!("${{ {source} }}")] })).map(|template| {
        let _ = template.evaluate_json(&scope());
    });
    let Ok(expression) = Expression::compile(source) else { return };
    let _ = expression.constant();
    let (first, second) = (scope(), scope());
    let (one, other) = (expression.evaluate(&first), expression.evaluate(&second));
    assert!(first.steps() <= limits::STEPS && first.steps() == second.steps(), "{} steps", first.steps());
    let (Ok(one), Ok(other)) = (&one, &other) else {
        assert!(one.is_err() && other.is_err());
        return;
    };
    let Ok(json) = one.to_json() else { return };
    // One text of the largest size, and its quotes and escapes.
    assert!(json.len() <= 8 * limits::RESULT_BYTES, "{} bytes", json.len());
    assert!(other.to_json().is_ok_and(|other| other == json), "the same gives the same");
    let read = Value::from_json(&json).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
    assert!(read.to_json().is_ok_and(|read| read == json), "{}", String::from_utf8_lossy(&json));
}

/// A schedule: slots are in order, none is before its moment, and the document reads as the same trigger. The bytes are a
/// pattern, a zone and a moment, behind their lengths.
pub fn cron(mut bytes: &[u8]) {
    let length = usize::from(byte(&mut bytes));
    let pattern = String::from_utf8_lossy(take(&mut bytes, length)).into_owned();
    let length = usize::from(byte(&mut bytes));
    let zone = String::from_utf8_lossy(take(&mut bytes, length)).into_owned();
    let zone = if zone.is_empty() { "Europe/Berlin".to_owned() } else { zone };
    let mut moment = [0; 8];
    for (to, from) in moment.iter_mut().zip(bytes) {
        *to = *from;
    }
    let value =
        serde_json::json!({ "id": "t", "workflow": "w", "type": "cron", "schedule": pattern, "timezone": zone });
    let Ok(spec) = TriggerSpec::from_value(&value) else { return };
    assert!(TriggerSpec::from_value(&spec.to_value()).as_ref() == Ok(&spec));
    let Kind::Cron(cron) = &spec.kind else { panic!("{spec:?}") };
    for moment in [NOW_MS, u64::from_le_bytes(moment), u64::from_le_bytes(moment) >> 22] {
        let slots = cron.schedule.upcoming(moment, 3);
        assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "{pattern} {zone} {slots:?}");
        assert!(slots.iter().all(|slot| *slot > moment), "{pattern} {zone} {slots:?} after {moment}");
        let now = moment.saturating_add(90_000);
        for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All] {
            let plan = cron.schedule.plan(moment, now, catch_up);
            assert!(plan.due.windows(2).all(|pair| pair[0] < pair[1]), "{pattern} {zone} {plan:?}");
            assert!(plan.due.iter().all(|slot| (moment + 1..=now).contains(slot)), "{pattern} {zone} {plan:?}");
            assert!(plan.through_ms >= moment && plan.through_ms <= now, "{pattern} {zone} {plan:?}");
        }
    }
}

/// The document of a trigger: what is read is written and read as the same.
pub fn trigger(bytes: &[u8]) {
    match TriggerSpec::parse(bytes) {
        Ok(spec) => {
            let written = spec.to_value();
            assert!(TriggerSpec::from_value(&written).as_ref() == Ok(&spec), "{written}");
            let text = written.to_string();
            let stored = TriggerSpec::parse_stored(&spec.id, &spec.workflow, text.as_bytes());
            // Defaults that are spelt out may make it larger than a document may be.
            assert!(stored.as_ref() == Ok(&spec) || text.len() > nova_trigger_rules::limits::MAX_DOCUMENT, "{written}");
        }
        Err(problems) => {
            assert!((1..=nova_trigger_rules::limits::MAX_PROBLEMS).contains(&problems.len()), "{problems:?}");
        }
    }
}

/// A record of a user's topic: the input that it becomes is JSON, and fits.
pub fn record(mut bytes: &[u8]) {
    let (key, name, header) = (byte(&mut bytes), byte(&mut bytes), byte(&mut bytes));
    let key = (key & 1 == 1).then(|| take(&mut bytes, usize::from(key >> 1)));
    let name = String::from_utf8_lossy(take(&mut bytes, usize::from(name))).into_owned();
    let header = take(&mut bytes, usize::from(header));
    let headers = [(&*name, header), ("twice", header), ("twice", b"2".as_slice())];
    let record = IncomingRecord {
        topic: "t",
        partition: 1,
        offset: u64::MAX,
        timestamp_ms: 1,
        key,
        headers: &headers,
        value: bytes,
    };
    for form in [RecordInput::Value, RecordInput::Record] {
        let Ok(input) = input_of_record(form, &record) else { continue };
        assert!(input.len() <= MAX_INLINE_BYTES);
        let read: Result<serde_json::Value, _> = serde_json::from_slice(&input);
        assert!(read.is_ok(), "{read:?}");
        Value::from_json(&input).expect("an expression reads it");
    }
}
