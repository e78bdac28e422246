//! S6: executions parked on a timer, what they cost, and others that wake meanwhile. Other scenarios park some too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jiff::{SignedDuration, Timestamp};

use crate::Error;
use crate::bench::Bench;
use crate::load::Loop;
use crate::request::{Asks, Due, Said};
use crate::tally::Sent;
use crate::workflow::{Expect, Workflow};

/// How long they are parked: longer than any run.
const PARKED_FOR: SignedDuration = SignedDuration::from_hours(2);
/// Executions of one request, and how many requests are in flight.
const BATCH: u32 = 500;
const REQUESTS: u32 = 8;
/// Least rate at which executions can be parked, for the time that the set which wakes needs to get there.
const SUBMITTED_PER_SECOND: u64 = 2_000;
/// Between the last submission of the set that wakes and its first wake, at least.
const AHEAD: Duration = Duration::from_secs(3);
/// Rate of the load beside it.
const LOAD_PER_SECOND: u64 = 1_000;

/// Executions that wait.
#[derive(Debug)]
pub(crate) struct Parked {
    workflow: Workflow,
    sent: Vec<Sent>,
    /// How long it took until all were accepted.
    took: Duration,
}

impl Parked {
    /// Reads them back: each must be there once, and wait.
    pub(crate) async fn verify(&self, bench: &mut Bench<'_>) -> Result<(), Error> {
        if self.sent.is_empty() {
            return Ok(());
        }
        bench.verify(&self.workflow, &self.sent).await.map(drop)
    }
}

/// Parks so many executions and waits until the target has nothing to do with them any more.
pub(crate) async fn park(bench: &mut Bench<'_>, count: u64) -> Result<Parked, Error> {
    let workflow = Workflow::sleeper("parked", Expect::Parked);
    if count == 0 {
        return Ok(Parked { workflow, sent: Vec::new(), took: Duration::ZERO });
    }
    bench.deploy(&workflow).await?;
    let due = Due::At(Timestamp::now() + PARKED_FOR);
    let begun = Instant::now();
    let sent = submit(bench, &workflow, count, |_| due).await?;
    let took = begun.elapsed();
    let per_second = count as f64 / took.as_secs_f64();
    eprintln!("parked   {count} executions, {per_second:.0} per second");
    bench.settle().await?;
    Ok(Parked { workflow, sent, took })
}

/// Submits until so many are accepted; those that are turned away are replaced by others.
async fn submit(
    bench: &mut Bench<'_>,
    workflow: &Workflow,
    count: u64,
    due: impl Fn(u64) -> Due,
) -> Result<Vec<Sent>, Error> {
    let mut sent: Vec<Sent> = Vec::new();
    let mut left = count;
    while left > 0 {
        // Requests are whole; the rest goes one by one.
        let batch = if left >= u64::from(BATCH) { BATCH } else { 1 };
        let whole = left / u64::from(batch) * u64::from(batch);
        let mut plan = bench.plan(Loop::Burst { count: whole, in_flight: batch * REQUESTS });
        (plan.batch, plan.asks, plan.due) = (batch, Asks::Commit, Some(due(plan.first)));
        let loaded = bench.load(workflow, &plan).await?;
        left -= loaded.tally.completed;
        sent.extend(loaded.tally.sent);
        if loaded.tally.completed + loaded.tally.refused < whole {
            // An answer that is neither is told by the verification; asking again would hide it.
            break;
        }
    }
    Ok(sent)
}

