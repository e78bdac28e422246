//! Tests of the embedded bus.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{AppendError, Bus, Layout, Topic, contract};
use nova_bus_embedded::{Config, EmbeddedBus, OpenBusError};

fn open(dir: &Path) -> Result<EmbeddedBus, OpenBusError> {
    EmbeddedBus::open(Config::new(dir.into(), [7; 16]))
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::all(Arc::new(open(dir.path()).unwrap()), "embedded").await;
}

#[tokio::test]
async fn all_that_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let bus = open(dir.path()).unwrap();
        bus.ensure_topics(&Layout { shards: 4, events: 4, inboxes: 2, apis: 1 }.topics()).await.unwrap();
        for n in 0..20_u32 {
            let record = Bytes::from(n.to_string()).into();
            bus.append(&Topic::Commands, n % 4, vec![record]).await.unwrap();
        }
    }
    let bus = open(dir.path()).unwrap();
    assert_eq!(bus.partitions(&Topic::Commands).await.unwrap(), Some(4));
    let mut reader = bus.reader().unwrap();
    for partition in 0..4 {
        assert_eq!(bus.offsets(&Topic::Commands, partition).await.unwrap(), 0..5);
        reader.assign(&Topic::Commands, partition, 0).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let batch = reader.next(Duration::from_secs(30)).await.unwrap().unwrap();
        for record in batch.records {
            let number: u64 = std::str::from_utf8(&record.value).unwrap().parse().unwrap();
            assert_eq!(number, record.offset * 4 + u64::from(batch.partition));
            seen.push(number);
        }
    }
    assert_eq!(bus.append(&Topic::Commands, 1, vec![Bytes::from_static(b"new").into()]).await, Ok(5));
}

#[tokio::test]
async fn a_directory_has_one_owner_and_one_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenBusError::Lock(_))));
    bus.ensure_topics(&Layout::default().topics()).await.unwrap();
    bus.append(&Topic::Events, 0, vec![Bytes::from_static(b"x").into()]).await.unwrap();
    drop(bus);
    let other = EmbeddedBus::open(Config::new(dir.path().into(), [8; 16]));
    assert!(matches!(other, Err(OpenBusError::Journal(nova_journal::OpenError::ForeignCluster { .. }))));
}

