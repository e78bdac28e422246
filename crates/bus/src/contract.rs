//! What every bus must do, as tests that run against any of them.

#![allow(clippy::unwrap_used, reason = "test code: a failed step is a failed test")]

use std::time::Duration;

use bytes::Bytes;

use crate::{AppendError, Batch, BusError, MAX_RECORD_BYTES, Outgoing, ReadError, Reader, SharedBus, Topic, TopicSpec};

/// Longest wait for something that must come.
const SOON: Duration = Duration::from_secs(30);

fn spec(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { topic: Topic::Named(name.into()), partitions, retention_ms: 86_400_000 }
}

fn record(text: impl Into<String>) -> Outgoing {
    Bytes::from(text.into()).into()
}

async fn some(reader: &mut dyn Reader) -> Batch {
    reader.next(SOON).await.unwrap().expect("records were there to be read")
}

async fn read(reader: &mut dyn Reader, count: usize) -> Vec<(u32, u64, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = some(reader).await;
        for record in batch.records {
            all.push((batch.partition, record.offset, String::from_utf8(record.value.to_vec()).unwrap()));
        }
    }
    all
}

/// Runs the suite on topics whose names begin with `prefix`.
pub async fn all(bus: SharedBus, prefix: &str) {
    order_and_offsets(&bus, &format!("{prefix}-order")).await;
    many_partitions(&bus, &format!("{prefix}-many")).await;
    tail(&bus, &format!("{prefix}-tail")).await;
    seek_and_remove(&bus, &format!("{prefix}-seek")).await;
    bounds(&bus, &format!("{prefix}-bounds")).await;
    headers(&bus, &format!("{prefix}-headers")).await;
    topics(&bus, &format!("{prefix}-topics")).await;
}

/// Appends that overlap keep the order of the calls; offsets have no gaps.
async fn order_and_offsets(bus: &SharedBus, name: &str) {
    let spec = spec(name, 1);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let acks: Vec<_> =
        (0..50).map(|n| bus.append(&spec.topic, 0, (0..3).map(|m| record(format!("{n}/{m}"))).collect())).collect();
    for (n, ack) in acks.into_iter().enumerate() {
        assert_eq!(ack.await.unwrap(), n as u64 * 3);
    }
    assert_eq!(bus.offsets(&spec.topic, 0).await.unwrap(), 0..150);
    let known = bus.bounds(&spec.topic, &[0, 1_000], Duration::from_secs(10)).await;
    assert_eq!(known, [(0, 0..150)].into(), "a partition that is not there holds up no other");
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let found = read(&mut *reader, 150).await;
    for (n, (_, offset, text)) in found.iter().enumerate() {
        assert_eq!((*offset, text.as_str()), (n as u64, format!("{}/{}", n / 3, n % 3).as_str()));
    }
}

