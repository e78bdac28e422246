//! A whole cluster under faults, until they end, and what its history says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use nova_bus::{Bus, MemoryBus, Topic, TopicSpec};
use nova_checker::{Answer, Counts, History, Violation};
use nova_plants::Plant;
use nova_wire::v1;
use nova_workload::{Noted, ORDERS, ORDERS_PARTITIONS, Observer, Seen, Workflow};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bus::BROKER;
use crate::client::{Way, now_ns};
use crate::faults::{self, Fault, Planned};
use crate::hosts::{self, CLUSTER, Ground, HOSTS, Host, LAYOUT};
use crate::operator::{self, Steps};
use crate::{Process, Skew, Trouble, World, simulate};

const PATIENCE: Duration = Duration::from_secs(5);
/// A process that ended by itself is started again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// After the last fault all that clients asked for is answered within this time (J1, J2).
const ANSWERED: Duration = Duration::from_secs(40);
/// And all that was accepted has ended this long after (J2).
const SETTLED: Duration = Duration::from_secs(90);
/// How far clocks are off at first, in seconds, and how much faster or slower they run, in millionths.
const OFF_S: i64 = 60;
/// A worker's margin is a fifth: what it lasts and what its leader waits differ by a tenth at most.
const DRIFT_PPM: i64 = 50_000;
/// Workflows of a run.
const WORKFLOWS: usize = 4;
/// Pause of the client between two submissions, on average.
const PAUSE: Duration = Duration::from_millis(1_500);
/// With fewer accepted in a minute a run says nothing.
const ENOUGH_PER_MINUTE: f64 = 10.0;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What all follows from.
    pub seed: u64,
    /// How long there are faults.
    pub span: Duration,
    /// Only these faults of the plan, by their numbers; none: all.
    pub only: Option<BTreeSet<usize>>,
    /// A bug that is to be found.
    pub plant: Option<Plant>,
    /// Where the history is written, for `nova-check`.
    pub history: Option<PathBuf>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// All that happened, in one number.
    pub trace: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// How often a process ran until it slept.
    pub steps: u64,
    /// Faults that were.
    pub faults: Vec<Planned>,
    /// What was looked at.
    pub counts: Counts,
    /// All that does not hold.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, simulated, steps, faults, counts, violations } = self;
        let Counts { accepted, ended, attempts, repeated, duplicates, stale, triggered } = counts;
        write!(
            f,
            "{:.0} s simulated, {steps} steps, {} faults, {accepted} accepted, {triggered} triggered, {ended} ended, \
             {attempts} attempts, {repeated} repeated, {stale} stale, {duplicates} duplicates, trace {trace:016x}",
            simulated.as_secs_f64(),
            faults.len(),
        )?;
        violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// A host and the process on it.
struct Slot {
    host: Host,
    process: Option<Process>,
    skew: Skew,
    /// Faults because of which it is down, or stands still.
    down: BTreeSet<usize>,
    paused: BTreeSet<usize>,
    /// It ended by itself, and is started again then.
    again: Option<Duration>,
    /// Number of the member.
    number: u64,
    /// A file was damaged, and if a process refuses it the member is replaced.
    damaged: bool,
    replaced: Option<Arc<Steps>>,
}

struct Cluster {
    world: World,
    ground: Ground,
    slots: Vec<Slot>,
    /// Processes that ended by themselves.
    ended: Arc<Mutex<Vec<(Process, Host, String)>>>,
    /// Faults that are.
    active: BTreeMap<usize, Fault>,
    /// The number that the next member gets: none gets one that another had.
    next_member: u64,
    plant: Option<Plant>,
}

/// Runs a cluster.
///
/// # Panics
/// When there is no place for temporary files.
#[must_use]
pub fn run(options: &Options) -> Report {
    options.plant.into_iter().for_each(nova_plants::plant);
    let dir = hosts::temporary();
    simulate(options.seed, |world| Cluster::new(world, options, dir.path()).run(options))
}

