use std::collections::BTreeSet;

use nova_trigger_rules::{Kind, Source, TriggerSpec, execution_id, number_of_offset, offset_of_position, shard_of};
use serde_json::json;

fn source(document: serde_json::Value, partition: u32) -> Source {
    let spec = TriggerSpec::from_value(&document).expect("a good document");
    match &spec.kind {
        Kind::Cron(cron) => Source::of_cron(&spec.id, cron),
        Kind::Kafka(kafka) => Source::of_kafka(&spec.id, kafka, partition),
    }
}

fn cron(schedule: &str, zone: &str, workflow: &str) -> Source {
    source(json!({ "id": "t", "workflow": workflow, "type": "cron", "schedule": schedule, "timezone": zone }), 0)
}

/// Positions are stored under these names: they must never change.
#[test]
fn names_are_as_they_ever_were() {
    assert_eq!(cron("*/5 * * * *", "UTC", "w").name(), "t@0f26c5d3");
    let kafka = json!({ "id": "orders", "workflow": "w", "type": "kafka", "topic": "orders" });
    assert_eq!(source(kafka, 12).name(), "orders@3c64f0fa/12");
}

#[test]
fn a_source_is_another_when_its_numbers_mean_another_thing() {
    let first = cron("*/5 * * * *", "UTC", "w");
    assert_eq!(first, cron("*/5 * * * *", "UTC", "other"));
    assert_ne!(first, cron("*/10 * * * *", "UTC", "w"));
    assert_ne!(first, cron("*/5 * * * *", "Europe/Berlin", "w"));
    let kafka = |topic: &str, from: &str, partition| {
        source(json!({ "id": "t", "workflow": "w", "type": "kafka", "topic": topic, "from": from }), partition)
    };
    assert_eq!(kafka("a", "latest", 0), kafka("a", "earliest", 0));
    assert_ne!(kafka("a", "latest", 0), kafka("b", "latest", 0));
    assert_ne!(kafka("a", "latest", 0), kafka("a", "latest", 1));
}

#[test]
fn the_longest_id_is_still_a_source_that_the_engine_takes() {
    let id = "x".repeat(nova_trigger_rules::limits::MAX_ID);
    let name = source(json!({ "id": id, "workflow": "w", "type": "kafka", "topic": "a" }), u32::MAX);
    assert!(name.name().len() <= nova_engine::limits::MAX_TEXT);
    assert!("trigger:".len() + id.len() <= nova_engine::limits::MAX_TEXT);
}

#[test]
fn a_record_is_read_once_by_its_number() {
    assert_eq!(number_of_offset(0), 1);
    assert_eq!(offset_of_position(number_of_offset(41)), 42);
}

#[test]
fn an_execution_has_one_id_however_often_it_is_submitted() {
    let source = cron("*/5 * * * *", "UTC", "w");
    let shard = shard_of("default", &source, 64);
    let ids: BTreeSet<_> = (0..100_u64)
        .flat_map(|number| {
            let id = execution_id(shard, "default", &source, number, 1_700_000_000_000);
            assert_eq!(id, execution_id(shard, "default", &source, number, 1_700_000_000_000));
            assert_eq!(id.shard(), shard);
            [id, execution_id(shard, "other", &source, number, 1_700_000_000_000)]
        })
        .collect();
    assert_eq!(ids.len(), 200);
}
