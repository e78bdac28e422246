//! Clusters under faults, through `nova-sim`.

use std::process::{Command, Output};

fn nova_sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nova-sim")).args(args).output().expect("it runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

#[test]
fn all_that_must_hold_does_whatever_happens() {
    let output = nova_sim(&["run", "--first", "1", "--seeds", "4", "--seconds", "60"]);
    let said = said(&output);
    assert!(output.status.success() && said.contains("4 seeds") && said.contains("0 failed"), "{said}");
}

#[test]
fn members_that_forget_what_they_answered_for_are_found() {
    let output =
        nova_sim(&["run", "--first", "1", "--seeds", "4", "--until-found", "--plant", "forgets", "--seconds", "60"]);
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("\n  G1: "), "{said}");
    assert!(said.contains("again: nova-sim replay ") && said.contains("--seconds 60 --plant forgets"), "{said}");
}

#[test]
fn a_panic_that_nobody_misses_is_found() {
    let output = nova_sim(&["replay", "1", "--seconds", "5", "--plant", "panics"]);
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("\n  panic: a process panicked"), "{said}");
}

#[test]
fn a_seed_does_the_same_again_to_the_last_step() {
    let once = |seed| said(&nova_sim(&["replay", seed, "--seconds", "20", "--faults"]));
    let first = once("11");
    assert!(first.contains("trace") && first.contains("fault 0: "), "{first}");
    assert_eq!(first, once("11"));
    assert_ne!(first, once("12"));
}

#[test]
fn faults_can_be_left_out() {
    let output = nova_sim(&["replay", "11", "--seconds", "10", "--faults", "--only", "2"]);
    let said = said(&output);
    assert!(output.status.success() && !said.contains("fault 0: ") && !said.contains("fault 1: "), "{said}");
    assert!(said.contains(" 1 faults") && said.contains("fault 2: "), "{said}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for wrong in [
        &["run", "--seeds", "0"][..],
        &["replay"],
        &["replay", "x"],
        &["run", "--seconds", "0"],
        &["replay", "1", "--only", "x"],
    ] {
        assert_eq!(nova_sim(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let output = nova_sim(&["replay", "1", "--plant", "nothing"]);
    let said = said(&output);
    assert!(output.status.code() == Some(2) && said.contains("stale-read: a member answers reads"), "{said}");
}
