//! `nova-check`: judges a history that was written to a directory.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nova_checker::{Counts, History};

/// Looks at the whole history of a run and tells which invariants do not hold.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all holds, 1 something does not, 2 the history says nothing.")]
struct Arguments {
    /// Directory of the history.
    dir: PathBuf,
}

fn main() -> ExitCode {
    match judge(&Arguments::parse().dir) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nova-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn judge(dir: &std::path::Path) -> anyhow::Result<ExitCode> {
    let history = History::read(dir).context("the history cannot be read")?;
    match nova_checker::check(&history) {
        Ok(counts) => {
            let Counts { accepted, ended, attempts, repeated, duplicates, stale, triggered } = counts;
            anyhow::ensure!(accepted > 0 && ended > 0, "nothing was accepted, or nothing ended");
            anyhow::ensure!(
                !history.members.is_empty() && !history.shards.is_empty(),
                "nothing is known of members or shards: not all had ended when it was noted"
            );
            println!(
                "all holds: {accepted} accepted, {triggered} triggered, {ended} ended, {attempts} attempts, {repeated} repeated, \
                 {stale} stale, {duplicates} duplicates"
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(violations) => {
            violations.iter().for_each(|violation| println!("{violation}"));
            Ok(ExitCode::FAILURE)
        }
    }
}
