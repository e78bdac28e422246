//! What a cluster of another size would do, from what one machine was seen to do.
//!
//! A simulation of queues: each step of an execution costs what it was measured to cost, waits for its thread, a core, a
//! disk, others in its batch. Where that gives what was measured, it is believed a little beyond.
//!
//! ```text
//! measured.toml ─┐
//! layouts.toml  ─┴▶ cluster ─▶ network ◀─▶ flow ─▶ report
//! ```

mod agenda;
mod cluster;
mod flow;
mod input;
mod network;
mod parts;
mod record;
mod report;
mod run;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use flow::Load;
use input::{Layouts, Measured};

/// What a cluster of another size would do, from what one machine was seen to do.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Args {
    /// What was measured.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/measured.toml"))]
    measured: PathBuf,
    /// The clusters.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/layouts.toml"))]
    layouts: PathBuf,
    /// Of the simulated chance; the same gives the same figures.
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
    /// How many times as long everything takes on the cores.
    #[arg(long, global = true, default_value_t = 1.0, value_parser = times)]
    slower: f64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Predicts what was measured, and prints both.
    Check {
        /// Records of `nova-loadtest` (`--json`) in place of the points of the file.
        records: Vec<PathBuf>,
    },
    /// What one layout does at a rate, and which part ends first.
    Predict {
        /// Its name in the file of layouts.
        layout: String,
        /// Executions started each second; or
        #[arg(long, required_unless_present = "in_flight", value_parser = per_s)]
        rate: Option<f64>,
        /// so many that are always in flight.
        #[arg(long, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        in_flight: Option<u32>,
        /// Tasks in sequence of an execution.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
        tasks: u8,
        /// Executions that wait on a timer, for the memory.
        #[arg(long, default_value_t = 1_000_000)]
        parked: u64,
    },
    /// The most that layouts carry, each with the part that ends first.
    Knee {
        /// Their names in the file of layouts.
        #[arg(required = true)]
        names: Vec<String>,
        /// Looked for below this.
        #[arg(long, default_value_t = 400_000.0, value_parser = per_s)]
        most: f64,
    },
}

fn times(text: &str) -> Result<f64, String> {
    let times = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.1..=10.0).contains(&times) { Ok(times) } else { Err("from 0.1 to 10".into()) }
}

fn per_s(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (1.0..=1e6).contains(&rate) { Ok(rate) } else { Err("from 1 to 1,000,000".into()) }
}

fn main() -> ExitCode {
    match act(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("scale: because {cause}");
                source = cause.source();
            }
            ExitCode::from(2)
        }
    }
}

fn act(args: &Args) -> Result<(), Box<dyn Error>> {
    let measured = Measured::read(&args.measured)?.slower(args.slower);
    let layouts = Layouts::read(&args.layouts)?;
    println!("seed {}; costs of {}\n", args.seed, measured.machine);
    match &args.command {
        Command::Check { records } => {
            let points = points(&measured, records)?;
            print!("{}", report::check(&measured, &layouts, &points, args.seed)?);
        }
        Command::Predict { layout, rate, in_flight, tasks, parked } => {
            let (name, layout) = (layout, layouts.get(layout)?);
            let load = in_flight.map_or(Load::Open(rate.unwrap_or_default()), Load::Closed);
            print!("{}", report::predict(&measured, name, layout, (load, *tasks, *parked), args.seed));
        }
        Command::Knee { names, most } => {
            for name in names {
                print!("{}", report::knee(&measured, name, layouts.get(name)?, *most, args.seed));
            }
        }
    }
    Ok(())
}

fn points(measured: &Measured, records: &[PathBuf]) -> Result<Vec<input::Point>, input::InputError> {
    if records.is_empty() {
        return Ok(measured.points.clone());
    }
    let of_each = records.iter().map(|path: &PathBuf| record::points(Path::new(path)));
    Ok(of_each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod argument_tests {
    use super::*;

    #[test]
    fn a_load_is_a_rate_or_a_number_in_flight() {
        let parsed = |text: &str| Args::try_parse_from(text.split(' '));
        for right in [
            "scale check a.json",
            "scale knee twelve kafka-3",
            "scale predict twelve --rate 100 --slower 1.5",
            "scale predict kafka-1 --in-flight 256",
        ] {
            assert!(parsed(right).is_ok(), "{right}");
        }
        for wrong in [
            "scale predict twelve",
            "scale predict twelve --rate 0",
            "scale predict twelve --rate 5 --in-flight 5",
            "scale knee twelve --slower 0",
            "scale knee",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
