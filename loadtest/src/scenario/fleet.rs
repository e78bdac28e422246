//! S9a: many workers that exist only as sessions, on coordinators alone: what it costs to keep them, and how soon the work of
//! those that die is given to others.

mod scheduler;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nova_client::{Coordinators, Repeat};
use nova_testkit::{Dir, Members, MembersOptions, Nova, own_usage};
use nova_wire::v1;

use self::scheduler::{Leased, Scheduler};
use self::sessions::{Session, Sessions};
use crate::Error;
use crate::args::{Args, TargetName};
use crate::report::Figure;
use crate::verify::Verdict;

/// Inboxes of the task topic: eight workers share one.
const INBOXES: u32 = 4_096;
/// Part of the workers that die.
const DEATHS: f64 = 0.01;
const START: Duration = Duration::from_secs(60);
/// Until every task is leased, and until those of the dead are leased again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Watched after the last new lease, so that a lease too many is seen.
const AFTER: Duration = Duration::from_secs(5);

/// What came of it.
pub(crate) struct Kept {
    pub figures: Vec<Figure>,
    pub verdict: Verdict,
    pub notes: Vec<String>,
}

pub(crate) async fn run(args: &Args, nova: &Nova, dir: &Dir) -> Result<Kept, Error> {
    let count = if args.target == TargetName::Embedded { 1 } else { 3 };
    let options = MembersOptions { count, inboxes: INBOXES, ..MembersOptions::default() };
    let mut members = Members::start(nova, &options, dir.path())?;
    members.ready(START).await?;
    let coordinators = Coordinators::new(members.urls().to_vec());
    let workers = args.workers();
    let empty = members.usage()?;

    let sessions = Sessions::start(members.urls(), workers).await?;
    eprintln!("workers  {workers} have a session");
    let mut scheduler = Scheduler::start(&coordinators).await?;
    scheduler.submit(u64::from(workers)).await?;
    let leased = scheduler.until_leased(u64::from(workers), PATIENCE).await?;
    eprintln!("leased   {} tasks", leased.len());
    tokio::time::sleep(Duration::from_secs(2)).await;

    let (before, own_before, begun) = (members.usage()?, own_usage()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds())).await;
    let (after, own_after, took) = (members.usage()?, own_usage()?, begun.elapsed());
    let cores = |cpu: Duration| 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
    let memory = after.anonymous_bytes.saturating_sub(empty.anonymous_bytes) as f64;

    let dying = (f64::from(workers) * DEATHS).ceil() as usize;
    let all = &sessions.all;
    let step = (all.len() / dying).max(1);
    let dead: BTreeSet<u32> = all.iter().step_by(step).take(dying).map(|session| session.worker).collect();
    let renewed_us = sessions.answers_us();
    sessions.end(&dead);
    let died = Instant::now();
    let again = scheduler.until_leased_again(&leased, &dead, PATIENCE, AFTER).await?;
    let living = all.iter().filter(|session| !dead.contains(&session.worker)).copied().collect::<Vec<_>>();
    let verdict = check(&coordinators, &leased, &again, &dead, &living, sessions.closed()).await?;
    let connections = sessions.connections;
    drop(sessions);
    for process in members.processes() {
        process.check()?;
    }

    let times: Vec<f64> = again.iter().map(|lease| (lease.at - died).as_secs_f64()).collect();
    let figures = [
        Figure::of("CPU of all coordinators, renewals alone", "% of a core", vec![cores((after - before).cpu)]),
        Figure::of("CPU of the generator", "% of a core", vec![cores((own_after - own_before).cpu)]),
        Figure::of(
            "memory of the coordinators per worker, its lease included",
            "KiB",
            vec![memory / f64::from(workers) / count as f64 / 1_024.0],
        ),
        Figure::of("answer to a renewal, p50", "ms", vec![renewed_us.value_at_quantile(0.5) as f64 / 1e3]),
        Figure::of("answer to a renewal, p99", "ms", vec![renewed_us.value_at_quantile(0.99) as f64 / 1e3]),
        Figure::of("from death to the next lease of its task", "s", times),
    ];
    let notes = vec![
        format!(
            "{count} coordinators alone; {workers} workers are sessions renewed once a second, each by a stream of its own over {connections} connections, each with a lease on a task; {} of them stop renewing",
            dead.len()
        ),
        "memory is anonymous and resident, of one coordinator; the generator submits the tasks and reads the leases as a scheduler does"
            .into(),
    ];
    Ok(Kept { figures: figures.into_iter().flatten().collect(), verdict, notes })
}

