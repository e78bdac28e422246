use nova_trigger_rules::{CatchUp, From, Kind, RecordInput, TriggerSpec};
use proptest::prelude::*;
use serde_json::{Value, json};

fn problems(document: Value) -> Vec<String> {
    let problems = TriggerSpec::from_value(&document).expect_err("it is bad");
    problems.iter().map(|problem| format!("{} {}", problem.path, problem.code)).collect()
}

#[test]
fn a_short_document_has_its_defaults() {
    let document = br#"{"id":"nightly","workflow":"report","type":"cron","schedule":"0 2 * * *"}"#;
    let spec = TriggerSpec::parse(document).unwrap();
    assert_eq!(
        (spec.id.as_str(), spec.workflow.as_str(), spec.version, spec.type_name()),
        ("nightly", "report", None, "cron")
    );
    let Kind::Cron(cron) = &spec.kind else { panic!("it says cron") };
    assert_eq!((cron.schedule.timezone(), cron.catch_up, &cron.input), ("UTC", CatchUp::Last, &None));

    let spec =
        TriggerSpec::from_value(&json!({ "id": "in", "workflow": "w", "type": "kafka", "topic": "orders" })).unwrap();
    let Kind::Kafka(kafka) = &spec.kind else { panic!("it says kafka") };
    assert_eq!((kafka.topic.as_str(), kafka.from, kafka.input), ("orders", From::Latest, RecordInput::Value));
}

#[test]
fn everything_can_be_said() {
    let document = json!({
        "id": "a.B_c-1", "workflow": "w", "version": 3, "type": "cron", "schedule": "0 0 9 * * MON-FRI",
        "timezone": "America/New_York", "catchUp": "all", "input": { "n": 1 },
    });
    let spec = TriggerSpec::from_value(&document).unwrap();
    assert_eq!(spec.to_value(), document);
    let document = json!({
        "id": "k", "workflow": "w", "version": 1, "type": "kafka", "topic": "a.b-c_d", "from": "earliest", "input": "record",
    });
    assert_eq!(TriggerSpec::from_value(&document).unwrap().to_value(), document);
}

#[test]
fn all_problems_are_told_at_once() {
    let bad = problems(json!({
        "id": "a b", "workflow": "", "version": 0, "type": "cron", "schedule": "61 * * * *", "timezone": "Mars/Olympus",
        "catchUp": "some", "topic": "x", "extra/1": 1,
    }));
    let wanted = [
        "/catchUp trigger.badValue",
        "/extra~11 trigger.unknownField",
        "/id trigger.badValue",
        "/schedule trigger.badSchedule",
        "/timezone trigger.unknownTimezone",
        "/topic trigger.unknownField",
        "/version trigger.badValue",
        "/workflow trigger.badValue",
    ];
    assert_eq!(bad, wanted);
}

#[test]
fn what_is_missing_or_of_another_type_is_told() {
    assert_eq!(problems(json!({})), ["/id trigger.missing", "/type trigger.missing", "/workflow trigger.missing"]);
    assert_eq!(problems(json!([])), [" trigger.wrongType"]);
    let bad = problems(
        json!({ "id": 1, "workflow": null, "version": "1", "type": "kafka", "topic": {}, "from": 0, "input": {} }),
    );
    let wanted = [
        "/from trigger.wrongType",
        "/id trigger.wrongType",
        "/input trigger.wrongType",
        "/topic trigger.wrongType",
        "/version trigger.wrongType",
        "/workflow trigger.wrongType",
    ];
    assert_eq!(bad, wanted);
    assert_eq!(problems(json!({ "id": "a", "workflow": "w", "type": "webhook" })), ["/type trigger.unknownType"]);
    assert_eq!(problems(json!({ "id": "a", "workflow": "w", "type": "cron" })), ["/schedule trigger.missing"]);
    assert_eq!(problems(json!({ "id": "a", "workflow": "w", "type": "kafka" })), ["/topic trigger.missing"]);
}

#[test]
fn schedules_that_cannot_be_meant_are_refused() {
    let schedule = |pattern: &str| problems(json!({ "id": "a", "workflow": "w", "type": "cron", "schedule": pattern }));
    for bad in [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 32 * *",
        "x",
        "* * * * MON#9",
        &"*,".repeat(200),
    ] {
        assert_eq!(schedule(bad), ["/schedule trigger.badSchedule"], "{bad}");
    }
    for never in ["0 0 30 2 *", "0 0 31 4,6 *"] {
        assert_eq!(schedule(never), ["/schedule trigger.neverDue"], "{never}");
    }
}

#[test]
fn names_and_topics_have_their_limits() {
    let id = |id: &str| {
        TriggerSpec::from_value(&json!({ "id": id, "workflow": "w", "type": "kafka", "topic": "t" })).is_ok()
    };
    assert!(id(&"x".repeat(200)) && !id(&"x".repeat(201)) && !id("") && !id("a/b") && !id("a@b") && !id("ä"));
    let topic = |topic: &str| {
        let document = json!({ "id": "a", "workflow": "w", "type": "kafka", "topic": topic });
        TriggerSpec::from_value(&document).err().map(|problems| problems[0].code)
    };
    assert_eq!(topic(&"x".repeat(249)), None);
    for bad in [&"x".repeat(250), "", ".", "..", "a b"] {
        assert_eq!(topic(bad), Some("trigger.badValue"));
    }
    assert_eq!(topic("nova.events.v1"), Some("trigger.reservedTopic"));
}

#[test]
fn an_input_that_no_execution_may_have_is_refused() {
    let document =
        json!({ "id": "a", "workflow": "w", "type": "cron", "schedule": "* * * * *", "input": "x".repeat(16 * 1024) });
    assert_eq!(problems(document), ["/input trigger.inputTooLarge"]);
}

#[test]
fn unreadable_bytes_are_one_problem() {
    for bad in [&b""[..], b"{", b"\xff", &[b' '; 70_000], &[b'['; 10_000]] {
        let problems = TriggerSpec::parse(bad).unwrap_err();
        assert_eq!((problems.len(), problems[0].code), (1, "trigger.unreadable"));
    }
}

#[test]
fn a_stored_document_agrees_with_the_name_it_is_stored_under() {
    let short = br#"{"type":"kafka","topic":"t"}"#;
    let spec = TriggerSpec::parse_stored("a", "w", short).unwrap();
    assert_eq!((spec.id.as_str(), spec.workflow.as_str()), ("a", "w"));
    let other = br#"{"id":"b","workflow":"v","type":"kafka","topic":"t"}"#;
    let problems = TriggerSpec::parse_stored("a", "w", other).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["/id", "/workflow"]);
    assert!(TriggerSpec::parse_stored("b", "v", other).is_ok());
}

proptest! {
    #[test]
    fn hostile_documents_never_break_it(text in ".{0,200}", field in "[a-zA-Z]{1,9}", pattern in "[0-9*/,LW#? a-zA-Z-]{0,30}") {
        let _ = TriggerSpec::parse(text.as_bytes());
        let document = json!({ "id": text, "workflow": text, "type": "cron", "schedule": pattern, "timezone": text, field: text });
        if let Ok(spec) = TriggerSpec::from_value(&document) {
            prop_assert_eq!(TriggerSpec::from_value(&spec.to_value()).unwrap(), spec);
        }
    }
}
