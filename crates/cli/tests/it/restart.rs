//! What was accepted is there, whatever ends.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use nova_testkit::ledger::{self, Ledger};
use serde_json::json;

use crate::rig::Dev;

const CHAIN: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: chain }
spec:
  # An attempt that a kill cuts counts, and on a slow machine an execution meets all of them.
  defaults: { task: { retry: { maxAttempts: 10 } } }
  nodes:
    - { id: first, type: task, kind: sleep, with: { ms: 20 } }
    - { id: left, type: task, kind: echo, needs: [first], with: { n: "${ input.n }" } }
    - { id: right, type: task, kind: sleep, needs: [first], with: { ms: 30 } }
    - { id: last, type: task, kind: echo, needs: [left, right], with: { n: "${ nodes.left.output.n }" } }
  output: { n: "${ nodes.last.output.n }" }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_goes_on_with_all_that_was_accepted() {
    let mut dev = Dev::start();
    dev.apply(CHAIN).await;
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    let mut deaths = Vec::new();
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
        deaths.push(ledger::boot_ns());
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
    let ledger = Ledger::read(&dev.dir.path().join("ledger"), deaths).unwrap();
    let summary = ledger::check(&[ledger]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(summary.visits, 4 * accepted.len(), "each node was run: {summary:?}");
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