/// S6.
pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let args = bench.args;
    let load = Workflow::chain("s6", 1, args.work());
    let rate = args.rate.unwrap_or(LOAD_PER_SECOND);
    bench.deploy(&load).await?;
    let mut plan = bench.plan(Loop::Open { per_second: rate });
    plan.asks = Asks::Commit;
    let mut sent = bench.measure(&format!("open {rate}/s, none parked"), &load, &plan).await?;
    bench.settle().await?;

    let (before, disk_before) = (anonymous(bench)?, bench.target.bytes_on_disk());
    let parked = park(bench, args.parked()).await?;
    let count = args.parked() as f64;
    bench.figure("parking", "exec/s", vec![count / parked.took.as_secs_f64()]);
    let mut all = 0.0;
    for (kind, bytes) in anonymous(bench)? {
        let each = (bytes as f64 - before.get(kind).copied().unwrap_or(0) as f64) / count;
        if kind != "generator" {
            bench.figure(format!("memory of {kind} with all of them"), "MiB", vec![bytes as f64 / f64::from(1 << 20)]);
            bench.figure(format!("growth of {kind} per parked execution"), "B", vec![each]);
            all += each;
        }
    }
    bench.figure("growth of all processes per parked execution", "B", vec![all]);
    let disk = bench.target.bytes_on_disk() as f64 - disk_before as f64;
    bench.figure("growth of the disk per parked execution", "B", vec![disk / count]);
    bench.notes.push(
        "memory is anonymous and resident, once the target is quiet; the disk is all data, logs and history".into(),
    );

    plan.first = bench.next();
    sent.extend(bench.measure(&format!("open {rate}/s, all parked"), &load, &plan).await?);
    bench.settle().await?;
    let woken = wake(bench, &load, rate, &mut sent).await?;
    bench.verify(&load, &sent).await?;
    woken.verify(bench, args.seconds()).await?;
    parked.verify(bench).await
}

/// The set that wakes.
struct Woken {
    workflow: Workflow,
    sent: Vec<Sent>,
    begin: Timestamp,
}

/// Submits executions that fall due evenly, and puts load on the target while they do.
async fn wake(bench: &mut Bench<'_>, load: &Workflow, rate: u64, sent: &mut Vec<Sent>) -> Result<Woken, Error> {
    let (per_second, seconds) = (bench.args.wakes.unwrap_or(10_000), bench.args.seconds());
    let workflow = Workflow::sleeper("woken", Expect::NumberPlus(0));
    bench.deploy(&workflow).await?;
    let count = per_second * seconds;
    let ahead = AHEAD + Duration::from_millis(1_000 * count / SUBMITTED_PER_SECOND);
    let begin = Timestamp::now() + SignedDuration::try_from(ahead).expect("some minutes");
    let first = bench.next();
    let due = Due::Paced { begin, first, per_second };
    let woken = submit(bench, &workflow, count, |_| due).await?;
    let left = begin.duration_since(Timestamp::now());
    let Ok(left) = Duration::try_from(left) else {
        return Err(Error::Behind { what: format!("{count} executions that are to wake"), within: ahead });
    };
    bench.notes.push(format!("{count} executions fall due evenly within {seconds} s, {per_second} per second"));
    let mut plan = bench.plan(Loop::Open { per_second: rate });
    (plan.asks, plan.warmup) = (Asks::Commit, left);
    sent.extend(bench.measure(&format!("open {rate}/s, {per_second} wake per second"), load, &plan).await?);
    Ok(Woken { workflow, sent: woken, begin })
}

impl Woken {
    /// All must have ended, none before it was due; how late they were is what is wanted.
    async fn verify(&self, bench: &mut Bench<'_>, seconds: u64) -> Result<(), Error> {
        let found = bench.verify(&self.workflow, &self.sent).await?;
        let accepted = self.sent.iter().filter(|sent| matches!(sent.said, Said::Accepted(_))).count();
        let end = self.begin + SignedDuration::from_secs(seconds as i64);
        let in_time = found.ended.iter().filter(|at| **at < end).count();
        bench.figure("woken and ended in the seconds of the wakes", "exec/s", vec![in_time as f64 / seconds as f64]);
        bench.figure("woken and ended in the end", "executions", vec![found.ended.len().min(accepted) as f64]);
        lateness(bench, &found.late_us);
        bench.notes.push(
            "lateness is from when a wait was due until its execution had ended, both by the history, which knows milliseconds"
                .into(),
        );
        Ok(())
    }
}

fn lateness(bench: &mut Bench<'_>, late_us: &Histogram<u64>) {
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
        let ms = late_us.value_at_quantile(share) as f64 / 1e3;
        bench.figure(format!("lateness of a wake, {name}"), "ms", vec![ms]);
    }
    bench.figure("lateness of a wake, max", "ms", vec![late_us.max() as f64 / 1e3]);
}

fn anonymous(bench: &Bench<'_>) -> Result<BTreeMap<&'static str, u64>, Error> {
    Ok(bench.usage()?.into_iter().map(|(kind, usage)| (kind, usage.anonymous_bytes)).collect())
}
