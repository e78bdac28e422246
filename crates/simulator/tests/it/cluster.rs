//! Coordinators under faults, through `nova-sim`.

use std::process::{Command, Output};

fn nova_sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nova-sim")).args(args).output().expect("it runs")
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

#[test]
fn what_was_accepted_survives_whatever_happens_to_members() {
    let output = nova_sim(&["run", "--first", "1", "--seeds", "4", "--seconds", "60"]);
    let said = said(&output);
    assert!(output.status.success() && said.contains("4 seeds") && said.contains("0 failed"), "{said}");
}

#[test]
fn members_that_forget_what_they_answered_for_are_found() {
    let output = nova_sim(&["run", "--first", "1", "--seeds", "4", "--seconds", "60", "--plant", "forgets"]);
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("A1: accepted and not there"), "{said}");
}

#[test]
fn a_panic_that_nobody_misses_is_found() {
    let output = nova_sim(&["replay", "1", "--seconds", "10", "--plant", "panics"]);
    let said = said(&output);
    assert!(output.status.code() == Some(1) && said.contains("seed 1: a process panicked"), "{said}");
}

#[test]
fn a_seed_does_the_same_again_to_the_last_step() {
    let once = |seed| said(&nova_sim(&["replay", seed, "--seconds", "30"]));
    for seed in ["11", "12"] {
        let first = once(seed);
        assert!(first.contains("trace"), "{first}");
        assert_eq!(first, once(seed));
    }
    assert_ne!(once("11"), once("12"));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for wrong in [&["run", "--seeds", "0"][..], &["replay"], &["replay", "x"], &["run", "--seconds", "0"]] {
        assert_eq!(nova_sim(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
