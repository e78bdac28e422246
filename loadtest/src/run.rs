//! One run, from the look at the machine to the record.

use std::path::Path;
use std::process::Command;

use nova_testkit::{Dir, Nova};

use crate::Error;
use crate::args::{Args, ScenarioName};
use crate::bench::Bench;
use crate::machine::Machine;
use crate::report::{self, Figure, Phase, Record};
use crate::scenario::{self, fleet, placement};
use crate::target::Target;
use crate::verify::Verdict;

/// What a scenario brought.
#[derive(Default)]
struct Outcome {
    notes: Vec<String>,
    phases: Vec<Phase>,
    figures: Vec<Figure>,
    verdict: Verdict,
    read_back_ms: u64,
}

/// Measures. What is started ends when this does, or is dropped.
///
/// # Errors
/// When there is no measurement: see [`Error`].
pub async fn run(args: &Args) -> Result<Record, Error> {
    args.check()?;
    let mut runs = Vec::new();
    for _ in 0..args.runs_apart() {
        runs.push(once(args).await?);
    }
    Ok(Record::of_all(runs).expect("there is at least one run"))
}

async fn once(args: &Args) -> Result<Record, Error> {
    let dir = match &args.data {
        Some(parent) => Dir::temporary_in(parent)?,
        None => Dir::temporary()?,
    };
    // The engine alone is measured in this process.
    let nova = if args.scenario == ScenarioName::S9b { None } else { Some(binary(args)?) };
    let machine = Machine::look(dir.path())?;
    eprint!("{}", report::machine(&machine));
    if !args.anyway {
        machine.check()?;
    }
    let (version, outcome) = match nova {
        None => (format!("engine {}", env!("CARGO_PKG_VERSION")), placement_of(args)?),
        Some(nova) => {
            let version = nova.run(["--version"]).await?.trim().to_owned();
            eprintln!("target   {}, {version} at {}", args.target.name(), nova.path().display());
            let outcome = match args.scenario {
                ScenarioName::S9a => fleet_of(args, &nova, &dir).await?,
                _ => on_target(args, &nova, dir, machine.cores).await?,
            };
            (version, outcome)
        }
    };
    let verified = outcome.verdict.is_right();
    Ok(Record {
        scenario: args.scenario.name(),
        target: args.target.name(),
        work: args.work().name(),
        keyed: args.keyed,
        parked_before: args.parked(),
        commit: commit(),
        nova: version,
        machine,
        notes: outcome.notes,
        // A figure of wrong results would be taken for one.
        phases: if verified { outcome.phases } else { Vec::new() },
        figures: if verified { outcome.figures } else { Vec::new() },
        verified,
        verdict: outcome.verdict,
        read_back_ms: outcome.read_back_ms,
    })
}

fn binary(args: &Args) -> Result<Nova, Error> {
    Ok(match &args.nova {
        Some(path) => Nova::at(path)?,
        None => Nova::binary()?,
    })
}

async fn on_target(args: &Args, nova: &Nova, dir: Dir, cores: usize) -> Result<Outcome, Error> {
    let target = Target::start(nova, args, dir).await?;
    let mut bench = Bench::new(args, target, cores).await?;
    scenario::run(&mut bench).await?;
    bench.finish().await?;
    let read_back_ms = bench.read_back.as_millis() as u64;
    let Bench { notes, phases, figures, verdict, .. } = bench;
    Ok(Outcome { notes, phases, figures, verdict, read_back_ms })
}

async fn fleet_of(args: &Args, nova: &Nova, dir: &Dir) -> Result<Outcome, Error> {
    let fleet::Kept { figures, verdict, notes } = fleet::run(args, nova, dir).await?;
    Ok(Outcome { notes, figures, verdict, ..Outcome::default() })
}

fn placement_of(args: &Args) -> Result<Outcome, Error> {
    let placement::Placed { figures, verdict, note } = placement::run(args)?;
    Ok(Outcome { notes: vec![note], figures, verdict, ..Outcome::default() })
}

/// The commit of the checkout that this was built in, if it is still there.
fn commit() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(here).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map_or_else(|| "unknown".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
