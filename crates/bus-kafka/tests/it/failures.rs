//! Brokers that stop, hang and come back.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_bus::{Ack, AppendError, Bus, BusError, Outgoing, ReadError, Reader, Topic, TopicSpec};
use nova_bus_kafka::{Config, KafkaBus};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};

use crate::broker::{self, Broker, SOON, spec};

fn number(n: u64) -> Vec<Outgoing> {
    vec![Bytes::from(n.to_string()).into()]
}

async fn read_all(bus: &KafkaBus, spec: &TopicSpec, end: u64) -> Vec<u64> {
    let mut reader: Box<dyn Reader> = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let (mut all, mut next) = (Vec::new(), 0);
    while next < end {
        match reader.next(SOON).await {
            Ok(batch) => {
                for record in batch.expect("there is more to read").records {
                    assert_eq!(record.offset, next);
                    next += 1;
                    all.push(std::str::from_utf8(&record.value).unwrap().parse().unwrap());
                }
            }
            Err(error) => assert!(matches!(error, ReadError::Bus(BusError::Unavailable { .. })), "{error:?}"),
        }
    }
    all
}

/// First occurrences are 0, 1, 2, ..., `count - 1`: repeats are dropped, nothing is missing, nothing overtakes.
fn in_order(found: &[u64], count: u64) {
    let mut next = 0;
    for number in found {
        assert!(*number <= next, "{number} came before {next}");
        next += u64::from(*number == next);
    }
    assert_eq!(next, count);
}

/// A publisher as the services have one: several appends under way, and after an error it goes on from the first that
/// is not known to be written.
struct Publisher<'a> {
    bus: &'a KafkaBus,
    spec: &'a TopicSpec,
    waiting: VecDeque<(u64, Ack)>,
    next: u64,
    unknown: u32,
    not_sent: u32,
}

