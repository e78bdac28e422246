use nova_trigger_rules::{IncomingRecord, RecordInput, Unreadable, input_of_record};
use serde_json::{Value, json};

fn record(value: &[u8]) -> IncomingRecord<'_> {
    IncomingRecord { topic: "orders", partition: 3, offset: 7, timestamp_ms: 9, key: Some(b"k"), headers: &[], value }
}

#[test]
fn a_value_is_given_as_it_was_written() {
    let input = input_of_record(RecordInput::Value, &record(b" {\"b\":1,\"a\":12345678901234567890123} \n"));
    assert_eq!(input.unwrap(), b"{\"b\":1,\"a\":12345678901234567890123}");
}

#[test]
fn what_is_not_json_is_told() {
    for bad in [&b""[..], b"{", b"hello", b"{} {}", b"\xff\xff", &[b'['; 100_000]] {
        let error = input_of_record(RecordInput::Value, &record(bad)).unwrap_err();
        assert_eq!(error.code(), "trigger.record.notJson");
    }
    assert!(input_of_record(RecordInput::Record, &record(b"{")).is_err());
}

#[test]
fn what_is_too_large_is_told() {
    let most = format!("\"{}\"", "x".repeat(16 * 1024 - 2));
    assert!(input_of_record(RecordInput::Value, &record(most.as_bytes())).is_ok());
    let more = format!("\"{}\"", "x".repeat(16 * 1024 - 1));
    let error = input_of_record(RecordInput::Value, &record(more.as_bytes())).unwrap_err();
    assert_eq!(error, Unreadable::TooLarge { bytes: 16 * 1024 + 1 });
}

#[test]
fn a_record_is_given_with_all_it_has() {
    let headers: [(&str, &[u8]); 2] = [("trace", b"abc"), ("raw", b"\xff\xfe\xfd")];
    let record = IncomingRecord { headers: &headers, ..record(b"{\"n\":1}") };
    let input: Value = serde_json::from_slice(&input_of_record(RecordInput::Record, &record).unwrap()).unwrap();
    let wanted = json!({
        "topic": "orders", "partition": 3, "offset": 7, "timestampMs": 9, "key": "k",
        "headers": { "trace": "abc", "raw": { "base64": "//79" } },
        "value": { "n": 1 },
    });
    assert_eq!(input, wanted);
}

#[test]
fn a_record_without_value_has_null() {
    let empty = IncomingRecord { key: None, ..record(b"") };
    let input: Value = serde_json::from_slice(&input_of_record(RecordInput::Record, &empty).unwrap()).unwrap();
    assert_eq!((&input["value"], &input["key"]), (&Value::Null, &Value::Null));
}
