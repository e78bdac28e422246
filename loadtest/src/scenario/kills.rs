//! S7: processes killed under load: how long nobody is answered, what is lost or doubled, and when the work of a dead worker
//! is given to another.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use nova_testkit::Rest;
use serde_json::{Value, json};

use crate::Error;
use crate::args::{Victim, Work};
use crate::bench::Bench;
use crate::request::Said;
use crate::steady::{Ended, Steady, gap_ms, longest_ms};
use crate::tally::Sent;
use crate::workflow::Workflow;

const LOAD_PER_SECOND: u64 = 1_000;
const KILLS: u32 = 10;
/// Until a leader is found, and until work goes on.
const PATIENCE: Duration = Duration::from_secs(60);
/// Load between the return of one victim and the death of the next.
const BETWEEN: Duration = Duration::from_secs(2);
/// Executions whose tasks last, for each death of a worker, and how long they last: not done when it dies.
const LASTING: usize = 32;
const LASTING_MS: u64 = 3_000;

/// Until shards have moved to a scheduler that joined, or from one that left.
const MOVING: Duration = Duration::from_secs(5);

/// One death, or a scheduler that left or joined.
struct Change {
    what: &'static str,
    at: Instant,
    /// When the victim was back, and work went on.
    until: Instant,
}

const KILLED: &str = "death";
const LEFT: &str = "leave";
const JOINED: &str = "join";

pub(crate) async fn run(bench: &mut Bench<'_>) -> Result<(), Error> {
    let args = bench.args;
    let victim = args.victim();
    let workflow = Workflow::chain("s7", 1, Work::Noop);
    bench.deploy(&workflow).await?;
    let lasting = Workflow::lasting("s7-lasting", LASTING_MS);
    bench.deploy(&lasting).await?;
    let rate = args.rate.unwrap_or(LOAD_PER_SECOND);
    let steady = Steady::start(bench.address, &workflow, rate, bench.next());
    let begun = Instant::now();
    let (mut deaths, mut held, mut leased) = (Vec::new(), Vec::new(), Vec::new());
    let result = async {
        let warm = Duration::from_secs(args.warmup_seconds());
        steady.goes_on(1, PATIENCE).await?;
        tokio::time::sleep(warm).await;
        for number in 0..args.kills.unwrap_or(KILLS) {
            // Numbers of their own, far from those of the load: it is not known yet how many that takes.
            let first = crate::request::FIRST * 2 + (number as u64) * LASTING as u64;
            let death = match victim {
                Victim::Leader => leader(bench, &steady).await?,
                Victim::Scheduler if args.gently => {
                    deaths.push(leave(bench, &steady, number as usize).await?);
                    tokio::time::sleep(BETWEEN).await;
                    join(bench, &steady, number as usize).await?
                }
                Victim::Scheduler => scheduler(bench, &steady, number as usize).await?,
                Victim::Worker => {
                    let (death, sent, times) = worker(bench, &steady, number as usize, &lasting, first).await?;
                    held.extend(sent);
                    leased.extend(times);
                    death
                }
            };
            let done = if args.gently { "moved" } else { "killed" };
            eprintln!("{done:<8} {} {} of {}", victim.name(), number + 1, args.kills.unwrap_or(KILLS));
            deaths.push(death);
            tokio::time::sleep(BETWEEN).await;
        }
        Ok::<_, Error>(())
    }
    .await;
    let lasted = begun.elapsed();
    let ended = steady.end().await;
    if let Err(error) = result {
        // The end of a process that nobody killed says more.
        bench.target.check().await?;
        return Err(error);
    }
    bench.given_until(ended.next);
    bench.keep(ended.examples.clone());
    tell(bench, &ended, &deaths, lasted);
    if victim == Victim::Worker {
        spread(bench, "from the death of a worker to the next lease of its work", leased);
        bench.verify(&lasting, &held).await?;
    }
    bench.verify(&workflow, &ended.sent).await?;
    let verdict = &bench.verdict;
    let (lost, doubled) = (verdict.missing + verdict.unfinished, verdict.duplicates);
    bench.figure("lost", "executions", vec![lost as f64]);
    bench.figure("doubled", "executions", vec![doubled as f64]);
    Ok(())
}

