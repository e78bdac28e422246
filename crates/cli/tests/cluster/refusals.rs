//! What cannot be promised is refused, in time; what was promised is kept.

use std::time::{Duration, Instant};

use nova_testkit::{Cluster, ClusterOptions, DevCluster, DevOptions, Dir, Error, MembersOptions, Rest, until};
use serde_json::json;

use crate::{PATIENCE, nova};

const NOOP: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: noop }, spec: { do: [ { id: a, type: task, kind: noop } ] } }";
/// Longer than any request may take that cannot be served.
const HANG: Duration = Duration::from_secs(25);

/// Submits under new keys until one is refused with this status; gives the keys that may have been taken.
async fn refused(rest: &Rest, wanted: u16, name: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let end = Instant::now() + PATIENCE;
    loop {
        let key = format!("{name}-{}", keys.len());
        let begun = Instant::now();
        let answer = rest.submit_once("noop", &json!({}), &key).await;
        assert!(begun.elapsed() < HANG, "it hung: {answer:?}");
        match answer {
            Err(Error::Refused { status, code, body, .. }) if status == wanted => {
                let right = if wanted == 503 { "unavailable" } else { "OUTCOME_UNKNOWN" };
                assert_eq!(code, right, "{body}");
                if wanted == 504 {
                    keys.push(key);
                }
                return keys;
            }
            Ok(_) | Err(Error::Refused { status: 503 | 504, .. }) => keys.push(key),
            Err(error) => panic!("{}", error.chain()),
        }
        assert!(Instant::now() < end, "never refused with {wanted}");
    }
}

/// Repeats each key until it is accepted, and waits for its end; then there are as many executions as keys.
async fn kept(rest: &Rest, keys: &[String]) {
    for key in keys {
        let id = until("acceptance", PATIENCE, || async {
            let answer = rest.submit_once("noop", &json!({}), key).await;
            answer.map(|it| it.id).map_err(|error| error.chain())
        })
        .await
        .unwrap();
        let ended =
            until("the end", PATIENCE, || async { rest.wait(&id, PATIENCE).await.map_err(|error| error.chain()) });
        assert_eq!(ended.await.unwrap().state, "COMPLETED");
    }
    until("the history of all", PATIENCE, || async {
        let all = rest.list_all("noop").await.map_err(|error| error.chain())?.len();
        if all == keys.len() { Ok(()) } else { Err(format!("{all} executions, {} keys", keys.len())) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_submissions_are_refused_and_none_is_lost_or_doubled() {
    let options = DevOptions { members: Some(3), ..DevOptions::default() };
    let mut cluster = DevCluster::start_in(&nova(), &options, Dir::temporary().unwrap()).await.unwrap();
    let rest = cluster.rest().clone();
    rest.apply(NOOP).await.unwrap();
    let members = cluster.members().unwrap();
    let leader = members.leader(PATIENCE).await.unwrap();
    let others: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    for other in &others {
        members.processes()[*other].kill();
    }
    let mut keys = refused(&rest, 503, "cut").await;
    let read = tokio::time::timeout(HANG, rest.workers()).await.expect("reads do not hang either");
    assert!(matches!(read, Err(Error::Refused { status: 503, .. })), "{read:?}");
    let members = cluster.members().unwrap();
    for other in &others {
        members.processes()[*other].start().unwrap();
    }
    members.ready(PATIENCE).await.unwrap();
    keys.push("after".into());
    kept(&rest, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_submissions_are_refused_and_none_is_lost_or_doubled() {
    let options = ClusterOptions {
        members: MembersOptions { count: 1, shards: 4, ..MembersOptions::default() },
        schedulers: 1,
        workers: 1,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(&nova(), &options, Dir::temporary().unwrap()).await.unwrap();
    let rest = cluster.rest().clone();
    rest.apply(NOOP).await.unwrap();
    // It stands still: what is handed over now is neither refused nor acknowledged.
    cluster.kafka().pause(None).await.unwrap();
    let mut keys = refused(&rest, 504, "held").await;
    cluster.kafka().resume(None).await.unwrap();
    cluster.kafka().crash(None).await.unwrap();
    keys.extend(refused(&rest, 503, "down").await);
    cluster.kafka().restart().await.unwrap();
    keys.push("after".into());
    kept(&rest, &keys).await;
}
