//! Figures, printed when asked for: `cargo test -p nova-bus-kafka --release --test it -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_bus::{Bus, Outgoing};

use crate::broker::{self, SOON, spec};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and needs the machine for itself"]
async fn latency_and_throughput() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("figures", 8));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let value = Bytes::from(vec![b'x'; 512]);
    let one = || -> Vec<Outgoing> { vec![value.clone().into()] };
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let (mut acks, mut hops) = (Vec::new(), Vec::new());
    for n in 0..3_000 {
        let started = Instant::now();
        let appended = async {
            bus.append(&spec.topic, 0, one()).await.unwrap();
            started.elapsed()
        };
        let hop = async {
            reader.next(SOON).await.unwrap().unwrap();
            started.elapsed()
        };
        let (ack, hop) = tokio::join!(appended, hop);
        if n >= 500 {
            acks.push(ack);
            hops.push(hop);
        }
    }
    for (name, mut all) in [("acknowledged", acks), ("read", hops)] {
        all.sort();
        eprintln!("{name}: p50 {:?}, p99 {:?}", all[all.len() / 2], all[all.len() * 99 / 100]);
    }

    for size in [1_usize, 16, 256] {
        let started = Instant::now();
        let (mut records, mut waiting) = (0_usize, std::collections::VecDeque::new());
        while started.elapsed() < Duration::from_secs(2) {
            let partition = (records / size % 8) as u32;
            let batch = (0..size).map(|_| value.clone().into()).collect();
            waiting.push_back(bus.append(&spec.topic, partition, batch));
            records += size;
            if waiting.len() > 16_384 / size {
                waiting.pop_front().unwrap().await.unwrap();
            }
        }
        for ack in waiting {
            ack.await.unwrap();
        }
        let rate = records as f64 / started.elapsed().as_secs_f64();
        eprintln!("appends of {size}: {rate:.0} records/s acknowledged");
    }

    let end: u64 = {
        let mut all = 0;
        for partition in 0..8 {
            all += bus.offsets(&spec.topic, partition).await.unwrap().end;
        }
        all
    };
    let mut reader = bus.reader().unwrap();
    (0..8).for_each(|partition| reader.assign(&spec.topic, partition, 0).unwrap());
    let (started, mut read) = (Instant::now(), 0);
    while read < end {
        read += reader.next(SOON).await.unwrap().unwrap().records.len() as u64;
    }
    eprintln!("replay: {:.0} records/s", read as f64 / started.elapsed().as_secs_f64());
}
