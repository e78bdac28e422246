//! Three coordinators, with openraft and logs as they are, while members die, stand still, and lose each other.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_client::{Coordinators, Repeat};
use nova_coordinator::{Config, Coordinator};
use nova_wire::v1;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::{Process, SharedNet, Skew, World, simulate};

const MEMBERS: [&str; 3] = ["c1", "c2", "c3"];
const PORT: u16 = 7710;
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause of the client between two requests.
const PAUSE: Duration = Duration::from_millis(50);
/// After the last fault a leader is there within this time (invariant J1).
const HEALED: Duration = Duration::from_secs(10);
/// So many requests are accepted in that time; as many must have been before, or the run says nothing.
const ENOUGH: usize = 20;
/// Longest time between two faults, and longest death or pause, in milliseconds.
const CALM_MS: u64 = 4_000;
const AWAY_MS: u64 = 3_000;
/// How far clocks of members are off, in seconds, and how much faster or slower they run, in millionths.
const OFF_S: i64 = 60;
const DRIFT_PPM: i64 = 500;

/// A fault that members are not built for: a run that does not find it cannot find anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    Nothing,
    /// Who is killed loses its files: the votes and entries that it answered for.
    Forgets,
    /// A task of a process panics, and all others go on.
    Panics,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// All that happened, in one number.
    pub trace: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// How often a process ran until it slept.
    pub steps: u64,
    /// Requests that were accepted.
    pub accepted: usize,
    /// Members that were killed and started again.
    pub kills: u32,
    /// Members that stood still for a while.
    pub pauses: u32,
    /// Links that were cut, both ways or one way.
    pub cuts: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, simulated, steps, accepted, kills, pauses, cuts } = self;
        write!(
            f,
            "{:.0} s simulated, {steps} steps, {accepted} accepted, {kills} kills, {pauses} pauses, {cuts} cuts, trace {trace:016x}",
            simulated.as_secs_f64()
        )
    }
}

/// An invariant does not hold, or nothing could be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nobody leads ten seconds after the last fault (J1).
    NoLeader,
    /// What was accepted is not there (A1).
    Lost(Vec<String>),
    /// Members that applied as much have another state (F3).
    Differ(Vec<(u64, u64)>),
    /// Nobody answers.
    Silent,
    /// So little was accepted that the run says nothing.
    Empty(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLeader => write!(f, "J1: nothing is accepted within {HEALED:?} after the last fault"),
            Self::Lost(names) => write!(f, "A1: accepted and not there: {}", names.join(", ")),
            Self::Differ(members) => write!(f, "F3: members differ (applied, hash of the state): {members:x?}"),
            Self::Silent => write!(f, "J1: members do not answer"),
            Self::Empty(accepted) => write!(f, "only {accepted} requests were accepted: the run says nothing"),
        }
    }
}

impl std::error::Error for Broken {}

fn addresses() -> Vec<String> {
    MEMBERS.iter().map(|name| format!("http://{name}:{PORT}")).collect()
}

async fn member(net: SharedNet, number: usize, data: PathBuf) {
    let socket = net.socket(MEMBERS[number]);
    let members = (1..).zip(addresses()).map(|(id, address)| format!("{id}@{address}"));
    let config = Config { member: number as u64 + 1, members: members.collect(), data, ..Config::default() };
    let listener = socket.listener(PORT).expect("the port is free");
    let opened = Coordinator::open_on(listener, socket.dialer(), config).await.expect("it opens");
    let coordinator = opened.start(CancellationToken::new()).await.expect("it starts");
    coordinator.run().await.expect("it serves");
}

