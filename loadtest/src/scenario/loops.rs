//! S1 and S2: a chain of one task or of ten, answered with its result; a closed loop, then an open one.

use crate::Error;
use crate::args::{Args, Loops, ScenarioName};
use crate::bench::Bench;
use crate::load::Loop;
use crate::report::{Phase, Spread};
use crate::workflow::Workflow;

/// Part of what the closed loop reached at which the open loop looks for latencies.
const KNEE: f64 = 0.8;
/// Rate of the open loop of s2.
const CHAINS_PER_SECOND: u64 = 100;

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let args = bench.args;
    let tasks = if args.scenario == ScenarioName::S1 { 1 } else { 10 };
    let workflow = Workflow::chain(args.scenario.name(), tasks, args.work());
    bench.deploy(&workflow).await?;
    let parked = super::sleepers::park(bench, args.parked()).await?;
    let mut sent = Vec::new();
    for open in rounds(args) {
        let (key, kind) = match open {
            true => ("open".to_owned(), Loop::Open { per_second: rate(args, &bench.phases) }),
            false => (format!("closed {}", args.in_flight()), Loop::Closed { in_flight: args.in_flight() }),
        };
        let plan = bench.plan(kind);
        sent.extend(bench.measure(&key, &workflow, &plan).await?);
    }
    bench.verify(&workflow, &sent).await?;
    parked.verify(bench).await
}

/// Whether each loop is an open one, in order: all closed ones come first, since they find the rate of the open ones.
fn rounds(args: &Args) -> Vec<bool> {
    let loops = [(args.loops() != Loops::Open, false), (args.loops() != Loops::Closed, true)];
    let wanted = loops.into_iter().filter(|(wanted, _)| *wanted);
    wanted.flat_map(|(_, open)| std::iter::repeat_n(open, args.repeat() as usize)).collect()
}

/// Of the open loops; `phases` are those before, and the same rate goes to all of one run.
fn rate(args: &Args, phases: &[Phase]) -> u64 {
    let closed = phases.iter().filter(|phase| phase.key != "open").map(|phase| phase.executions_per_s).collect();
    let found = || match (args.scenario, Spread::of(closed)) {
        (ScenarioName::S1, Some(closed)) => (closed.median * KNEE) as u64,
        _ => CHAINS_PER_SECOND,
    };
    args.rate.unwrap_or_else(found).max(1)
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
