//! Offers are evaluated, whatever they cost.

use std::time::Duration;

use nova_engine::ids::{ShardId, Token};
use serde_json::json;

use crate::rig::World;

fn offers(world: &World, shard: u16) -> usize {
    world.see(|group| group.engine.offers(ShardId(shard), Token(0), 1_000).len())
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_that_take_longer_than_a_lease_cost_no_shard() {
    let world = World::new().await;
    world.member.change(|group| group.lease = Duration::from_millis(500));
    world.workflow("heavy", &json!({ "x": "${ input.n.all(x, input.n.all(y, x + y >= 0)) }" }));
    let input = json!({ "n": (0..1_000).collect::<Vec<u32>>() });
    const EXECUTIONS: u64 = 150;
    for number in 0..EXECUTIONS {
        world.append(0, world.submission(0, number, "heavy", &input)).await;
    }
    world.member.change(|group| group.silent = true);
    let service = world.start();
    world.wait_for("all are offered", |world| offers(world, 0) == EXECUTIONS as usize).await;
    world.member.change(|group| group.silent = false);
    world.wait_for("all are evaluated", |world| offers(world, 0) == 0).await;
    // Each of them is over the limit, and fails.
    assert_eq!(world.open(0), 0);
    let most = world.see(|group| group.proposed.iter().map(|it| it.locals.len()).max());
    assert!(most < Some(EXECUTIONS as usize), "the first are proposed while others are evaluated");
    service.stop().await;
}

#[tokio::test]
async fn a_workflow_that_cannot_be_compiled_fails_its_nodes() {
    let world = World::new().await;
    world.workflow("w", &json!({ "x": "${ input.n }" }));
    world.member.change(|group| group.damaged = true);
    let service = world.start();
    world.append(0, world.submission(0, 1, "w", &json!({ "n": 1 }))).await;
    let ended = |world: &World| {
        world.see(|group| group.engine.position(ShardId(0)).unwrap().next_offset.0) == 1 && world.open(0) == 0
    };
    world.wait_for("the execution fails", ended).await;
    service.stop().await;
}
