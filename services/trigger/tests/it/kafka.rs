use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{AppendError, Bus, Outgoing};
use serde_json::{Value, json};

use crate::rig::{START_MS, World};

fn on(topic: &str, extra: Value) -> Value {
    let mut document = json!({ "id": "in", "workflow": "w", "type": "kafka", "topic": topic, "from": "earliest" });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    document
}

fn values(range: std::ops::Range<u64>) -> Vec<Value> {
    range.map(|n| json!({ "n": n })).collect()
}

/// The `n` of each execution's input, by source, in order.
fn by_source(world: &World) -> BTreeMap<String, Vec<u64>> {
    let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for started in world.started() {
        all.entry(started.source).or_default().push(started.input["n"].as_u64().unwrap());
    }
    all
}

#[tokio::test]
async fn one_execution_per_record_in_the_order_of_its_partition() {
    let world = World::new().await;
    let topic = world.topic("orders", 4).await;
    world.trigger(&on("orders", json!({})));
    let service = world.start();
    for partition in 0..4_u32 {
        let from = u64::from(partition) * 1_000;
        world.publish(&topic, partition, &values(from..from + 500)).await;
    }
    world.wait_started(2_000).await;
    service.stop().await;
    world.settle().await;
    let all = by_source(&world);
    assert_eq!(all.len(), 4);
    for (source, seen) in all {
        let partition: u64 = source.rsplit_once('/').unwrap().1.parse().unwrap();
        assert_eq!(seen, (partition * 1_000..partition * 1_000 + 500).collect::<Vec<_>>(), "{source}");
    }
    let ids: std::collections::BTreeSet<String> = world.started().into_iter().map(|it| it.execution).collect();
    assert_eq!((ids.len(), world.repeats()), (2_000, 0));
    assert_eq!(world.started()[0].started_by, "trigger:in");
}

#[tokio::test]
async fn latest_begins_when_it_is_first_seen_and_remembers_it() {
    let world = World::new().await;
    let topic = world.topic("orders", 2).await;
    world.publish(&topic, 0, &values(0..10)).await;
    world.trigger(&on("orders", json!({ "from": "latest" })));
    let service = world.start();
    world.wait_sources(2).await;
    service.stop().await;
    // Nothing of it was ever submitted, and yet what comes now belongs to it.
    world.publish(&topic, 0, &values(10..13)).await;
    world.publish(&topic, 1, &values(20..22)).await;
    let service = world.start();
    world.wait_started(5).await;
    service.stop().await;
    world.settle().await;
    let all: Vec<Vec<u64>> = by_source(&world).into_values().collect();
    assert_eq!(all, [vec![10, 11, 12], vec![20, 21]]);
    assert_eq!(
        world.marks().iter().map(|(_, number)| *number).collect::<std::collections::BTreeSet<_>>(),
        [0, 10].into()
    );
}

#[tokio::test]
async fn after_a_restart_it_goes_on_behind_the_last_record() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.trigger(&on("orders", json!({})));
    world.publish(&topic, 0, &values(0..100)).await;
    let service = world.start();
    world.wait_started(100).await;
    service.stop().await;
    world.publish(&topic, 0, &values(100..200)).await;
    let service = world.start();
    world.wait_started(200).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(by_source(&world).into_values().next().unwrap(), (0..200).collect::<Vec<_>>());
    assert_eq!(world.repeats(), 0);
}

#[tokio::test]
async fn services_that_are_killed_lose_and_double_nothing() {
    let world = World::new().await;
    let topic = world.topic("orders", 2).await;
    world.trigger(&on("orders", json!({})));
    let steady = world.start();
    for round in 0..20_u64 {
        let service = world.start();
        world.publish(&topic, (round % 2) as u32, &values(round * 50..round * 50 + 50)).await;
        // What was submitted and is not applied when it is killed is submitted once more.
        world.pause_engine(round % 3 == 0);
        world.wait_for("some more", |world| round % 3 == 0 || world.started().len() as u64 >= round * 25).await;
        service.kill().await;
    }
    world.pause_engine(false);
    steady.kill().await;
    let service = world.start();
    world.wait_started(1_000).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.started().len(), 1_000);
    for seen in by_source(&world).into_values() {
        assert_eq!(seen.len(), 500);
        assert!(seen.is_sorted());
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_repeated_and_counts_once() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.trigger(&on("orders", json!({})));
    world.publish(&topic, 0, &values(0..1_500)).await;
    world.bus.refuse(Some(AppendError::OutcomeUnknown { why: "a test".into() }));
    let service = world.start();
    world.wait_for("a repeat", |world| world.repeats() > 0).await;
    world.bus.refuse(Some(AppendError::NotSent { why: "a test".into() }));
    tokio::time::sleep(Duration::from_millis(30)).await;
    world.bus.refuse(None);
    world.wait_started(1_500).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(by_source(&world).into_values().next().unwrap(), (0..1_500).collect::<Vec<_>>());
}

#[tokio::test]
async fn with_too_much_unanswered_it_stops_reading() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.trigger(&on("orders", json!({})));
    for round in 0..20_u64 {
        world.publish(&topic, 0, &values(round * 1_000..(round + 1) * 1_000)).await;
    }
    world.pause_engine(true);
    let mut config = world.config();
    config.window = 500;
    let service = world.start_with(&config);
    let mut before = 0;
    // Until nothing more comes.
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = world.commands().await;
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    assert!(before <= 500 + nova_bus::MAX_BATCH_RECORDS, "{before} records are on their way");
    world.pause_engine(false);
    world.wait_started(20_000).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(by_source(&world).into_values().next().unwrap(), (0..20_000).collect::<Vec<_>>());
    assert_eq!(world.repeats(), 0);
}

