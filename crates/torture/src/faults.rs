//! What goes wrong, and when: known from the seed before anything runs.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::disks::{self, Syncs};
use crate::hosts::{HOSTS, Host, Role, of};
use crate::{net, starved, tools};

/// Longest fault, in milliseconds.
const LASTS_MS: u64 = 6_000;
/// A broker that was killed takes longer than that until it is back.
const BROKER_MS: u64 = 12_000;
/// Farthest jump of a wall clock, in seconds.
const JUMP_S: i64 = 60;

/// A kind of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Kind {
    /// A process dies.
    Kill,
    /// A process stands still.
    Pause,
    /// A host is cut off, hosts are split in two.
    Cut,
    /// Nothing gets from one host to others; the other way all does.
    OneWay,
    /// The member that leads and another one lose each other; both have the third.
    Bridge,
    /// Packets are lost.
    Loss,
    /// Connections are reset.
    Reset,
    /// What a host sends goes through a narrow pipe.
    Narrow,
    /// What a host sends is late.
    Delay,
    /// A Kafka broker dies, or stands still.
    Broker,
    /// Syncs of a member take long.
    SlowSync,
    /// Syncs of a member fail.
    FailedSync,
    /// The power of a member, or of all, is cut.
    Power,
    /// The wall clock of a member jumps.
    Clock,
    /// A process may open nothing more.
    Files,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("none is hidden").get_name())
    }
}

/// Whether faults of a kind can be had on this machine.
///
/// # Errors
/// With what is missing.
pub fn probe(kind: Kind) -> Result<()> {
    let need = |program: &str, package: &str| {
        if tools::is_there(program) { Ok(()) } else { bail!("`{program}` is missing (Debian: {package})") }
    };
    match kind {
        Kind::Kill | Kind::Pause | Kind::Broker => Ok(()),
        Kind::Cut | Kind::OneWay | Kind::Bridge | Kind::Loss | Kind::Reset => {
            need("nft", "nftables")?;
            net::probe()
        }
        Kind::Narrow | Kind::Delay => {
            need("tc", "iproute2")?;
            let net = net::Net::make()?;
            let how = if kind == Kind::Delay { DELAY } else { NARROW };
            net.slow(HOSTS[0], Some(how))
        }
        Kind::SlowSync | Kind::FailedSync => {
            need("strace", "strace")?;
            disks::probe_syncs()
        }
        Kind::Power => {
            need("mkfs.xfs", "xfsprogs")?;
            need("xfs_io", "xfsprogs")?;
            disks::probe()
        }
        Kind::Files => starved::probe(),
        Kind::Clock if tools::faketime().is_none() => bail!("libfaketime is missing (Debian: faketime)"),
        Kind::Clock => Ok(()),
    }
}

