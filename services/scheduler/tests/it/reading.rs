//! Reading begins where the coordinator says, on the log that was applied, and always again.

use nova_bus::{BusError, ReadError, Topic};

use crate::rig::World;

#[tokio::test]
async fn a_shard_is_read_on_when_its_log_could_not_be_asked_for_a_while() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    let asked = |world: &World| world.bus.see(|faults| faults.asked[&0]);
    world.bus.set(|faults| faults.hanging.insert(0));
    world.member.change(|group| group.lost.insert(0));
    let before = asked(&world);
    world.submit(0, 2).await;
    world.wait_positions(1).await;
    world.wait_for("a second question, the first had no answer", move |world| asked(world) > before + 1).await;
    world.bus.set(|faults| faults.hanging.remove(&0));
    world.wait_open(0, 2).await;
    service.stop().await;
}

#[tokio::test]
async fn a_partition_without_leader_holds_up_no_other() {
    let world = World::new().await;
    world.bus.set(|faults| faults.hanging.insert(0));
    let service = world.start();
    world.wait_for("shard 0 asks", |world| world.bus.see(|faults| faults.asked.contains_key(&0))).await;
    for number in 1..=20 {
        world.submit(1, number).await;
        world.wait_open(1, number).await;
    }
    assert!(!world.is_read(0));
    service.stop().await;
}

#[tokio::test]
async fn a_shard_whose_records_have_all_expired_is_not_halted() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    world.bus.memory.cut(&Topic::Commands, 0, 2..2);
    world.bus.set(|faults| faults.gone = true);
    world.break_link();
    world.wait_positions(1).await;
    world.bus.set(|faults| faults.gone = false);
    world.submit(0, 3).await;
    world.wait_open(0, 3).await;
    service.stop().await;
}

#[tokio::test]
async fn a_halted_shard_goes_on_when_its_topic_is_repaired() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    world.bus.memory.cut(&Topic::Commands, 0, 0..1);
    world.break_link();
    // Once for the link, then because it is halted.
    world.wait_positions(2).await;
    assert!(!world.is_read(0));
    // What was lost is restored, with the same bytes.
    world.submit(0, 2).await;
    world.submit(0, 3).await;
    world.wait_open(0, 3).await;
    assert_eq!(world.offsets(0), [0, 1, 2]);
    service.stop().await;
}

#[tokio::test]
async fn a_partition_that_did_not_exist_for_a_moment_is_read_again() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.wait_open(0, 1).await;
    let moved = |world: &World| world.bus.see(|faults| faults.moved.clone());
    let before = moved(&world);
    let error = BusError::NoSuchPartition { topic: Topic::Commands, partition: 0 };
    world.bus.set(|faults| faults.errors.push(error.into()));
    let earlier = before.clone();
    world.wait_for("shard 0 is read again", move |world| moved(world)[&0] > earlier[&0]).await;
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    assert_eq!(moved(&world)[&1], before[&1], "no other shard is moved");
    service.stop().await;
}

#[tokio::test]
async fn a_log_that_was_filled_anew_during_an_outage_is_not_taken_for_the_old_one() {
    let world = World::new().await;
    let service = world.start();
    world.submit(0, 1).await;
    world.submit(0, 2).await;
    world.wait_open(0, 2).await;
    world.bus.memory.cut(&Topic::Commands, 0, 0..1);
    world.submit(0, 7).await;
    let outage = BusError::Unavailable { why: "no broker".into() };
    world.bus.set(|faults| faults.errors.push(ReadError::Bus(outage)));
    // It is halted: a halted shard asks where it stands.
    world.wait_positions(2).await;
    world.submit(0, 8).await;
    world.submit(1, 1).await;
    world.wait_open(1, 1).await;
    assert_eq!(world.offsets(0), [0, 1], "nothing of the other log is proposed");
    service.stop().await;
}
