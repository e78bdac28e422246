//! From messages of the event topic to rows.

use std::collections::BTreeMap;

use nova_wire::v1;
use prost::Message;

/// What a batch of messages comes to.
#[derive(Default)]
pub(crate) struct Rows {
    pub events: Vec<Event>,
    pub executions: BTreeMap<Vec<u8>, Execution>,
    /// Those that moved.
    pub positions: Positions,
}

/// How far the event topic was read.
#[derive(Default)]
pub(crate) struct Positions {
    /// Next offset by partition.
    pub next: BTreeMap<u32, u64>,
    /// Highest outbox number by shard (rule 12); several shards share a partition.
    pub seen: BTreeMap<u32, u64>,
}

pub(crate) struct Event {
    pub execution: Vec<u8>,
    pub first_number: u64,
    pub at_ms: u64,
    pub message: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Execution {
    pub namespace: String,
    pub begun: Option<Begun>,
    pub ended: Option<Ended>,
    pub events: u64,
}

pub(crate) struct Begun {
    pub workflow: String,
    pub version: u32,
    pub at_ms: u64,
    pub by: String,
    pub labels: String,
    pub input: Vec<u8>,
}

pub(crate) struct Ended {
    pub state: &'static str,
    pub at_ms: u64,
    pub outcome: Vec<u8>,
}

impl Rows {
    /// Takes what happened to one execution in one entry.
    pub(crate) fn take(&mut self, at_ms: u64, happened: &v1::ExecutionEvents) {
        use v1::execution_event::Kind;
        let id = happened.execution.to_vec();
        let row = self.executions.entry(id.clone()).or_default();
        row.namespace.clone_from(&happened.namespace);
        row.events = happened.first_number + (happened.events.len() as u64).saturating_sub(1);
        for event in &happened.events {
            match &event.kind {
                Some(Kind::Accepted(accepted)) => {
                    let labels: serde_json::Map<_, _> = accepted
                        .labels
                        .iter()
                        .map(|label| (label.name.clone(), serde_json::Value::String(label.value.clone())))
                        .collect();
                    row.begun = Some(Begun {
                        workflow: accepted.workflow.clone(),
                        version: accepted.version,
                        at_ms,
                        by: accepted.started_by.clone(),
                        labels: serde_json::Value::Object(labels).to_string(),
                        input: accepted.input.as_ref().map(Message::encode_to_vec).unwrap_or_default(),
                    });
                }
                Some(Kind::Ended(outcome)) => {
                    let state = match outcome.kind {
                        Some(v1::outcome::Kind::Completed(_)) => "COMPLETED",
                        Some(v1::outcome::Kind::Cancelled(_)) => "CANCELLED",
                        Some(v1::outcome::Kind::Failed(_)) | None => "FAILED",
                    };
                    row.ended = Some(Ended { state, at_ms, outcome: outcome.encode_to_vec() });
                }
                Some(Kind::Rejected(rejection)) => {
                    row.ended = Some(Ended { state: "REJECTED", at_ms, outcome: rejection.encode_to_vec() });
                }
                _ => {}
            }
        }
        let message = happened.encode_to_vec();
        self.events.push(Event { execution: id, first_number: happened.first_number, at_ms, message });
    }
}
