//! Shards are held with a bus and a lease, and given back without.

use std::time::Duration;

use nova_bus::Topic;

use crate::coordinator::SOMEBODY;
use crate::rig::{SHARDS, World};

#[tokio::test]
async fn who_has_no_bus_gives_its_shards_back_and_asks_for_none() {
    let world = World::new().await;
    world.member.change(|group| group.lease = Duration::from_millis(500));
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    world.bus.set(|faults| faults.gone = true);
    let leaves = |world: &World| world.see(|group| group.acquired.last().is_some_and(|last| last.leaving));
    world.wait_for("it leaves", leaves).await;
    assert_eq!(world.see(|group| group.acquired.last().unwrap().give_back.len()), SHARDS as usize);
    let asked = world.see(|group| group.acquired.len());
    world.break_link();
    world.wait_for("it is linked again", |world| world.see(|group| group.links == 1)).await;
    assert_eq!(world.see(|group| group.acquired.len()), asked, "it asks for nothing");
    world.bus.set(|faults| faults.gone = false);
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    service.stop().await;
    assert!(leaves(&world), "the last that it asks for is nothing");
}

#[tokio::test]
async fn who_is_told_that_shards_are_free_asks_at_once_and_waits_for_no_bus() {
    let world = World::new().await;
    // The next renewal of its own is far away.
    world.member.change(|group| group.lease = Duration::from_secs(3_600));
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    let asked = world.see(|group| group.acquired.len());
    world.bus.set(|faults| faults.gone = true);
    world.member.change(|group| group.news = true);
    world.wait_for("it asks", |world| world.see(|group| group.acquired.len() > asked)).await;
    assert!(world.see(|group| group.acquired.last().is_some_and(|last| last.held.len() == SHARDS as usize)));
    world.bus.set(|faults| faults.gone = false);
    service.stop().await;
}

#[tokio::test]
async fn a_shard_that_cannot_be_read_is_given_back_alone() {
    let world = World::new().await;
    world.member.change(|group| group.lease = Duration::from_millis(500));
    world.bus.set(|faults| faults.hanging.insert(2));
    let service = world.start();
    let back = |world: &World| world.see(|group| group.acquired.iter().any(|it| it.give_back == [2]));
    world.wait_for("shard 2 comes back", back).await;
    world.submit(1, 1).await;
    world.wait_open(1, 1).await;
    world.bus.set(|faults| faults.hanging.remove(&2));
    world.submit(2, 1).await;
    world.wait_open(2, 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_shard_whose_messages_cannot_be_published_is_given_back() {
    let world = World::new().await;
    world.member.change(|group| group.lease = Duration::from_millis(500));
    let service = world.start();
    world.bus.set(|faults| faults.deaf.insert(Topic::Events));
    world.submit(3, 1).await;
    let back = |world: &World| world.see(|group| group.acquired.iter().any(|it| it.give_back == [3]));
    world.wait_for("shard 3 comes back", back).await;
    world.bus.set(|faults| faults.deaf.remove(&Topic::Events));
    let published = |world: &World| world.see(|group| group.engine.shards[3].outbox.messages.is_empty());
    world.wait_for("its next owner publishes", published).await;
    service.stop().await;
}

#[tokio::test]
async fn a_shard_is_only_dropped_for_a_higher_epoch() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    world.member.change(|group| group.denied.insert(0));
    world.wait_for("it is denied", |world| world.see(|group| group.denied.is_empty())).await;
    world.wait_positions(1).await;
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    let released = |world: &World| world.see(|group| group.engine.shards[0].outbox.messages.is_empty());
    world.wait_for("what is published is acknowledged", released).await;
    assert_eq!(world.see(|group| group.epoch(0).0), 1);
    world.member.change(|group| group.grant(0, SOMEBODY));
    world.wait_for("shard 0 is read no more", |world| !world.is_read(0)).await;
    assert!(world.is_read(1));
    service.stop().await;
}

#[tokio::test]
async fn a_shard_that_others_should_have_is_given_back_at_once() {
    let world = World::new().await;
    world.member.change(|group| group.lease = Duration::from_millis(600));
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    // The next renewal after that one is minutes away.
    world.member.change(|group| {
        group.lease = Duration::from_secs(3_600);
        group.wanted_back.insert(1);
        group.to_give.remove(&1);
    });
    let back = |world: &World| world.see(|group| group.acquired.iter().any(|it| it.give_back == [1]));
    world.wait_for("shard 1 comes back", back).await;
    service.stop().await;
}