/// Each task must have been leased once, those of the dead again until a worker that lives has them; the living keep their
/// sessions.
async fn check(
    coordinators: &Coordinators,
    leased: &[Leased],
    again: &[Leased],
    dead: &BTreeSet<u32>,
    living: &[Session],
    closed: BTreeSet<u32>,
) -> Result<Verdict, Error> {
    let asking = coordinators.call_slow(PATIENCE, Repeat::Read, |mut member| async move {
        member.list_workers(v1::ListWorkersRequest {}).await
    });
    let listed = asking.await.map_err(|source| Error::Coordinator { what: "the list of workers", source })?;
    let open: BTreeMap<u32, u64> = listed.workers.iter().filter_map(|it| Some((it.worker, it.session?))).collect();
    let mut verdict = judge(leased, again, dead);
    for session in living {
        if closed.contains(&session.worker) || open.get(&session.worker) != Some(&session.session) {
            verdict.wrong += 1;
            verdict.example(format!("worker {} lives and has lost its session", session.worker));
        }
    }
    Ok(verdict)
}

fn judge(leased: &[Leased], again: &[Leased], dead: &BTreeSet<u32>) -> Verdict {
    let mut verdict = Verdict { submitted: leased.len() as u64, ..Verdict::default() };
    let mut more: BTreeMap<u128, Vec<&Leased>> = BTreeMap::new();
    for lease in again {
        more.entry(lease.execution).or_default().push(lease);
    }
    let mut known = BTreeSet::new();
    for first in leased {
        let next = more.remove(&first.execution).unwrap_or_default();
        let lost = dead.contains(&first.worker);
        let fault = match (&next[..], lost) {
            _ if !known.insert(first.execution) => Some("has two first leases"),
            ([], false) => None,
            ([], true) => {
                verdict.missing += 1;
                None
            }
            (all, true)
                if all
                    .iter()
                    .scan(first.token, |last, it| Some(std::mem::replace(last, it.token) < it.token))
                    .any(|new| !new) =>
            {
                Some("was leased under an old token")
            }
            // Another that is dead may get it as long as nobody has noticed.
            ([before @ .., last], true) if before.iter().all(|it| dead.contains(&it.worker)) => {
                dead.contains(&last.worker).then_some("stays with a dead worker")
            }
            (_, true) => Some("was leased several times"),
            (_, false) => Some("was taken from a living worker"),
        };
        match fault {
            None => verdict.completed += 1,
            Some(fault) => {
                verdict.wrong += 1;
                verdict.example(format!("the task of {:032x} {fault}", first.execution));
            }
        }
    }
    verdict.completed -= verdict.missing;
    verdict.wrong += more.len() as u64;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(execution: u128, worker: u32, token: u64) -> Leased {
        Leased { execution, worker, token, at: Instant::now() }
    }

    #[test]
    fn the_dead_lose_their_tasks_once_and_the_living_keep_theirs() {
        let first = [lease(1, 1, 1), lease(2, 2, 2), lease(3, 3, 3)];
        let dead = BTreeSet::from([2]);
        let judged = |again: &[Leased]| judge(&first, again, &dead);
        let good = judged(&[lease(2, 3, 4)]);
        assert!(good.is_right() && good.completed == 3, "{good:?}");
        let by_way_of_a_dead_one = judge(&first[..2], &[lease(2, 4, 4), lease(2, 3, 5)], &BTreeSet::from([2, 4]));
        assert!(by_way_of_a_dead_one.is_right(), "{by_way_of_a_dead_one:?}");
        let missing = judged(&[]);
        assert!(!missing.is_right() && missing.missing == 1, "{missing:?}");
        for wrong in [
            vec![lease(2, 2, 4)],
            vec![lease(2, 3, 1)],
            vec![lease(2, 3, 4), lease(2, 1, 5)],
            vec![lease(2, 3, 4), lease(1, 3, 5)],
            vec![lease(2, 3, 4), lease(9, 3, 5)],
        ] {
            let verdict = judged(&wrong);
            assert!(!verdict.is_right() && verdict.wrong == 1, "{wrong:?}: {verdict:?}");
        }
        assert_eq!(judge(&[lease(1, 1, 1), lease(1, 3, 2)], &[], &dead).wrong, 1);
    }
}