/// What `tc` is told.
pub const NARROW: &[&str] = &["tbf", "rate", "512kbit", "burst", "16kb", "latency", "400ms"];
/// The same, of a host that is far away.
pub const DELAY: &[&str] = &["netem", "delay", "80ms", "40ms"];

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the host to the others.
    To,
    /// From the others to the host.
    From,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies, and is started again.
    Kill(Host),
    /// A process stands still.
    Pause(Host),
    /// Hosts on one side lose those on the other, both ways; by bits, in the order of [`HOSTS`].
    Split(u32),
    /// Nothing gets from a host to all others of a role, or the other way.
    OneWay(Host, Role, Way),
    /// The member that leads and the next one behind it, or the last one, lose each other.
    Bridge(u8),
    /// A host loses so many of a hundred packets.
    Loss(Host, u8),
    /// What a host sends to all others of a role, or the other way, resets the connection.
    Reset(Host, Role, Way),
    /// What a host sends goes through a narrow pipe.
    Narrow(Host),
    /// What a host sends is late.
    Delay(Host),
    /// Syncs of a member.
    Syncs(Host, Syncs),
    /// The power of these members is cut.
    Power(Vec<Host>),
    /// A wall clock is so many seconds off from now on.
    Clock(Host, i64),
    /// A process may open nothing more.
    Files(Host),
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Kill(host) | Self::Pause(host) if host.role == Role::Broker => Kind::Broker,
            Self::Kill(_) => Kind::Kill,
            Self::Pause(_) => Kind::Pause,
            Self::Split(_) => Kind::Cut,
            Self::OneWay(..) => Kind::OneWay,
            Self::Bridge(_) => Kind::Bridge,
            Self::Loss(..) => Kind::Loss,
            Self::Reset(..) => Kind::Reset,
            Self::Narrow(_) => Kind::Narrow,
            Self::Delay(_) => Kind::Delay,
            Self::Syncs(_, Syncs::Slow(_)) => Kind::SlowSync,
            Self::Syncs(_, Syncs::Fail) => Kind::FailedSync,
            Self::Power(_) => Kind::Power,
            Self::Clock(..) => Kind::Clock,
            Self::Files(_) => Kind::Files,
        }
    }

    /// Whether both cannot be at once: a process can be killed or paused once at a time and has one clock, and two brokers of
    /// three are needed for anything.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Clock(one, _), Self::Clock(two, _)) => one == two,
            _ => {
                self.processes().iter().any(|host| other.processes().contains(host))
                    || self.kind() == Kind::Broker && other.kind() == Kind::Broker
            }
        }
    }

    /// Processes that it is done to.
    fn processes(&self) -> Vec<Host> {
        match self {
            Self::Kill(host) | Self::Pause(host) | Self::Syncs(host, _) | Self::Files(host) => vec![*host],
            Self::Power(hosts) => hosts.clone(),
            _ => Vec::new(),
        }
    }
}

fn sides(side: u32) -> (Vec<Host>, Vec<Host>) {
    HOSTS.into_iter().partition(|host| side >> host.place() & 1 == 1)
}

/// Pairs that do not hear each other: from, to.
pub fn between(host: Host, role: Role, way: Way) -> impl Iterator<Item = (Host, Host)> {
    let others = of(role).filter(move |other| *other != host);
    others.map(move |other| if way == Way::To { (host, other) } else { (other, host) })
}

/// Pairs that a split parts: from, to.
pub fn parted(side: u32) -> impl Iterator<Item = (Host, Host)> {
    let (one, other) = sides(side);
    let pairs = move |a: Host| other.clone().into_iter().flat_map(move |b| [(a, b), (b, a)]);
    one.into_iter().flat_map(pairs)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |hosts: &[Host]| hosts.iter().map(|host| host.name).collect::<Vec<_>>().join(", ");
        match self {
            Self::Kill(host) => write!(f, "{host} is killed"),
            Self::Pause(host) => write!(f, "{host} stands still"),
            Self::Split(side) => write!(f, "{} lose all others", names(&sides(*side).0)),
            Self::OneWay(host, role, Way::To) => write!(f, "nothing gets from {host} to any {role}"),
            Self::OneWay(host, role, Way::From) => write!(f, "nothing gets from any {role} to {host}"),
            Self::Bridge(_) => write!(f, "the member that leads and another one lose each other"),
            Self::Loss(host, percent) => write!(f, "{host} loses {percent} % of all packets"),
            Self::Reset(host, role, Way::To) => write!(f, "what {host} sends to any {role} is answered by a reset"),
            Self::Reset(host, role, Way::From) => write!(f, "what any {role} sends to {host} is answered by a reset"),
            Self::Narrow(host) => write!(f, "{host} sends through a narrow pipe"),
            Self::Delay(host) => write!(f, "what {host} sends is late"),
            Self::Syncs(host, Syncs::Slow(ms)) => write!(f, "each sync of {host} takes {ms} ms"),
            Self::Syncs(host, Syncs::Fail) => write!(f, "syncs of {host} fail"),
            Self::Power(hosts) => write!(f, "the power of {} is cut", names(hosts)),
            Self::Clock(host, s) => write!(f, "the wall clock of {host} is {s} s off"),
            Self::Files(host) => write!(f, "{host} may open nothing more"),
        }
    }
}

