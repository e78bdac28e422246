//! Results on their way.

use nova_bus::AppendError;
use nova_wire::v1::command::Kind;
use nova_wire::v1::task_result::Outcome;

use crate::rig::Rig;

const TTL_MS: u64 = 60_000;

/// Tokens, and the code of those that failed.
fn results(said: Vec<Kind>) -> Vec<(u64, Option<String>)> {
    let mut results: Vec<_> = said
        .into_iter()
        .map(|kind| match kind {
            Kind::Result(result) => {
                let code = match result.outcome.expect("it has one") {
                    Outcome::Completed(_) => None,
                    Outcome::Failed(failure) => Some(failure.code),
                };
                (result.lease.expect("it has one").token, code)
            }
            other => panic!("only results are expected, not {other:?}"),
        })
        .collect();
    results.sort();
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failure_that_is_far_too_large_arrives_and_so_do_its_neighbours() {
    let rig = Rig::new(1, TTL_MS).await;
    let worker = rig.start("a");
    rig.wait_for("a renewal", |state, _| state.renewed.is_some()).await;
    for (token, kind) in [(1, "deaf"), (2, "deaf"), (3, "large"), (4, "deaf"), (5, "deaf")] {
        rig.assign(token, kind).await;
    }
    rig.wait_for("all attempts", |_, probe| probe.running() == 5).await;
    // They end while the bus takes nothing, so that most of them go out together.
    rig.bus.refuse(Some(AppendError::NotSent { why: "a test".into() }));
    rig.probe.release();
    rig.wait_for("their ends", |_, probe| probe.ended() == 5).await;
    rig.bus.refuse(None);
    let said = rig.wait_said(5).await;
    assert_eq!(results(said), [(1, None), (2, None), (3, Some("a.large".into())), (4, None), (5, None)]);
    worker.stop().await.expect("nothing of it is open");
}
