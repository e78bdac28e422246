//! `nova dev` as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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

/// A cluster in one process, in a directory of its own.
pub struct Dev {
    pub dir: TempDir,
    pub url: String,
    pub http: Client,
    child: Child,
}

impl Dev {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), &[])
    }

    pub fn start_in(dir: TempDir, wrapper: &[&str]) -> Self {
        let data = dir.path().join("data");
        let ledger = dir.path().join("ledger");
        let mut command = match wrapper.split_first() {
            None => nova(),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(env!("CARGO_BIN_EXE_nova"));
                command
            }
        };
        command.args(["dev", "--port", "0", "--announce", "--data"]).arg(data).arg("--ledger").arg(ledger);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("ready ").expect("it says where it is").to_owned();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().timeout(SOON).build().unwrap();
        Self { dir, url, http, child }
    }

    /// Ends it as a power cut would, as far as a process can see.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.dir, empty)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and gives what it ended with.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap()
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
        let _ = self.child.kill();
        let _ = self.child.wait();
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
