use nova_bus::AppendError;
use serde_json::{Value, json};

use crate::rig::{START_MS, World};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn minutely(extra: Value) -> Value {
    let mut document = json!({ "id": "tick", "workflow": "w", "type": "cron", "schedule": "* * * * *" });
    document.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    document
}

/// Slots from the first minute on.
fn minutes(range: std::ops::RangeInclusive<u64>) -> Vec<u64> {
    range.map(|minute| START_MS + minute * MINUTE).collect()
}

#[tokio::test]
async fn one_execution_per_slot_in_order() {
    let world = World::new().await;
    world.trigger(&minutely(json!({})));
    let service = world.start();
    world.wait_sources(1).await;
    assert!(world.started().is_empty(), "the moment it is made is no slot");
    for minute in 1..=5 {
        world.clock.advance(MINUTE);
        world.wait_started(minute).await;
    }
    assert_eq!(world.numbers(), minutes(1..=5));
    let first = &world.started()[0];
    assert_eq!((first.version, first.started_by.as_str()), (1, "trigger:tick"));
    let at = START_MS + MINUTE;
    assert_eq!(first.input, json!({ "trigger": "tick", "slot": "2026-01-01T00:01:00Z", "slotMs": at }));
    service.stop().await;
    world.settle().await;
    assert_eq!((world.started().len(), world.repeats()), (5, 0));
}

#[tokio::test]
async fn slots_that_are_only_late_come_one_by_one() {
    let world = World::new().await;
    let every_second =
        json!({ "id": "tick", "workflow": "w", "type": "cron", "schedule": "* * * * * *", "catchUp": "none" });
    world.trigger(&every_second);
    let service = world.start();
    world.wait_sources(1).await;
    world.clock.advance(30_500);
    world.wait_started(30).await;
    let wanted: Vec<u64> = (1..=30).map(|second| START_MS + second * 1_000).collect();
    assert_eq!(world.numbers(), wanted);
    service.stop().await;
}

#[tokio::test]
async fn after_a_restart_it_goes_on_behind_the_last_slot() {
    for (catch_up, wanted) in [("none", vec![]), ("last", vec![185]), ("all", (6..=185).collect::<Vec<u64>>())] {
        let world = World::new().await;
        world.trigger(&minutely(json!({ "catchUp": catch_up })));
        let service = world.start();
        world.wait_sources(1).await;
        world.clock.advance(5 * MINUTE);
        // Five minutes at once are four missed slots and one that is late.
        let before = match catch_up {
            "all" => vec![1, 2, 3, 4, 5],
            _ => vec![4, 5],
        };
        world.wait_started(before.len()).await;
        service.stop().await;
        world.settle().await;

        world.clock.advance(3 * HOUR + MINUTE / 2 + MINUTE);
        let service = world.start();
        // The slot of minute 186 is half a minute old: late, not missed. That of 185 is missed.
        let wanted: Vec<u64> = match catch_up {
            "last" => vec![186],
            _ => wanted.into_iter().chain([186]).collect(),
        };
        world.wait_started(before.len() + wanted.len()).await;
        service.stop().await;
        world.settle().await;
        let all: Vec<u64> = before.into_iter().chain(wanted).map(|minute| START_MS + minute * MINUTE).collect();
        assert_eq!(world.numbers(), all, "{catch_up}");
    }
}

#[tokio::test]
async fn the_last_missed_slot_is_made_up_for() {
    let world = World::new().await;
    world.trigger(&json!({ "id": "h", "workflow": "w", "type": "cron", "schedule": "0 * * * *" }));
    let service = world.start();
    world.wait_sources(1).await;
    service.stop().await;
    // The first slots come while nothing runs: what was marked remembers since when.
    world.clock.advance(5 * HOUR + HOUR / 2);
    let service = world.start();
    world.wait_started(1).await;
    world.clock.advance(HOUR / 2);
    world.wait_started(2).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.numbers(), [START_MS + 5 * HOUR, START_MS + 6 * HOUR]);
    assert_eq!(world.marks().len(), 1);
}

#[tokio::test]
async fn many_services_start_each_slot_once() {
    let world = World::new().await;
    world.trigger(&minutely(json!({ "catchUp": "all" })));
    let services = [world.start(), world.start(), world.start()];
    world.wait_sources(1).await;
    for minute in 1..=10 {
        world.clock.advance(MINUTE);
        world.wait_started(minute).await;
    }
    for service in services {
        service.stop().await;
    }
    world.settle().await;
    assert_eq!(world.numbers(), minutes(1..=10));
    assert!(world.repeats() > 0, "all of them submit");
}

#[tokio::test]
async fn a_service_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let world = World::new().await;
    world.trigger(&minutely(json!({ "catchUp": "all" })));
    let first = world.start();
    world.wait_sources(1).await;
    first.kill().await;
    for minute in 1..=20 {
        let service = world.start();
        world.clock.advance(MINUTE);
        if minute % 3 == 0 {
            world.wait_started(minute).await;
        } else {
            tokio::task::yield_now().await;
        }
        service.kill().await;
    }
    let service = world.start();
    world.wait_started(20).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.numbers(), minutes(1..=20));
}

#[tokio::test]
async fn an_unknown_outcome_is_repeated_and_counts_once() {
    let world = World::new().await;
    world.trigger(&minutely(json!({ "catchUp": "all" })));
    let service = world.start();
    world.wait_sources(1).await;
    world.bus.refuse(Some(AppendError::OutcomeUnknown { why: "a test".into() }));
    world.clock.advance(3 * MINUTE);
    world.wait_for("a repeat", |world| world.repeats() > 1).await;
    assert_eq!(world.started().len(), 1, "the next slot only behind one that is known to be in the log");
    world.bus.refuse(None);
    world.wait_started(3).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.numbers(), minutes(1..=3));
}