fn tell(bench: &mut Bench<'_>, ended: &Ended, deaths: &[Change], lasted: Duration) {
    let name = bench.args.victim().name();
    let done = if bench.args.gently { "stop and start" } else { "kill -9" };
    bench.notes.push(format!(
        "{done} of the {name} {} times under load; each submission is sent again under its key until it is acknowledged",
        bench.args.kills.unwrap_or(KILLS)
    ));
    for what in [KILLED, LEFT, JOINED] {
        let these = || deaths.iter().filter(|death| death.what == what);
        let gaps = these().map(|death| gap_ms(&ended.acks, death.at, death.until)).collect();
        let around = if what == KILLED { String::new() } else { format!(", {what}") };
        spread(bench, &format!("gap without accepted writes{around}"), gaps);
        let waits = these().map(|death| longest_ms(&ended.acks, death.at - BETWEEN, death.until)).collect();
        spread(bench, &format!("longest wait of a submission around a {what}"), waits);
    }
    if bench.args.gently {
        // What it is when nobody comes or goes.
        let before = deaths.iter().filter(|death| death.what == LEFT);
        let calm = before.map(|death| longest_ms(&ended.acks, death.at - BETWEEN, death.at)).collect();
        spread(bench, "longest wait of a submission in the seconds before", calm);
    }
    bench.figure("accepted", "exec/s", vec![ended.acks.len() as f64 / lasted.as_secs_f64()]);
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        let ms = ended.latency_us.value_at_quantile(share) as f64 / 1e3;
        bench.figure(format!("acknowledgement over all, {name}"), "ms", vec![ms]);
    }
    bench.figure("tries that were sent again", "tries", vec![ended.errors as f64]);
}

/// Median, 99th percentile and the longest of some times.
fn spread(bench: &mut Bench<'_>, name: &str, mut ms: Vec<f64>) {
    ms.sort_unstable_by(f64::total_cmp);
    let Some(most) = ms.last().copied() else { return };
    let at = |share: f64| ms[((ms.len() as f64 * share).ceil() as usize).clamp(1, ms.len()) - 1];
    for (part, value) in [("p50", at(0.5)), ("p99", at(0.99)), ("max", most)] {
        bench.figure(format!("{name}, {part}"), "ms", vec![value]);
    }
    bench.figure(format!("{name}: how many"), "times", vec![ms.len() as f64]);
}

async fn leader(bench: &mut Bench<'_>, steady: &Steady) -> Result<Change, Error> {
    let none = || Error::Options("--target: it has no coordinator of its own to kill".into());
    let members = bench.target.members().ok_or_else(none)?;
    let place = members.leader(PATIENCE).await?;
    let alone = members.urls().len() == 1;
    members.processes()[place].kill();
    let at = Instant::now();
    if alone {
        // Nobody goes on without it.
        members.processes()[place].start()?;
    }
    steady.goes_on(100, PATIENCE).await?;
    if !alone {
        members.processes()[place].start()?;
    }
    bench.target.ready(PATIENCE).await?;
    Ok(Change { what: KILLED, at, until: Instant::now() })
}

async fn scheduler(bench: &mut Bench<'_>, steady: &Steady, number: usize) -> Result<Change, Error> {
    let schedulers = bench.target.schedulers();
    let place = number % schedulers.len();
    schedulers[place].kill();
    let at = Instant::now();
    // Its shards come back with their leases; those of the others answer all along.
    tokio::time::sleep(Duration::from_secs(10)).await;
    steady.goes_on(100, PATIENCE).await?;
    bench.target.schedulers()[place].start()?;
    bench.target.ready(PATIENCE).await?;
    Ok(Change { what: KILLED, at, until: Instant::now() })
}

/// A scheduler leaves in order: it gives its shards back, and the others take them.
async fn leave(bench: &mut Bench<'_>, steady: &Steady, number: usize) -> Result<Change, Error> {
    let schedulers = bench.target.schedulers();
    let place = number % schedulers.len();
    let at = Instant::now();
    let status = schedulers[place].stop(PATIENCE).await?;
    if let Some(status) = status.filter(|status| !status.success()) {
        return Err(Error::NotInOrder { who: schedulers[place].name().to_owned(), status: status.to_string() });
    }
    // Those who wait for its shards are part of it.
    tokio::time::sleep(MOVING).await;
    steady.goes_on(100, PATIENCE).await?;
    Ok(Change { what: LEFT, at, until: Instant::now() })
}

