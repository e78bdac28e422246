//! One run: a cluster, what is asked of it, what goes wrong, and what its history says when all is well again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nova_checker::{Answer, Counts, History, Id, Kind as Asked, Operation, Violation};
use nova_testkit::ledger::boot_ns;
use nova_testkit::{Nova, Rest, until};
use nova_wire::{ClusterId, v1};
use nova_workload::{BY_RECORDS, BY_TIME, Client, Noted, Observer, Seen, Workflow, trigger};
use parking_lot::Mutex;
use prost::Message;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{sleep, timeout};

use crate::client::{Apis, LABEL};
use crate::cluster::{CLUSTER, Cluster, LAYOUT, Timing};
use crate::faults::{Kind, Planned, plan};
use crate::soak::{self, Sample};
use crate::worker::effects;

/// Longest wait for a cluster to be ready.
const START: Duration = Duration::from_secs(120);
/// After the last fault all that clients asked for is answered within this time (J1, J2).
const ANSWERED: Duration = Duration::from_secs(60);
/// And all that was accepted has ended this long after (J2).
const SETTLED: Duration = Duration::from_secs(120);
/// Longest wait for all that the topics hold.
const READ: Duration = Duration::from_secs(120);
/// A fault that has done nothing lasts so long when all others are over.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at what processes use.
const SAMPLE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// Workflows of a run.
const WORKFLOWS: usize = 6;
/// With fewer accepted in a minute a run says nothing.
const ENOUGH_PER_MINUTE: f64 = 60.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all follows from that is not up to the machine.
    pub seed: u64,
    /// How long there are faults.
    pub span: Duration,
    /// Kinds of faults.
    pub kinds: BTreeSet<Kind>,
    /// Between two things that the client asks for, on average.
    pub pause: Duration,
    /// Most time between two faults.
    pub calm: Duration,
    /// It must be at last what it was at first, too.
    pub soak: bool,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Faults that were; each was seen to do something, or the run is empty.
    pub faults: Vec<Planned>,
    /// What was looked at.
    pub counts: Counts,
    /// How often a process ended by itself.
    pub ended: Vec<String>,
    /// Proposals of superseded schedulers that got a verdict.
    pub superseded: usize,
    /// All that does not hold.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { accepted, ended, attempts, repeated, duplicates, stale, triggered } = self.counts;
        write!(
            f,
            "{} faults, {accepted} accepted, {triggered} triggered, {ended} ended, {attempts} attempts, {repeated} repeated, \
             {stale} stale, {duplicates} duplicates, {} processes ended by themselves",
            self.faults.len(),
            self.ended.len(),
        )?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs a cluster, with all its files in a directory.