impl Cluster {
    fn new(mut world: World, options: &Options, data: &std::path::Path) -> Self {
        let mut random = SmallRng::seed_from_u64(options.seed ^ 0x0063_6c6f_636b);
        world.put_disks_at(data);
        let broker = MemoryBus::new();
        let mut topics = LAYOUT.topics();
        topics.push(TopicSpec { topic: Topic::Named(ORDERS.into()), partitions: ORDERS_PARTITIONS, retention_ms: 1 });
        broker.ensure_topics(&topics).now_or_never().expect("at once").expect("there are no topics yet");
        let ground = Ground { net: world.net().clone(), broker, effects: Arc::default(), data: data.to_owned() };
        let slots = HOSTS.map(|host| Slot {
            host,
            process: None,
            skew: Skew {
                wall_ns: random.random_range(-OFF_S..=OFF_S) * 1_000_000_000,
                drift_ppm: random.random_range(-DRIFT_PPM..=DRIFT_PPM),
            },
            down: BTreeSet::new(),
            paused: BTreeSet::new(),
            again: None,
            number: hosts::members().position(|it| it == host).map_or(0, |place| place as u64 + 1),
            damaged: false,
            replaced: None,
        });
        Self {
            world,
            ground,
            slots: slots.into(),
            ended: Arc::default(),
            active: BTreeMap::new(),
            next_member: hosts::members().count() as u64 + 1,
            plant: options.plant,
        }
    }

    fn run(mut self, options: &Options) -> Report {
        let mut random = SmallRng::seed_from_u64(options.seed);
        let workflows: Vec<Workflow> =
            (0..WORKFLOWS).map(|n| Workflow::random(&format!("w{n}"), &mut random)).collect();
        let workflows = Arc::new(workflows);
        let plan = faults::plan(&mut random, options.span);
        (0..self.slots.len()).for_each(|place| self.start(place));
        if self.plant == Some(Plant::Panics) {
            self.world.start("planted", |_| async { panic!("planted") });
        }
        let noted = self.client(Arc::clone(&workflows), SmallRng::seed_from_u64(random.random()));
        let ready = Arc::clone(&noted);
        let mut violations = Vec::new();
        if !self.go_on(PATIENCE * 6, || ready.is_ready.load(Ordering::Relaxed)) {
            violations.push(violation("J1", "nothing is accepted before the first fault"));
        }
        let begin = self.world.now();
        let wanted = |it: &Planned| options.only.as_ref().is_none_or(|only| only.contains(&it.number));
        let plan: Vec<Planned> = plan.into_iter().filter(wanted).collect();
        self.faults(&plan, begin, options.span);
        noted.stop.store(true, Ordering::Relaxed);
        let open = Arc::clone(&noted);
        if !self.go_on(ANSWERED, || open.open.load(Ordering::Relaxed) == 0) {
            let open = noted.open.load(Ordering::Relaxed);
            violations
                .push(violation("J2", format!("{open} requests have no answer {ANSWERED:?} after the last fault")));
        }
        let seen = self.settle();
        if seen.is_none() {
            violations.push(violation("J2", format!("not all has ended {SETTLED:?} after the last answer")));
            violations.extend(self.explain().into_iter().map(|what| violation("J2", what)));
        }
        let history = self.history(&noted, &workflows, options.span, seen.unwrap_or_default());
        let history = history.unwrap_or_else(|| {
            violations.push(violation("empty", "the topics cannot be read"));
            History::default()
        });
        if let Some(dir) = &options.history
            && let Err(error) = history.write(dir)
        {
            violations.push(violation("empty", format!("the history is not written: {error}")));
        }
        let counts = match nova_checker::check(&history) {
            Ok(counts) => counts,
            Err(found) => {
                violations.extend(found);
                Counts::default()
            }
        };
        let accepted = history.operations.iter().filter(|it| matches!(it.answer, Answer::Accepted { .. }));
        let enough = options.span.as_secs_f64() / 60.0 * ENOUGH_PER_MINUTE;
        if (accepted.count() as f64) < enough {
            violations.push(violation("empty", "so little was accepted that the run says nothing"));
        }
        let (trace, simulated, steps) = (self.world.trace_hash(), self.world.now(), self.world.steps());
        Report { trace, simulated, steps, faults: plan, counts, violations }
    }

