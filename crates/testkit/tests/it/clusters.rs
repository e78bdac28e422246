//! Whole clusters: they need a `nova` binary, those on Kafka also Java and Maven.

use std::time::Duration;

use nova_testkit::{Cluster, ClusterOptions, DevCluster, DevOptions, Dir, Error, MembersOptions, Nova, Rest};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const WORKFLOW: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: give-back }
spec:
  nodes:
    - { id: echo, type: task, kind: echo, with: { n: "${ input.n }" } }
  output: "${ nodes.echo.output.n }"
"#;

async fn works(rest: &Rest, n: u32) -> String {
    rest.apply(WORKFLOW).await.expect("the workflow is stored");
    let execution = rest.run("give-back", &json!({ "n": n }), PATIENCE).await.expect("it ends");
    assert_eq!((execution.state.as_str(), execution.output), ("COMPLETED", Some(json!(n))));
    execution.id
}

#[tokio::test]
#[ignore = "needs a nova binary: NOVA_BIN=... cargo test -p nova-testkit -- --ignored"]
async fn a_development_cluster_survives_a_kill() {
    let nova = Nova::binary().unwrap();
    let mut cluster = DevCluster::start(&nova).await.unwrap();
    let first = works(cluster.rest(), 1).await;
    let accepted = cluster.rest().submit_once("give-back", &json!({ "n": 2 }), "two").await.unwrap();
    cluster.kill();
    assert!(matches!(cluster.rest().get(&first).await, Err(Error::Unanswered { .. })));
    cluster.restart().await.unwrap();
    let ended = cluster.rest().wait(&accepted.id, PATIENCE).await.unwrap();
    assert_eq!(ended.output, Some(json!(2)));
    let again = cluster.rest().submit_once("give-back", &json!({ "n": 2 }), "two").await.unwrap();
    assert!(again.repeated && again.id == accepted.id);
    assert_eq!(cluster.rest().list_all("give-back").await.unwrap().len(), 2);
    assert!(cluster.usage().unwrap()["all_in_one"].rss_bytes > 0);
}

#[tokio::test]
#[ignore = "needs a nova binary: NOVA_BIN=... cargo test -p nova-testkit -- --ignored"]
async fn three_coordinators_outlive_their_leader() {
    let nova = Nova::binary().unwrap();
    let options = DevOptions { members: Some(3), ..DevOptions::default() };
    let mut cluster = DevCluster::start_in(&nova, &options, Dir::temporary().unwrap()).await.unwrap();
    works(cluster.rest(), 1).await;
    let members = cluster.members().unwrap();
    let old = members.leader(PATIENCE).await.unwrap();
    members.processes()[old].kill();
    let new = members.leader(PATIENCE).await.unwrap();
    assert_ne!(old, new);
    works(cluster.rest(), 2).await;
    let members = cluster.members().unwrap();
    members.processes()[old].start().unwrap();
    members.ready(PATIENCE).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a nova binary, Java and Maven: NOVA_BIN=... cargo test -p nova-testkit -- --ignored"]
async fn a_cluster_on_kafka_runs_a_workflow() {
    let nova = Nova::binary().unwrap();
    let options = ClusterOptions {
        members: MembersOptions { count: 1, shards: 8, ..MembersOptions::default() },
        schedulers: 1,
        workers: 2,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(&nova, &options, Dir::temporary().unwrap()).await.unwrap();
    works(cluster.rest(), 1).await;
    cluster.kafka().crash(Some(1)).await.unwrap();
    assert_eq!(cluster.kafka().pid(1), None);
    cluster.kafka().restart().await.unwrap();
    works(cluster.rest(), 2).await;
    let usage = cluster.usage().unwrap();
    assert_eq!(usage.keys().copied().collect::<Vec<_>>(), ["api", "bus", "coordinator", "scheduler", "worker"]);
}
