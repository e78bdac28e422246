//! Rule 18: attempts that do not end when they are told to.

use nova_wire::v1::command::Kind;
use nova_worker::RunError;

use crate::rig::Rig;

const TTL_MS: u64 = 60_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_attempt_that_does_not_hear_is_dropped_and_said_to_be_stopped() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.assign(1, "deaf").await;
    rig.wait_for("the attempt", |_, probe| probe.running() == 1).await;
    rig.revoke(1).await;
    let said = rig.wait_said(1).await;
    assert!(matches!(said[..], [Kind::Stopped(_)]), "{said:?}");
    assert_eq!(rig.probe.running(), 0);
    worker.stop().await.expect("it leaves in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_closed_session_ends_although_an_attempt_does_not_hear() {
    let rig = Rig::new(1, 3_000).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.assign(1, "deaf").await;
    rig.wait_for("the attempt", |_, probe| probe.running() == 1).await;
    // The leader gave it up; the worker comes back.
    rig.state.lock().open = false;
    rig.wait_for("another session", |state, _| state.open && state.last == 2).await;
    assert_eq!(rig.probe.running(), 0);
    worker.stop().await.expect("it leaves in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_attempt_that_holds_a_thread_ends_the_worker_with_an_error() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.assign(7, "thread").await;
    rig.wait_for("the attempt", |_, probe| probe.running() == 1).await;
    rig.revoke(7).await;
    let ended = worker.ended().await;
    assert!(matches!(ended, Err(RunError::Stuck { token: 7 })), "{ended:?}");
    // What it held may not be given to another while it runs: nothing is said of it.
    assert!(rig.said().await.is_empty());
    rig.probe.release();
}
