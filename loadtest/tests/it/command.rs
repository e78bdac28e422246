//! Exit codes, and what is printed where: a figure on stdout, everything else on stderr.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn loadtest(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nova-loadtest"));
    command.args(args).output().expect("the program runs")
}

fn is_no_measurement(output: &Output, says: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains(says), "{error}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A program in the place of `nova`.
fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("nova");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
    path
}

#[test]
fn options_that_make_no_sense_are_errors() {
    is_no_measurement(&loadtest(&["s9"]), "s9");
    is_no_measurement(&loadtest(&["s1", "--loops", "open"]), "--rate");
    is_no_measurement(&loadtest(&["s1", "--seconds", "0"]), "--seconds");
    is_no_measurement(&loadtest(&["s1", "--nova", "/no/such/nova"]), "/no/such/nova");
}

#[test]
fn a_target_that_does_not_start_is_an_error_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let nova = script(dir.path(), "[ \"$1\" = --version ] && echo nova 0 && exit; echo no room >&2; exit 3");
    let data = dir.path().join("data");
    let json = dir.path().join("record.json");
    let args = ["s1", "--anyway", "--nova", nova.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let output = loadtest(&[&args[..], &["--json", json.to_str().unwrap()]].concat());
    is_no_measurement(&output, "no room");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("machine "), "the machine is told first");
    assert!(!json.exists());
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
}

/// Small loads of every kind of work on every kind of target; Kafka needs Java and Maven too.
#[test]
#[ignore = "needs a nova binary: NOVA_BIN=... cargo test -p nova-loadtest -- --ignored"]
fn every_scenario_verifies_on_every_target() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let json = dir.path().join("record.json");
    let runs = ["embedded", "embedded-3", "kafka-1", "kafka-3"].into_iter().flat_map(|target| {
        [["s1", "noop", "1"], ["s1", "bare", "8"], ["s2", "echo", "1"]].map(|[scenario, work, batch]| {
            let concurrency = if scenario == "s1" { "16" } else { "1" };
            let options = ["--rate", "50", "--seconds", "1", "--warmup", "1", "--anyway"];
            let chosen = [scenario, "--target", target, "--work", work, "--batch", batch, "--concurrency", concurrency];
            [&chosen[..], &options, &["--data", data.to_str().unwrap(), "--json", json.to_str().unwrap()]].concat()
        })
    });
    for args in runs {
        let output = loadtest(&args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!((&record["verified"], &record["duplicates"]), (&true.into(), &0.into()), "{record:#}");
        assert!(record["completed"].as_u64() > Some(0) && record["completed"] == record["submitted"], "{record:#}");
        assert_eq!(record["phases"].as_array().map(Vec::len), Some(2));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0, "what was started is removed");
    }
}
