//! A data directory that is not this process's own, newer, or damaged is refused with its name, and stays as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nova_testkit::until;
use serde_json::json;

use crate::rig::{Dev, NOOP, SOON, nova, text};

/// What a segment begins with, and a frame before its payload.
const SEGMENT_HEADER: usize = 40;
const FRAME_HEADER: usize = 20;

/// All files with what they hold. Locks are left out: they are made anew, and hold nothing.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // An empty directory is a difference too.
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "lock" {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

/// Runs it to its end, which comes by itself, and gives its exit code and what it said.
pub async fn refused(command: Command) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::from(command);
    let ended = command.kill_on_drop(true).stdin(Stdio::null()).output();
    let output = tokio::time::timeout(SOON, ended).await.expect("it ends").unwrap();
    (output.status.code(), text(&output.stderr))
}

/// How a file is changed.
type Harm = Box<dyn Fn(&mut [u8])>;

/// One way in which a directory is not what the process wants.
struct Case<'a> {
    what: &'a str,
    command: Command,
    /// The file that is not as it was, and how.
    harm: Option<(PathBuf, Harm)>,
    /// What the refusal names.
    says: Vec<String>,
}

/// Harms the directory, sees that it is refused and left alone, and heals it.
async fn check(dir: &Path, case: Case<'_>) {
    let Case { what, command, harm, says } = case;
    let healthy = harm.map(|(path, harm)| {
        let healthy = fs::read(&path).unwrap();
        let mut bytes = healthy.clone();
        harm(&mut bytes);
        assert!(bytes != healthy, "{what}");
        fs::write(&path, bytes).unwrap();
        (path, healthy)
    });
    let before = files(dir);
    let (code, error) = refused(command).await;
    assert_eq!(code, Some(4), "{what}: {error}");
    for part in says {
        assert!(error.contains(&part), "{what}: '{part}' is missing in: {error}");
    }
    assert_eq!(changed(&before, &files(dir)), Vec::<PathBuf>::new(), "{what}: {error}");
    if let Some((path, healthy)) = healthy {
        fs::write(path, healthy).unwrap();
    }
}

pub fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Patches the header of a segment as its owner would have written it.
fn header(patch: impl Fn(&mut [u8]) + 'static) -> Harm {
    Box::new(move |bytes| {
        patch(bytes);
        let crc = crc32c::crc32c(&bytes[..36]);
        bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    })
}

fn foreign() -> Harm {
    header(|bytes| bytes[12] ^= 1)
}

fn newer() -> Harm {
    header(|bytes| bytes[8] = 9)
}

/// Flips a bit of the payload of the frame in the middle of a segment.
fn bit_in_the_middle(bytes: &mut [u8]) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut frames, mut at) = (Vec::new(), SEGMENT_HEADER);
    while at + FRAME_HEADER < bytes.len() && word(at) != 0 {
        frames.push(at);
        at += FRAME_HEADER + word(at + 4) as usize;
    }
    // Behind it there must be others: the last one could have been cut by a power cut.
    assert!(frames.len() >= 3, "{} frames", frames.len());
    bytes[frames[frames.len() / 2] + FRAME_HEADER] ^= 1;
}

fn coordinator(data: &Path, settings: &[&str]) -> Command {
    let mut command = nova();
    command.args(["serve", "coordinator", "--set", "listen=127.0.0.1:0", "--set", "observe=127.0.0.1:0"]);
    // A snapshot after each entry, so that there is one at once.
    command.args(["--set", "members=[\"1@http://127.0.0.1:9\"]", "--set", "snapshot_entries=1"]);
    command.arg("--set").arg(format!("data={}", data.display()));
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.env("NOVA_LOG", "warn");
    command
}

fn snapshots(data: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(data.join("snapshots")) else { return Vec::new() };
    let mut all: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.extension().is_some_and(|extension| extension == "snap"));
    all.sort();
    all
}

