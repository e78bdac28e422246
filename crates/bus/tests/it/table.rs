//! Readers and writers at the same time.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, MemoryBus, Topic, TopicSpec};

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
