//! S8: everything is killed while executions wait, and started again: until it takes work, and until it ends some.

use std::time::{Duration, Instant};

use crate::Error;
use crate::bench::Bench;
use crate::http::Connection;
use crate::request::{Asks, Said, Submission, Template, read_answer};
use crate::tally::Sent;
use crate::workflow::Workflow;

/// Until the target answers again.
const PATIENCE: Duration = Duration::from_secs(600);
/// After a try that came to nothing.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for one answer; a process that comes up may hold a request.
const TRY: Duration = Duration::from_secs(15);

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let probe = Workflow::chain("s8", 1, crate::args::Work::Noop);
    bench.deploy(&probe).await?;
    let parked = super::sleepers::park(bench, bench.args.parked()).await?;
    bench.notes.push(
        "kill -9 of all processes but brokers; times are from the start of the processes. A probe is sent again under its key until it is answered"
            .into(),
    );
    let (mut accepted, mut completed, mut all, mut sent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.args.repeat() {
        bench.target.kill_all();
        eprintln!("killed   everything");
        bench.target.start_all()?;
        let begun = Instant::now();
        let first = until_answered(bench, &probe, Asks::Commit, begun).await?;
        accepted.push(begun.elapsed().as_secs_f64());
        let ended = until_answered(bench, &probe, Asks::End, begun).await?;
        completed.push(begun.elapsed().as_secs_f64());
        sent.extend([first, ended]);
        bench.target.ready(PATIENCE).await?;
        all.push(begun.elapsed().as_secs_f64());
        bench.settle().await?;
    }
    bench.figure("until the first accepted write", "s", accepted);
    bench.figure("until an execution that was submitted after it completed", "s", completed);
    bench.figure("until every process is ready", "s", all);
    bench.verify(&probe, &sent).await?;
    parked.verify(bench).await
}

/// Sends one execution under its key until it is answered as is asked for.
async fn until_answered(bench: &mut Bench<'_>, workflow: &Workflow, asks: Asks, begun: Instant) -> Result<Sent, Error> {
    let number = bench.next();
    bench.given_until(number + 1);
    let address = bench.address;
    let host = address.to_string();
    let mut template = Template::new(&Submission {
        host: &host,
        whose: &workflow.header(),
        workflow: &workflow.name,
        lines: 1,
        asks,
        wait_seconds: TRY.as_secs() - 1,
        due: None,
        keyed: true,
    });
    let mut last = String::from("nothing was answered");
    loop {
        let trying = async {
            let mut connection = Connection::open(address).await.ok()?;
            let answer = connection.exchange(template.fill(number)).await.ok()?;
            let said = read_answer(answer.status, answer.body, number, workflow.expect, asks);
            Some((said, format!("{} {}", answer.status, String::from_utf8_lossy(answer.body))))
        };
        match tokio::time::timeout(TRY, trying).await {
            Ok(Some((said @ (Said::Accepted(_) | Said::Completed(_)), _))) => return Ok(Sent { number, said }),
            Ok(Some((_, answer))) => last = answer,
            Ok(None) | Err(_) => {}
        }
        if begun.elapsed() > PATIENCE {
            bench.target.check().await?;
            return Err(Error::Nothing { phase: "the restart".into(), answer: last });
        }
        tokio::time::sleep(PAUSE).await;
    }
}