#[tokio::test]
async fn what_cannot_start_anything_is_put_aside_once_and_holds_up_nothing() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.workflow("strict", json!({ "type": "object", "properties": { "n": { "type": "integer" } } })).await;
    world.trigger(&on("orders", json!({ "workflow": "strict" })));
    world.publish(&topic, 0, &[json!({ "n": 0 })]).await;
    world.publish_raw(&topic, 0, b"not json").await;
    world.publish(&topic, 0, &[json!({ "n": 1 }), json!({ "n": "one" })]).await;
    let large = vec![b' '; nova_bus::MAX_RECORD_BYTES - 10];
    world.publish_raw(&topic, 0, &large).await;
    world.publish(&topic, 0, &[json!({ "n": 2 }), json!({ "n": 3, "text": "x".repeat(16 * 1024) })]).await;
    let service = world.start();
    // The last record starts nothing, and the position is behind it all the same.
    world.wait_for("the last position", |world| world.marks().iter().any(|(_, number)| *number == 7)).await;
    service.stop().await;
    let service = world.start();
    world.publish(&topic, 0, &[json!({ "n": 4 })]).await;
    world.wait_started(4).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(by_source(&world).into_values().next().unwrap(), [0, 1, 2, 4]);
    let letters = world.dead_letters().await;
    let told: Vec<(u64, &str)> = letters.iter().map(|it| (it.offset, it.reason.split_once(':').unwrap().0)).collect();
    let wanted = [
        (1, "trigger.record.notJson"),
        (3, "trigger.input.schema"),
        (4, "trigger.record.notJson"),
        (6, "trigger.input.tooLarge"),
    ];
    assert_eq!(told, wanted);
    assert_eq!((letters[0].topic.as_str(), &letters[0].original[..]), ("orders", &b"not json"[..]));
    assert!(letters[1].reason.contains("/n"), "{}", letters[1].reason);
}

#[tokio::test]
async fn a_record_can_be_given_whole() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.trigger(&on("orders", json!({ "input": "record" })));
    let record = Outgoing {
        key: Some(Bytes::from_static(b"k1")),
        headers: vec![("h".into(), Bytes::from_static(b"v"))],
        value: Bytes::from_static(b"[1,2]"),
    };
    world.bus.append(&topic, 0, vec![record]).await.unwrap();
    let service = world.start();
    world.wait_started(1).await;
    service.stop().await;
    let wanted = json!({
        "topic": "orders", "partition": 0, "offset": 0, "timestampMs": START_MS,
        "key": "k1", "headers": { "h": "v" }, "value": [1, 2],
    });
    assert_eq!(world.started()[0].input, wanted);
}

#[tokio::test]
async fn records_that_are_gone_are_passed_over() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    for n in 0..10 {
        world.publish(&topic, 0, &values(n..n + 1)).await;
    }
    world.trigger(&on("orders", json!({})));
    let service = world.start();
    world.wait_started(10).await;
    service.stop().await;
    world.settle().await;
    for n in 10..20 {
        world.publish(&topic, 0, &values(n..n + 1)).await;
    }
    world.bus.cut(&topic, 0, 15..20);
    let service = world.start();
    world.wait_started(15).await;
    service.stop().await;
    world.settle().await;
    let wanted: Vec<u64> = (0..10).chain(15..20).collect();
    assert_eq!(by_source(&world).into_values().next().unwrap(), wanted);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_halts_only_its_partition() {
    let world = World::new().await;
    let topic = world.topic("orders", 2).await;
    for n in 0..10 {
        world.publish(&topic, 0, &values(n..n + 1)).await;
    }
    world.trigger(&on("orders", json!({})));
    let service = world.start();
    world.wait_started(10).await;
    service.stop().await;
    world.settle().await;
    world.bus.cut(&topic, 0, 0..5);
    let service = world.start();
    world.publish(&topic, 1, &values(100..103)).await;
    world.wait_started(13).await;
    service.stop().await;
    world.settle().await;
    assert_eq!((world.commands().await, world.repeats()), (13, 0));
}

#[tokio::test]
async fn a_topic_and_a_workflow_may_come_later() {
    let world = World::new().await;
    world.trigger(&on("later", json!({ "workflow": "later" })));
    let service = world.start();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let topic = world.topic("later", 1).await;
    world.publish(&topic, 0, &values(0..3)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.started().is_empty());
    world.workflow("later", json!({})).await;
    world.wait_started(3).await;
    service.stop().await;
}

#[tokio::test]
async fn two_triggers_on_one_topic_do_not_know_each_other() {
    let world = World::new().await;
    let topic = world.topic("orders", 1).await;
    world.trigger(&on("orders", json!({})));
    world.trigger(&on("orders", json!({ "id": "other" })));
    world.publish(&topic, 0, &values(0..10)).await;
    let service = world.start();
    world.wait_started(20).await;
    service.stop().await;
    let all: Vec<Vec<u64>> = by_source(&world).into_values().collect();
    assert_eq!(all, [(0..10).collect::<Vec<_>>(), (0..10).collect()]);
}
