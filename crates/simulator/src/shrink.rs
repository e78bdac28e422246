//! The fewest faults with which a seed still fails: delta debugging over the plan (Zeller, Hildebrandt: Simplifying and
//! Isolating Failure-Inducing Input, 2002).

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::How;
use crate::runs::{self, Ran};

/// A run with some faults left out.
fn ran(seed: u64, without: &BTreeSet<usize>, how: How) -> anyhow::Result<Ran> {
    let mut more = vec!["--faults".to_owned()];
    if !without.is_empty() {
        more.extend(["--without".to_owned(), list(without)]);
    }
    runs::one(seed, how, &more)
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
