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
    is_no_measurement(&loadtest(&["s7"]), "embedded is one process");
    is_no_measurement(&loadtest(&["s4", "--kills", "3"]), "--kills: s4 does not use it");
    is_no_measurement(&loadtest(&["s1", "--compare", "/no/such/old.json"]), "/no/such/old.json");
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

/// The engine in the process of the program: the one scenario that needs no binary.
#[test]
fn a_record_can_be_compared_with_the_next_and_with_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (old, data) = (path("old.json"), path("data"));
    let run = ["s9b", "--tasks", "3000", "--workers", "50", "--anyway", "--data", &data];
    let first = loadtest(&[&run[..], &["--json", &old]].concat());
    assert!(first.status.success(), "{first:?}");
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&old).unwrap()).unwrap();
    assert_eq!((&record["verified"], &record["completed"]), (&true.into(), &9_000.into()), "{record:#}");
    let second = loadtest(&[&run[..], &["--compare", &old]].concat());
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success() && said.contains("compared with") && said.contains("placements"), "{said}");
    is_no_measurement(&loadtest(&["s1", "--compare", &old]), "its scenario is s9b, that of this run is s1");
}

/// Small loads of every kind of work on every kind of target; Kafka needs Java and Maven too.
#[test]
#[ignore = "needs a nova binary: NOVA_BIN=... cargo test -p nova-loadtest -- --ignored"]
fn every_scenario_verifies_on_every_target() {
    let dir = tempfile::tempdir().unwrap();
    for target in ["embedded", "embedded-3", "kafka-1", "kafka-3"] {
        for args in [
            "s1 --concurrency 16 --rate 50 --seconds 1 --warmup 1 --parked 700",
            "s1 --work bare --batch 8 --concurrency 16 --rate 50 --seconds 1 --warmup 1",
            "s2 --work echo --rate 50 --seconds 1 --warmup 1",
            "s3 --repeat 1 --warmup 1",
            "s4 --repeat 1 --warmup 1",
            "s5 --rate 50 --seconds 1 --warmup 1",
            "s6 --parked 700 --wakes 50 --rate 50 --seconds 1 --warmup 1",
            "s8 --parked 700",
            "overload --concurrency 8 --seconds 1 --warmup 1",
            "x1 --repeat 1 --warmup 1",
        ] {
            verifies(dir.path(), target, args);
        }
        let victims: &[&str] = match target {
            "embedded" => &[],
            "embedded-3" => &["leader"],
            _ => &["leader", "scheduler", "worker"],
        };
        for victim in victims {
            verifies(dir.path(), target, &format!("s7 --victim {victim} --kills 1 --rate 50 --warmup 1"));
        }
        if target.starts_with("embedded") {
            verifies(dir.path(), target, "s9a --workers 100 --seconds 1");
        }
    }
}

fn verifies(dir: &Path, target: &str, args: &str) {
    let (data, json) = (dir.join("data"), dir.join("record.json"));
    let text = |path: &Path| path.to_str().expect("a temporary path is a text").to_owned();
    let (data_text, json_text) = (text(&data), text(&json));
    let fixed = ["--anyway", "--data", &data_text, "--json", &json_text, "--target", target];
    let output = loadtest(&args.split(' ').chain(fixed).collect::<Vec<_>>());
    assert!(output.status.success(), "{target} {args}: {output:?}");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&json).expect("there is a record")).expect("a record is JSON");
    assert_eq!((&record["verified"], &record["duplicates"]), (&true.into(), &0.into()), "{record:#}");
    let count = |field: &str| record[field].as_u64().unwrap_or_default();
    assert!(count("completed") > 0, "{record:#}");
    assert_eq!(count("completed") + count("parked") + count("refused"), count("submitted"), "{record:#}");
    let figures = ["phases", "figures"].map(|list| record[list].as_array().map_or(0, Vec::len));
    assert!(figures.iter().sum::<usize>() > 0, "{record:#}");
    assert_eq!(std::fs::read_dir(&data).expect("it was made").count(), 0, "what was started is removed");
}
