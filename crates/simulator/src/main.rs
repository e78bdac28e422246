//! `nova-sim`: clusters in simulated time, under faults. Each seed runs in a process of its own: what tokio counts per
//! process is then the same each time.

mod runs;
mod shrink;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use nova_plants::Plant;
use nova_simulator::Options;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What there is in so many runs, or they say nothing.
const SEEN_IN_MANY: [&str; 4] = ["stale", "duplicates", "repeated", "triggered"];
const MANY: u64 = 30;
/// Longest time in which all processes of a simulation are to sleep once.
const LONGEST_STEP: Duration = Duration::from_secs(60);

/// Runs clusters in simulated time, under faults, and checks what must hold.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all holds, 1 something does not, 2 it could not be run.")]
struct Arguments {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Runs many seeds, one after the other on each core.
    Run {
        /// How many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first one; left out: any, and it is printed.
        #[arg(long)]
        first: Option<u64>,
        /// How many at a time.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
        jobs: u64,
        /// No more are begun once one has failed.
        #[arg(long)]
        until_found: bool,
        #[command(flatten)]
        how: How,
    },
    /// Runs one seed: the same events at the same times, each time.
    Replay {
        /// Which.
        seed: u64,
        /// Only these faults, by their numbers.
        #[arg(long, value_delimiter = ',')]
        only: Option<Vec<usize>>,
        /// Tell the faults, one line each.
        #[arg(long)]
        faults: bool,
        /// Directory to which the history is written, for nova-check.
        #[arg(long)]
        history: Option<PathBuf>,
        #[command(flatten)]
        how: How,
    },
    /// Plants each bug in turn, and runs seeds from 1 on until it is found: a table in Markdown. Then runs them without one.
    Plants {
        /// How many seeds at most for each.
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// Simulated seconds of faults in each.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
        jobs: u64,
    },
    /// Looks for the fewest faults with which a seed still fails.
    Shrink {
        /// Which.
        seed: u64,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Clone, Copy)]
struct How {
    /// Simulated seconds of faults in each.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// A bug to plant, which is to be found.
    #[arg(long, value_parser = plant)]
    plant: Option<Plant>,
}

impl How {
    /// What repeats it.
    fn arguments(self) -> Vec<String> {
        let plant = self.plant.iter().flat_map(|plant| ["--plant".to_owned(), plant.name().to_owned()]);
        ["--seconds".to_owned(), self.seconds.to_string()].into_iter().chain(plant).collect()
    }
}

fn plant(name: &str) -> Result<Plant, String> {
    let named = Plant::ALL.iter().copied().find(|plant| plant.name() == name);
    named.ok_or_else(|| {
        let all: Vec<String> = Plant::ALL.iter().map(|plant| format!("  {}: {}", plant.name(), plant.what())).collect();
        format!("there is no such bug; there are\n{}", all.join("\n"))
    })
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Do::Replay { seed, only, faults, history, how } => {
            let span = Duration::from_secs(how.seconds);
            let only = only.map(|only| only.into_iter().collect());
            Ok(replay(&Options { seed, span, only, plant: how.plant, history }, faults))
        }
        Do::Run { seeds, first, jobs, until_found, how } => {
            let first = first.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            run(first..first.saturating_add(seeds), how, jobs as usize, until_found)
        }
        Do::Plants { seeds, seconds, jobs } => plants(seeds, seconds, jobs as usize),
        Do::Shrink { seed, how } => shrink::shrink(seed, how),
    };
    done.unwrap_or_else(|error| {
        eprintln!("nova-sim: {error:#}");
        ExitCode::from(2)
    })
}

