//! Durable means durable: the data sync is seen before the answer.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::rig::{Dev, NOOP, SOON};

/// Looks at the system calls of the process while it takes one submission: the record of the command and the entry of
/// the log are synced before the answer is written to the client's socket.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_is_synced_twice_before_it_is_answered() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    dev.run("noop", json!({})).await;
    let trace = dev.dir.path().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-tt", "-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg", "-s", "64", "-o"])
        .arg(&trace)
        .args(["-p", &dev.pid().to_string()])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("strace is there; scripts/setup.sh test installs it");
    let begun = Instant::now();
    // It is attached once it writes what the process does all the time.
    while std::fs::metadata(&trace).map_or(0, |meta| meta.len()) == 0 {
        assert!(begun.elapsed() < SOON, "strace does not attach");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, body) = dev.submit(&json!({ "workflow": "noop", "labels": { "x": "y" } }), &[]).await;
    assert_eq!(status, 201, "{body:#}");
    let id = body["id"].as_str().unwrap().to_owned();
    let killed = Command::new("kill").args(["-INT", &strace.id().to_string()]).status().unwrap();
    assert!(killed.success());
    strace.wait().unwrap();
    let text = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let answer = lines.iter().position(|line| line.contains("HTTP/1.1 201"));
    let answer = answer.unwrap_or_else(|| panic!("no answer for {id} in the trace:\n{text}"));
    let synced = |line: &&&str| {
        let done = line.contains("fdatasync(") && !line.contains("unfinished");
        (done || line.contains("fdatasync resumed")) && line.trim_end().ends_with("= 0")
    };
    let before = lines[..answer].iter().filter(synced).count();
    assert!(before >= 2, "{before} data syncs before the answer:\n{text}");
}