/// Makes namespaces one after the other, and notes those that were accepted.
async fn client(net: SharedNet, accepted: Arc<Mutex<Vec<String>>>) {
    let coordinators = Coordinators::dialing(addresses(), net.socket("client").dialer());
    for number in 0.. {
        let name = format!("n{number}");
        let namespace = v1::Namespace { name: name.clone(), ..Default::default() };
        let put = coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
            let namespace = namespace.clone();
            async move { member.put_namespace(namespace).await }
        });
        if put.await.is_ok() {
            accepted.lock().push(name);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is applied at each member with the hash of its state, and the namespaces that the leader knows.
type Seen = (Vec<(u64, u64)>, BTreeSet<String>);

async fn look(net: SharedNet, seen: Arc<Mutex<Option<Seen>>>) -> Result<(), nova_client::ClientError> {
    let dialer = net.socket("observer").dialer();
    let all = Coordinators::dialing(addresses(), dialer.clone());
    let asking = all.call(PATIENCE, Repeat::Read, |mut member| async move {
        member.get_catalogue(v1::GetCatalogueRequest::default()).await
    });
    let namespaces = asking.await?.namespaces.into_iter().map(|it| it.name).collect();
    let mut members = Vec::new();
    for address in addresses() {
        let one = Coordinators::dialing(vec![address], dialer.clone());
        let describing =
            one.call(PATIENCE, Repeat::Read, |mut member| async move { member.describe(v1::DescribeRequest {}).await });
        let described = describing.await?;
        members.push((described.applied, described.state_hash));
    }
    *seen.lock() = Some((members, namespaces));
    Ok(())
}

/// Runs three members under faults for so long, then without, and looks what is left.
///
/// # Errors
/// See [`Broken`].
///
/// # Panics
/// When there is no place for temporary files, or a member cannot start.
pub fn run(seed: u64, span: Duration, plant: Plant) -> Result<Report, Broken> {
    // Files without a disk, where there are such: nothing of a simulation outlives it.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let dir = dir.expect("a temporary directory");
    simulate(seed, |mut world| cluster(&mut world, seed, dir.path(), span, plant))
}

fn cluster(world: &mut World, seed: u64, dir: &Path, span: Duration, plant: Plant) -> Result<Report, Broken> {
    let mut random = SmallRng::seed_from_u64(seed);
    let skews = MEMBERS.map(|_| Skew {
        wall_ns: random.random_range(-OFF_S..=OFF_S) * 1_000_000_000,
        drift_ppm: random.random_range(-DRIFT_PPM..=DRIFT_PPM),
    });
    let start = |world: &mut World, number: usize| {
        let (net, data) = (world.net().clone(), dir.join(MEMBERS[number]));
        world.start_with(MEMBERS[number], skews[number], move || member(net, number, data))
    };
    if plant == Plant::Panics {
        world.start("planted", || async { panic!("planted") });
    }
    let mut members: Vec<Process> = (0..MEMBERS.len()).map(|number| start(world, number)).collect();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let (net, own) = (world.net().clone(), Arc::clone(&accepted));
    let client = world.start("client", move || client(net, own));
    let mut report = Report::default();
    let end = world.now() + span;
    while world.now() < end {
        world.run_for(Duration::from_millis(random.random_range(100..CALM_MS)));
        let victim = random.random_range(0..MEMBERS.len());
        let away = Duration::from_millis(random.random_range(0..AWAY_MS));
        match random.random_range(0..5) {
            0 => {
                world.kill(members[victim]);
                if plant == Plant::Forgets {
                    std::fs::remove_dir_all(dir.join(MEMBERS[victim])).expect("the files of a member that is no more");
                }
                world.run_for(away);
                members[victim] = start(world, victim);
                report.kills += 1;
            }
            1 => {
                world.pause(members[victim], true);
                world.run_for(away);
                world.pause(members[victim], false);
                report.pauses += 1;
            }
            2 => {
                let others: Vec<&str> = MEMBERS.iter().copied().filter(|it| *it != MEMBERS[victim]).collect();
                world.net().cut(&[MEMBERS[victim]], &others);
                report.cuts += 1;
            }
            3 => {
                let next = (victim + 1) % MEMBERS.len();
                let (from, to) = (MEMBERS[victim].to_owned(), MEMBERS[next].to_owned());
                world.net().change(|weather| {
                    weather.cut.insert((from, to));
                });
                report.cuts += 1;
            }
            _ => world.net().heal(),
        }
    }
    world.net().heal();
    let before = accepted.lock().len();
    if !world.run_until(HEALED, || accepted.lock().len() >= before + ENOUGH) {
        return Err(Broken::NoLeader);
    }
    world.kill(client);
    // What was accepted last comes to all.
    world.run_for(Duration::from_secs(2));
    let seen = Arc::new(Mutex::new(None));
    let (net, own) = (world.net().clone(), Arc::clone(&seen));
    world.start("observer", move || async move {
        // Without an answer nothing is seen.
        let _ = look(net, own).await;
    });
    world.run_until(PATIENCE * 5, || seen.lock().is_some());
    let (described, namespaces) = seen.lock().take().ok_or(Broken::Silent)?;
    if described.iter().any(|member| *member != described[0]) {
        return Err(Broken::Differ(described));
    }
    let lost: Vec<_> = accepted.lock().iter().filter(|name| !namespaces.contains(*name)).cloned().collect();
    if !lost.is_empty() {
        return Err(Broken::Lost(lost));
    }
    if before < ENOUGH {
        return Err(Broken::Empty(before));
    }
    let accepted = accepted.lock().len();
    Ok(Report { trace: world.trace_hash(), simulated: world.now(), steps: world.steps(), accepted, ..report })
}