#[tokio::test]
async fn without_bus_it_waits() {
    let world = World::new().await;
    world.trigger(&minutely(json!({ "catchUp": "all" })));
    let service = world.start();
    world.wait_sources(1).await;
    world.bus.refuse(Some(AppendError::NotSent { why: "a test".into() }));
    world.clock.advance(3 * MINUTE);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(world.started().is_empty());
    world.bus.refuse(None);
    world.wait_started(3).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.numbers(), minutes(1..=3));
}

#[tokio::test]
async fn an_input_that_breaks_the_schema_is_put_aside() {
    let world = World::new().await;
    world.workflow("strict", json!({ "type": "object", "required": ["n"] })).await;
    world.trigger(&minutely(json!({ "workflow": "strict", "input": { "m": 1 } })));
    let service = world.start();
    world.wait_sources(1).await;
    world.clock.advance(MINUTE);
    world.wait_for("a mark behind the slot", |world| world.marks().len() == 2).await;
    // A new version takes it.
    world.workflow("strict", json!({ "type": "object", "required": ["m"] })).await;
    service.stop().await;
    let service = world.start();
    world.clock.advance(MINUTE);
    world.wait_started(1).await;
    service.stop().await;
    world.settle().await;
    let [started] = &world.started()[..] else { panic!("one") };
    assert_eq!((started.number, started.version, &started.input), (START_MS + 2 * MINUTE, 2, &json!({ "m": 1 })));
    let letters = world.dead_letters().await;
    let [letter] = &letters[..] else { panic!("one letter, not {letters:?}") };
    assert_eq!((letter.offset, &letter.original[..]), (START_MS + MINUTE, &b"{\"m\":1}"[..]));
    assert!(letter.reason.starts_with("trigger.input.schema: ") && letter.topic.starts_with("trigger:tick@"));
}

#[tokio::test]
async fn a_trigger_waits_for_its_workflow_and_takes_the_newest_version() {
    let world = World::new().await;
    world.trigger(&minutely(json!({ "workflow": "later" })));
    world.trigger(
        &json!({ "id": "pinned", "workflow": "later", "version": 1, "type": "cron", "schedule": "* * * * *" }),
    );
    let service = world.start();
    world.wait_sources(2).await;
    world.clock.advance(MINUTE);
    world.workflow("later", json!({})).await;
    world.wait_started(2).await;
    world.workflow("later", json!({})).await;
    // The catalogue comes by itself; a slot that is fired before it may still take the version before.
    world
        .wait_for("the newest version", |world| {
            world.clock.advance(MINUTE);
            world.started().iter().any(|it| it.version == 2)
        })
        .await;
    service.stop().await;
    world.settle().await;
    assert!(world.started().iter().filter(|it| it.started_by == "trigger:pinned").all(|it| it.version == 1));
}

#[tokio::test]
async fn triggers_come_change_and_go() {
    let world = World::new().await;
    let service = world.start();
    world.trigger(&minutely(json!({})));
    world.wait_sources(1).await;
    world.clock.advance(MINUTE);
    world.wait_started(1).await;
    // Another schedule counts anew, from now on.
    world.trigger(&json!({ "id": "tick", "workflow": "w", "type": "cron", "schedule": "0 * * * *" }));
    world.wait_sources(2).await;
    world.clock.advance(HOUR - MINUTE);
    world.wait_started(2).await;
    world.delete_trigger("tick");
    world.trigger(&json!({ "id": "other", "workflow": "w", "type": "cron", "schedule": "0 * * * *" }));
    world.wait_sources(3).await;
    world.clock.advance(HOUR);
    world.wait_started(3).await;
    service.stop().await;
    world.settle().await;
    let by: Vec<String> = world.started().into_iter().map(|it| it.started_by).collect();
    assert_eq!(by, ["trigger:tick", "trigger:tick", "trigger:other"]);
    assert_eq!(world.numbers(), [START_MS + MINUTE, START_MS + HOUR, START_MS + 2 * HOUR]);
}

#[tokio::test]
async fn a_document_that_cannot_be_read_disturbs_nobody() {
    let world = World::new().await;
    world.trigger(&json!({ "id": "bad", "workflow": "w", "type": "cron", "schedule": "never" }));
    world.trigger(&minutely(json!({})));
    let service = world.start();
    world.wait_sources(1).await;
    world.clock.advance(MINUTE);
    world.wait_started(1).await;
    // It is repaired.
    world.trigger(&json!({ "id": "bad", "workflow": "w", "type": "cron", "schedule": "* * * * *" }));
    world.wait_sources(2).await;
    world.clock.advance(MINUTE);
    world.wait_started(3).await;
    service.stop().await;
}

#[tokio::test]
async fn a_shard_with_enough_to_do_gets_nothing() {
    let world = World::new().await;
    world.busy(true);
    world.trigger(&minutely(json!({ "catchUp": "all" })));
    let service = world.start();
    world.wait_sources(1).await;
    world.clock.advance(2 * MINUTE);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(world.started().is_empty());
    world.busy(false);
    world.wait_started(2).await;
    service.stop().await;
    world.settle().await;
    assert_eq!(world.numbers(), minutes(1..=2));
}

#[tokio::test]
async fn without_coordinator_it_waits() {
    let world = World::new().await;
    world.coordinator_down(true);
    world.trigger(&minutely(json!({})));
    let service = world.start();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(world.commands().await, 0);
    world.coordinator_down(false);
    world.wait_sources(1).await;
    world.clock.advance(MINUTE);
    world.wait_started(1).await;
    // And it stops, also without.
    world.coordinator_down(true);
    service.stop().await;
}
