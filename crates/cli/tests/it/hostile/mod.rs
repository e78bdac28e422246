//! Peers that mean harm. In each test an ordinary client is served all the while, memory stays bounded, and what is
//! refused in time for an answer has a typed one.

mod answers;
mod connections;
mod frames;
mod grpc;
mod limits;
mod slow;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use nova_testkit::until;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::rig::{Dev, NOOP, SOON, answer};

/// A cluster under attack, and somebody who only wants work done.
struct Attacked {
    dev: Dev,
    before_kib: u64,
    served: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    client: JoinHandle<()>,
}

impl Attacked {
    async fn start() -> Self {
        Self::on(Dev::start()).await
    }

    async fn on(dev: Dev) -> Self {
        nova_service_kit::raise_file_limit();
        dev.apply(NOOP).await;
        dev.run("noop", json!({})).await;
        let (served, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let client = tokio::spawn(ordinary(dev.path("/executions"), Arc::clone(&served), Arc::clone(&over)));
        let attacked = Self { before_kib: memory_kib(dev.pid(), "VmRSS"), dev, served, over, client };
        attacked.serves().await;
        attacked
    }

    /// Waits until the ordinary client has had two more results: one of them was asked for after this.
    async fn serves(&self) {
        let goal = self.served.load(Ordering::Acquire) + 2;
        until("the ordinary client to be served", SOON, || async {
            assert!(!self.client.is_finished(), "the ordinary client was refused");
            let served = self.served.load(Ordering::Acquire);
            if served >= goal { Ok(()) } else { Err(format!("{served} of {goal}")) }
        })
        .await
        .unwrap();
    }

    /// The attack is over: all is as it was, and the process never took more than this in addition.
    async fn end(self, attack: &str, most_mib: u64) {
        self.serves().await;
        self.over.store(true, Ordering::Release);
        self.client.await.unwrap();
        let peak = memory_kib(self.dev.pid(), "VmHWM");
        let grown_mib = peak.saturating_sub(self.before_kib) / 1_024;
        println!(
            "{attack}: {} MiB before, {grown_mib} MiB more at the most; {} executions of the ordinary client",
            self.before_kib / 1_024,
            self.served.load(Ordering::Acquire)
        );
        assert!(grown_mib <= most_mib, "{attack}: {grown_mib} MiB more; at most {most_mib}");
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.dev.pid())).unwrap().count()
    }
}

/// Each execution on a connection of its own, as that is harder to get.
async fn ordinary(url: String, served: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let http = Client::builder().timeout(SOON).pool_max_idle_per_host(0).build().unwrap();
    while !over.load(Ordering::Acquire) {
        let begun = Instant::now();
        loop {
            let request = http.post(&url).header("prefer", "wait=30").json(&json!({ "workflow": "noop" }));
            let (status, body) = answer(request.send().await.unwrap()).await;
            if status == 201 && body["state"] == "COMPLETED" {
                break;
            }
            assert!([202, 429, 503].contains(&status) && begun.elapsed() < SOON, "{status} {body:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        served.fetch_add(1, Ordering::AcqRel);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `VmRSS` is what is resident, `VmHWM` the most that ever was.
fn memory_kib(pid: u32, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn connect(address: &str) -> TcpStream {
    let stream = tokio::time::timeout(SOON, TcpStream::connect(address)).await.expect("it is taken").unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// So many connections, of which the other side knows: the kernel also takes those for which its queue has no room, and
/// nobody would ever hear of them.
async fn connect_all(address: &str, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    while open.len() < count {
        let wave = (count - open.len()).min(800);
        open.extend(join_all((0..wave).map(|_| connect(address))).await);
        let mut last = connect(address).await;
        last.write_all(frames::HELLO).await.unwrap();
        let answer = tokio::time::timeout(SOON, last.read_u8()).await.expect("it is taken");
        answer.expect("it is answered");
    }
    open
}

/// All that is said until the other side closes.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    let reading = tokio::time::timeout(SOON, stream.read_to_end(&mut said)).await.expect("it is closed");
    // A reset is an end too.
    let _ = reading;
    said
}

/// Sends a byte each 300 ms until it is closed on, and gives what was said.
async fn drip(mut stream: TcpStream, begin: &str) -> String {
    stream.write_all(begin.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let dripping = async {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        std::future::pending::<()>().await
    };
    tokio::select! {
        said = rest(&mut reading) => String::from_utf8_lossy(&said).into_owned(),
        () = dripping => unreachable!("it waits for the other side to close"),
    }
}

/// The status and the problem of an answer in HTTP/1.1.
fn problem(said: &str) -> (u16, Value) {
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {said:?}"));
    assert!(head.contains("application/problem+json"), "{said}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {said}")))
}
