//! Three times of what can be done: what is taken is done, the rest is turned away at once, and when it is over latencies
//! are soon as before. A tenant that submits little is beside it, before and meanwhile.

mod tenant;

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use tenant::Tenant;

use crate::Error;
use crate::bench::Bench;
use crate::load::{Loaded, Loop};
use crate::report::Phase;
use crate::request::Asks;
use crate::tally::Sent;
use crate::verify::Found;
use crate::workflow::Workflow;

/// So many times the knee.
const FACTOR: f64 = 3.0;
/// Part of the knee at which latencies are normal.
const CALM: f64 = 0.5;
/// Latencies are normal again below so many times those before.
const NORMAL: f64 = 2.0;
/// Longest wait until they are.
const PATIENCE: Duration = Duration::from_secs(120);
/// Seconds of overload before those that count.
const RISE: Duration = Duration::from_secs(2);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let args = bench.args;
    let workflow = Workflow::chain("overload", args.steps(), args.work());
    bench.deploy(&workflow).await?;
    let mut sent = Vec::new();
    let plan = bench.plan(Loop::Closed { in_flight: args.in_flight() });
    sent.extend(bench.measure("knee", &workflow, &plan).await?);
    let knee = bench.phases.last().map_or(0.0, |phase| phase.executions_per_s);
    bench.settle().await?;
    let calm = Loop::Open { per_second: ((knee * CALM) as u64).max(1) };
    let plan = bench.plan(calm);
    sent.extend(bench.measure("calm before", &workflow, &plan).await?);
    let normal_ms = bench.phases.last().map_or(0.0, |phase| phase.p99_ms) * NORMAL;

    let mut tenant = Tenant::new(bench).await?;
    let running = tenant.start(Duration::ZERO, Duration::from_secs(args.seconds()));
    let quiet = tenant.ended(running).await?;

    let rate = ((knee * FACTOR) as u64).max(1);
    let mut plan = bench.plan(Loop::Open { per_second: rate });
    (plan.asks, plan.warmup) = (Asks::Commit, RISE);
    let mut running = None;
    let begins = || running = Some(tenant.start(plan.warmup, plan.measured));
    let loaded = bench.load_telling(&workflow, &plan, begins).await?;
    let running = running.expect("a loop that ended has begun");
    let flooded = tenant.ended(running).await?;
    let phase = Phase::of("overload", &plan, &loaded, bench.cores());
    let recovered = recover(bench, &workflow, calm, normal_ms, loaded.until, &mut sent).await?;
    bench.notes.push(format!(
        "the knee is that of the closed loop; the overload is {FACTOR} times of it, answered when durable or turned away; normal is a p99 of at most {NORMAL} times that at half of the knee, looked at second by second"
    ));
    tell(bench, &phase, &loaded, rate);
    bench.figure("from the end of the overload until p99 is normal", "s", vec![recovered]);
    let from = loaded.from;
    sent.extend(loaded.tally.sent);
    tenant.tell(bench, quiet, flooded).await?;
    bench.phases.push(phase);
    let found = bench.verify(&workflow, &sent).await?;
    let goodput = ended_between(&found, from, args.seconds()) as f64 / args.seconds() as f64;
    bench.figure("goodput: completed in the seconds of the overload", "exec/s", vec![goodput]);
    bench.figure("goodput, part of the knee", "%", vec![100.0 * goodput / knee]);
    Ok(())
}

fn tell(bench: &mut Bench<'_>, phase: &Phase, loaded: &Loaded, rate: u64) {
    let tally = &loaded.tally;
    let ms = |share: f64| tally.refused_us.value_at_quantile(share) as f64 / 1e3;
    bench.figure("overload: due", "exec/s", vec![rate as f64]);
    bench.figure("overload: accepted", "exec/s", vec![phase.executions_per_s]);
    bench.figure("overload: turned away with 429", "executions", vec![tally.refused as f64]);
    if tally.refused_us.is_empty() {
        bench.notes.push("nothing was turned away".into());
        return;
    }
    for (name, value) in [("p50", ms(0.5)), ("p99", ms(0.99)), ("max", tally.refused_us.max() as f64 / 1e3)] {
        bench.figure(format!("429, from sent to answered, {name}"), "ms", vec![value]);
    }
    for (name, value) in [("least", tally.retry_after_s.min()), ("most", tally.retry_after_s.max())] {
        bench.figure(format!("Retry-After of the 429s, {name} (0: not told)"), "s", vec![value as f64]);
    }
}

/// Loads of one second each until their p99 is normal; gives the seconds since `over`.
async fn recover(
    bench: &mut Bench<'_>,
    workflow: &Workflow,
    calm: Loop,
    normal_ms: f64,
    over: Instant,
    sent: &mut Vec<Sent>,
) -> Result<f64, Error> {
    loop {
        let begun = Instant::now();
        let mut plan = bench.plan(calm);
        (plan.warmup, plan.measured) = (Duration::ZERO, Duration::from_secs(1));
        let tally = bench.load_any(workflow, &plan).await?.tally;
        let p99_ms = tally.latency_us.value_at_quantile(0.99) as f64 / 1e3;
        eprintln!("recover  {:.1} s after the overload: p99 {p99_ms:.1} ms", (begun - over).as_secs_f64());
        let right = tally.refused == 0 && !tally.latency_us.is_empty() && p99_ms <= normal_ms;
        sent.extend(tally.sent);
        if right {
            return Ok((begun - over).as_secs_f64());
        }
        if over.elapsed() > PATIENCE {
            let what = format!("a p99 of at most {normal_ms:.1} ms after the overload");
            return Err(Error::Late { what, within: PATIENCE });
        }
    }
}

fn ended_between(found: &Found, from: Timestamp, seconds: u64) -> usize {
    let end = from + SignedDuration::from_secs(seconds as i64);
    found.ended.iter().filter(|at| from <= **at && **at < end).count()
}
