//! The short form of what `make torture` does for long.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use nova_checker::{Answer, History, Kind};

fn torture(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nova-torture")).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// Tests that carry a whole cluster take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_cluster_does_what_it_promises_while_everything_goes_wrong() {
    let _turn = TURN.lock().unwrap();
    let seed: u32 = rand::random();
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let (seed, path) = (seed.to_string(), dir.path().display().to_string());
    let output = torture(&["run", "--seconds", "20", "--pause", "250", "--seed", &seed, "--dir", &path]);
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));

    // Its files are a history that can be judged again, and one that something was taken from is found.
    let mut history = History::read(&dir.path().join(format!("run-{seed}/history"))).unwrap();
    assert!(nova_checker::check(&history).is_ok());
    let accepted = history.operations.iter().find_map(|it| match (&it.kind, &it.answer) {
        (Kind::Submit(submission), Answer::Accepted { repeated: false, .. }) => Some(submission.id),
        _ => None,
    });
    let accepted = accepted.expect("something was accepted");
    history.topics.retain(|place, _| place.topic != nova_checker::Topic::Events);
    let found = nova_checker::check(&history).unwrap_err();
    assert!(found.iter().any(|it| it.invariant == "A1" && it.what.contains(&accepted.to_string())), "{found:?}");
}

#[test]
fn a_process_that_is_killed_at_a_call_keeps_what_it_answered_for() {
    let _turn = TURN.lock().unwrap();
    let output = torture(&["sweep", "--most", "4", "--target", "dev,coordinator"]);
    assert!(output.status.success(), "{}", said(&output));
    println!("{}", said(&output));
}

#[test]
fn a_net_can_be_made_as_soon_as_the_one_before_is_gone() {
    let _turn = TURN.lock().unwrap();
    for _ in 0..5 {
        nova_torture::net::Net::make().unwrap();
    }
}

#[test]
fn a_fault_that_cannot_be_had_is_named_with_what_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nova-torture"));
    let output = command.args(["run", "--faults", "kill,power"]).env("PATH", empty.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        said(&output).trim(),
        "nova-torture: power cannot be had on this machine: `mkfs.xfs` is missing (Debian: xfsprogs)"
    );
    let output = torture(&["run", "--faults", "gremlins"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("invalid value 'gremlins'"), "{}", said(&output));
}
