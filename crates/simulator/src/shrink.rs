//! The fewest faults with which a seed still fails: delta debugging over the plan (Zeller, Hildebrandt: Simplifying and
//! Isolating Failure-Inducing Input, 2002).

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Context;

use crate::How;

/// What a run with some faults left out came to.
struct Ran {
    /// The invariants that do not hold.
    broken: BTreeSet<String>,
    /// Faults that were, by their numbers, with what they are.
    faults: Vec<(usize, String)>,
    said: String,
}

fn ran(seed: u64, without: &BTreeSet<usize>, how: How) -> anyhow::Result<Ran> {
    let mut command = crate::command(seed, how)?;
    command.arg("--faults");
    if !without.is_empty() {
        command.args(["--without", &list(without)]);
    }
    let output = command.output().context("a process for the seed")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut ran = Ran { broken: BTreeSet::new(), faults: Vec::new(), said: String::new() };
    for line in said.lines().filter_map(|line| line.strip_prefix("  ")) {
        let Some((what, rest)) = line.split_once(": ") else { continue };
        match what.strip_prefix("fault ").map(str::parse) {
            Some(number) => ran.faults.push((number.context("the number of a fault")?, rest.to_owned())),
            None => drop(ran.broken.insert(what.to_owned())),
        }
    }
    anyhow::ensure!(output.status.code().is_some_and(|code| code <= 1), "seed {seed} could not be run: {said}");
    ran.said = said;
    Ok(ran)
}

fn list(numbers: &BTreeSet<usize>) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

pub(crate) fn shrink(seed: u64, how: How) -> anyhow::Result<ExitCode> {
    let first = ran(seed, &BTreeSet::new(), how)?;
    if first.broken.is_empty() {
        println!("seed {seed} does not fail");
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed} breaks {:?} with {} faults", first.broken, first.faults.len());
    let all: BTreeSet<usize> = first.faults.iter().map(|(number, _)| *number).collect();
    let mut left: Vec<usize> = all.iter().copied().collect();
    let mut last = first;
    let mut parts = 2;
    while left.len() > 1 {
        let size = left.len().div_ceil(parts);
        let mut smaller = None;
        for chunk in left.chunks(size) {
            let kept: Vec<usize> = left.iter().copied().filter(|number| !chunk.contains(number)).collect();
            let without = all.iter().copied().filter(|number| !kept.contains(number)).collect();
            let again = ran(seed, &without, how)?;
            if again.broken.intersection(&last.broken).next().is_some() {
                println!("{} faults are enough", kept.len());
                smaller = Some((kept, again));
                break;
            }
        }
        match smaller {
            Some((kept, again)) => (left, last, parts) = (kept, again, (parts - 1).max(2)),
            None if size == 1 => break,
            None => parts = (parts * 2).min(left.len()),
        }
    }
    let without: BTreeSet<usize> = all.into_iter().filter(|number| !left.contains(number)).collect();
    print!("{}", last.said);
    println!("again: nova-sim replay {seed} {} --without {}", how.arguments().join(" "), list(&without));
    Ok(ExitCode::FAILURE)
}
