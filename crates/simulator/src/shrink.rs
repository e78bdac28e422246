//! The fewest faults with which a seed still fails: delta debugging over the plan (Zeller, Hildebrandt: Simplifying and
//! Isolating Failure-Inducing Input, 2002).

use std::process::ExitCode;

use crate::How;
use crate::runs::{self, Ran};

/// A run with these faults only.
fn ran(seed: u64, only: &[usize], how: How) -> anyhow::Result<Ran> {
    runs::one(seed, how, &["--faults".to_owned(), "--only".to_owned(), list(only)])
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

pub(crate) fn shrink(seed: u64, how: How) -> anyhow::Result<ExitCode> {
    let first = runs::one(seed, how, &["--faults".to_owned()])?;
    if first.broken.is_empty() {
        println!("seed {seed} does not fail");
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed} breaks {:?} with {} faults", first.broken, first.faults.len());
    let mut left: Vec<usize> = first.faults.iter().map(|(number, _)| *number).collect();
    let mut last = first;
    let mut parts = 2;
    while left.len() > 1 {
        let size = left.len().div_ceil(parts);
        let mut smaller = None;
        for chunk in left.chunks(size) {
            let kept: Vec<usize> = left.iter().copied().filter(|number| !chunk.contains(number)).collect();
            let again = ran(seed, &kept, how)?;
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
    print!("{}", last.said);
    println!("again: nova-sim replay {seed} {} --only {}", how.arguments().join(" "), list(&left));
    Ok(ExitCode::FAILURE)
}
