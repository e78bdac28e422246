//! How long a cluster does not do its work after a part of it died.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use nova_testkit::ledger::boot_ns;
use nova_testkit::{Nova, Rest, until};
use nova_workload::{NAMESPACE, WORK};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;

use crate::cluster::{Cluster, LAYOUT, Timing};
use crate::faults::{Fault, Kind, Planned};
use crate::hosts::{Host, Role, of};
use crate::worker::effects;

const PATIENCE: Duration = Duration::from_secs(120);
/// Between two submissions to a shard.
const PAUSE: Duration = Duration::from_millis(20);
const ANSWER: Duration = Duration::from_secs(15);

/// Quick work, and work that lasts until its worker is dead.
const WORKFLOWS: [&str; 2] = ["quick", "long"];

fn workflow(name: &str) -> String {
    let ms = if name == "long" { 2_500 } else { 0 };
    let with = json!({ "value": 1, "ms": ms, "fails": 0 });
    let retry = json!({ "maxAttempts": 1_000, "initial": "50ms" });
    json!({ "apiVersion": "nova/v1", "kind": "Workflow", "metadata": { "name": name }, "spec": {
        "nodes": [{ "id": "a", "type": "task", "kind": WORK, "with": with, "retry": retry }] } })
    .to_string()
}

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// The coordinator that leads.
    Leader,
    /// A scheduler.
    Scheduler,
    /// A worker, amid work.
    Worker,
    /// A Kafka broker.
    Broker,
    /// All coordinators, by a power cut.
    Power,
}

impl Part {
    /// Within this time all is well again.
    #[must_use]
    pub fn wanted(self) -> Duration {
        match self {
            Self::Leader => Duration::from_secs(1),
            Self::Scheduler => Duration::from_secs(2),
            Self::Worker => Duration::from_secs(4),
            Self::Broker | Self::Power => Duration::from_secs(5),
        }
    }

    /// A part stays away so long; longer than any gap that is good.
    fn away(self) -> Duration {
        self.wanted() * 2
    }
}

/// When submissions to each shard were accepted, in nanoseconds.
type Accepted = Arc<Mutex<BTreeMap<u16, Vec<u64>>>>;

/// Kills a part so many times, one after the other, tells each as it is over, and gives how long each gap was.
///
/// For a worker: from its death until the last of its attempts was begun by another. For a power cut: from the start of the
/// processes until each shard has accepted something. Else: the longest time for which some shard accepted nothing.
///
/// # Errors
/// When a part cannot be started, or work does not go on.
pub async fn gaps(
    nova: &Nova,
    part: Part,
    times: u32,
    dir: &Path,
    told: impl Fn(&Fault, Duration),
) -> Result<Vec<Duration>> {
    let kinds = [Kind::Kill, Kind::Power].into();
    let mut cluster = Cluster::start(nova, &kinds, Timing::Default, dir).await?;
    cluster.ready(PATIENCE).await?;
    let rests: Vec<Rest> = cluster.apis().into_iter().map(Rest::new).collect::<Result<_, _>>()?;
    rests[0].connected(of(Role::Worker).count(), PATIENCE).await?;
    for name in WORKFLOWS {
        rests[0].apply(&workflow(name)).await?;
    }
    let accepted: Accepted = Arc::default();
    let mut asking = tokio::task::JoinSet::new();
    for shard in 0..LAYOUT.shards as u16 {
        let workflow = if part == Part::Worker { "long" } else { "quick" };
        let pause = if part == Part::Worker { PAUSE * 10 } else { PAUSE };
        for (turn, rest) in rests.iter().enumerate() {
            asking.spawn(submit(rest.clone(), workflow, shard, turn, pause, Arc::clone(&accepted)));
        }
    }
    let mut all = Vec::new();
    for turn in 0..times {
        cluster.ready(PATIENCE).await?;
        goes_on(&accepted).await?;
        sleep(Duration::from_millis(500)).await;
        let place = turn as usize;
        let fault = match part {
            Part::Leader => Fault::Kill(cluster.leader(PATIENCE).await?),
            Part::Scheduler => Fault::Kill(nth(Role::Scheduler, place)),
            Part::Worker => Fault::Kill(nth(Role::Worker, place)),
            Part::Broker => Fault::Kill(nth(Role::Broker, place)),
            Part::Power => Fault::Power(of(Role::Coordinator).collect()),
        };
        let planned = Planned { number: place, at: Duration::ZERO, until: part.away(), fault };
        let from = boot_ns();
        cluster.begin(&planned).await?;
        let from = if part == Part::Power {
            cluster.heal(&planned).await?;
            boot_ns()
        } else {
            from
        };
        sleep(part.away()).await;
        goes_on(&accepted).await?;
        let until = boot_ns();
        let gap = match (part, &planned.fault) {
            (Part::Worker, Fault::Kill(host)) => taken_over(dir, *host, from)?,
            (Part::Power, _) => first(&accepted, from),
            _ => longest(&accepted, from, until),
        };
        told(&planned.fault, gap);
        all.push(gap);
        if part != Part::Power {
            cluster.heal(&planned).await?;
        }
        cluster.broker_is_back().await?;
    }
    asking.shutdown().await;
    Ok(all)
}

