//! Topics with other settings than they should have, and topics that are not the ones they were.

use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, BusError, Layout, ReadError, Topic, TopicSpec};
use nova_bus_kafka::KafkaBus;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::broker::{self, SOON, spec};

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

fn name(spec: &TopicSpec) -> &str {
    spec.topic.name()
}

async fn append(bus: &KafkaBus, topic: &Topic, text: &'static str) -> u64 {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        match bus.append(topic, 0, vec![Bytes::from_static(text.as_bytes()).into()]).await {
            Ok(offset) => return offset,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_setting_is_named() {
    let broker = broker::shared();
    let spec = spec("wrong", 2);
    let made = NewTopic::new(name(&spec), 3, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("retention.ms", "1000")
        .set("message.timestamp.type", "LogAppendTime");
    admin(&broker.bootstrap).create_topics([&made], &AdminOptions::new()).await.unwrap();
    let refused = broker.connect().ensure_topics(std::slice::from_ref(&spec)).await;
    let Err(BusError::WrongSettings { topic, problems }) = refused else { panic!("{refused:?}") };
    assert_eq!(topic, spec.topic);
    for part in [
        "it has 3 partitions and should have 2",
        "cleanup.policy is compact and should be delete",
        "retention.ms is 1000 and should be 86400000",
        "max.message.bytes is",
        "message.timestamp.type is LogAppendTime and should be CreateTime",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part}: {problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_with_prefixes_share_brokers() {
    let broker = broker::shared();
    let layout = Layout { shards: 2, events: 2, inboxes: 1, apis: 1 };
    let mut buses = Vec::new();
    for n in 0..2 {
        let mut config = broker.config();
        config.prefix = format!("{}.", broker::unique(&format!("prefix{n}")));
        let bus = KafkaBus::connect(config).unwrap();
        bus.ensure_topics(&layout.topics()).await.unwrap();
        bus.health().await.unwrap();
        buses.push(bus);
    }
    assert_eq!(append(&buses[0], &Topic::Commands, "one").await, 0);
    assert_eq!(buses[0].offsets(&Topic::Commands, 0).await.unwrap(), 0..1);
    assert_eq!(buses[1].offsets(&Topic::Commands, 0).await.unwrap(), 0..0);
}

/// A reader of a partition that does not exist is told, whether or not anybody has asked for the topic before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_hears_of_a_missing_partition() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("missing", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    append(&bus, &spec.topic, "a").await;
    let mut reader = bus.reader().unwrap();
    assert!(matches!(reader.assign(&spec.topic, 1, 0), Err(BusError::NoSuchPartition { partition: 1, .. })));
    let stranger = broker.connect();
    let mut reader = stranger.reader().unwrap();
    reader.assign(&spec.topic, 1, 0).unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    let batch = reader.next(SOON).await.unwrap().unwrap();
    assert_eq!((batch.partition, batch.records.len()), (0, 1), "the others go on");
    let told = reader.next(SOON).await;
    assert!(matches!(told, Err(ReadError::Bus(BusError::NoSuchPartition { partition: 1, .. }))), "{told:?}");
}

/// The log's start moves past a reader, and a new reader of the old place hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_topic_is_noticed() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("cut", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    for text in ["a", "b", "c"] {
        append(&bus, &spec.topic, text).await;
    }
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(name(&spec), 0, rdkafka::Offset::Offset(2)).unwrap();
    admin(&broker.bootstrap).delete_records(&list, &AdminOptions::new()).await.unwrap();
    assert_eq!(bus.offsets(&spec.topic, 0).await.unwrap(), 2..3);
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 1).unwrap();
    let error = reader.next(SOON).await.unwrap_err();
    assert!(matches!(error, ReadError::OutOfRange { wanted: 1, low: 2, high: 3, .. }), "{error:?}");
    reader.assign(&spec.topic, 0, 2).unwrap();
    assert_eq!(reader.next(SOON).await.unwrap().unwrap().records[0].offset, 2);
}

/// A topic is deleted and made anew under a reader and a producer. The reader does not wait for ever at an offset that
/// the new one has not reached; the producer goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_noticed() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("anew", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    for text in ["a", "b", "c"] {
        append(&bus, &spec.topic, text).await;
    }
    let mut seen = 0;
    while seen < 3 {
        seen += reader.next(SOON).await.unwrap().unwrap().records.len();
    }
    let admin = admin(&broker.bootstrap);
    admin.delete_topics(&[name(&spec)], &AdminOptions::new()).await.unwrap();
    while bus.partitions(&spec.topic).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut again = bus.ensure_topics(std::slice::from_ref(&spec)).await;
    while matches!(again, Err(BusError::Unavailable { .. })) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        again = bus.ensure_topics(std::slice::from_ref(&spec)).await;
    }
    again.unwrap();
    append(&bus, &spec.topic, "new").await;
    let error = loop {
        match reader.next(SOON).await {
            Ok(Some(batch)) => panic!("records of another topic: {batch:?}"),
            Ok(None) => panic!("nothing was noticed"),
            // Whether the topic was seen gone or shorter depends on when the reader looked.
            Err(error @ (ReadError::OutOfRange { .. } | ReadError::Bus(BusError::NoSuchPartition { .. }))) => {
                break error;
            }
            Err(ReadError::Bus(_)) => {}
        }
    };
    if let ReadError::OutOfRange { wanted, high, .. } = error {
        assert_eq!(wanted, 3);
        assert!(high < 3);
    }
    reader.assign(&spec.topic, 0, 0).unwrap();
    let batch = loop {
        match reader.next(SOON).await {
            Ok(batch) => break batch.unwrap(),
            Err(error) => assert!(matches!(error, ReadError::Bus(BusError::Unavailable { .. })), "{error:?}"),
        }
    };
    assert_eq!(&batch.records[0].value[..], b"new");
}

/// A topic is made anew, and longer, before anybody looks. Offsets cannot tell, and the reader does all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_topic_made_anew_is_noticed() {
    let broker = broker::shared();
    let (bus, spec) = (broker.connect(), spec("longer", 1));
    bus.ensure_topics(std::slice::from_ref(&spec)).await.unwrap();
    let mut reader = bus.reader().unwrap();
    reader.assign(&spec.topic, 0, 0).unwrap();
    append(&bus, &spec.topic, "a").await;
    assert_eq!(reader.next(SOON).await.unwrap().unwrap().records.len(), 1);
    admin(&broker.bootstrap).delete_topics(&[name(&spec)], &AdminOptions::new()).await.unwrap();
    let other = broker.connect();
    while other.ensure_topics(std::slice::from_ref(&spec)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..10 {
        append(&other, &spec.topic, "new").await;
    }
    let first = reader.next(SOON).await;
    let known = matches!(
        first,
        Err(ReadError::OutOfRange { wanted: 1, .. } | ReadError::Bus(BusError::NoSuchPartition { .. }))
    );
    assert!(known, "{first:?}");
}