#[tokio::test]
async fn a_partition_that_lost_all_its_records_keeps_its_next_offset() {
    let dir = tempfile::tempdir().unwrap();
    let small = || Config { retention_bytes: 4_096, segment_bytes: 1_024, ..Config::new(dir.path().into(), [7; 16]) };
    let bus = EmbeddedBus::open(small()).unwrap();
    bus.ensure_topics(&Layout { shards: 2, events: 2, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    for _ in 0..3 {
        bus.append(&Topic::Events, 1, vec![Bytes::from_static(b"early").into()]).await.unwrap();
    }
    for _ in 0..20 {
        bus.append(&Topic::Events, 0, vec![Bytes::from(vec![b'x'; 1_000]).into()]).await.unwrap();
    }
    assert_eq!(bus.offsets(&Topic::Events, 1).await.unwrap(), 3..3);
    drop(bus);
    let bus = EmbeddedBus::open(small()).unwrap();
    assert_eq!(bus.offsets(&Topic::Events, 1).await.unwrap(), 3..3);
    let range = bus.offsets(&Topic::Events, 0).await.unwrap();
    assert!(range.start > 0 && range.end == 20, "{range:?}");
}

fn small(dir: &Path) -> Config {
    Config { retention_bytes: 8_192, segment_bytes: 1_024, ..Config::new(dir.into(), [7; 16]) }
}

async fn filled(dir: &Path) -> (EmbeddedBus, u64) {
    let bus = EmbeddedBus::open(small(dir)).unwrap();
    bus.ensure_topics(&Layout { shards: 2, events: 2, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    let kilobyte = || vec![Bytes::from(vec![b'x'; 1_000]).into()];
    let mut taken = 0;
    loop {
        match bus.append(&Topic::Commands, 0, kilobyte()).await {
            Ok(_) => taken += 1,
            Err(AppendError::NotSent { .. }) => return (bus, taken),
            Err(error) => panic!("{error}"),
        }
        assert!(taken <= 1_000, "commands are taken without limit");
    }
}

async fn accepted_again(bus: &EmbeddedBus) {
    let again = async {
        while bus.append(&Topic::Commands, 1, vec![Bytes::from_static(b"new").into()]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("there is room again");
}

#[tokio::test]
async fn commands_that_nobody_applied_are_kept_and_no_more_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, taken) = filled(dir.path()).await;
    assert_eq!(bus.offsets(&Topic::Commands, 0).await.unwrap(), 0..taken);
    // What follows from them is still taken, up to a limit of its own.
    bus.append(&Topic::Events, 0, vec![Bytes::from_static(b"event").into()]).await.unwrap();
    let kilobyte = || vec![Bytes::from(vec![b'x'; 1_000]).into()];
    let mut events = 0;
    while bus.append(&Topic::Events, 0, kilobyte()).await.is_ok() {
        events += 1;
        assert!(events <= 1_000, "events are taken without limit");
    }
    drop(bus);
    // It is the same after a restart.
    let bus = EmbeddedBus::open(small(dir.path())).unwrap();
    assert_eq!(bus.offsets(&Topic::Commands, 0).await.unwrap(), 0..taken);
    let refused = bus.append(&Topic::Commands, 1, kilobyte()).await;
    assert!(matches!(refused, Err(AppendError::NotSent { .. })), "{refused:?}");
    // Once they are applied there is room, and what was applied is what goes.
    bus.commands_applied(0, taken - 2);
    accepted_again(&bus).await;
    let range = bus.offsets(&Topic::Commands, 0).await.unwrap();
    assert!(range.start > 0 && range.start <= taken - 2 && range.end == taken, "{range:?}");
}

#[tokio::test]
async fn what_nobody_asks_for_after_a_restart_is_in_memory_alone() {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(dir.path()).unwrap();
    bus.ensure_topics(&Layout { shards: 1, events: 1, inboxes: 2, apis: 1 }.topics()).await.unwrap();
    let size = || std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    let before: u64 = size();
    for topic in [Topic::Tasks, Topic::Replies] {
        for offset in 0..3 {
            assert_eq!(bus.append(&topic, 0, vec![Bytes::from_static(b"x").into()]).await, Ok(offset));
        }
        let mut reader = bus.reader().unwrap();
        reader.assign(&topic, 0, 1).unwrap();
        let batch = reader.next(Duration::from_secs(30)).await.unwrap().unwrap();
        assert_eq!(batch.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
        assert!(batch.records.iter().all(|record| record.timestamp_ms > 0));
    }
    assert!(matches!(bus.append(&Topic::Tasks, 2, vec![Bytes::new().into()]).await, Err(AppendError::NotSent { .. })));
    assert_eq!(size(), before);
    drop(bus);
    let bus = open(dir.path()).unwrap();
    assert_eq!(bus.partitions(&Topic::Tasks).await.unwrap(), Some(2));
    assert_eq!(bus.offsets(&Topic::Tasks, 0).await.unwrap(), 0..0);
}

async fn early(dir: &Path) -> EmbeddedBus {
    let bus = EmbeddedBus::open(Config { early_commands: true, ..Config::new(dir.into(), [7; 16]) }).unwrap();
    bus.ensure_topics(&Layout { shards: 2, events: 2, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    bus
}

fn command() -> Vec<nova_bus::Outgoing> {
    vec![Bytes::from_static(b"command").into()]
}

#[tokio::test]
async fn early_commands_are_shown_before_they_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let bus = early(dir.path()).await;
    // Where to go on is not known yet.
    assert!(matches!(bus.append(&Topic::Commands, 0, command()).await, Err(AppendError::NotSent { .. })));
    bus.offsets(&Topic::Commands, 0).await.expect_err("nor is it where the log ends");
    bus.health().await.expect_err("so it is not ready");
    bus.append(&Topic::Events, 0, command()).await.unwrap();
    bus.resume([(0, 0), (1, 0)]).await.unwrap();
    bus.health().await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&Topic::Commands, 1, 0).unwrap();
    let acks: Vec<_> = (0..3).map(|_| bus.append(&Topic::Commands, 1, command())).collect();
    assert_eq!(bus.offsets(&Topic::Commands, 1).await.unwrap(), 0..3);
    let shown = reader.next(Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(shown.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 1, 2]);
    for (offset, ack) in (0..).zip(acks) {
        assert_eq!(ack.await, Ok(offset));
    }
    drop((bus, reader));
    // What was shown is what was written.
    let bus = open(dir.path()).unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&Topic::Commands, 1, 0).unwrap();
    let mut written = Vec::new();
    while written.len() < 3 {
        written.extend(reader.next(Duration::from_secs(30)).await.unwrap().unwrap().records);
    }
    assert_eq!(written, shown.records);
}

#[tokio::test]
async fn a_partition_goes_on_behind_applied_commands_that_a_crash_took() {
    let dir = tempfile::tempdir().unwrap();
    let bus = early(dir.path()).await;
    bus.resume([(0, 0), (1, 0)]).await.unwrap();
    for partition in [0, 0, 1] {
        bus.append(&Topic::Commands, partition, command()).await.unwrap();
    }
    drop(bus);
    // Four more were applied on partition 0, and partition 1 is another log altogether.
    let bus = early(dir.path()).await;
    bus.resume([(0, 6), (1, 1_000_000)]).await.unwrap();
    assert_eq!(bus.offsets(&Topic::Commands, 0).await.unwrap(), 6..6);
    assert_eq!(bus.offsets(&Topic::Commands, 1).await.unwrap(), 0..1);
    assert_eq!(bus.append(&Topic::Commands, 0, command()).await, Ok(6));
    drop(bus);
    let bus = early(dir.path()).await;
    bus.resume([(0, 7), (1, 1)]).await.unwrap();
    assert_eq!(bus.offsets(&Topic::Commands, 0).await.unwrap(), 6..7);
    let mut reader = bus.reader().unwrap();
    reader.assign(&Topic::Commands, 0, 6).unwrap();
    let batch = reader.next(Duration::from_secs(30)).await.unwrap().unwrap();
    assert_eq!(batch.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [6]);
}
