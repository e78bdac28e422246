//! S5: submissions by the clock, answered when they are durable, while the engine runs them.

use std::time::Duration;

use crate::Error;
use crate::bench::Bench;
use crate::load::Loop;
use crate::request::Asks;
use crate::workflow::Workflow;

/// Rates, when none is asked for.
const RATES: [u64; 2] = [1_000, 5_000];

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let args = bench.args;
    let workflow = Workflow::chain("s5", 1, args.work());
    bench.deploy(&workflow).await?;
    let parked = super::sleepers::park(bench, args.parked()).await?;
    bench.notes.push(
        "latency is until the submission is committed and answered; exec/s counts these answers. Every execution is run meanwhile and read back"
            .into(),
    );
    let mut sent = Vec::new();
    let mut behind = Vec::new();
    for rate in args.rate.map_or(RATES.to_vec(), |rate| vec![rate]) {
        for _ in 0..args.repeat() {
            let mut plan = bench.plan(Loop::Open { per_second: rate });
            plan.asks = Asks::Commit;
            let this = bench.measure(&format!("open {rate}/s"), &workflow, &plan).await?;
            // What was accepted and has not run yet would be load on the next one.
            let begun = std::time::Instant::now();
            all_ended(bench, &workflow).await?;
            behind.push(begun.elapsed().as_secs_f64());
            sent.extend(this);
        }
    }
    bench.figure("from the last submission until nothing runs", "s", behind);
    bench.verify(&workflow, &sent).await?;
    parked.verify(bench).await
}

/// Waits until no execution of the workflow runs, as far as the history knows.
async fn all_ended(bench: &Bench<'_>, workflow: &Workflow) -> Result<(), Error> {
    const WITHIN: Duration = Duration::from_secs(600);
    let rest = bench.target.rest();
    nova_testkit::until("the end of all that was accepted", WITHIN, || async {
        let page = rest.list(Some(&workflow.name), Some("RUNNING"), None).await.map_err(|error| error.chain())?;
        match page.executions.len() {
            0 => Ok(()),
            some => {
                // Listing is load too.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(format!("{some} or more run"))
            }
        }
    })
    .await?;
    Ok(())
}