fn nth(role: Role, place: usize) -> Host {
    let all: Vec<Host> = of(role).collect();
    all[place % all.len()]
}

async fn submit(rest: Rest, workflow: &'static str, shard: u16, turn: usize, pause: Duration, accepted: Accepted) {
    let keys = (0_u64..).map(|n| format!("{turn}-{n}"));
    let own = keys.filter(|key| nova_wire::shard_of(NAMESPACE, key, LAYOUT.shards as u16).0 == shard);
    let input = json!({});
    for key in own {
        let sending = rest.submit_once(workflow, &input, &key);
        if let Ok(Ok(_)) = tokio::time::timeout(ANSWER, sending).await {
            accepted.lock().entry(shard).or_default().push(boot_ns());
        }
        sleep(pause).await;
    }
}

/// Waits until each shard accepts.
async fn goes_on(accepted: &Accepted) -> Result<()> {
    let from = boot_ns();
    let goes = until("each shard to accept something", PATIENCE, || async {
        let silent: Vec<u16> = (0..LAYOUT.shards as u16)
            .filter(|shard| accepted.lock().get(shard).is_none_or(|all| all.last().is_none_or(|at| *at <= from)))
            .collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("{silent:?} accept nothing")) }
    });
    Ok(goes.await?)
}

/// The longest time for which some shard accepted nothing.
fn longest(accepted: &Accepted, from: u64, until: u64) -> Duration {
    let gap = |times: &Vec<u64>| {
        let within = times.iter().copied().filter(|at| (from..until).contains(at));
        let all: Vec<u64> = [from].into_iter().chain(within).collect();
        all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(until - from)
    };
    Duration::from_nanos(accepted.lock().values().map(gap).max().unwrap_or(until - from))
}

/// Until each shard accepted something.
fn first(accepted: &Accepted, from: u64) -> Duration {
    let first = |times: &Vec<u64>| times.iter().copied().find(|at| *at > from).map_or(u64::MAX, |at| at - from);
    Duration::from_nanos(accepted.lock().values().map(first).max().unwrap_or(u64::MAX))
}

/// Until the last attempt that a worker was amid of was begun by another.
fn taken_over(dir: &Path, worker: Host, from: u64) -> Result<Duration> {
    let effects = effects(&dir.join("notes"))?;
    let long = Duration::from_millis(2_000).as_nanos() as u64;
    let amid = effects.iter().filter(|it| {
        it.process == worker.name
            && it.begun_ns < from
            && it.ended_ns + 200_000_000 > from
            && it.ended_ns < it.begun_ns + long
    });
    let again = |key: &str| effects.iter().filter(|it| it.key == key && it.begun_ns > from).map(|it| it.begun_ns).min();
    let last = amid.map(|cut| again(&cut.key).map_or(u64::MAX, |at| at - from)).max();
    last.map(Duration::from_nanos).context("the worker was amid of nothing")
}
