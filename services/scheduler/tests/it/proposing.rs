//! What is refused costs the shard that it is refused to, and no other.

use nova_bus::{Bus, Topic};
use nova_wire::v1;
use prost::Message;

use crate::rig::{World, seal};

#[tokio::test]
async fn a_full_outbox_stops_one_shard_until_it_is_published() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.submit(1, 1).await;
    world.wait_open(0, 1).await;
    world.wait_open(1, 1).await;
    let moved = |shard: u32| world.bus.see(|faults| faults.moved[&shard]);
    let (moved_0, moved_1) = (moved(0), moved(1));
    world.bus.set(|faults| faults.deaf.insert(Topic::Events));
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    let waits = |world: &World| world.see(|group| !group.engine.shards[0].outbox.messages.is_empty());
    world.wait_for("messages wait", waits).await;
    world.member.change(|group| group.full.insert(0));
    world.submit(0, 3).await;
    world.wait_for("it is refused", |world| world.offsets(0) == [0, 1, 2]).await;
    world.wait_for("shard 0 is read no more", |world| !world.is_read(0)).await;
    world.wait_positions(1).await;
    world.submit(1, 2).await;
    world.wait_open(1, 2).await;
    assert_eq!(world.offsets(0), [0, 1, 2], "nothing more is proposed");
    assert_eq!((moved(1), world.offsets(1)), (moved_1, vec![0, 1]), "the other shard stays where it is");
    assert!(!world.is_read(0));
    world.member.change(|group| group.full.remove(&0));
    world.bus.set(|faults| faults.deaf.remove(&Topic::Events));
    world.wait_open(0, 3).await;
    assert!(moved(0) > moved_0);
    service.stop().await;
}

#[tokio::test]
async fn messages_of_all_shards_for_one_partition_share_its_appends() {
    let world = World::new().await;
    let service = world.start();
    world.bus.set(|faults| faults.deaf.insert(Topic::Events));
    let messages = |world: &World, shard: usize| world.see(|group| group.engine.shards[shard].outbox.messages.len());
    for shard in 0..3 {
        world.submit(shard, 1).await;
        world.wait_open(shard, 1).await;
        world.wait_for("its messages wait", |world| messages(world, shard as usize) > 0).await;
    }
    world.bus.set(|faults| {
        faults.deaf.remove(&Topic::Events);
        faults.appended.clear();
    });
    world.wait_for("all is published", |world| (0..3).all(|shard| messages(world, shard) == 0)).await;
    let appended = world.bus.see(|faults| faults.appended[&Topic::Events].clone());
    assert!(appended.len() < appended.iter().sum(), "a record for each shard, and fewer appends: {appended:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_not_passed_over() {
    let world = World::new().await;
    let service = world.start();
    let newer = v1::Envelope { version: 2, cluster: crate::rig::cluster().0.to_vec().into(), ..Default::default() };
    world.submit(0, 1).await;
    world.append(0, newer.encode_to_vec().into()).await;
    world.submit(0, 2).await;
    world.wait_open(0, 1).await;
    // A halted shard asks where it stands.
    world.wait_positions(2).await;
    world.submit(1, 1).await;
    world.wait_open(1, 1).await;
    assert_eq!(world.offsets(0), [0], "what stands before it is taken, and nothing else");
    let letters = world.bus.memory.offsets(&Topic::DeadLetter, 0).await.unwrap();
    assert!(letters.is_empty());
    service.stop().await;
}

#[tokio::test]
async fn commands_that_nobody_understands_are_put_aside() {
    let world = World::new().await;
    let service = world.start();
    world.append(0, seal(0, vec![v1::Command { kind: None }])).await;
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    assert_eq!(world.offsets(0), [0, 1]);
    let empty = world.see(|group| group.proposed.iter().flat_map(|it| it.records.clone()).next().unwrap());
    assert!(empty.commands.is_empty());
    let mut reader = world.bus.memory.reader().unwrap();
    reader.assign(&Topic::DeadLetter, 0, 0).unwrap();
    let batch = reader.next(std::time::Duration::from_secs(60)).await.unwrap().expect("a dead letter");
    let opened = nova_wire::open(&batch.records[0].value, crate::rig::cluster()).unwrap();
    let letter = v1::DeadLetter::decode(opened.body).unwrap();
    assert_eq!((letter.partition, letter.offset), (0, 0));
    service.stop().await;
}
