//! `nova-torture`: clusters of processes in network namespaces while everything goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use nova_checker::Counts;
use nova_testkit::{Dir, Nova};
use nova_torture::faults::{Fault, Kind, probe};
use nova_torture::gaps::{Part, gaps};
use nova_torture::run::{Options, run};
use nova_torture::sweep::{self, Call, Target};
use nova_torture::worker;

/// Clusters of processes on hosts of their own, with a real Kafka, while everything goes wrong; and what their history says.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all holds, 1 something does not, 2 the runs say nothing.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs clusters, one after the other, each from a seed.
    Run(Run),
    /// Kills one part of a cluster again and again, and tells how long work stood still each time.
    Gaps {
        /// How often.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        times: u32,
        /// Which parts; none: each.
        #[arg(long, value_delimiter = ',')]
        of: Vec<Part>,
    },
    /// Kills a process at its first sync, at its second, and so on; then at each rename and each truncation.
    Sweep {
        /// Most kills of one process at one kind of call.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
        most: u32,
        /// What is killed; none: each.
        #[arg(long, value_delimiter = ',')]
        target: Vec<Target>,
    },
    /// Tells which faults can be had on this machine.
    Probe,
    /// A worker whose work notes itself.
    #[command(hide = true)]
    Worker {
        /// Its config file.
        #[arg(long)]
        config: PathBuf,
        /// Where it notes what it does.
        #[arg(long)]
        notes: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    /// How many.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Seed of the first; the next one has the next. None: a random one.
    #[arg(long)]
    seed: Option<u64>,
    /// How long there are faults in each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only faults of these kinds; none: of all that this machine can have.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// Milliseconds between two things that the client asks for, on average.
    #[arg(long, default_value_t = 150)]
    pause: u64,
    /// Most seconds between two faults.
    #[arg(long, default_value_t = 5)]
    calm: u64,
    /// The cluster must be as quick and as small at last as it was at first: for runs of an hour.
    #[arg(long)]
    soak: bool,
    /// Directory for all files of the runs, which are kept; none: a temporary one, kept of runs that fail.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let stop = nova_service_kit::stop_on_signal();
    // Who is stopped ends all that it has begun, as at the end of a run.
    let result = if let Command::Worker { config, notes } = command {
        worker::run(&config, &notes, stop).await.map(|()| true)
    } else {
        let stopped = stop.run_until_cancelled(carry_out(command)).await;
        stopped.unwrap_or_else(|| Err(anyhow::anyhow!("it was stopped")))
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nova-torture: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn carry_out(command: Command) -> Result<bool> {
    match command {
        Command::Run(options) => campaign(&options).await,
        Command::Gaps { times, of } => tell_gaps(times, &of).await,
        Command::Sweep { most, target } => tell_sweeps(most, &target).await,
        Command::Probe => Ok(tell_probes()),
        Command::Worker { .. } => bail!("a worker is no run"),
    }
}

fn tell_probes() -> bool {
    let mut all = true;
    for kind in Kind::value_variants() {
        match probe(*kind) {
            Ok(()) => println!("{kind}: can be had"),
            Err(error) => {
                println!("{kind}: cannot be had: {error:#}");
                all = false;
            }
        }
    }
    all
}

/// The wanted ones, or all.
fn some<T: ValueEnum + Clone>(wanted: &[T]) -> Vec<T> {
    if wanted.is_empty() { T::value_variants().to_vec() } else { wanted.to_vec() }
}

async fn tell_gaps(times: u32, parts: &[Part]) -> Result<bool> {
    let nova = Nova::binary()?;
    let mut all_good = true;
    for part in some(parts) {
        let dir = Dir::temporary()?;
        let told = |fault: &Fault, gap: Duration| println!("  {fault}: {gap:.2?}");
        let mut gaps = gaps(&nova, part, times, dir.path(), told).await.with_context(|| format!("{part:?}"))?;
        gaps.sort_unstable();
        let at = |share: usize| gaps.get(gaps.len().saturating_mul(share).div_ceil(100).saturating_sub(1)).copied();
        let (half, most, longest) =
            (at(50).unwrap_or_default(), at(99).unwrap_or_default(), at(100).unwrap_or_default());
        let wanted = part.wanted();
        let word = if most <= wanted { "as wanted" } else { "SHORT" };
        all_good &= most <= wanted;
        println!(
            "{part:?}: {times} times, p50 {half:.2?}, p99 {most:.2?}, longest {longest:.2?}; at most {wanted:?} are wanted: {word}"
        );
    }
    Ok(all_good)
}

async fn tell_sweeps(most: u32, targets: &[Target]) -> Result<bool> {
    sweep::probe()?;
    let nova = Nova::binary()?;
    for target in some(targets) {
        for call in Call::value_variants() {
            let mut dir = Dir::temporary()?;
            match sweep::sweep(&nova, target, *call, most, dir.path()).await {
                Ok(swept) => println!("{target:?}, {call:?}: {swept}"),
                Err(error) => {
                    dir.keep();
                    println!("{target:?}, {call:?}: {error:#}");
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// The kinds that are wanted; who names one that cannot be had is told, and gets nothing.
fn kinds(wanted: &[Kind]) -> Result<BTreeSet<Kind>> {
    if !wanted.is_empty() {
        for kind in wanted {
            probe(*kind).with_context(|| format!("{kind} cannot be had on this machine"))?;
        }
        return Ok(wanted.iter().copied().collect());
    }
    let mut all = BTreeSet::new();
    for kind in Kind::value_variants() {
        match probe(*kind) {
            Ok(()) => drop(all.insert(*kind)),
            Err(error) => println!("without {kind}, which cannot be had here: {error:#}"),
        }
    }
    Ok(all)
}

async fn campaign(options: &Run) -> Result<bool> {
    let kinds = kinds(&options.faults)?;
    let nova = Nova::binary()?;
    let first = options.seed.unwrap_or_else(|| rand::random_range(0..1 << 32));
    let begin = Instant::now();
    let (mut failed, mut superseded, mut total) = (0, 0, Counts::default());
    let mut done: BTreeMap<Kind, u64> = BTreeMap::new();
    for seed in first..first + options.runs {
        let mut dir = match &options.dir {
            Some(dir) => {
                let own = dir.join(format!("run-{seed}"));
                if std::fs::read_dir(&own).is_ok_and(|mut entries| entries.next().is_some()) {
                    bail!("{} holds the files of a run: name another directory", own.display());
                }
                Dir::kept(own)?
            }
            None => Dir::temporary()?,
        };
        let span = Duration::from_secs(options.seconds);
        let what = Options {
            seed,
            span,
            kinds: kinds.clone(),
            pause: Duration::from_millis(options.pause),
            calm: Duration::from_secs(options.calm.max(1)),
            soak: options.soak,
        };
        let report = match run(&nova, &what, dir.path()).await {
            Ok(report) => report,
            Err(error) => return Err(error.context(format!("seed {seed}, files in {}", dir.keep().display()))),
        };
        println!("seed {seed}: {report}");
        superseded += report.superseded;
        for planned in &report.faults {
            *done.entry(planned.fault.kind()).or_default() += 1;
        }
        let Counts { accepted, ended, attempts, repeated, duplicates, stale, triggered } = report.counts;
        total.accepted += accepted;
        total.ended += ended;
        total.attempts += attempts;
        total.repeated += repeated;
        total.duplicates += duplicates;
        total.stale += stale;
        total.triggered += triggered;
        if !report.violations.is_empty() {
            failed += 1;
            let files = dir.keep();
            report.faults.iter().for_each(|planned| println!("  {planned}"));
            println!("  its files: {}", files.display());
            // The faults follow from the seed and from all of these.
            let faults: Vec<String> = kinds.iter().map(Kind::to_string).collect();
            let Run { seconds, pause, calm, .. } = options;
            println!(
                "  again: nova-torture run --seed {seed} --seconds {seconds} --pause {pause} --calm {calm} --faults {}{}",
                faults.join(","),
                if options.soak { " --soak" } else { "" },
            );
        }
    }
    let Counts { accepted, ended, attempts, repeated, duplicates, stale, triggered } = total;
    println!(
        "{} runs in {} s, {failed} failed: {accepted} accepted, {triggered} triggered, {ended} ended, {attempts} attempts, \
         {repeated} repeated, {stale} stale, {duplicates} duplicates",
        options.runs,
        begin.elapsed().as_secs(),
    );
    done.iter().for_each(|(kind, count)| println!("  {kind}: {count}"));
    let seen = [stale, duplicates, repeated, triggered, superseded];
    if failed == 0 && options.runs >= MANY && seen.contains(&0) {
        bail!(
            "{} runs without a stale lease, a message that came twice, a repeat, a trigger or a proposal of a superseded \
             scheduler say nothing",
            options.runs
        );
    }
    Ok(failed == 0)
}

/// So many runs have all that a history can have.
const MANY: u64 = 10;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Arguments;

    #[test]
    fn what_would_run_nothing_is_refused() {
        let asked = |words: &[&str]| Arguments::try_parse_from(["nova-torture"].iter().chain(words));
        for words in [["run", "--runs"], ["gaps", "--times"], ["sweep", "--most"]] {
            assert!(asked(&[words[0], words[1], "1"]).is_ok(), "{words:?}");
            assert!(asked(&[words[0], words[1], "0"]).is_err(), "{words:?}");
        }
    }
}