/// Runs the only member of a cluster until it has written a snapshot that was not there, and stops it.
async fn lead(data: &Path, settings: &[&str]) {
    let before = snapshots(data);
    let mut child = tokio::process::Command::from(coordinator(data, settings)).kill_on_drop(true).spawn().unwrap();
    let written = || {
        let newer = snapshots(data).last() > before.last();
        std::future::ready(newer.then_some(()).ok_or_else(|| "there is none".to_owned()))
    };
    until("a new snapshot", SOON, written).await.unwrap();
    assert!(Command::new("kill").arg(child.id().unwrap().to_string()).status().unwrap().success());
    assert!(tokio::time::timeout(SOON, child.wait()).await.expect("it ends").unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_refuses_what_is_not_its_own_directory_and_changes_nothing() {
    for (kind, other, log) in [("file", "sled", "log"), ("sled", "file", "log.sled")] {
        let temporary = tempfile::tempdir().unwrap();
        let data = temporary.path().join("data");
        let own = format!("log={kind}");
        lead(&data, &[&own]).await;
        let snapshot = snapshots(&data).pop().unwrap();
        let segment = data.join(log).join("0000000000000001.log");
        let started = |settings: &[&str]| coordinator(&data, &[&[own.as_str()], settings].concat());
        let mut cases = vec![
            Case {
                what: "another cluster",
                command: started(&["cluster=other"]),
                harm: None,
                says: vec![shown(&data), "belongs to another cluster".into()],
            },
            Case {
                what: "another member",
                command: started(&["member=2"]),
                harm: None,
                says: vec![shown(&data), "belongs to member 1, not 2".into()],
            },
            Case {
                what: "another kind of log",
                command: started(&[&format!("log={other}")]),
                harm: None,
                says: vec![shown(&data.join(log)), format!("set log = \"{kind}\"")],
            },
            Case {
                what: "a newer snapshot",
                command: started(&[]),
                harm: Some((snapshot.clone(), Box::new(|bytes| bytes[8] = 9))),
                says: vec![shown(&snapshot), "format 9, newer than 1: start the version that wrote it".into()],
            },
            Case {
                what: "a damaged snapshot",
                command: started(&[]),
                harm: Some((snapshot.clone(), Box::new(|bytes| *bytes.iter_mut().nth_back(20).unwrap() ^= 1))),
                says: vec![shown(&snapshot), "checksum is wrong".into(), "take the member out".into()],
            },
        ];
        if kind == "file" {
            cases.extend([
                Case {
                    what: "a newer log",
                    command: started(&[]),
                    harm: Some((segment.clone(), newer())),
                    says: vec![shown(&segment), "format 9, newer than 1: start the version that wrote it".into()],
                },
                Case {
                    what: "a damaged log",
                    command: started(&[]),
                    harm: Some((segment.clone(), Box::new(bit_in_the_middle))),
                    says: vec![shown(&segment), "is damaged".into(), "take the member out".into()],
                },
            ]);
        }
        for case in cases {
            check(&data, case).await;
        }
        lead(&data, &[&own]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_one_process_refuses_foreign_newer_and_damaged_parts_and_changes_nothing() {
    let mut dev = Dev::start();
    dev.apply(NOOP).await;
    let done = dev.run("noop", json!({})).await;
    let data = dev.dir.path().join("data");
    let started = || {
        let mut command = nova();
        command.args(["dev", "--port", "0", "--announce", "--data"]).arg(&data);
        command
    };
    let before = files(&data);
    let (code, error) = refused(started()).await;
    assert_eq!(code, Some(4), "{error}");
    assert!(error.contains(&format!("{} is in use by another process", data.display())), "{error}");
    dev.run("noop", json!({})).await;
    let mut lost: Vec<_> = before.keys().filter(|path| !path.exists()).collect();
    // The first one's database may have tidied up its side files meanwhile, and a file that was being replaced has its name.
    lost.retain(|path| !path.starts_with(data.join("api")) && path.extension().is_none_or(|it| it != "tmp"));
    assert!(lost.is_empty(), "{lost:?}");
    assert!(dev.stop().success());

    let bus = data.join("bus/0000000000000001.log");
    let log = data.join("coordinator/log/0000000000000001.log");
    let topics = data.join("bus/topics");
    let (history, worker) = (data.join("api/history.db"), data.join("worker"));
    let serve = |service: &str, settings: &[String]| {
        let mut command = nova();
        command.args(["serve", service, "--set", "cluster=other", "--set", "bus.bootstrap=127.0.0.1:9"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.env("NOVA_LOG", "off");
        command
    };
    let mut cases = vec![
        Case {
            what: "the history of another cluster",
            command: serve("api", &["listen=127.0.0.1:0".into(), format!("history={}", history.display())]),
            harm: None,
            says: vec![shown(&history), "belongs to another cluster".into()],
        },
        Case {
            what: "a worker's directory of another cluster",
            command: serve("worker", &["observe=127.0.0.1:0".into(), format!("data={}", worker.display())]),
            harm: None,
            says: vec![shown(&worker.join("session.json")), "belongs to another cluster".into()],
        },
        Case {
            what: "damaged topics",
            command: started(),
            harm: Some((topics.clone(), Box::new(|bytes| bytes[0] ^= 1))),
            says: vec![shown(&topics), "the file is damaged".into()],
        },
        Case {
            what: "a damaged history",
            command: serve("api", &["listen=127.0.0.1:0".into(), format!("history={}", history.display())]),
            harm: Some((history.clone(), Box::new(|bytes| bytes[..16].fill(b'x')))),
            says: vec![shown(&history), "it can be deleted".into()],
        },
    ];
    for (path, todo) in [(&bus, "restore the whole data directory"), (&log, "take the member out")] {
        let harms: [(&str, Harm, &[&str]); 3] = [
            ("foreign", foreign(), &["belongs to another cluster"]),
            ("newer", newer(), &["format 9, newer than 1: start the version that wrote it"]),
            ("damaged", Box::new(bit_in_the_middle), &["is damaged", todo]),
        ];
        for (what, harm, says) in harms {
            let says = says.iter().map(|it| (*it).to_owned()).chain([shown(path)]).collect();
            cases.push(Case { what, command: started(), harm: Some((path.clone(), harm)), says });
        }
    }
    for case in cases {
        check(&data, case).await;
    }
    let empty = tempfile::tempdir().unwrap();
    let dev = Dev::start_in(std::mem::replace(&mut dev.dir, empty), &[]);
    let again = dev.ended(done["id"].as_str().unwrap()).await;
    assert_eq!(again["state"], "COMPLETED", "{again:#}");
}
