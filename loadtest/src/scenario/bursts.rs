//! S3, S4 and X1: so many executions at once, and how long it takes until all have ended.

use std::time::Duration;

use crate::Error;
use crate::args::Work;
use crate::bench::Bench;
use crate::load::Loop;
use crate::workflow::Workflow;

/// The language allows 10,000 nodes in one document; these tasks have ten joins, and one of those.
const TASKS_OF_A_LARGE_FAN: usize = 9_989;

/// One burst of a scenario.
struct Burst {
    key: &'static str,
    workflow: Workflow,
    /// Executions at once.
    count: u32,
}

/// S3.
pub(crate) async fn hello(bench: &mut Bench<'_>) -> Result<(), Error> {
    let workflow = Workflow::chain("s3", 5, bench.args.work());
    let batch = bench.args.batch();
    bench.notes.push(format!("1,000 executions in {} requests in flight at once", 1_000 / batch));
    run(bench, vec![Burst { key: "hello5-1000", workflow, count: 1_000 }], batch).await
}

/// S4.
pub(crate) async fn fans(bench: &mut Bench<'_>) -> Result<(), Error> {
    let workers = bench.target.workers();
    bench.notes.push(format!("tasks run on {workers}"));
    bench.notes.push(format!(
        "fan-10000 is a graph of 10,000 nodes, which is the limit: {TASKS_OF_A_LARGE_FAN} tasks, 10 joins, and 1 join of these"
    ));
    let bursts = [("fan-1000", 1_000), ("fan-10000", TASKS_OF_A_LARGE_FAN)];
    let bursts = bursts.map(|(key, tasks)| Burst { key, workflow: Workflow::fan(key, tasks), count: 1 });
    run(bench, bursts.into(), 1).await
}

/// X1.
pub(crate) async fn comparables(bench: &mut Bench<'_>) -> Result<(), Error> {
    bench.notes.push(
        "40 × fibonacci(10): a graph of the 177 calls of the recursion, a task for each, which needs its two calls and gives their sum; the language has no recursion"
            .into(),
    );
    let bursts = vec![
        Burst { key: "40 × fibonacci(10)", workflow: Workflow::fibonacci(10), count: 40 },
        Burst { key: "1000 × 100 steps", workflow: Workflow::chain("x1-100", 100, Work::Noop), count: 1_000 },
        Burst { key: "100 × 50 steps", workflow: Workflow::chain("x1-50", 50, Work::Noop), count: 100 },
    ];
    let batch = bench.args.batch();
    run(bench, bursts, batch).await
}

async fn run(bench: &mut Bench<'_>, bursts: Vec<Burst>, batch: u32) -> Result<(), Error> {
    warm(bench).await?;
    for Burst { key, workflow, count } in bursts {
        bench.deploy(&workflow).await?;
        let kind = Loop::Burst { count: u64::from(count), in_flight: count };
        let mut sent = Vec::new();
        // The first one loads the workflow everywhere; it is verified and not measured.
        for measured in std::iter::once(false).chain(std::iter::repeat_n(true, bench.args.repeat() as usize)) {
            let mut plan = bench.plan(kind);
            plan.batch = batch;
            sent.extend(match measured {
                true => bench.measure(key, &workflow, &plan).await?,
                false => bench.load(&workflow, &plan).await?.tally.sent,
            });
        }
        let seconds: Vec<f64> =
            bench.phases.iter().filter(|phase| phase.key == key).map(|phase| phase.seconds).collect();
        let steps = (workflow.tasks * u64::from(count)) as f64;
        let per_second = seconds.iter().map(|seconds| steps / seconds).collect();
        bench.figure(format!("{key}: until all have ended"), "s", seconds);
        bench.figure(format!("{key}: steps"), "steps/s", per_second);
        bench.verify(&workflow, &sent).await?;
    }
    Ok(())
}

/// Load before the first burst, as long as the options want: brokers are slow at first.
async fn warm(bench: &mut Bench<'_>) -> Result<(), Error> {
    let mut plan = bench.plan(Loop::Closed { in_flight: 64 });
    (plan.warmup, plan.measured, plan.batch) = (Duration::ZERO, plan.warmup, 1);
    if plan.measured.is_zero() {
        return Ok(());
    }
    let workflow = Workflow::chain("warm", 1, Work::Noop);
    bench.deploy(&workflow).await?;
    let sent = bench.load(&workflow, &plan).await?.tally.sent;
    bench.verify(&workflow, &sent).await.map(drop)
}
