//! `nova doctor` finds what is wrong with real clusters, and nothing in a healthy one.

use nova_testkit::{DevCluster, DevOptions, Dir, Nova, until};
use nova_wire::v1;
use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::rig::{SOON, nova, text};

/// Exit code, and what is not as it should be: state, check and subject.
async fn examined(arguments: &[&str]) -> (Option<i32>, Vec<(String, String, String)>, Value) {
    let mut command = tokio::process::Command::from(nova());
    command.args(["doctor", "--json"]).args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap();
    let said = text(&output.stdout);
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", text(&output.stderr)));
    let field = |it: &Value, name: &str| it[name].as_str().unwrap().to_owned();
    let all = said["findings"].as_array().unwrap().iter().filter(|it| it["state"] != "ok");
    let bad = all.map(|it| (field(it, "state"), field(it, "check"), field(it, "subject"))).collect();
    (output.status.code(), bad, said)
}

fn checks(bad: &[(String, String, String)]) -> Vec<(&str, &str)> {
    bad.iter().map(|(state, check, _)| (state.as_str(), check.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_cluster_has_no_finding_and_a_sick_one_has_its_own() {
    let binary = Nova::at(env!("CARGO_BIN_EXE_nova")).unwrap();
    let options = DevOptions { members: Some(3), ..DevOptions::default() };
    let mut cluster = DevCluster::start_in(&binary, &options, Dir::temporary().unwrap()).await.unwrap();
    cluster.rest().connected(1, SOON).await.unwrap();
    let urls = cluster.coordinators();
    let (all, api) = (urls.join(","), cluster.rest().url().to_owned());
    // What is the machine's is not judged here: other tests use its disk at the same time.
    let usual = ["--max-sync-ms", "100000", "--min-free-percent", "0", "--coordinator", &urls[1], "--api", &api];
    until("a cluster without findings", SOON, || async {
        let (code, bad, said) = examined(&usual).await;
        // A sync that was long once is told for a while.
        let bad: Vec<_> = bad.into_iter().filter(|it| it.1 != "fsync" && it.1 != "disk").collect();
        if bad.is_empty() && code.is_some_and(|code| code <= 1) { Ok(()) } else { Err(format!("{code:?} {said:#}")) }
    })
    .await
    .unwrap();
    let (_, _, said) = examined(&usual).await;
    let seen = |check: &str| said["findings"].as_array().unwrap().iter().filter(|it| it["check"] == check).count();
    let members = ["reachable", "settings", "clock", "fsync", "apply"].map(seen);
    assert_eq!(members, [3; 5], "each member was looked at: {said:#}");
    assert_eq!((seen("replication"), seen("events"), seen("commands")), (2, 1, 1), "{said:#}");

    // The same measures by limits that no machine keeps.
    let strict = ["--max-sync-ms", "0", "--min-free-percent", "101", "--coordinator", &all];
    let (code, bad, _) = examined(&strict).await;
    assert_eq!(code, Some(3));
    assert_eq!(bad.iter().filter(|it| it.1 == "fsync").count(), 3, "{bad:?}");
    assert_eq!(bad.iter().filter(|it| it.1 == "disk").count(), 3, "{bad:?}");

    let drained = tokio::process::Command::from(nova()).args(["--url", &api, "worker", "drain", "dev"]).output().await;
    assert!(drained.unwrap().status.success());
    let (_, bad, _) = examined(&usual).await;
    assert!(checks(&bad).contains(&("warn", "workers")), "{bad:?}");

    let leader = cluster.members().unwrap().leader(SOON).await.unwrap();
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.members().unwrap().processes()[other].kill();
    let (_, bad, _) = examined(&usual[..5].iter().copied().chain([all.as_str()]).collect::<Vec<_>>()).await;
    let gone = bad.iter().find(|it| it.1 == "reachable").unwrap_or_else(|| panic!("{bad:?}"));
    assert!(gone.0 == "warn" && gone.2.contains(&urls[other]), "{gone:?}");
    cluster.members().unwrap().processes()[third].kill();
    until("a group that nobody leads", SOON, || async {
        let (code, bad, _) = examined(&["--coordinator", &all]).await;
        let found = checks(&bad);
        let missing = found.iter().filter(|it| **it == ("fail", "reachable")).count();
        let lost = missing == 2 && (found.contains(&("fail", "leader")) || found.contains(&("fail", "shards")));
        if code == Some(3) && lost { Ok(()) } else { Err(format!("{code:?} {bad:?}")) }
    })
    .await
    .unwrap();
}

/// A member that says what it is told to say.
struct Fake {
    member: u64,
    /// All of them.
    urls: Vec<String>,
    fast_ms: u64,
    version: &'static str,
    free: u64,
}

#[tonic::async_trait]
impl Coordinator for Fake {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let members = (1..).zip(&self.urls).map(|(id, address)| v1::Member { id, address: address.clone() });
        Ok(Response::new(v1::DescribeResponse {
            member: self.member,
            leader: Some(1),
            term: 1,
            committed: 10,
            applied: 10,
            last: 10,
            members: members.collect(),
            voters: vec![1, 2, 3],
            shards: 8,
            version: self.version.into(),
            disk_free_bytes: self.free << 30,
            disk_total_bytes: 100 << 30,
            sync_median_us: if self.member == 3 { 80_000 } else { 100 },
            ..v1::DescribeResponse::default()
        }))
    }

    async fn get_clock(&self, _: Request<v1::GetClockRequest>) -> Result<Response<v1::GetClockResponse>, Status> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Ok(Response::new(v1::GetClockResponse { wall_ms: now.as_millis() as u64 + self.fast_ms }))
    }

    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Result<Response<v1::GetShardsResponse>, Status> {
        let shard = |shard| v1::ShardView {
            shard,
            position: Some(v1::ShardPosition { owner: Some(1), ..v1::ShardPosition::default() }),
            read_lag: 30_000,
            ..v1::ShardView::default()
        };
        Ok(Response::new(v1::GetShardsResponse { shards: (0..8).map(shard).collect() }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_clocks_mixed_builds_full_disks_and_lag_are_explained() {
    let mut listeners = Vec::new();
    for _ in 0..3 {
        listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let urls: Vec<_> = listeners.iter().map(|it| format!("http://{}", it.local_addr().unwrap())).collect();
    for (member, listener) in (1..).zip(listeners) {
        let fake = Fake {
            member,
            urls: urls.clone(),
            fast_ms: if member == 2 { 3_600_000 } else { 0 },
            version: if member == 3 { "0.2.0" } else { "0.1.0" },
            free: if member == 1 { 1 } else { 50 },
        };
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(CoordinatorServer::new(fake));
        tokio::spawn(server.serve_with_incoming(incoming));
    }
    let (code, bad, said) = examined(&["--coordinator", &urls[0]]).await;
    assert_eq!(code, Some(3));
    let member = |id: usize| format!("member {id} at {}", urls[id - 1]);
    let expected = [
        ("warn", "versions", "the group".to_owned()),
        ("fail", "clock", member(2)),
        ("warn", "fsync", member(3)),
        ("fail", "disk", member(1)),
        ("fail", "commands", "schedulers".to_owned()),
    ];
    let expected: Vec<_> = expected.map(|(state, check, of)| (state.to_owned(), check.to_owned(), of)).into();
    assert_eq!(bad, expected, "{said:#}");
    for it in said["findings"].as_array().unwrap().iter().filter(|it| it["state"] != "ok") {
        assert!(!it["advice"].as_str().unwrap().is_empty() && !it["limit"].as_str().unwrap().is_empty(), "{it:#}");
    }
    // For people: a table, and what to do.
    let mut command = tokio::process::Command::from(nova());
    let output = command.args(["doctor", "--coordinator", &urls[0]]).output().await.unwrap();
    let shown = text(&output.stdout);
    assert!(shown.contains("keep it so (chrony") && shown.contains(" ms off the median"), "{shown}");
}