///
/// # Errors
/// When the run says nothing: a part cannot be started, a fault cannot be made, the history cannot be read.
pub async fn run(nova: &Nova, options: &Options, dir: &Path) -> Result<Report> {
    let mut random = SmallRng::seed_from_u64(options.seed);
    let workflows: Vec<Workflow> = (0..WORKFLOWS).map(|n| Workflow::random(&format!("w{n}"), &mut random)).collect();
    let workflows = Arc::new(workflows);
    let plan = plan(&mut random, options.span, options.calm, &options.kinds);
    let mut cluster = Cluster::start(nova, &options.kinds, Timing::Patient, dir).await?;
    let bus = cluster.bus();
    cluster.ready(START).await?;
    let rests: Vec<Rest> = cluster.apis().into_iter().map(Rest::new).collect::<Result<_, _>>()?;
    rests[0].connected(3, START).await?;
    for workflow in &*workflows {
        rests[0].apply(&workflow.document().to_string()).await?;
    }
    for id in [BY_RECORDS, BY_TIME] {
        rests[0].trigger(&trigger(id, &workflows[0].name)).await?;
    }

    let (coordinators, members) = cluster.coordinators();
    let noted = Arc::new(Noted::default());
    let submissions = Arc::new(Mutex::new(BTreeMap::new()));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let mut draws = SmallRng::seed_from_u64(random.random());
    let apis = Apis {
        urls: cluster.apis(),
        http: reqwest::Client::new(),
        workflows: Arc::clone(&workflows),
        submissions: Arc::clone(&submissions),
        wrong: Arc::clone(&wrong),
        random: Mutex::new(SmallRng::seed_from_u64(draws.random())),
        last: AtomicU64::new(0),
    };
    let client = Client {
        ask: apis,
        coordinators: coordinators.clone(),
        bus: Arc::clone(&bus),
        workflows: workflows.len(),
        noted: Arc::clone(&noted),
        now: boot_ns,
        pause: options.pause,
    };
    let asking = tokio::spawn(client.run(draws));
    let (asked, own) = (coordinators.clone(), Arc::clone(&noted));
    let reading = tokio::spawn(async move {
        tokio::join!(
            nova_workload::read(&asked, &own, boot_ns),
            nova_workload::propose_as_before(&asked, &own, boot_ns)
        );
    });
    let done = || submissions.lock().values().filter(|it: &&Operation| accepted(it)).count() as u64;
    let samples = faults(&mut cluster, &plan, options.span, done).await?;
    noted.stop.store(true, Ordering::Relaxed);
    asking.await?;

    let mut violations = if options.soak { soak::judge(&samples) } else { Vec::new() };
    let open = || noted.open.load(Ordering::Relaxed);
    if !go_on(&mut cluster, ANSWERED, async {
        while open() > 0 {
            sleep(LOOK).await
        }
    })
    .await?
    {
        let what = format!("{} requests have no answer {ANSWERED:?} after the last fault", open());
        violations.push(violation("J2", what));
    }
    reading.abort();
    if let Err(error) = reading.await
        && error.is_panic()
    {
        return Err(error).context("who reads meanwhile");
    }
    let observer = Observer { coordinators, members, bus: Arc::clone(&bus), layout: LAYOUT };
    let seen = Mutex::new(None);
    let settling = async { *seen.lock() = Some(observer.settle().await) };
    if !go_on(&mut cluster, SETTLED, settling).await? {
        violations.push(violation("J2", format!("not all has ended {SETTLED:?} after the last answer")));
        let said = match timeout(ANSWERED, observer.explain()).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => vec![format!("nobody says why: {error}")],
            Err(_) => vec!["nobody says why".to_owned()],
        };
        violations.extend(said.into_iter().map(|what| violation("J2", what)));
    }
    let seen: Seen = seen.into_inner().unwrap_or_default();
    let effects = effects(&dir.join("notes")).context("the notes of the workers cannot be read")?;
    let reading = timeout(READ, observer.history(CLUSTER, &noted, effects, &workflows[0], options.span, seen));
    let mut history = reading.await.context("the topics cannot be read to their ends")??;
    history.logs = cluster.logs(&history.members).context("the logs of the members cannot be read")?;
    if history.logs.len() != history.members.len() || history.logs.iter().any(|log| log.entries.is_empty()) {
        violations.push(violation("empty", "a member's log has no entries"));
    }
    let submissions = std::mem::take(&mut *submissions.lock());
    violations.extend(named(&mut history, submissions)?);
    let reads = history.operations.iter().filter(|it| matches!(it.kind, Asked::Read)).count();
    if reads == 0 {
        violations.push(violation("empty", "nothing was read of the coordinators"));
    }
    violations.extend(wrong.lock().drain(..).map(|what| violation("A4", what)));
    violations.extend(cluster.panics()?.into_iter().map(|what| violation("panic", what)));

    // What is judged is what stands in the files.
    let kept = dir.join("history");
    std::fs::create_dir_all(&kept)?;
    history.write(&kept)?;
    let history = History::read(&kept)?;
    violations.extend(full_read(&history, &rests).await);
    let counts = match nova_checker::check(&history) {
        Ok(counts) => counts,
        Err(found) => {
            violations.extend(found);
            Counts::default()
        }
    };
    let accepted = history.operations.iter().filter(|it| accepted(it)).count();
    if (accepted as f64) < options.span.as_secs_f64() / 60.0 * ENOUGH_PER_MINUTE {
        violations.push(violation("empty", format!("{accepted} were accepted: so little says nothing")));
    }
    let superseded = |it: &&Operation| {
        matches!((&it.kind, &it.answer), (Asked::OldEpoch(..), Answer::Added | Answer::Rejected { .. }))
    };
    let superseded = history.operations.iter().filter(superseded).count();
    for planned in &plan {
        if !cluster.is_effective(planned).await? {
            violations.push(violation("empty", format!("it was not seen to do anything: {planned}")));
        }
    }
    Ok(Report { faults: plan, counts, ended: std::mem::take(&mut cluster.ended), superseded, violations })
}

fn violation(invariant: &'static str, what: impl Into<String>) -> Violation {
    Violation { invariant, what: what.into() }
}

fn accepted(operation: &Operation) -> bool {
    matches!(operation.answer, Answer::Accepted { .. })
}

