//! `nova dev` as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use nova_testkit::{DevCluster, DevOptions, Dir, Nova};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for something that must come.
pub const SOON: Duration = Duration::from_secs(60);

pub const NOOP: &str = "{ apiVersion: nova/v1, kind: Workflow, metadata: { name: noop }, spec: { do: [ { id: a, type: task, kind: noop } ] } }";

pub fn nova() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nova"));
    command.env_remove("NOVA_URL").env_remove("NOVA_LOG").env_remove("NOVA_NAMESPACE");
    command
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Waits on a thread and a runtime of its own, so that tests need not be asynchronous for this.
fn wait<T: Send>(work: impl AsyncFnOnce() -> nova_testkit::Result<T> + Send) -> T {
    let waiting = || tokio::runtime::Runtime::new().unwrap().block_on(work());
    let done = std::thread::scope(|scope| scope.spawn(waiting).join()).expect("waiting does not panic");
    done.unwrap_or_else(|error| panic!("{error}"))
}

/// A cluster in one process, in a directory of its own.
pub struct Dev {
    cluster: DevCluster,
    pub url: String,
    pub http: Client,
    // Last: it is removed when nobody writes into it any more.
    pub dir: TempDir,
}

impl Dev {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    pub fn start_in(dir: TempDir, wrapper: &[&str]) -> Self {
        let nova = Nova::at(env!("CARGO_BIN_EXE_nova")).unwrap();
        let wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        let options = DevOptions { ledger: true, wrapper, ..DevOptions::default() };
        let kept = Dir::kept(dir.path()).unwrap();
        let cluster = wait(async || DevCluster::start_in(&nova, &options, kept).await);
        let url = cluster.rest().url().to_owned();
        let http = Client::builder().timeout(SOON).build().unwrap();
        Self { cluster, url, http, dir }
    }

    /// Ends it as a power cut would, as far as a process can see.
    pub fn kill(mut self) -> TempDir {
        self.cluster.kill();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.cluster.pid().expect("it runs")
    }

    /// Where its coordinator answers: `host:port`.
    pub fn coordinator(&self) -> String {
        self.cluster.coordinators()[0].trim_start_matches("http://").to_owned()
    }

    /// Where its api answers: `host:port`.
    pub fn api(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    /// Asks it to end, and gives what it ended with.
    pub fn stop(&mut self) -> ExitStatus {
        wait(async || self.cluster.process().stop(SOON).await).expect("it ran")
    }

    pub fn path(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.url)
    }

    pub async fn apply(&self, document: &str) -> Value {
        let response = self.http.post(self.path("/workflows")).body(document.to_owned()).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{body:#}");
        body
    }

    pub async fn submit(&self, body: &Value, headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = self.http.post(self.path("/executions")).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send().await.unwrap()).await
    }

    /// Starts an execution and waits for its end.
    pub async fn run(&self, workflow: &str, input: Value) -> Value {
        let body = json!({ "workflow": workflow, "input": input });
        let (status, body) = self.submit(&body, &[("prefer", "wait=30")]).await;
        assert_eq!(status, 201, "{body:#}");
        body
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(self.path(path)).send().await.unwrap()).await
    }

    /// Waits until an execution has ended.
    pub async fn ended(&self, id: &str) -> Value {
        let begun = Instant::now();
        loop {
            let request = self.http.get(self.path(&format!("/executions/{id}/result"))).header("prefer", "wait=10");
            let (status, body) = answer(request.send().await.unwrap()).await;
            if status == 200 {
                return body;
            }
            assert!(status == 202 || status == 503, "{status} {body:#}");
            assert!(begun.elapsed() < SOON, "{id} does not end");
        }
    }

    /// Runs `nova` against it.
    pub fn nova(&self, arguments: &[&str]) -> Output {
        nova().env("NOVA_URL", &self.url).args(arguments).current_dir(root()).output().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.cluster.process().tail());
        }
    }
}

pub async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
