//! Runs in processes of their own.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::process::{Child, Command, Output, Stdio};

use anyhow::Context;

use crate::How;

/// What a run came to.
pub(crate) struct Ran {
    pub seed: u64,
    /// The invariants that do not hold.
    pub broken: BTreeSet<String>,
    /// Faults that were, by their numbers, with what they are; where they were asked for.
    pub faults: Vec<(usize, String)>,
    pub said: String,
}

impl Ran {
    /// A number that the run told: the one before this word.
    pub(crate) fn count(&self, word: &str) -> u64 {
        let told = self.said.lines().next().unwrap_or_default();
        let before = told.split([',', ':']).find_map(|part| part.trim().strip_suffix(word));
        before.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }
}

fn start(seed: u64, how: How, more: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command.args(["replay", &seed.to_string()]).args(how.arguments()).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("a process for a seed")
}

fn ended(seed: u64, output: &Output) -> anyhow::Result<Ran> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.code().is_some_and(|code| code <= 1), "seed {seed} could not be run: {said}{errors}");
    let mut ran = Ran { seed, broken: BTreeSet::new(), faults: Vec::new(), said: String::new() };
    for line in said.lines().filter_map(|line| line.strip_prefix("  ")) {
        let Some((what, rest)) = line.split_once(": ") else { continue };
        match what.strip_prefix("fault ").map(str::parse) {
            Some(number) => ran.faults.push((number.context("the number of a fault")?, rest.to_owned())),
            None => drop(ran.broken.insert(what.to_owned())),
        }
    }
    anyhow::ensure!(
        output.status.success() == ran.broken.is_empty(),
        "seed {seed} failed without a word: {said}{errors}"
    );
    ran.said = if ran.broken.is_empty() { said } else { format!("{said}{errors}") };
    Ok(ran)
}

/// One run.
pub(crate) fn one(seed: u64, how: How, more: &[String]) -> anyhow::Result<Ran> {
    ended(seed, &start(seed, how, more)?.wait_with_output().context("the process of a seed")?)
}

/// Several, so many at a time; `each` hears of one after the other and says whether more are to be begun.
pub(crate) fn many(seeds: Range<u64>, how: How, jobs: usize, mut each: impl FnMut(&Ran) -> bool) -> anyhow::Result<()> {
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let mut seeds = seeds.fuse();
    let mut more = true;
    loop {
        while more && running.len() < jobs {
            let Some(seed) = seeds.next() else { break };
            running.push_back((seed, start(seed, how, &[])?));
        }
        let Some((seed, child)) = running.pop_front() else { return Ok(()) };
        let output = child.wait_with_output().with_context(|| format!("the process of seed {seed}"))?;
        more &= each(&ended(seed, &output)?);
    }
}
