//! `nova doctor` compares topics with what the cluster needs, and makes none.

use nova_testkit::{Dir, Kafka};
use serde_json::Value;

use crate::nova;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_missing_topics_are_named() {
    let dir = Dir::temporary().unwrap();
    let kafka = Kafka::start(1, false, &dir.path().join("kafka")).await.unwrap();
    let brokers = ["--bootstrap", kafka.bootstrap()];
    nova().run(["admin", "topics", "--replicas", "1"].into_iter().chain(brokers)).await.unwrap();
    let examined = async |more: &[&str]| {
        let mut command = tokio::process::Command::new(nova().path());
        // Nobody is there: the layout is the usual one.
        command.args(["doctor", "--json", "--coordinator", "http://127.0.0.1:9"]).args(brokers).args(more);
        let said: Value = serde_json::from_slice(&command.output().await.unwrap().stdout).unwrap();
        let all = said["findings"].as_array().unwrap().iter().filter(|it| it["check"] == "topics").cloned();
        all.collect::<Vec<_>>()
    };
    let good = examined(&["--replicas", "1"]).await;
    assert!(good.len() == 5 && good.iter().all(|it| it["state"] == "ok"), "{good:#?}");
    let bad = examined(&["--replicas", "1", "--events", "5"]).await;
    let bad: Vec<_> = bad.iter().filter(|it| it["state"] == "fail").collect();
    assert!(bad.len() == 1 && bad[0]["found"] == "it has 4 partitions and should have 5", "{bad:#?}");
    let bad = examined(&["--replicas", "3"]).await;
    let said = |it: &Value| it["found"].as_str().unwrap().contains("min.insync.replicas is 1 and should be 2");
    assert!(bad.iter().all(|it| it["state"] == "fail" && said(it)), "{bad:#?}");
    for _ in 0..2 {
        let none = examined(&["--replicas", "1", "--prefix", "other."]).await;
        assert!(none.len() == 5 && none.iter().all(|it| it["found"] == "it does not exist"), "{none:#?}");
    }
}