/// It joins again: the others give it a part of theirs.
async fn join(bench: &mut Bench<'_>, steady: &Steady, number: usize) -> Result<Change, Error> {
    let at = Instant::now();
    let schedulers = bench.target.schedulers();
    let place = number % schedulers.len();
    schedulers[place].start()?;
    bench.target.ready(PATIENCE).await?;
    // It asks for its part again and again, and gets it within a few rounds.
    tokio::time::sleep(MOVING).await;
    steady.goes_on(100, PATIENCE).await?;
    Ok(Change { what: JOINED, at, until: Instant::now() })
}

/// Kills a worker that runs attempts which last. Gives what ran and, for each that the dead one had, the milliseconds from
/// its death to the next lease.
async fn worker(
    bench: &mut Bench<'_>,
    steady: &Steady,
    number: usize,
    lasting: &Workflow,
    first: u64,
) -> Result<(Change, Vec<Sent>, Vec<f64>), Error> {
    let mut sent = Vec::new();
    for number in first..first + LASTING as u64 {
        let execution = bench.target.rest().submit(&lasting.name, &json!({ "n": number })).await?;
        let id = u128::from_str_radix(&execution.id, 16).map_err(|_| Error::List { why: execution.id.clone() })?;
        sent.push(Sent { number, said: Said::Accepted(id) });
    }
    let ids: Vec<String> = sent.iter().filter_map(id_of).collect();
    for id in &ids {
        running(bench.target.rest(), id).await?;
    }
    let workers = bench.target.worker_processes();
    let place = number % workers.len();
    workers[place].kill();
    let (at, death) = (Instant::now(), Timestamp::now());
    let mut leased = Vec::new();
    for id in &ids {
        let ended = bench.target.rest().wait(id, PATIENCE).await?;
        let events = bench.target.rest();
        // The history has the end last.
        let all = nova_testkit::until(&format!("the events of {id}"), PATIENCE, || async {
            let events = events.events(&ended.id).await.map_err(|error| error.chain())?;
            let has_ended = events["events"].as_array().is_some_and(|all| all.iter().any(|it| it["type"] == "ended"));
            if has_ended { Ok(events) } else { Err(events.to_string()) }
        })
        .await?;
        leased.extend(second_lease(&all).map(|lease| lease.duration_since(death).as_secs_f64() * 1e3));
    }
    steady.goes_on(100, PATIENCE).await?;
    bench.target.worker_processes()[place].start()?;
    bench.target.ready(PATIENCE).await?;
    Ok((Change { what: KILLED, at, until: Instant::now() }, sent, leased))
}

fn id_of(sent: &Sent) -> Option<String> {
    match sent.said {
        Said::Accepted(id) => Some(format!("{id:032x}")),
        _ => None,
    }
}

/// Waits until the task of an execution runs.
async fn running(rest: &Rest, id: &str) -> Result<(), Error> {
    let what = format!("the attempt of {id}");
    let running = nova_testkit::until(&what, PATIENCE, || async {
        let execution = rest.get(id).await.map_err(|error| error.chain())?;
        match execution["nodes"][0]["state"].as_str() {
            Some("RUNNING") => Ok(()),
            _ => Err(execution.to_string()),
        }
    });
    Ok(running.await?)
}

/// When the second attempt was given to a worker, if there was one.
fn second_lease(events: &Value) -> Option<Timestamp> {
    let mut starts = events["events"].as_array()?.iter().filter(|event| event["type"] == "attemptStarted");
    starts.find(|event| event["attempt"] == 2)?["at"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_lease_is_found_where_there_is_one() {
        let start = |attempt: u32, at: &str| json!({ "type": "attemptStarted", "attempt": attempt, "at": at });
        let ended = json!({ "type": "ended", "at": "2026-11-21T10:00:09Z" });
        let one = start(1, "2026-11-21T10:00:00Z");
        let two = start(2, "2026-11-21T10:00:03.5Z");
        let lease = second_lease(&json!({ "events": [one, two, ended] }));
        assert_eq!(lease.unwrap().to_string(), "2026-11-21T10:00:03.5Z");
        assert_eq!(second_lease(&json!({ "events": [one, ended] })), None);
    }
}
