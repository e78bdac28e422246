//! Rule 23: a session outlives its leader.

use std::time::{Duration, Instant};

use crate::coordinator::Mode;
use crate::rig::Rig;

/// An election takes up to a third of this, as with the defaults.
const TTL: Duration = Duration::from_secs(6);

/// The leader changes from the first member to the last; meanwhile they tell each other wrong things for so long.
async fn the_session_outlives(old: Mode) {
    let rig = Rig::new(3, TTL.as_millis() as u64).await;
    let _worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.state.lock().members = vec![old, Mode::Follows(0), Mode::Follows(0)];
    let elected = Instant::now() + TTL / 6;
    rig.wait_for("the end of the election", |_, _| Instant::now() >= elected).await;
    rig.state.lock().members = vec![old, Mode::Follows(2), Mode::Leads];
    let renewed =
        |by: usize| move |state: &crate::coordinator::State| state.renewals.iter().filter(|it| **it == by).count();
    rig.wait_for("renewals by the new leader", |state, _| renewed(2)(state) >= 2 || state.registers.len() > 1).await;
    let state = rig.state.lock();
    assert_eq!(state.registers.len(), 1, "the session lapsed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_outlives_a_leader_that_was_deposed() {
    the_session_outlives(Mode::Follows(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_outlives_a_leader_that_is_paused() {
    the_session_outlives(Mode::Paused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_leader_that_answers_late_is_not_given_up() {
    let rig = Rig::new(1, TTL.as_millis() as u64).await;
    rig.state.lock().renewal_takes = TTL / 4;
    let _worker = rig.start("a");
    rig.wait_for("renewals", |state, _| state.renewals.len() >= 6 || state.registers.len() > 1).await;
    assert_eq!(rig.state.lock().registers.len(), 1, "the session lapsed");
}
