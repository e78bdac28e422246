//! What starts executions besides clients: records of a topic, and a schedule.

use nova_trigger_rules::{Kind, Source, TriggerSpec};
use serde_json::{Value, json};

/// Topic of the users that starts executions.
pub const ORDERS: &str = "orders";
/// Its partitions.
pub const ORDERS_PARTITIONS: u32 = 2;
/// Id of the trigger that reads it.
pub const BY_RECORDS: &str = "by-records";
/// Id of the schedule.
pub const BY_TIME: &str = "by-time";
/// Milliseconds between two slots of the schedule.
pub const SLOT_MS: u64 = 10_000;
/// Its input.
pub const SLOT_INPUT: i64 = 7;

/// A trigger as it is stored.
#[must_use]
pub fn trigger(id: &str, workflow: &str) -> Value {
    if id == BY_RECORDS {
        return json!({ "id": id, "workflow": workflow, "type": "kafka", "topic": ORDERS, "from": "earliest" });
    }
    json!({ "id": id, "workflow": workflow, "type": "cron", "schedule": "*/10 * * * * *", "catchUp": "all",
        "input": { "n": SLOT_INPUT } })
}

/// The source of a trigger.
pub(crate) fn of(id: &str, partition: u32) -> Source {
    let spec = TriggerSpec::from_value(&trigger(id, "w0")).expect("it is a trigger");
    match spec.kind {
        Kind::Cron(cron) => Source::of_cron(id, &cron),
        Kind::Kafka(kafka) => Source::of_kafka(id, &kafka, partition),
    }
}

/// Name of the source of a trigger.
///
/// # Panics
/// Never: both are triggers.
#[must_use]
pub fn source(id: &str, partition: u32) -> String {
    of(id, partition).name().to_owned()
}
