//! From the event topic to answers, and again from the beginning.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, Layout, MemoryBus, Topic};
use nova_history::{Filter, History, HistoryError, Ingester};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio_util::sync::CancellationToken;

fn cluster() -> ClusterId {
    ClusterId::of_name("history-test")
}

fn payload(json: &str) -> v1::Payload {
    v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from(json.to_owned()))) }
}

fn accepted(workflow: &str) -> v1::execution_event::Kind {
    v1::execution_event::Kind::Accepted(v1::execution_event::AcceptedEvent {
        workflow: workflow.into(),
        version: 1,
        started_by: "api".into(),
        input: Some(payload("{\"a\":1}")),
        labels: vec![v1::Label { name: "team".into(), value: "blue".into() }],
        trace: None,
    })
}

fn completed() -> v1::execution_event::Kind {
    v1::execution_event::Kind::Ended(v1::Outcome { kind: Some(v1::outcome::Kind::Completed(payload("7"))) })
}

fn record(seq: u64, at_ms: u64, id: u8, first_number: u64, kinds: Vec<v1::execution_event::Kind>) -> Bytes {
    let events = kinds.into_iter().map(|kind| v1::ExecutionEvent { kind: Some(kind) }).collect();
    let happened =
        v1::ExecutionEvents { execution: vec![id; 16].into(), namespace: "default".into(), first_number, events };
    let message = v1::OutboxMessage { seq, at_ms, body: Some(v1::outbox_message::Body::Events(happened)) };
    let batch = v1::OutboxBatch { messages: vec![message] };
    nova_wire::seal(cluster(), v1::RecordKind::Outbox, 0, batch.encode_to_vec().into())
}

async fn reached(ingester: &Ingester, offset: u64) {
    tokio::time::timeout(Duration::from_secs(30), ingester.reached(0, offset)).await.expect("it is read");
}

#[tokio::test]
async fn events_become_rows_once_and_can_be_read_again_from_the_beginning() {
    let bus = Arc::new(MemoryBus::new());
    bus.ensure_topics(&Layout { shards: 1, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    let records = [
        record(1, 1_000, 1, 1, vec![accepted("order")]),
        record(2, 1_001, 2, 1, vec![accepted("refund")]),
        record(2, 1_001, 2, 1, vec![accepted("refund")]),
        Bytes::from_static(b"nothing that can be read"),
        record(3, 1_002, 1, 2, vec![completed()]),
    ];
    for value in records {
        bus.append(&Topic::Events, 0, vec![value.into()]).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("history.db");
    for round in 0..2 {
        let history = History::open(&file, cluster()).await.unwrap();
        if round == 1 {
            history.clear().await.unwrap();
        }
        let stop = CancellationToken::new();
        let ingester = Ingester::start(history.clone(), bus.clone(), cluster(), stop.clone());
        reached(&ingester, 5).await;
        let one = history.execution("default", &[1; 16]).await.unwrap().unwrap();
        assert_eq!((one.state.as_str(), one.workflow.as_str(), one.events), ("COMPLETED", "order", 2));
        assert_eq!((one.started_at_ms, one.ended_at_ms), (1_000, Some(1_002)));
        assert_eq!((one.input, one.labels.as_str()), (Some(payload("{\"a\":1}")), "{\"team\":\"blue\"}"));
        assert!(history.execution("other", &[1; 16]).await.unwrap().is_none(), "tenants are apart");
        let filter = Filter { namespace: "default".into(), limit: 1, ..Filter::default() };
        let first = history.list(&filter).await.unwrap();
        assert_eq!((first.len(), first[0].workflow.as_str()), (1, "refund"));
        let after = Some((first[0].started_at_ms, first[0].id.clone()));
        let second = history.list(&Filter { after, ..filter.clone() }).await.unwrap();
        assert_eq!((second.len(), second[0].workflow.as_str()), (1, "order"));
        let running = history.list(&Filter { state: Some("RUNNING".into()), ..filter }).await.unwrap();
        assert_eq!(running[0].workflow, "refund");
        let events = history.events(&[1; 16], 1, 10).await.unwrap();
        assert_eq!(events.last().unwrap().happened.first_number, 2);
        stop.cancel();
    }
    let other = History::open(&file, ClusterId::of_name("another")).await;
    assert!(matches!(other, Err(HistoryError::ForeignCluster { .. })));
}
