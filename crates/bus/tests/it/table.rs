//! Readers and writers at the same time.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_bus::table::{Kept, Source, Table, TableReader, YoungLimits};
use nova_bus::{Bus, BusError, MemoryBus, ReadError, Reader, Record, Topic, TopicSpec};
use parking_lot::Mutex;

const RECORDS: u32 = 200_000;
const READERS: usize = 4;

async fn run() {
    let bus = Arc::new(MemoryBus::new());
    bus.ensure_topics(&[TopicSpec { topic: Topic::Events, partitions: 1, retention_ms: 1_000 }]).await.unwrap();
    let readers = (0..READERS).map(|_| {
        let mut reader = bus.reader().unwrap();
        tokio::spawn(async move {
            reader.assign(&Topic::Events, 0, 0).unwrap();
            let mut left = RECORDS;
            while left > 0 {
                let batch = reader.next(Duration::from_secs(60)).await.unwrap().expect("there is more to come");
                left -= batch.records.len() as u32;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let own = Arc::clone(&bus);
    std::thread::spawn(move || {
        for n in 0..RECORDS {
            drop(own.append(&Topic::Events, 0, vec![Bytes::from_static(b"x").into()]));
            // Readers reach the end again and again.
            (0..n % 64).for_each(|_| std::hint::spin_loop());
        }
    });
    for reader in readers {
        reader.await.unwrap();
    }
}

#[test]
fn readers_that_keep_up_with_writers_see_all_and_stop_nobody() {
    // Watched from outside: a lock that is never given back stops the clock of a runtime too.
    let (done, all_read) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(run());
        done.send(()).unwrap();
    });
    all_read.recv_timeout(Duration::from_secs(120)).expect("nobody waits for ever");
}

#[tokio::test]
async fn records_without_a_place_are_gone_when_they_are_no_longer_young() {
    let table = Arc::new(Mutex::new(Table::new(YoungLimits { copies: 500, momentary: 1_000 })));
    let spec = |topic| TopicSpec { topic, partitions: 1, retention_ms: 1_000 };
    let record = |offset| Record {
        offset,
        timestamp_ms: 1,
        key: None,
        headers: Vec::new(),
        value: Bytes::from(vec![b'x'; 136]),
    };
    {
        let mut table = table.lock();
        table.ensure(&spec(Topic::Tasks)).unwrap();
        table.ensure(&spec(Topic::Commands)).unwrap();
        for offset in 0..10 {
            table.publish(&Topic::Tasks, 0, Kept::Nowhere, vec![record(offset)]);
        }
        // 200 bytes each: five are young.
        assert_eq!(table.offsets(&Topic::Tasks, 0), Some(5..10));
        for offset in 0..5 {
            table.publish(&Topic::Commands, 0, Kept::At(7), vec![record(offset)]);
        }
        assert_eq!(table.offsets(&Topic::Tasks, 0), Some(5..10), "what is written elsewhere takes no place of theirs");
        table.publish(&Topic::Tasks, 0, Kept::Nowhere, vec![record(10)]);
        assert_eq!(table.offsets(&Topic::Commands, 0), Some(0..5), "what has a place is fetched from there");
    }
    let mut reader = TableReader::new(Arc::clone(&table), Arc::new(Disk));
    reader.assign(&Topic::Tasks, 0, 5).unwrap();
    let lost = reader.next(Duration::from_secs(30)).await;
    assert!(matches!(lost, Err(ReadError::OutOfRange { wanted: 5, low: 6, high: 11, .. })), "{lost:?}");
    reader.assign(&Topic::Tasks, 0, 10).unwrap();
    assert_eq!(reader.next(Duration::from_secs(30)).await.unwrap().unwrap().records, [record(10)]);
    reader.assign(&Topic::Commands, 0, 0).unwrap();
    assert_eq!(reader.next(Duration::from_secs(30)).await.unwrap().unwrap().records, [record(0)]);
}

/// Has the first command.
struct Disk;

#[async_trait]
impl Source for Disk {
    type Place = u8;

    async fn fetch(&self, place: u8, _: &Topic, _: u32, first: u64) -> Result<Vec<Record>, BusError> {
        assert_eq!((place, first), (7, 0));
        let value = Bytes::from(vec![b'x'; 136]);
        Ok(vec![Record { offset: 0, timestamp_ms: 1, key: None, headers: Vec::new(), value }])
    }
}
