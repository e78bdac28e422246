//! From the event topic to answers, and again from the beginning.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use bytes::Bytes;
use nova_bus::{Bus, Layout, MemoryBus, Topic};
use nova_history::{Filter, History, HistoryError, Ingester};
use nova_wire::{ClusterId, v1};
use prost::Message;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
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
    record_of(0, seq, at_ms, id, first_number, kinds)
}

fn record_of(
    shard: u32,
    seq: u64,
    at_ms: u64,
    id: u8,
    first_number: u64,
    kinds: Vec<v1::execution_event::Kind>,
) -> Bytes {
    let events = kinds.into_iter().map(|kind| v1::ExecutionEvent { kind: Some(kind) }).collect();
    let happened =
        v1::ExecutionEvents { execution: vec![id; 16].into(), namespace: "default".into(), first_number, events };
    let message = v1::OutboxMessage { seq, at_ms, body: Some(v1::outbox_message::Body::Events(happened)) };
    let batch = v1::OutboxBatch { messages: vec![message] };
    nova_wire::seal(cluster(), v1::RecordKind::Outbox, shard, batch.encode_to_vec().into())
}

async fn caught_up(ingester: &Ingester, shard: u32) {
    tokio::time::timeout(Duration::from_secs(30), ingester.caught_up(shard)).await.expect("it is read").unwrap();
}

#[tokio::test]
async fn events_become_rows_once_and_can_be_read_again_from_the_beginning() {
    let bus = Arc::new(MemoryBus::new());
    bus.ensure_topics(&Layout { shards: 1, events: 1, inboxes: 1, apis: 1 }.topics()).await.unwrap();
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
        caught_up(&ingester, 0).await;
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

/// What a process that was killed leaves: rows in the side files that are not yet in the file itself.
#[tokio::test]
async fn what_a_killed_process_left_is_refused_by_others_as_it_is() {
    let (dir, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let history = History::open(&dir.path().join("history.db"), cluster()).await.unwrap();
    history.clear().await.unwrap();
    let files = |dir: &Path| {
        let file = |entry: io::Result<fs::DirEntry>| entry.map(|it| (it.file_name(), fs::read(it.path()).unwrap()));
        fs::read_dir(dir).unwrap().map(file).collect::<io::Result<BTreeMap<_, _>>>().unwrap()
    };
    let left = files(dir.path());
    assert!(left.get(OsStr::new("history.db-wal")).is_some_and(|log| !log.is_empty()), "{:?}", left.keys());
    for (name, bytes) in &left {
        fs::write(image.path().join(name), bytes).unwrap();
    }
    let file = image.path().join("history.db");
    let other = History::open(&file, ClusterId::of_name("another")).await;
    assert!(matches!(other, Err(HistoryError::ForeignCluster { .. })));
    assert!(files(image.path()) == left);
    fs::write(&file, b"x".repeat(left[OsStr::new("history.db")].len())).unwrap();
    let damaged = files(image.path());
    let error = History::open(&file, cluster()).await.err();
    assert!(matches!(error, Some(HistoryError::Open { .. })), "{error:?}");
    assert!(files(image.path()) == damaged);
    fs::write(&file, &left[OsStr::new("history.db")]).unwrap();
    History::open(&file, cluster()).await.unwrap().close().await;
    let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET version = 9000 WHERE version = 1").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let newer = files(image.path());
    let error = History::open(&file, cluster()).await.err();
    assert!(matches!(error, Some(HistoryError::NewerFormat { found: 9000, .. })), "{error:?}");
    assert!(files(image.path()) == newer);
}

#[tokio::test]
async fn shards_that_share_a_partition_are_numbered_apart() {
    let bus = Arc::new(MemoryBus::new());
    bus.ensure_topics(&Layout { shards: 6, events: 2, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    let publish = async |records: Vec<Bytes>| {
        let records = records.into_iter().map(Into::into).collect();
        bus.append(&Topic::Events, 1, records).await.unwrap();
    };
    publish(vec![record_of(1, 900, 1_000, 1, 1, vec![accepted("order")])]).await;
    publish(vec![record_of(5, 3, 1_001, 2, 1, vec![accepted("refund")])]).await;
    let dir = tempfile::tempdir().unwrap();
    let open = async || {
        let history = History::open(&dir.path().join("history.db"), cluster()).await.unwrap();
        let stop = CancellationToken::new();
        (history.clone(), Ingester::start(history, bus.clone(), cluster(), stop.clone()), stop)
    };
    let (_, ingester, stop) = open().await;
    caught_up(&ingester, 5).await;
    stop.cancel();
    // Repeated, and new: what was seen is known after a restart too, of each shard.
    publish(vec![
        record_of(1, 900, 1_000, 1, 1, vec![accepted("order")]),
        record_of(5, 4, 1_002, 2, 2, vec![completed()]),
        record_of(1, 901, 1_003, 1, 2, vec![completed()]),
    ])
    .await;
    let (history, ingester, _stop) = open().await;
    caught_up(&ingester, 1).await;
    for id in [[1; 16], [2; 16]] {
        let row = history.execution("default", &id).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.events), ("COMPLETED", 2));
        assert_eq!(history.events(&id, 0, 10).await.unwrap().len(), 2);
    }
}