/// One reader of many partitions sees each in its own order.
async fn many_partitions(bus: &SharedBus, name: &str) {
    let spec = spec(name, 8);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let mut reader = bus.reader().unwrap();
    for partition in 0..8 {
        reader.assign(&spec.topic, partition, 0).unwrap();
    }
    let mut acks = Vec::new();
    for n in 0..20 {
        for partition in 0..8 {
            acks.push(bus.append(&spec.topic, partition, vec![record(format!("{n}"))]));
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
    let mut next = [0_u64; 8];
    for (partition, offset, text) in read(&mut *reader, 160).await {
        let at = &mut next[partition as usize];
        assert_eq!((offset, text), (*at, at.to_string()));
        *at += 1;
    }
    assert_eq!(next, [20; 8]);
}

/// A reader at the end is woken by what comes; a wait without news ends, and cancelling one loses nothing.
async fn tail(bus: &SharedBus, name: &str) {
    let spec = spec(name, 1);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    assert!(reader.next(Duration::from_millis(20)).await.unwrap().is_none());
    for n in 0..20 {
        let appended = async { bus.append(&spec.topic, 0, vec![record(format!("{n}"))]).await.unwrap() };
        let mut early = None;
        let offset = {
            let waiting = reader.next(SOON);
            tokio::pin!(waiting, appended);
            loop {
                tokio::select! {
                    biased;
                    offset = &mut appended => break offset,
                    batch = &mut waiting, if early.is_none() => early = batch.unwrap(),
                }
            }
        };
        let batch = match early {
            Some(batch) => batch,
            None => some(&mut *reader).await,
        };
        assert_eq!((offset, batch.records[0].offset, batch.records.len()), (n, n, 1));
    }
}

async fn seek_and_remove(bus: &SharedBus, name: &str) {
    let spec = spec(name, 2);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    for partition in 0..2 {
        bus.append(&spec.topic, partition, (0..10).map(|n| record(n.to_string())).collect()).await.unwrap();
    }
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 7).unwrap();
    let found: Vec<_> = read(&mut *reader, 3).await.into_iter().map(|(_, offset, _)| offset).collect();
    assert_eq!(found, [7, 8, 9]);
    reader.assign(&spec.topic, 0, 2).unwrap();
    assert_eq!(read(&mut *reader, 8).await[0].1, 2, "a partition can be moved back");
    reader.remove(&spec.topic, 0);
    reader.assign(&spec.topic, 1, 0).unwrap();
    bus.append(&spec.topic, 0, vec![record("unseen")]).await.unwrap();
    assert!(read(&mut *reader, 10).await.iter().all(|(partition, ..)| *partition == 1));
    assert!(reader.next(Duration::from_millis(50)).await.unwrap().is_none());
}

async fn bounds(bus: &SharedBus, name: &str) {
    let spec = spec(name, 1);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let large = Outgoing::from(Bytes::from(vec![b'x'; MAX_RECORD_BYTES + 1]));
    let refused = bus.append(&spec.topic, 0, vec![record("small"), large]).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    assert_eq!(bus.offsets(&spec.topic, 0).await.unwrap(), 0..0, "nothing of a refused append is written");
    bus.append(&spec.topic, 0, vec![record("a")]).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 5).unwrap();
    let error = reader.next(SOON).await.unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { wanted: 5, low: 0, high: 1, .. }), "{error:?}");
    let unknown = bus.append(&spec.topic, 1, vec![record("a")]).await;
    assert!(matches!(unknown, Err(AppendError::NotSent { .. })), "{unknown:?}");
    let unknown = bus.offsets(&spec.topic, 1).await;
    assert!(matches!(unknown, Err(BusError::NoSuchPartition { .. })), "{unknown:?}");
}

async fn headers(bus: &SharedBus, name: &str) {
    let spec = spec(name, 1);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let full = Outgoing {
        key: Some(Bytes::from_static(b"key")),
        headers: vec![("a".into(), Bytes::from_static(b"1")), ("b".into(), Bytes::new())],
        value: Bytes::from_static(b"value"),
    };
    bus.append(&spec.topic, 0, vec![full.clone(), record("plain")]).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let mut records = some(&mut *reader).await.records;
    while records.len() < 2 {
        records.extend(some(&mut *reader).await.records);
    }
    let first =
        Outgoing { key: records[0].key.clone(), headers: records[0].headers.clone(), value: records[0].value.clone() };
    assert_eq!(first, full);
    assert_eq!((&records[1].key, records[1].headers.len()), (&None, 0));
}

async fn topics(bus: &SharedBus, name: &str) {
    let spec = spec(name, 3);
    assert_eq!(bus.partitions(&spec.topic).await.unwrap(), None);
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    assert_eq!(bus.partitions(&spec.topic).await.unwrap(), Some(3));
    let other = TopicSpec { partitions: 4, ..spec };
    let refused = bus.ensure_topics(&[other]).await;
    assert!(matches!(refused, Err(BusError::WrongSettings { .. })), "{refused:?}");
    bus.health().await.unwrap();
}
