//! What was accepted is there, whatever ends.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::rig::Dev;

const CHAIN: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: chain }
spec:
  nodes:
    - { id: first, type: task, kind: sleep, with: { ms: 20 } }
    - { id: left, type: task, kind: echo, needs: [first], with: { n: "${ input.n }" } }
    - { id: right, type: task, kind: sleep, needs: [first], with: { ms: 30 } }
    - { id: last, type: task, kind: echo, needs: [left, right], with: { n: "${ nodes.left.output.n }" } }
  output: { n: "${ nodes.last.output.n }" }
"#;

/// Begun and ended attempts, as the worker wrote them before and after each.
fn ledger(dev: &Dev) -> Vec<Value> {
    let text = std::fs::read_to_string(dev.dir.path().join("ledger")).unwrap();
    // The last line may be torn by the kill.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_goes_on_with_all_that_was_accepted() {
    let mut dev = Dev::start();
    dev.apply(CHAIN).await;
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..3_u64 {
        let submissions = (0..60).map(|n| {
            let n = round * 1_000 + n;
            let body = json!({ "workflow": "chain", "input": { "n": n } });
            let dev = &dev;
            async move { (n, dev.submit(&body, &[]).await) }
        });
        for (n, (status, body)) in join_all(submissions).await {
            assert_eq!(status, 201, "{body:#}");
            accepted.insert(body["id"].as_str().unwrap().to_owned(), n);
        }
        let dir = dev.kill();
        dev = Dev::start_in(dir, &[]);
    }
    for (id, n) in &accepted {
        let result = dev.ended(id).await;
        assert_eq!((&result["state"], &result["output"]), (&json!("COMPLETED"), &json!({ "n": n })), "{id}");
    }
    let (_, list) = dev.get("/executions?limit=500").await;
    let listed: BTreeSet<_> =
        list["executions"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, accepted.keys().cloned().collect(), "each accepted one is there, and no other");
    // Within one session of the worker no two attempts of a node are alive at once, and tokens only grow.
    let mut alive: BTreeMap<(String, String, u64), u64> = BTreeMap::new();
    let mut highest: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in ledger(&dev) {
        let field = |name: &str| line[name].as_str().unwrap().to_owned();
        let (execution, node) = (field("execution"), field("node"));
        let (token, session) = (line["token"].as_u64().unwrap(), line["session"].as_u64().unwrap());
        let key = (execution.clone(), node.clone(), session);
        if line["what"] == "begin" {
            assert_eq!(alive.insert(key, token), None, "two live leases of {execution}/{node}");
            let before = highest.insert((execution, node), token);
            assert!(before.is_none_or(|before| before < token), "a token came twice or shrank");
        } else {
            assert_eq!(alive.remove(&key), Some(token));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_when_asked_and_a_directory_has_one_owner() {
    let mut dev = Dev::start();
    let second = dev.nova(&["dev", "--port", "0", "--data", dev.dir.path().join("data").to_str().unwrap()]);
    assert!(!second.status.success());
    assert!(crate::rig::text(&second.stderr).contains("in use by another process"), "{second:?}");
    dev.apply(crate::rig::NOOP).await;
    dev.run("noop", json!({})).await;
    assert!(dev.stop().success());
}
