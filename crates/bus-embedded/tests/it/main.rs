//! Tests of the embedded bus.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, Layout, Topic, contract};
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
        bus.ensure_topics(&Layout { shards: 4, inboxes: 2, apis: 1 }.topics()).await.unwrap();
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
    bus.ensure_topics(&Layout { shards: 2, inboxes: 1, apis: 1 }.topics()).await.unwrap();
    for _ in 0..3 {
        bus.append(&Topic::Commands, 1, vec![Bytes::from_static(b"early").into()]).await.unwrap();
    }
    for _ in 0..20 {
        bus.append(&Topic::Commands, 0, vec![Bytes::from(vec![b'x'; 1_000]).into()]).await.unwrap();
    }
    assert_eq!(bus.offsets(&Topic::Commands, 1).await.unwrap(), 3..3);
    drop(bus);
    let bus = EmbeddedBus::open(small()).unwrap();
    assert_eq!(bus.offsets(&Topic::Commands, 1).await.unwrap(), 3..3);
    let range = bus.offsets(&Topic::Commands, 0).await.unwrap();
    assert!(range.start > 0 && range.end == 20, "{range:?}");
}