fn replay(options: &Options, faults: bool) -> ExitCode {
    // A task that panics ends alone, and nobody may miss it.
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        tell(panic);
    }));
    if let Ok(filter) = EnvFilter::try_from_env("NOVA_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    } else {
        // Without one, each span is offered to another logger.
        tracing::subscriber::set_global_default(NoSubscriber::new()).expect("it is the only one");
    }
    let seed = options.seed;
    std::thread::spawn(move || watch(seed));
    let report = nova_simulator::run(options);
    println!("seed {seed}: {report}");
    if faults {
        report.faults.iter().for_each(|fault| println!("  fault {fault}"));
    }
    let panicked = PANICKED.load(Ordering::Relaxed);
    if panicked {
        println!("  panic: a process panicked");
    }
    if panicked || !report.violations.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Ends this program when a process of the simulation never sleeps.
fn watch(seed: u64) {
    let mut before = nova_simulator::steps();
    loop {
        std::thread::sleep(LONGEST_STEP);
        let now = nova_simulator::steps();
        if now == before {
            println!("seed {seed}: stands still\n  J2: a process does not sleep, and time stands still");
            std::process::exit(1);
        }
        before = now;
    }
}

fn run(seeds: std::ops::Range<u64>, how: How, jobs: usize, until_found: bool) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let (mut count, mut failed) = (0, Vec::new());
    let mut seen: BTreeMap<&str, u64> = SEEN_IN_MANY.iter().map(|what| (*what, 0)).collect();
    runs::many(seeds, how, jobs, |ran| {
        print!("{}", ran.said);
        count += 1;
        seen.iter_mut().for_each(|(what, total)| *total += ran.count(what));
        if !ran.broken.is_empty() {
            failed.push(ran.seed);
        }
        !until_found || failed.is_empty()
    })?;
    let (took, simulated) = (begun.elapsed(), Duration::from_secs(how.seconds * count));
    println!(
        "{count} seeds, {:.1} simulated hours in {:.0} s: {:.0} times as fast as time; {} failed",
        simulated.as_secs_f64() / 3_600.0,
        took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64(),
        failed.len()
    );
    for seed in &failed {
        println!("again: nova-sim replay {seed} {}", how.arguments().join(" "));
    }
    let unseen: Vec<&str> = seen.into_iter().filter(|(_, total)| *total == 0).map(|(what, _)| what).collect();
    let empty = count >= MANY && !unseen.is_empty();
    if empty {
        println!("empty: in none of them were there {}: they say nothing", unseen.join(", "));
    }
    Ok(if failed.is_empty() && !empty { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A table of all bugs, in Markdown: in which run each is found, and by what.
fn plants(seeds: u64, seconds: u64, jobs: usize) -> anyhow::Result<ExitCode> {
    let (mut missed, mut most) = (0, 0);
    println!("| bug | what it does | found in run | by |\n| --- | --- | --- | --- |");
    for plant in Plant::ALL {
        let how = How { seconds, plant: Some(*plant) };
        let (mut count, mut found) = (0, None);
        runs::many(1..1 + seeds, how, jobs, |ran| {
            count += 1;
            // A run that says nothing has found nothing.
            if found.is_none() && ran.broken.iter().any(|invariant| invariant != "empty") {
                found = Some((count, ran.broken.iter().cloned().collect::<Vec<_>>().join(", ")));
            }
            found.is_none()
        })?;
        let (run, by) = found.map_or_else(|| ("none".to_owned(), String::new()), |(run, by)| (run.to_string(), by));
        missed += u32::from(by.is_empty());
        most = most.max(count);
        println!("| `{}` | {} | {run} | {by} |", plant.name(), plant.what());
    }
    // What is found must be the bug: without one nothing is found in the same runs.
    println!("\nThe same runs without a bug:");
    let control = run(1..1 + most, How { seconds, plant: None }, jobs, false)?;
    Ok(if missed == 0 { control } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::runs::Ran;

    #[test]
    fn what_a_run_told_is_counted() {
        let said = "seed 1: 5 s simulated, 3 faults, 70 accepted, 2 stale, 19 duplicates, trace 00\n  J2: 9 stale\n";
        let ran = Ran { seed: 1, broken: Default::default(), faults: Vec::new(), said: said.into() };
        assert_eq!([ran.count("stale"), ran.count("duplicates"), ran.count("repeated")], [2, 19, 0]);
    }
}