    fn start(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let (host, number, ground, ended) = (slot.host, slot.number, self.ground.clone(), Arc::clone(&self.ended));
        let process = self.world.start_with(host.name, slot.skew, |process| async move {
            let why = ground.run(host, process.number(), number).await;
            ended.lock().push((process, host, why));
        });
        (slot.process, slot.again) = (Some(process), None);
        let paused = !slot.paused.is_empty();
        self.world.pause(process, paused);
    }

    fn client(&mut self, workflows: Arc<Vec<Workflow>>, random: SmallRng) -> Arc<Noted> {
        let noted = Arc::new(Noted::default());
        let (ground, own) = (self.ground.clone(), Arc::clone(&noted));
        self.world.start("client", |process| async move {
            let way = Way {
                bus: ground.bus("client", process.number()),
                coordinators: hosts::coordinators(&ground.net, "client"),
                cluster: CLUSTER.into(),
                shards: LAYOUT.shards as u16,
                workflows,
                noted: own,
            };
            way.run(random, PAUSE).await;
        });
        let (ground, own) = (self.ground.clone(), Arc::clone(&noted));
        self.world.start("reader", |_| async move {
            let coordinators = hosts::coordinators(&ground.net, "reader");
            tokio::join!(
                nova_workload::read(&coordinators, &own, now_ns),
                nova_workload::propose_as_before(&coordinators, &own, now_ns)
            );
        });
        noted
    }

    /// Goes on until something holds; processes that end by themselves are started again.
    fn go_on(&mut self, limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let end = self.world.now() + limit;
        loop {
            let now = self.world.now();
            let next = self.slots.iter().filter_map(|slot| slot.again).min();
            let span = next.unwrap_or(end).min(end).saturating_sub(now);
            let ended = Arc::clone(&self.ended);
            let replaced: Vec<Arc<Steps>> = self.slots.iter().filter_map(|slot| slot.replaced.clone()).collect();
            let moved = || {
                let on = |it: &Arc<Steps>| {
                    it.done.load(Ordering::Relaxed)
                        || it.gone.load(Ordering::Relaxed) && !it.runs.load(Ordering::Relaxed)
                };
                !ended.lock().is_empty() || replaced.iter().any(on)
            };
            self.world.run_until(span, || moved() || holds());
            if holds() {
                return true;
            }
            let now = self.world.now();
            let ended = std::mem::take(&mut *self.ended.lock());
            for (process, host, why) in ended {
                tracing::warn!(%host, why, "a process ended by itself");
                if let Some(place) = self.slots.iter().position(|slot| slot.process == Some(process)) {
                    (self.slots[place].process, self.slots[place].again) = (None, Some(now + AGAIN));
                    self.world.kill(process);
                    self.look_after(place);
                }
            }
            self.replace();
            for place in 0..self.slots.len() {
                let slot = &self.slots[place];
                if slot.again.is_some_and(|at| at <= now) && slot.down.is_empty() {
                    self.start(place);
                }
            }
            if now >= end {
                return false;
            }
        }
    }

    /// A member whose files were damaged has refused to go on: it is replaced. Not while its disk has trouble too.
    fn look_after(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        let in_trouble = self.active.values().any(|fault| matches!(fault, Fault::Disk(host, _) if *host == slot.host));
        if !slot.damaged || slot.replaced.is_some() || in_trouble {
            return;
        }
        let steps = Arc::new(Steps::default());
        let (old, new) = (slot.number, self.next_member);
        let member = v1::Member { id: new, address: hosts::address(slot.host) };
        tracing::info!(host = %slot.host, old, new, "the member is replaced");
        (slot.number, slot.again, slot.replaced) = (new, None, Some(Arc::clone(&steps)));
        self.next_member += 1;
        let coordinators = hosts::coordinators(&self.ground.net, "operator");
        self.world.start("operator", |_| operator::replace(coordinators, old, member, steps));
    }

