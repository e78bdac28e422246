//! Rule 24: what a worker does when its session lapses.

use std::time::Duration;

use crate::coordinator::Mode;
use crate::rig::Rig;

const TTL_MS: u64 = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_that_lapses_while_it_is_drained_does_nothing_more() {
    let rig = Rig::new(1, TTL_MS).await;
    rig.state.lock().drain_hangs = true;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    rig.assign(1, "deaf").await;
    rig.wait_for("the attempt", |_, probe| probe.running() == 1).await;
    worker.stop.cancel();
    rig.wait_for("the drain", |state, _| state.drains == 1).await;
    rig.state.lock().members[0] = Mode::Paused;
    rig.wait_for("the end of the attempt", |_, probe| probe.running() == 0).await;
    // From then on the leader may give the work to another.
    let lost = rig.state.lock().renewed.expect("one was answered").1 + Duration::from_millis(TTL_MS);
    let last = rig.probe.last_step().expect("it did something");
    assert!(last < lost, "it still worked {:?} after its session was lost", last - lost);
}