/// Makes the faults of a plan, one by one, until all are over and healed; looks now and then at what processes use.
async fn faults(
    cluster: &mut Cluster,
    plan: &[Planned],
    span: Duration,
    done: impl Fn() -> u64,
) -> Result<Vec<Sample>> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    let mut coming: Vec<&Planned> = plan.iter().collect();
    coming.sort_by_key(|it| it.at);
    let mut coming = coming.into_iter().peekable();
    // Those that are, and until when: a fault that began late lasts as long as it was to.
    let mut active: Vec<(Duration, &Planned)> = Vec::new();
    let mut alone = None;
    while begin.elapsed() < span || !active.is_empty() || coming.peek().is_some() {
        let now = begin.elapsed();
        // One that has done nothing yet lasts on: others may be in its way, until they are over.
        let waits =
            |it: &Planned, active: &[(Duration, &Planned)]| active.iter().any(|(_, at)| at.fault.clashes(&it.fault));
        let comes = coming.peek().is_some_and(|next| next.at > now || !waits(next, &active));
        let is_alone = !comes && active.iter().all(|(until, _)| *until <= now);
        let since = *alone.get_or_insert(now);
        if !is_alone {
            alone = None;
        }
        let mut over = Vec::new();
        for (_, planned) in active.iter().filter(|(until, _)| *until <= now) {
            if cluster.is_effective(planned).await? || is_alone && since + LATE <= now {
                over.push(*planned);
            }
        }
        active.retain(|(_, it)| !over.contains(it));
        for planned in over {
            cluster.heal(planned).await.with_context(|| planned.to_string())?;
        }
        // What has to wait for another one, as the plan wants them apart, begins when that is over.
        let lacks_broker = cluster.lacks_broker();
        let may_begin =
            |it: &&Planned| it.at <= now && !waits(it, &active) && !(it.fault.kind() == Kind::Broker && lacks_broker);
        if let Some(planned) = coming.next_if(may_begin) {
            cluster.begin(planned).await.with_context(|| planned.to_string())?;
            active.push((begin.elapsed() + (planned.until - planned.at), planned));
        }
        cluster.look()?;
        if now >= SAMPLE * samples.len() as u32 {
            samples.push(Sample { at: now, accepted: done(), ..cluster.sample() });
        }
        sleep(LOOK).await;
    }
    cluster.broker_is_back().await?;
    Ok(samples)
}

/// Looks after the processes until something is done; false: it was not in time.
async fn go_on(cluster: &mut Cluster, within: Duration, done: impl Future<Output = ()>) -> Result<bool> {
    let looking = async {
        loop {
            cluster.look()?;
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        error = looking => error,
        done = timeout(within, done) => Ok(done.is_ok()),
    }
}

/// Gives submissions the ids that the apis made for them, which are in the topic.
fn named(history: &mut History, submissions: BTreeMap<u64, Operation>) -> Result<Vec<Violation>> {
    let cluster = ClusterId::of_name(CLUSTER);
    let mut ids: BTreeMap<u64, BTreeSet<Id>> = BTreeMap::new();
    let commands = history.topics.iter().filter(|(place, _)| place.topic == nova_checker::Topic::Commands);
    for record in commands.flat_map(|(_, records)| records) {
        let opened = nova_wire::open(record, cluster)?;
        for command in v1::CommandBatch::decode(opened.body)?.commands {
            let Some(v1::command::Kind::Submit(submit)) = command.kind else { continue };
            let number = submit.labels.iter().find(|label| label.name == LABEL).and_then(|it| it.value.parse().ok());
            if let (Some(number), Some(id)) = (number, Id::of(&submit.execution)) {
                ids.entry(number).or_default().insert(id);
            }
        }
    }
    let mut violations = Vec::new();
    for (number, mut operation) in submissions {
        let own = ids.remove(&number).unwrap_or_default();
        if own.len() > 1 {
            violations.push(violation("A5", format!("request {number} was handed over as {own:?}")));
        }
        if let Asked::Submit(submission) = &mut operation.kind {
            // One that was not handed over has an id that nothing has.
            submission.id = own.first().copied().unwrap_or(Id(u128::from(number).to_be_bytes()));
        }
        history.operations.push(operation);
    }
    Ok(violations)
}

/// Asks each api for each execution that was accepted (A1, A7).
async fn full_read(history: &History, rests: &[Rest]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let cancelled: BTreeSet<Id> = history
        .operations
        .iter()
        .filter_map(|it| if let Asked::Cancel(id) = it.kind { Some(id) } else { None })
        .collect();
    for operation in &history.operations {
        let (Asked::Submit(submission), Answer::Accepted { id, .. }) = (&operation.kind, &operation.answer) else {
            continue;
        };
        for rest in rests {
            let right = |found: &serde_json::Value| {
                found["state"] == "COMPLETED" && found["output"] == submission.expected
                    || found["state"] == "CANCELLED" && cancelled.contains(id)
            };
            // History may be some seconds old after its service was started again.
            let name = id.to_string();
            let reading = until(&name, ANSWERED, || async {
                match rest.get(&name).await {
                    Ok(found) if right(&found) => Ok(()),
                    Ok(found) => Err(found.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            });
            if let Err(error) = reading.await {
                violations.push(violation("A1", format!("{} does not tell of {id}: {error}", rest.url())));
                if violations.len() > 10 {
                    return violations;
                }
            }
        }
    }
    violations
}
