//! Processes that get few files, or no more memory.

use std::path::Path;
use std::process::Command;

use futures::future::join_all;
use nova_testkit::until;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{Attacked, connect, connect_all, memory_kib};
use crate::rig::{Dev, SOON};

/// What a process of `nova dev` may open here.
const FILES: usize = 512;
/// A body that is just allowed, and so many of them.
const BODY: usize = 1 << 20;
const BODIES: usize = 100;
/// What a process gets beyond what it has.
const MORE_KIB: u64 = 16 << 10;
/// Executions that are accepted before, and that have not ended when the process does.
const EXECUTIONS: usize = 50;
const WAITS: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: waits }, spec: { do: [ { id: a, type: wait, for: 5s } ] } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_files_connections_are_fewer_and_others_are_served() {
    let limit = format!("--nofile={FILES}:{FILES}");
    let attacked = Attacked::on(Dev::start_in(tempfile::tempdir().unwrap(), &["prlimit", &limit])).await;
    let open = connect_all(&attacked.dev.api(), 2 * FILES).await;
    attacked.serves().await;
    let files = attacked.files();
    assert!(files < FILES, "{files} files are open, and none is left for the next file of a log");
    drop(open);
    attacked.end("few files", 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_a_process_ends_and_loses_nothing_that_it_accepted() {
    let dev = Dev::start();
    dev.apply(WAITS).await;
    let mut accepted = Vec::new();
    for _ in 0..EXECUTIONS {
        let (status, body) = dev.submit(&json!({ "workflow": "waits" }), &[]).await;
        assert_eq!(status, 201, "{body:#}");
        accepted.push(body["id"].as_str().unwrap().to_owned());
    }
    let pid = dev.pid();
    let most = (memory_kib(pid, "VmData") + MORE_KIB) << 10;
    let limited = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--data={most}")]).status();
    assert!(limited.unwrap().success());
    let api = dev.api();
    let head = format!("POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n");
    let bodies = (0..BODIES).map(|_| async {
        let mut stream = connect(&api).await;
        // The last byte does not come; and there may be nobody any more who reads the others.
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&vec![b' '; BODY - 1]).await;
        stream
    });
    let open = join_all(bodies).await;
    until("the process to end", SOON, || async {
        let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"));
        match status {
            Ok(status) if !status.contains("State:\tZ") => Err(format!("it goes on: {status}")),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    drop(open);
    let dev = Dev::start_in(dev.kill(), &[]);
    for id in accepted {
        assert_eq!(dev.ended(&id).await["state"], "COMPLETED", "{id}");
    }
}