impl Publisher<'_> {
    async fn run(&mut self, until: impl Fn(u64) -> bool) {
        while !(self.waiting.is_empty() && until(self.next)) {
            while self.waiting.len() < 64 && !until(self.next) {
                self.waiting.push_back((self.next, self.bus.append(&self.spec.topic, 0, number(self.next))));
                self.next += 1;
            }
            let Some((first, ack)) = self.waiting.pop_front() else { continue };
            match ack.await {
                Ok(_) => continue,
                Err(AppendError::OutcomeUnknown { .. }) => self.unknown += 1,
                Err(AppendError::NotSent { .. }) => self.not_sent += 1,
                Err(error) => panic!("{error}"),
            }
            // The rest behind it is waited for, so that none of it can come after what is appended now.
            for (_, ack) in self.waiting.drain(..) {
                drop(ack.await);
            }
            self.next = first;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn config(broker: &Broker) -> Config {
    let mut config = broker.config();
    config.message_timeout = Duration::from_secs(2);
    config.request_timeout = Duration::from_secs(20);
    config
}

/// kill -9 under load: appends fail in one of the two ways that are allowed, and after the restart the log has them all
/// in order; a reader is told and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing() {
    let broker = Arc::new(Broker::start(1));
    let (bus, spec) = (KafkaBus::connect(config(&broker)).unwrap(), spec("killed", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let mut publisher =
        Publisher { bus: &bus, spec: &spec, waiting: VecDeque::new(), next: 0, unknown: 0, not_sent: 0 };
    publisher.run(|next| next >= 500).await;
    assert_eq!((publisher.unknown, publisher.not_sent), (0, 0));

    // The kill comes while appends are under way, and the publisher goes on until the broker is back.
    let back = AtomicBool::new(false);
    let restarted = async {
        let crashed = Arc::clone(&broker);
        tokio::task::spawn_blocking(move || crashed.script(&["crash"], &[])).await.unwrap();
        // As long as the client has not seen it, appends are taken and wait.
        let other = Topic::Named("any".into());
        while !matches!(bus.append(&other, 0, number(0)).await, Err(AppendError::NotSent { .. })) {}
        let restarted = Arc::clone(&broker);
        tokio::task::spawn_blocking(move || restarted.script(&["start"], &[])).await.unwrap();
        back.store(true, Ordering::Release);
    };
    let at_restart = AtomicU64::new(u64::MAX);
    let enough = |next| {
        if back.load(Ordering::Acquire) {
            at_restart.fetch_min(next, Ordering::AcqRel);
        }
        next >= at_restart.load(Ordering::Acquire).saturating_add(1_000)
    };
    tokio::join!(restarted, publisher.run(enough));
    let count = publisher.next;
    assert!(publisher.unknown + publisher.not_sent > 0, "nothing failed");

    let end = bus.offsets(&spec.topic, 0).await.unwrap().end;
    in_order(&read_all(&bus, &spec, end).await, count);
    let (mut told, mut next) = (0, 0);
    while next < end {
        match reader.next(SOON).await {
            Ok(batch) => {
                for record in batch.expect("there is more to read").records {
                    assert_eq!(record.offset, next);
                    next += 1;
                }
            }
            Err(error) => {
                assert!(matches!(error, ReadError::Bus(BusError::Unavailable { .. })), "{error:?}");
                told += 1;
            }
        }
    }
    assert!(told >= 1, "a reader hears of an outage: the log behind it may be another");
    bus.health().await.unwrap();
}

/// A broker that holds its connections and answers nothing: what was handed over has an unknown outcome once it has
/// waited long enough, then nothing is taken, and it all goes on when the broker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_broker_is_given_up() {
    let broker = Broker::start(1);
    let (bus, other, spec) = (KafkaBus::connect(config(&broker)).unwrap(), spec("other", 1), spec("hanging", 1));
    bus.ensure_topics(&[spec.clone(), other.clone()]).await.unwrap();
    bus.append(&spec.topic, 0, number(0)).await.unwrap();

    tokio::task::block_in_place(|| broker.script(&["pause"], &[]));
    let started = Instant::now();
    let acks: Vec<_> = (1..=3).map(|n| bus.append(&spec.topic, 0, number(n))).collect();
    for ack in acks {
        let lost = ack.await;
        assert!(matches!(lost, Err(AppendError::OutcomeUnknown { .. })), "{lost:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let refused = bus.append(&spec.topic, 0, number(4)).await;
    assert!(matches!(refused, Err(AppendError::NotSent { .. })), "{refused:?}");

    // A caller that has not seen that one was refused may have handed over the next: it is refused too, however late.
    let unseen = bus.append(&spec.topic, 0, number(4));
    tokio::task::block_in_place(|| broker.script(&["resume"], &[]));
    taken(&bus, &other, 0).await;
    let behind = bus.append(&spec.topic, 0, number(5)).await;
    assert!(matches!(behind, Err(AppendError::NotSent { .. })), "{behind:?}");
    let seen = unseen.await;
    assert!(matches!(seen, Err(AppendError::NotSent { .. })), "{seen:?}");
    let mut publisher =
        Publisher { bus: &bus, spec: &spec, waiting: VecDeque::new(), next: 1, unknown: 0, not_sent: 0 };
    publisher.run(|next| next >= 100).await;
    let end = bus.offsets(&spec.topic, 0).await.unwrap().end;
    in_order(&read_all(&bus, &spec, end).await, 100);
}

/// Nobody listens: nothing is taken, everything says so, and nothing waits for longer than it was told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_nothing_is_sent() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = Config::new(format!("127.0.0.1:{port}"));
    config.request_timeout = Duration::from_millis(500);
    let bus = KafkaBus::connect(config).unwrap();
    let topic = Topic::Commands;
    let refused = bus.append(&topic, 0, number(0)).await;
    assert!(matches!(refused, Err(AppendError::NotSent { .. })), "{refused:?}");
    assert!(matches!(bus.health().await, Err(BusError::Unavailable { .. })));
    assert!(matches!(bus.offsets(&topic, 0).await, Err(BusError::Unavailable { .. })));
    assert!(matches!(bus.partitions(&topic).await, Err(BusError::Unavailable { .. })));
    let mut reader = bus.reader().unwrap();
    reader.assign(&topic, 0, 0).unwrap();
    assert!(matches!(reader.next(SOON).await, Err(ReadError::Bus(BusError::Unavailable { .. }))));
}

/// More than may be in flight is refused, and taken once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_flight_are_bounded() {
    let broker = Broker::start(1);
    let mut config = config(&broker);
    config.max_in_flight_bytes = 2 << 20;
    config.message_timeout = Duration::from_secs(30);
    let (bus, spec) = (KafkaBus::connect(config).unwrap(), spec("bounded", 2));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    tokio::task::block_in_place(|| broker.script(&["pause"], &[]));
    let large = || vec![Bytes::from(vec![b'x'; 900 << 10]).into()];
    let taken: Vec<_> = (0..2).map(|_| bus.append(&spec.topic, 0, large())).collect();
    let refused = bus.append(&spec.topic, 1, large()).await;
    assert!(matches!(refused, Err(AppendError::NotSent { .. })), "{refused:?}");
    tokio::task::block_in_place(|| broker.script(&["resume"], &[]));
    for ack in taken {
        ack.await.unwrap();
    }
    let deadline = Instant::now() + SOON;
    while let Err(error) = bus.append(&spec.topic, 1, large()).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What was handed over before the bus is dropped is still written, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_bus_finishes() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("dropped", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let acks: Vec<_> = (0..100).map(|n| bus.append(&spec.topic, 0, number(n))).collect();
    drop(bus);
    for (n, ack) in (0..).zip(acks) {
        assert_eq!(ack.await.unwrap(), n);
    }
}

/// A record that the broker refuses for good: nothing from it on is written, also not where it is the first that the
/// broker sees of this producer, and a new producer goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_overtakes_a_failed_append() {
    let broker = broker::shared();
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", &broker.bootstrap).create().unwrap();
    let (bus, other) = (broker.connect(), spec("healthy", 1));
    bus.ensure_topics(std::slice::from_ref(&other)).await.unwrap();
    for healthy in [0_u64, 1, 20] {
        let small = spec("small", 1);
        let made = NewTopic::new(small.topic.name(), 2, TopicReplication::Fixed(1)).set("max.message.bytes", "3000");
        admin.create_topics([&made], &AdminOptions::new()).await.unwrap();
        // Another partition makes the topic known: what waits for that would leave in one request.
        taken(&bus, &small, 1).await;
        let mut acks: Vec<_> = (0..healthy).map(|n| bus.append(&small.topic, 0, number(n))).collect();
        acks.push(bus.append(&small.topic, 0, vec![Bytes::from(vec![b'x'; 4_000]).into()]));
        for n in 0..20 {
            // So that they leave in requests of their own, before the answer to the one that is refused.
            std::thread::sleep(Duration::from_micros(20));
            acks.push(bus.append(&small.topic, 0, number(n)));
        }
        let mut written = 0;
        for (n, ack) in (0..).zip(acks) {
            match ack.await {
                Ok(offset) => {
                    assert_eq!((offset, written), (n, n), "an append was written after one that was not");
                    written += 1;
                }
                Err(AppendError::OutcomeUnknown { .. } | AppendError::NotSent { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert!(written <= healthy);
        let end = bus.offsets(&small.topic, 0).await.unwrap().end;
        assert!(end <= healthy, "{end} records, and {healthy} came before the one that was refused");
        taken(&bus, &other, 0).await;
        taken(&bus, &small, 0).await;
    }
}

/// Appends until it is taken.
async fn taken(bus: &KafkaBus, spec: &TopicSpec, partition: u32) {
    let deadline = Instant::now() + SOON;
    while let Err(error) = bus.append(&spec.topic, partition, number(0)).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// With three replicas a killed broker is not even an outage: appends wait for new leaders, none fails, none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_of_three_is_not_missed() {
    let broker = Arc::new(Broker::start(3));
    let mut config = broker.config();
    config.replicas = 3;
    config.message_timeout = Duration::from_secs(60);
    config.request_timeout = Duration::from_secs(30);
    let (bus, spec) = (KafkaBus::connect(config).unwrap(), spec("three", 3));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let crash = {
        let broker = Arc::clone(&broker);
        tokio::task::spawn_blocking(move || broker.script(&["crash"], &["2"]))
    };
    let (mut count, mut after) = (0, 0);
    while after < 100 {
        let acks: Vec<_> = (0..3).map(|partition| bus.append(&spec.topic, partition, number(count))).collect();
        for ack in acks {
            assert_eq!(ack.await.unwrap(), count);
        }
        count += 1;
        after += u64::from(crash.is_finished());
    }
    crash.await.unwrap();
    let mut reader = bus.reader().unwrap();
    (0..3).for_each(|partition| reader.assign(&spec.topic, partition, 0).unwrap());
    let mut found = [0_u64; 3];
    while found != [count; 3] {
        match reader.next(SOON).await {
            Ok(batch) => {
                let batch = batch.expect("there is more to read");
                for record in batch.records {
                    let next = &mut found[batch.partition as usize];
                    assert_eq!((record.offset, &record.value[..]), (*next, next.to_string().as_bytes()));
                    *next += 1;
                }
            }
            Err(error) => assert!(matches!(error, ReadError::Bus(BusError::Unavailable { .. })), "{error:?}"),
        }
    }
}

/// A partition that nobody leads is waited for, and the others are read meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_without_a_leader_do_not_keep_others_waiting() {
    let broker = Broker::start(3);
    let (bus, spec) = (broker.connect(), spec("alone", 6));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    for partition in 0..6 {
        taken(&bus, &spec, partition).await;
    }
    broker.script(&["crash"], &["2"]);
    for _ in 0..2 {
        let mut reader = bus.reader().unwrap();
        (0..6).for_each(|partition| reader.assign(&spec.topic, partition, 0).unwrap());
        let (mut found, deadline) = (BTreeSet::new(), Instant::now() + SOON);
        while found.len() < 4 {
            assert!(Instant::now() < deadline, "of those that are led only {found:?} were read");
            match tokio::time::timeout(SOON, reader.next(SOON)).await.expect("the others are read") {
                Ok(batch) => drop(found.insert(batch.expect("there is more to read").partition)),
                Err(error) => assert!(matches!(error, ReadError::Bus(BusError::Unavailable { .. })), "{error:?}"),
            }
        }
    }
}
