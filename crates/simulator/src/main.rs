//! `nova-sim`: clusters in simulated time, under faults. Each seed runs in a process of its own: what tokio counts per
//! process is then the same each time.

mod shrink;

use std::collections::{BTreeSet, VecDeque};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use nova_plants::Plant;
use nova_simulator::Options;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
        /// Faults that are left out, by their numbers.
        #[arg(long, value_delimiter = ',')]
        without: Vec<usize>,
        /// Tell the faults, one line each.
        #[arg(long)]
        faults: bool,
        #[command(flatten)]
        how: How,
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
        Do::Replay { seed, without, faults, how } => Ok(replay(seed, without.into_iter().collect(), faults, how)),
        Do::Run { seeds, first, jobs, until_found, how } => {
            let first = first.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            run(first..first.saturating_add(seeds), how, jobs as usize, until_found)
        }
        Do::Shrink { seed, how } => shrink::shrink(seed, how),
    };
    done.unwrap_or_else(|error| {
        eprintln!("nova-sim: {error:#}");
        ExitCode::from(2)
    })
}

fn replay(seed: u64, without: BTreeSet<usize>, faults: bool, how: How) -> ExitCode {
    // A task that panics ends alone, and nobody may miss it.
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        tell(panic);
    }));
    if let Ok(filter) = EnvFilter::try_from_env("NOVA_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    }
    let span = Duration::from_secs(how.seconds);
    let report = nova_simulator::run(&Options { seed, span, without, plant: how.plant });
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

/// One seed in a process of its own.
fn command(seed: u64, how: How) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    command.args(["replay", &seed.to_string()]).args(how.arguments());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn run(seeds: std::ops::Range<u64>, how: How, jobs: usize, until_found: bool) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let mut count = 0;
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let mut failed = Vec::new();
    for seed in seeds.map(Some).chain([None]) {
        let seed = seed.filter(|_| !until_found || failed.is_empty());
        // At the end all are awaited.
        while running.len() >= if seed.is_some() { jobs } else { 1 } {
            let Some((number, child)) = running.pop_front() else { break };
            let output = child.wait_with_output().with_context(|| format!("the process of seed {number}"))?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                eprint!("{said}");
                failed.push(number);
            }
        }
        let Some(seed) = seed else { break };
        count += 1;
        running.push_back((seed, command(seed, how)?.spawn().context("a process for a seed")?));
    }
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
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
