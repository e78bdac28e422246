//! Rule 21: who may take a name.

use crate::rig::Rig;

const TTL_MS: u64 = 60_000;

/// Waits for some refused registrations, and that none of them claims to have seen the other session's end.
async fn waits_for(rig: &Rig, session: u64, before: usize) {
    rig.wait_for("some tries", |state, _| state.registers.len() >= before + 3).await;
    let state = rig.state.lock();
    assert!(state.open && state.last == session, "the session was taken over");
    let wrong = state.registers.iter().filter(|it| it.fenced && it.last_session == session);
    assert_eq!(wrong.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_on_a_new_directory_waits_until_its_name_is_free() {
    let rig = Rig::new(1, TTL_MS).await;
    {
        let mut state = rig.state.lock();
        (state.last, state.open) = (5, true);
    }
    let worker = rig.start("new");
    waits_for(&rig, 5, 0).await;
    rig.state.lock().open = false;
    rig.wait_for("its own session", |state, _| state.open && state.last == 6).await;
    worker.stop().await.expect("it leaves in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_comes_back_takes_over_its_own_session_at_once() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    worker.kill().await;
    let worker = rig.start("a");
    rig.wait_for("the next session", |state, _| state.last == 2).await;
    assert_eq!(rig.state.lock().registers.len(), 2);
    worker.stop().await.expect("it leaves in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_that_comes_back_leaves_its_twin_alone() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    worker.kill().await;
    // Another has the name by now.
    rig.state.lock().last = 2;
    let worker = rig.start("a");
    waits_for(&rig, 2, 1).await;
    rig.state.lock().open = false;
    rig.wait_for("its own session", |state, _| state.open && state.last == 3).await;
    worker.stop().await.expect("it leaves in order");
}