/// A fault with its time.
pub type Planned = nova_workload::Planned<Fault>;

/// Faults of a run that lasts so long, with at most so much time between two.
#[must_use]
pub fn plan(random: &mut SmallRng, span: Duration, calm: Duration, kinds: &BTreeSet<Kind>) -> Vec<Planned> {
    let kinds: Vec<Kind> = kinds.iter().copied().collect();
    let mut all: Vec<Planned> = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += calm.mul_f64(random.random_range(0.0..1.0));
        let Some(kind) = kinds.choose(random).filter(|_| at < span) else { return all };
        let fault = fault(*kind, random);
        let lasts = if *kind == Kind::Broker { BROKER_MS } else { random.random_range(300..LASTS_MS) };
        let until = at + Duration::from_millis(lasts);
        if !all.iter().any(|it| it.until > at && it.fault.clashes(&fault)) {
            all.push(Planned { number: all.len(), at, until, fault });
        }
    }
}

fn fault(kind: Kind, random: &mut SmallRng) -> Fault {
    let any = |random: &mut SmallRng, role: Option<Role>| {
        let all: Vec<Host> =
            HOSTS.into_iter().filter(|host| role.map_or(host.role != Role::Broker, |it| it == host.role)).collect();
        *all.choose(random).expect("each role has hosts")
    };
    // One that has something to say to the others: all ask coordinators, and all but coordinators ask brokers.
    let pair = |random: &mut SmallRng| {
        let host = any(random, None);
        let role =
            if host.role == Role::Coordinator || random.random_bool(0.5) { Role::Coordinator } else { Role::Broker };
        (host, role, if random.random_bool(0.5) { Way::To } else { Way::From })
    };
    match kind {
        Kind::Kill => Fault::Kill(any(random, None)),
        Kind::Pause => Fault::Pause(any(random, None)),
        Kind::Cut if random.random_bool(0.5) => Fault::Split(1 << any(random, None).place()),
        // Brokers stay together.
        Kind::Cut => Fault::Split(random.random_range(1..1 << (HOSTS.len() - of(Role::Broker).count()))),
        Kind::OneWay => {
            let (host, role, way) = pair(random);
            Fault::OneWay(host, role, way)
        }
        Kind::Bridge => Fault::Bridge(random.random_range(1..3)),
        Kind::Loss => Fault::Loss(any(random, None), random.random_range(5..40)),
        Kind::Reset => {
            let (host, role, way) = pair(random);
            Fault::Reset(host, role, way)
        }
        Kind::Narrow => Fault::Narrow(any(random, None)),
        Kind::Delay => Fault::Delay(any(random, None)),
        Kind::Broker => match random.random_range(0..3) {
            0 => Fault::Pause(any(random, Some(Role::Broker))),
            _ => Fault::Kill(any(random, Some(Role::Broker))),
        },
        Kind::SlowSync => Fault::Syncs(any(random, Some(Role::Coordinator)), Syncs::Slow(random.random_range(5..300))),
        Kind::FailedSync => Fault::Syncs(any(random, Some(Role::Coordinator)), Syncs::Fail),
        Kind::Power if random.random_bool(0.3) => Fault::Power(of(Role::Coordinator).collect()),
        Kind::Power => Fault::Power(vec![any(random, Some(Role::Coordinator))]),
        Kind::Clock => {
            let off = random.random_range(JUMP_S / 6..=JUMP_S);
            Fault::Clock(any(random, Some(Role::Coordinator)), if random.random_bool(0.5) { off } else { -off })
        }
        // A worker takes no connections, by which it would be seen.
        Kind::Files => {
            let listens = [Role::Coordinator, Role::Scheduler, Role::Trigger, Role::Api];
            let role = listens.choose(random).copied();
            Fault::Files(any(random, role))
        }
    }
}
