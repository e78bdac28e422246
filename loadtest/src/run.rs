//! One run, from the look at the machine to the record.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nova_testkit::{Dir, Nova};

use crate::args::{Args, Loops, ScenarioName};
use crate::cpu::Reading;
use crate::http::Connection;
use crate::load::{self, Loop, Plan};
use crate::machine::Machine;
use crate::report::{self, Phase, Record, Spread};
use crate::request::FIRST;
use crate::scenario::Scenario;
use crate::tally::Sent;
use crate::target::Target;
use crate::{Error, first, verify};

/// Part of what the closed loop reached at which the open loop looks for latencies.
const KNEE: f64 = 0.8;
/// Longest wait until the history has all that ended.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Rate of the open loop of s2.
const CHAINS_PER_SECOND: u64 = 100;

/// Measures. What is started ends when this does, or is dropped.
///
/// # Errors
/// When there is no measurement: see [`Error`].
pub async fn run(args: &Args) -> Result<Record, Error> {
    args.check()?;
    let nova = match &args.nova {
        Some(path) => Nova::at(path)?,
        None => Nova::binary()?,
    };
    let dir = match &args.data {
        Some(parent) => Dir::temporary_in(parent)?,
        None => Dir::temporary()?,
    };
    let machine = Machine::look(dir.path())?;
    eprint!("{}", report::machine(&machine));
    if !args.anyway {
        machine.check()?;
    }
    let version = nova.run(["--version"]).await?.trim().to_owned();
    eprintln!("target   {}, {version} at {}", args.target.name(), nova.path().display());
    let mut target = Target::start(&nova, args, dir).await?;
    let scenario = Scenario::new(args.scenario, args.work);
    target.rest().apply(&scenario.document).await?;
    target.rest().apply(&first::document(&scenario)).await?;

    let address = target.address()?;
    let host = address.to_string();
    let mut connection = Connection::open(address).await.map_err(|source| Error::Connect { address, source })?;
    let (took, errors) = first::results(&mut connection, &host, &scenario).await?;
    eprintln!("ready    first results of all shards after {} ms, {errors} errors before", took.as_millis());
    let mut phases: Vec<Phase> = Vec::new();
    let mut sent: Vec<Sent> = Vec::new();
    let mut next = FIRST;
    let mut examples = Vec::new();
    for open in rounds(args) {
        let kind = match open {
            true => Loop::Open { per_second: rate(args, &phases) },
            false => Loop::Closed { in_flight: args.in_flight() },
        };
        let plan = Plan {
            kind,
            warmup: Duration::from_secs(args.warmup_seconds()),
            measured: Duration::from_secs(args.seconds),
            batch: args.batch,
            first: next,
        };
        eprintln!("load     {kind:?} for {} + {} s", args.warmup_seconds(), args.seconds);
        let loaded = match load::run(address, || Reading::take(&target), &scenario, &plan).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // The end of a process says more than a connection that broke.
                target.check().await?;
                return Err(error);
            }
        };
        next = loaded.next;
        let phase = Phase::of(&plan, &loaded, machine.cores);
        examples.extend(loaded.tally.wrong);
        if loaded.tally.completed == 0 {
            let answer = examples.first().cloned().unwrap_or_else(|| "there was none".into());
            return Err(Error::Nothing { phase: phase.name, answer });
        }
        sent.extend(loaded.tally.sent);
        phases.push(phase);
    }

    let begun = Instant::now();
    let mut verdict = verify::read_back(&mut connection, &host, &scenario, &sent, CATCH_UP).await?;
    let read_back_ms = begun.elapsed().as_millis() as u64;
    target.check().await?;
    verdict.examples.extend(examples);
    Ok(Record {
        scenario: args.scenario.name(),
        target: args.target.name(),
        work: args.work.name(),
        commit: commit(),
        nova: version,
        machine,
        // A figure of wrong results would be taken for one.
        phases: if verdict.is_right() { phases } else { Vec::new() },
        verified: verdict.is_right(),
        verdict,
        read_back_ms,
    })
}

/// Whether each loop is an open one, in order: all closed ones come first, since they find the rate of the open ones.
fn rounds(args: &Args) -> Vec<bool> {
    let loops = [(args.loops != Loops::Open, false), (args.loops != Loops::Closed, true)];
    let wanted = loops.into_iter().filter(|(wanted, _)| *wanted);
    wanted.flat_map(|(_, open)| std::iter::repeat_n(open, args.repeat as usize)).collect()
}

/// Of the open loops; `phases` are those before, and the same rate goes to all of one run.
fn rate(args: &Args, phases: &[Phase]) -> u64 {
    let closed = phases.iter().filter(|phase| !phase.open).map(|phase| phase.executions_per_s).collect();
    let found = || match (args.scenario, Spread::of(closed)) {
        (ScenarioName::S1, Some(closed)) => (closed.median * KNEE) as u64,
        _ => CHAINS_PER_SECOND,
    };
    args.rate.unwrap_or_else(found).max(1)
}

/// The commit of the checkout that this was built in, if it is still there.
fn commit() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(here).output();
    let said = said.ok().filter(|said| said.status.success());
    said.map_or_else(|| "unknown".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn loops_come_in_the_order_in_which_they_need_each_other() {
        let rounds = |words: &str| {
            let words = ["nova-loadtest", "s1"].into_iter().chain(words.split_whitespace());
            rounds(&Args::try_parse_from(words).unwrap())
        };
        assert_eq!(rounds(""), [false, true]);
        assert_eq!(rounds("--repeat 2"), [false, false, true, true]);
        assert_eq!(rounds("--loops open --rate 5"), [true]);
        assert_eq!(rounds("--loops closed --repeat 3"), [false; 3]);
    }
}
