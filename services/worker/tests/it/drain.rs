//! Rule 29: how a worker leaves.

use std::sync::Arc;

use nova_wire::v1::command::Kind;

use crate::rig::Rig;

/// Long: nothing here is about sessions that lapse.
const TTL_MS: u64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_that_was_given_before_the_drain_is_done_first() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    // Its assignment is committed, and not on the bus yet.
    rig.state.lock().leases = 1;
    worker.stop.cancel();
    rig.wait_for("the refused close", |state, _| state.closes >= 1).await;
    rig.assign(1, "quick").await;
    let said = rig.wait_said(1).await;
    assert!(matches!(said[..], [Kind::Result(_)]), "{said:?}");
    rig.state.lock().leases = 0;
    worker.ended().await.expect("it leaves in order");
    assert!(!rig.state.lock().open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_still_runs_when_the_drain_is_over_is_stopped_and_said_to_be() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start_on(Arc::new(rig.bus.clone()), "a", |config| config.drain_ms = 50);
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.state.lock().leases = 1;
    rig.assign(1, "polite").await;
    rig.wait_for("the attempt", |_, probe| probe.running() == 1).await;
    worker.stop.cancel();
    let said = rig.wait_said(1).await;
    assert!(matches!(said[..], [Kind::Stopped(_)]), "{said:?}");
    rig.state.lock().leases = 0;
    worker.ended().await.expect("it leaves in order");
    assert!(!rig.state.lock().open);
}