    /// Members that were let go begin anew, and are whole when they were let in.
    fn replace(&mut self) {
        for place in 0..self.slots.len() {
            let slot = &mut self.slots[place];
            let Some(steps) = slot.replaced.clone() else { continue };
            if steps.done.load(Ordering::Relaxed) {
                (slot.replaced, slot.damaged) = (None, false);
            } else if steps.gone.load(Ordering::Relaxed) && !steps.runs.swap(true, Ordering::Relaxed) {
                self.world.empties(slot.host.name);
                if slot.down.is_empty() && slot.process.is_none() {
                    self.start(place);
                }
            }
        }
    }

    fn faults(&mut self, plan: &[Planned], begin: Duration, span: Duration) {
        let mut times: Vec<(Duration, bool, &Planned)> =
            plan.iter().flat_map(|it| [(it.at, true, it), (it.until, false, it)]).collect();
        times.sort_by_key(|(at, begins, planned)| (*at, *begins, planned.number));
        for (at, begins, planned) in times {
            self.go_on((begin + at).saturating_sub(self.world.now()), || false);
            if begins {
                tracing::info!(number = planned.number, fault = %planned.fault, "a fault begins");
                self.active.insert(planned.number, planned.fault.clone());
            } else {
                tracing::info!(number = planned.number, fault = %planned.fault, "a fault ends");
                self.active.remove(&planned.number);
            }
            self.change(planned, begins);
        }
        self.go_on((begin + span).saturating_sub(self.world.now()), || false);
    }

    /// A fault begins or ends.
    fn change(&mut self, planned: &Planned, begins: bool) {
        let place = |host: &Host| HOSTS.iter().position(|it| it == host).expect("it is one of them");
        match &planned.fault {
            Fault::Kill(host) | Fault::Power(host) => {
                self.down(place(host), planned, begins);
            }
            Fault::Damage(host) => {
                let place = place(host);
                self.down(place, planned, begins);
                // One at a time: what most have lost is lost.
                if begins && self.slots.iter().all(|slot| !slot.damaged) {
                    let what = self.world.damages(host.name);
                    tracing::info!(what, "a file was damaged");
                    self.slots[place].damaged = what.is_some();
                }
            }
            Fault::Blackout => (0..HOSTS.len()).for_each(|place| self.down(place, planned, begins)),
            Fault::Disk(..) | Fault::SlowDisks(_) => self.disks(),
            Fault::Pause(host) => {
                let slot = &mut self.slots[place(host)];
                if begins {
                    slot.paused.insert(planned.number);
                } else {
                    slot.paused.remove(&planned.number);
                }
                if let Some(process) = slot.process {
                    self.world.pause(process, !slot.paused.is_empty());
                }
            }
            Fault::Jump(host, s) => {
                if begins {
                    let slot = &mut self.slots[place(host)];
                    slot.skew.wall_ns += s * 1_000_000_000;
                    if let Some(process) = slot.process {
                        self.world.skew(process, slot.skew);
                    }
                }
            }
            Fault::Alone(_)
            | Fault::OneWay(..)
            | Fault::Split(_)
            | Fault::NoBus(_)
            | Fault::BusAway
            | Fault::Slow(_) => self.weather(),
        }
    }

    /// What is the matter with each disk now; what began last counts.
    fn disks(&mut self) {
        for host in hosts::members() {
            let trouble = self.active.values().rev().find_map(|fault| match fault {
                Fault::Disk(one, trouble) if *one == host => Some(*trouble),
                Fault::SlowDisks(time) => Some(Trouble::Slow(*time)),
                _ => None,
            });
            self.world.trouble(host.name, trouble);
        }
    }

    /// A process dies, with the power of its host where that fails, or may be started again.
    fn down(&mut self, place: usize, planned: &Planned, begins: bool) {
        let slot = &mut self.slots[place];
        let host = slot.host;
        if !begins {
            slot.down.remove(&planned.number);
            // One that is to be replaced waits until it was let go.
            let waits = slot.replaced.as_ref().is_some_and(|steps| !steps.runs.load(Ordering::Relaxed));
            if slot.down.is_empty() && slot.process.is_none() && !waits {
                self.start(place);
            }
            return;
        }
        slot.down.insert(planned.number);
        slot.again = None;
        if let Some(process) = slot.process.take() {
            self.world.kill(process);
        }
        if !matches!(planned.fault, Fault::Kill(_) | Fault::Damage(_)) {
            self.world.power_fails(host.name);
        }
        if self.plant == Some(Plant::Forgets) && host.role == hosts::Role::Coordinator {
            self.world.empties(host.name);
        }
    }

