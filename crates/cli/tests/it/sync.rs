//! Durable means durable: the data sync is seen before the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use nova_testkit::{DevCluster, DevOptions, Dir, Nova, until};
use serde_json::json;

use crate::rig::{Dev, NOOP, SOON};

/// Submits while the system calls of the processes are watched, and gives how many data syncs of its log each process had done when
/// the answer was written to the client's socket.
async fn synced(processes: &[u32], dir: &Path, submit: impl AsyncFnOnce()) -> Vec<usize> {
    let trace = dir.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg", "-s", "64", "-o"]).arg(&trace);
    for process in processes {
        strace.args(["-p", &process.to_string()]);
    }
    let mut strace = strace
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("strace is there; scripts/setup.sh test installs it");
    // It is attached to a process once it writes what the process does all the time.
    let attached = until("strace attached to all", SOON, || async {
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        let seen = |process: &u32| text.lines().any(|line| whose(processes, line) == Some(*process));
        if processes.iter().all(seen) { Ok(()) } else { Err(text) }
    });
    attached.await.unwrap_or_else(|error| panic!("{error}"));
    submit().await;
    let killed = Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap();
    assert!(killed.success());
    strace.wait().unwrap();
    let text = std::fs::read_to_string(&trace).unwrap();
    let answer = text.lines().position(|line| line.contains("HTTP/1.1 201"));
    let answer = answer.unwrap_or_else(|| panic!("no answer in the trace:\n{text}"));
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    let mut begun = BTreeSet::new();
    for line in text.lines().take(answer).filter(|line| line.contains("fdatasync")) {
        let thread = line.split_whitespace().next();
        let of_log = if line.contains("resumed") { begun.remove(&thread) } else { line.contains("/log/") };
        if of_log && line.contains("unfinished") {
            begun.insert(thread);
        } else if of_log && line.trim_end().ends_with("= 0") {
            *counts.entry(whose(processes, line).unwrap()).or_default() += 1;
        }
    }
    processes.iter().map(|process| counts.get(process).copied().unwrap_or(0)).collect()
}

/// The process whose thread made a call: its number stands first in the line.
fn whose(processes: &[u32], line: &str) -> Option<u32> {
    let thread = line.split_whitespace().next()?;
    processes.iter().copied().find(|process| Path::new(&format!("/proc/{process}/task/{thread}")).exists())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_is_synced_before_it_is_answered() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    dev.run("noop", json!({})).await;
    let submit = async || {
        let (status, body) = dev.submit(&json!({ "workflow": "noop", "labels": { "x": "y" } }), &[]).await;
        assert_eq!(status, 201, "{body:#}");
    };
    let syncs = synced(&[dev.pid()], dev.dir.path(), submit).await;
    // The entry of the log: with it the command is durable, whenever the bus writes its record.
    assert!(syncs[0] >= 1, "{syncs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_members_two_have_synced_before_the_answer() {
    let nova = Nova::at(env!("CARGO_BIN_EXE_nova")).unwrap();
    let options = DevOptions { members: Some(3), ..DevOptions::default() };
    let mut cluster = DevCluster::start_in(&nova, &options, Dir::temporary().unwrap()).await.unwrap();
    let rest = cluster.rest().clone();
    rest.apply(NOOP).await.unwrap();
    rest.run("noop", &json!({}), SOON).await.unwrap();
    let mut processes = vec![cluster.process().pid().unwrap()];
    processes.extend(cluster.members().unwrap().processes().iter().map(|it| it.pid().unwrap()));
    let submit = async || {
        rest.submit("noop", &json!({})).await.unwrap();
    };
    let syncs = synced(&processes, cluster.dir().path(), submit).await;
    let members = syncs[1..].iter().filter(|syncs| **syncs >= 1).count();
    assert!(members >= 2, "the entry of the log, on a majority: {syncs:?}");
}
