//! A disk that is full: what was accepted stays, what is not accepted is said so, and room is all that is needed.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nova_testkit::ledger::{self, Ledger};
use nova_testkit::until;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::directories::{refused, shown};
use crate::rig::{SOON, answer, nova};

const MIB: usize = 1 << 20;

/// Input, argument and output are as large as they may be: each execution leaves a lot on the disk.
const LARGE: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: large }
spec:
  nodes:
    - { id: a, type: task, kind: echo, timeout: 60s, with: "${ input }" }
"#;

/// A small file system in memory that is seen only by those who enter it, and goes with the process that holds it.
struct SmallDisk {
    holder: Child,
    dir: TempDir,
}

impl SmallDisk {
    fn new(mib: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = format!("mount -t tmpfs -o size={mib}m nova {} && echo mounted && exec cat", dir.path().display());
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &mount])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there, as part of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n", "a file system can be mounted: this test needs root, as in CI");
        Self { holder, dir }
    }

    /// A place on it, as those see it who are inside.
    fn inside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same place, as this process sees it.
    fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.inside(name).strip_prefix("/").unwrap())
    }

    /// Takes space from everybody else.
    fn ballast(&self, name: &str, mib: usize) {
        fs::write(self.outside(name), vec![1; mib * MIB]).unwrap();
    }

    /// Takes all the space that is left.
    fn fill(&self, name: &str) {
        let mut file = fs::File::create(self.outside(name)).unwrap();
        for size in [MIB, 4_096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.outside(name)).unwrap();
    }

    /// `nova` on it.
    fn nova(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--"]).arg(nova().get_program());
        command.env_remove("NOVA_URL").env_remove("NOVA_LOG").env_remove("NOVA_NAMESPACE");
        command
    }

    /// `nova dev` on it.
    fn dev(&self) -> Command {
        let mut command = self.nova();
        command.args(["dev", "--port", "0", "--announce", "--data"]).arg(self.inside("data"));
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// `nova dev` on a small disk.
struct Dev {
    child: Child,
    url: String,
    http: Client,
    errors: PathBuf,
}

impl Dev {
    /// Starts it; its ledger and its error output are elsewhere, since they must always be written.
    fn start(disk: &SmallDisk, elsewhere: &Path) -> Self {
        let errors = elsewhere.join("errors");
        let file = fs::OpenOptions::new().create(true).append(true).open(&errors).unwrap();
        let mut command = disk.dev();
        command.arg("--ledger").arg(elsewhere.join("ledger"));
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(url) = line.trim().strip_prefix("ready ").map(str::to_owned) else {
            panic!("it did not start: {}", fs::read_to_string(errors).unwrap());
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { child, url, http: Client::builder().timeout(SOON).build().unwrap(), errors }
    }

    async fn apply(&self, document: String) -> Result<(u16, Value), reqwest::Error> {
        let sent = self.http.post(format!("{}/api/v1/workflows", self.url)).body(document).send().await?;
        Ok(answer(sent).await)
    }

    /// Submits many, and gives the ids of those that were accepted and the problems of the others.
    async fn submit(&self, count: usize) -> (Vec<String>, Vec<Value>) {
        let line = json!({ "workflow": "large", "input": { "text": "x".repeat(15_000) } }).to_string() + "\n";
        let request = self.http.post(format!("{}/api/v1/executions/batch", self.url)).body(line.repeat(count));
        let text = request.send().await.unwrap().text().await.unwrap();
        let (mut accepted, mut problems) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            match line["id"].as_str() {
                Some(id) => accepted.push(id.to_owned()),
                None => problems.push(line["problem"].clone()),
            }
        }
        assert_eq!(accepted.len() + problems.len(), count, "{text}");
        (accepted, problems)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(format!("{}/api/v1{path}", self.url)).header("prefer", "wait=10");
        answer(request.send().await.unwrap()).await
    }

    async fn completed(&self, id: &str) {
        let begun = Instant::now();
        loop {
            let (status, body) = self.get(&format!("/executions/{id}/result")).await;
            if status == 200 {
                assert_eq!(body["state"], "COMPLETED", "{id}: {body:#}");
                return;
            }
            assert!(status == 202 || status == 503, "{id}: {status} {body:#}");
            assert!(begun.elapsed() < SOON, "{id} does not end: {status} {body:#}");
        }
    }

    /// Submits until one is accepted, and waits for its end.
    async fn takes_new_work(&self) -> String {
        let taken = until("new work to be taken", SOON, || async {
            let (ids, problems) = self.submit(1).await;
            ids.into_iter().next().ok_or_else(|| format!("{problems:?}"))
        });
        let id = taken.await.unwrap();
        self.completed(&id).await;
        id
    }

    /// Waits until it has ended by itself, and gives its exit code and all that it said.
    async fn ended(mut self) -> (Option<i32>, String) {
        let ended = || std::future::ready(self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()));
        let status = until("its end", SOON, ended).await.unwrap();
        (status.code(), fs::read_to_string(&self.errors).unwrap())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What became of submissions.
#[derive(Default)]
struct Submitted {
    accepted: BTreeSet<String>,
    /// Nobody said whether they were.
    unknown: BTreeSet<String>,
    /// What the others were told.
    refusals: Vec<String>,
}

impl Submitted {
    fn note(&mut self, (ids, problems): (Vec<String>, Vec<Value>)) {
        self.accepted.extend(ids);
        for problem in problems {
            match (problem["status"].as_u64(), problem["code"].as_str()) {
                (Some(503), Some("unavailable")) => {
                    self.refusals.push(problem["detail"].as_str().unwrap_or_default().to_owned());
                }
                // Its command was written, and the answer found no room.
                (Some(504), Some("OUTCOME_UNKNOWN")) => {
                    self.unknown.insert(problem["execution"].as_str().unwrap().to_owned());
                }
                _ => panic!("{problem:#}"),
            }
        }
    }
}

/// Submits until the disk is full, and then once more.
async fn fill_up(dev: &Dev, disk: &SmallDisk) -> Submitted {
    assert_eq!(dev.apply(LARGE.into()).await.unwrap().0, 201);
    let mut submitted = Submitted::default();
    let begun = Instant::now();
    while submitted.refusals.is_empty() {
        submitted.note(dev.submit(50).await);
        assert!(begun.elapsed() < SOON, "the disk is never full");
    }
    // What is left is taken as well: now the history cannot be written either.
    disk.fill("rest");
    submitted.note(dev.submit(1).await);
    let bus = shown(&disk.inside("data/bus"));
    for refusal in &submitted.refusals {
        assert!(refusal.contains("the disk is full") && refusal.contains(&bus), "{refusal}");
    }
    submitted
}

/// All that was accepted has completed, and each was run, by one attempt at a time; nothing that was refused was.
async fn all_is_there(dev: &Dev, submitted: &Submitted, elsewhere: &Path, deaths: Vec<u64>) {
    for id in &submitted.accepted {
        dev.completed(id).await;
    }
    for id in &submitted.unknown {
        let (status, body) = dev.get(&format!("/executions/{id}")).await;
        match status {
            200 => dev.completed(id).await,
            status => assert_eq!(status, 404, "{body:#}"),
        }
    }
    let ledger = Ledger::read(&elsewhere.join("ledger"), deaths).unwrap();
    let run: BTreeSet<String> = ledger.lines.iter().map(|line| line.execution.clone()).collect();
    assert!(submitted.accepted.is_subset(&run), "each was run");
    let more: Vec<_> = run.difference(&submitted.accepted).filter(|id| !submitted.unknown.contains(*id)).collect();
    assert!(more.is_empty(), "nothing that was refused was run: {more:?}");
    let summary = ledger::check(&[ledger]).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(summary.visits, run.len(), "{summary:?}");
}

/// Holds a segment of the bus, one of the log and some history; the ballast is room for more of each.
fn disk_for_one_segment() -> SmallDisk {
    let disk = SmallDisk::new(128 + 24 + 200);
    disk.ballast("ballast", 200);
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_submissions_are_refused_and_room_is_all_that_is_needed_to_go_on() {
    let disk = disk_for_one_segment();
    let elsewhere = tempfile::tempdir().unwrap();
    let dev = Dev::start(&disk, elsewhere.path());
    let mut submitted = fill_up(&dev, &disk).await;
    disk.remove("rest");
    disk.remove("ballast");
    submitted.accepted.insert(dev.takes_new_work().await);
    all_is_there(&dev, &submitted, elsewhere.path(), Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_a_full_disk_it_serves_all_that_was_accepted_once_there_is_room() {
    let disk = disk_for_one_segment();
    let elsewhere = tempfile::tempdir().unwrap();
    let dev = Dev::start(&disk, elsewhere.path());
    let mut submitted = fill_up(&dev, &disk).await;
    drop(dev);
    let deaths = vec![ledger::boot_ns()];
    disk.remove("rest");
    disk.remove("ballast");
    let dev = Dev::start(&disk, elsewhere.path());
    submitted.accepted.insert(dev.takes_new_work().await);
    all_is_there(&dev, &submitted, elsewhere.path(), deaths).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_finds_no_room_ends_the_process_and_nothing_that_was_stored_is_lost() {
    let disk = SmallDisk::new(128 + 24 + 80);
    disk.ballast("ballast", 80);
    let elsewhere = tempfile::tempdir().unwrap();
    let dev = Dev::start(&disk, elsewhere.path());
    // The bus has its first segment from now on. Documents go to the log and not over the bus: it is the log that is full.
    assert_eq!(dev.apply(LARGE.into()).await.unwrap().0, 201);
    dev.takes_new_work().await;
    let text = "x".repeat(15_000);
    let node = |n: u32| json!({ "id": format!("n{n}"), "type": "task", "kind": "echo", "with": text });
    let nodes: Vec<_> = (0..60).map(node).collect();
    let begun = Instant::now();
    let mut stored = BTreeSet::new();
    for number in 0.. {
        let name = format!("w{number:04}");
        let document = json!({ "apiVersion": "nova/v1", "kind": "Workflow", "metadata": { "name": name },
            "spec": { "nodes": nodes } });
        match dev.apply(document.to_string()).await {
            Ok((201, _)) => stored.insert(name),
            Ok((503 | 504, _)) => break,
            Ok((status, problem)) => panic!("{status} {problem:#}"),
            // It ended before it could answer.
            Err(_) => break,
        };
        assert!(begun.elapsed() < SOON, "the disk is never full");
    }
    let (code, said) = dev.ended().await;
    assert_eq!(code, Some(4), "{said}");
    let last = said.lines().last().unwrap();
    let log = shown(&disk.inside("data/coordinator/log"));
    assert!(last.starts_with("error: ") && last.contains("the disk is full") && last.contains(&log), "{said}");

    disk.remove("ballast");
    let dev = Dev::start(&disk, elsewhere.path());
    let (_, list) = dev.get("/workflows?limit=500").await;
    let names = list["workflows"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
    let missing: Vec<_> = stored.difference(&names.collect()).cloned().collect();
    assert!(!stored.is_empty() && missing.is_empty(), "{missing:?} of {}", stored.len());
    dev.takes_new_work().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_room_for_a_log_is_named() {
    let disk = SmallDisk::new(24);
    let data = disk.inside("data");
    let mut coordinator = disk.nova();
    coordinator.args(["serve", "coordinator", "--set", "listen=127.0.0.1:0", "--set", "observe=127.0.0.1:0"]);
    coordinator.args(["--set", "members=[\"1@http://127.0.0.1:9\"]", "--set", &format!("data={}", data.display())]);
    for command in [coordinator, disk.dev()] {
        let (code, error) = refused(command).await;
        assert_eq!(code, Some(4), "{error}");
        let last = error.lines().last().unwrap();
        assert!(last.contains("the disk is full") && last.contains(&shown(&data)), "{error}");
    }
}
