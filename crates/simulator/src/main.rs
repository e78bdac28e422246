//! `nova-sim`: clusters in simulated time, under faults. Each seed runs in a process of its own: what tokio counts per
//! process is then the same each time.

use std::collections::VecDeque;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use nova_simulator::Plant;

/// Runs clusters in simulated time, under faults, and checks what must hold.
#[derive(Parser)]
#[command(version, after_help = "Exit codes: 0 all holds, 1 something does not, 2 it could not be run.")]
struct Args {
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
        /// Simulated seconds of faults in each.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// A bug to plant, which is to be found.
        #[arg(long, value_enum)]
        plant: Option<Bug>,
        /// How many at a time.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=256))]
        jobs: u64,
    },
    /// Runs one seed: the same events at the same times, each time.
    Replay {
        /// Which.
        seed: u64,
        /// Simulated seconds of faults.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// A bug to plant, which is to be found.
        #[arg(long, value_enum)]
        plant: Option<Bug>,
    },
}

/// Bugs that members do not have.
#[derive(Clone, Copy, ValueEnum)]
enum Bug {
    /// A member that is killed loses its files, and with them the votes and entries that it answered for.
    Forgets,
    /// A task panics, and its process goes on.
    Panics,
}

impl Bug {
    fn plant(self) -> Plant {
        match self {
            Self::Forgets => Plant::Forgets,
            Self::Panics => Plant::Panics,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn main() -> ExitCode {
    match Args::parse().command {
        Do::Replay { seed, seconds, plant } => replay(seed, seconds, plant),
        Do::Run { seeds, first, seconds, plant, jobs } => {
            let first = first.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            match run(first..first.saturating_add(seeds), seconds, plant, jobs as usize) {
                Ok(code) => code,
                Err(error) => {
                    eprintln!("nova-sim: {error:#}");
                    ExitCode::from(2)
                }
            }
        }
    }
}

fn replay(seed: u64, seconds: u64, plant: Option<Bug>) -> ExitCode {
    // A task that panics ends alone, and nobody may miss it.
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        tell(panic);
    }));
    match nova_simulator::run(seed, Duration::from_secs(seconds), plant.map_or(Plant::Nothing, Bug::plant)) {
        Ok(_) if PANICKED.load(Ordering::Relaxed) => {
            println!("seed {seed}: a process panicked");
            ExitCode::FAILURE
        }
        Ok(report) => {
            println!("seed {seed}: {report}");
            ExitCode::SUCCESS
        }
        Err(broken) => {
            println!("seed {seed}: {broken}");
            ExitCode::FAILURE
        }
    }
}

fn run(seeds: std::ops::Range<u64>, seconds: u64, plant: Option<Bug>, jobs: usize) -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe().context("where this program is")?;
    let begun = Instant::now();
    let count = seeds.end - seeds.start;
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let mut failed = Vec::new();
    for seed in seeds.map(Some).chain([None]) {
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
        let mut command = Command::new(&own);
        command.args(["replay", &seed.to_string(), "--seconds", &seconds.to_string()]);
        command.args(plant.iter().flat_map(|bug| ["--plant".to_owned(), bug.name()]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("a process for a seed")?;
        running.push_back((seed, child));
    }
    let (took, simulated) = (begun.elapsed(), Duration::from_secs(seconds * count));
    println!(
        "{count} seeds, {:.1} simulated hours in {:.0} s: {:.0} times as fast as time; {} failed",
        simulated.as_secs_f64() / 3_600.0,
        took.as_secs_f64(),
        simulated.as_secs_f64() / took.as_secs_f64(),
        failed.len()
    );
    for seed in &failed {
        let plant = plant.map_or_else(String::new, |bug| format!(" --plant {}", bug.name()));
        println!("again: nova-sim replay {seed} --seconds {seconds}{plant}");
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