    fn weather(&mut self) {
        let all: Vec<&'static str> =
            HOSTS.iter().map(|host| host.name).chain([BROKER, "client", "reader", "operator"]).collect();
        let mut cut: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut slow = 0;
        for fault in self.active.values() {
            match fault {
                Fault::Alone(host) => {
                    cut.extend(all.iter().flat_map(|other| [(host.name, *other), (*other, host.name)]));
                }
                Fault::OneWay(from, to) => drop(cut.insert((from, to))),
                Fault::Split(side) => {
                    let on = |place: &usize| side >> place & 1 == 1;
                    let (one, other): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(on);
                    cut.extend(one.iter().flat_map(|a| other.iter().map(|b| (all[*a], all[*b]))));
                    cut.extend(one.iter().flat_map(|a| other.iter().map(|b| (all[*b], all[*a]))));
                }
                Fault::NoBus(host) => cut.extend([(host.name, BROKER), (BROKER, host.name)]),
                Fault::BusAway => cut.extend(all.iter().flat_map(|other| [(BROKER, *other), (*other, BROKER)])),
                Fault::Slow(ms) => slow = slow.max(*ms),
                Fault::Kill(_)
                | Fault::Power(_)
                | Fault::Blackout
                | Fault::Disk(..)
                | Fault::SlowDisks(_)
                | Fault::Damage(_)
                | Fault::Pause(_)
                | Fault::Jump(..) => {}
            }
        }
        self.world.net().change(|weather| {
            weather.cut = cut.into_iter().map(|(from, to)| (from.into(), to.into())).collect();
            weather.delay_most = crate::Weather::default().delay_most + Duration::from_millis(slow);
        });
    }

    /// Waits until all has ended, and gives what members and shards say then.
    fn settle(&mut self) -> Option<Seen> {
        self.observe(SETTLED, |observer| async move { observer.settle().await })
    }

    /// What is known where not all ends, for people.
    fn explain(&mut self) -> Vec<String> {
        let said = self.observe(PATIENCE * 2, |observer| async move { observer.explain().await });
        said.map_or_else(Vec::new, |said| said.unwrap_or_else(|error| vec![error.to_string()]))
    }

    fn history(
        &mut self,
        noted: &Arc<Noted>,
        workflows: &Arc<Vec<Workflow>>,
        span: Duration,
        seen: Seen,
    ) -> Option<History> {
        let (noted, workflows) = (Arc::clone(noted), Arc::clone(workflows));
        let effects = self.ground.effects.lock().clone();
        let reading = move |observer: Observer| async move {
            observer.history(CLUSTER, &noted, effects, &workflows[0], span, seen).await
        };
        self.observe(PATIENCE * 2, reading)?.ok()
    }

    /// Looks at the cluster from a host of its own.
    fn observe<T: Send + 'static, F: Future<Output = T> + Send>(
        &mut self,
        limit: Duration,
        look: impl FnOnce(Observer) -> F + Send + 'static,
    ) -> Option<T> {
        let seen = Arc::new(Mutex::new(None));
        let (ground, own) = (self.ground.clone(), Arc::clone(&seen));
        self.world.start("observer", |_| async move {
            let observer = Observer {
                coordinators: hosts::coordinators(&ground.net, "observer"),
                members: hosts::members()
                    .map(|host| (host.name.to_owned(), hosts::one(&ground.net, "observer", host)))
                    .collect(),
                bus: Arc::new(ground.broker),
                layout: LAYOUT,
            };
            let all = look(observer).await;
            *own.lock() = Some(all);
        });
        let look = Arc::clone(&seen);
        self.go_on(limit, || look.lock().is_some());
        seen.lock().take()
    }
}

fn violation(invariant: &'static str, what: impl Into<String>) -> Violation {
    Violation { invariant, what: what.into() }
}
