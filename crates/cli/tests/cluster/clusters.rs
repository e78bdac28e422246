//! Clusters without Kafka outlive what they must.

use nova_testkit::{DevCluster, DevOptions, Dir, Error, Rest};
use serde_json::json;

use crate::{PATIENCE, nova};

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
async fn a_development_cluster_survives_a_kill() {
    let nova = nova();
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
async fn three_coordinators_outlive_their_leader() {
    let nova = nova();
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
