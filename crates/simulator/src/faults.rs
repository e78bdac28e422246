//! What goes wrong in a run, and when: known from the seed before anything runs, so that a part of it can be left out.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use crate::bus::BROKER;
use crate::disk::Trouble;
use crate::hosts::{HOSTS, Host, Role};

/// Longest time between two faults, and longest fault, in milliseconds.
const CALM_MS: u64 = 4_000;
const LASTS_MS: u64 = 6_000;
/// Farthest jump of a wall clock, in seconds.
const JUMP_S: i64 = 60;

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies, and is started again.
    Kill(Host),
    /// The power of a host fails, and comes back.
    Power(Host),
    /// The power of all hosts fails, and comes back.
    Blackout,
    /// Something is the matter with the disk of a host.
    Disk(Host, Trouble),
    /// A member dies, and a file of it is damaged meanwhile.
    Damage(Host),
    /// Each sync of each member takes so long.
    SlowDisks(Duration),
    /// A process stands still.
    Pause(Host),
    /// A host loses all others, both ways.
    Alone(Host),
    /// Nothing gets from one host to another.
    OneWay(&'static str, &'static str),
    /// Hosts on one side lose those on the other, both ways; by bits, in the order of hosts, then bus, client, reader, operator.
    Split(u32),
    /// A host loses the bus, both ways.
    NoBus(Host),
    /// All lose the bus.
    BusAway,
    /// All messages take so many milliseconds more, at most.
    Slow(u64),
    /// A wall clock jumps by so many seconds.
    Jump(Host, i64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(host) => write!(f, "{host} is killed"),
            Self::Power(host) => write!(f, "the power of {host} fails"),
            Self::Blackout => write!(f, "the power of all fails"),
            Self::Disk(host, Trouble::Slow(time)) => write!(f, "each sync of {host} takes {time:?}"),
            Self::Disk(host, Trouble::Fails) => write!(f, "syncs of {host} fail"),
            Self::Disk(host, Trouble::Full) => write!(f, "the disk of {host} is full"),
            Self::Damage(host) => write!(f, "a file of {host} is damaged"),
            Self::SlowDisks(time) => write!(f, "each sync takes {time:?}"),
            Self::Pause(host) => write!(f, "{host} stands still"),
            Self::Alone(host) => write!(f, "{host} is cut off"),
            Self::OneWay(from, to) => write!(f, "nothing gets from {from} to {to}"),
            Self::Split(side) => {
                let on = |place: &usize| side >> place & 1 == 1;
                let names: Vec<_> = (0..HOSTS.len()).filter(on).map(|place| HOSTS[place].name).collect();
                write!(f, "{} lose all others", names.join(", "))
            }
            Self::NoBus(host) => write!(f, "{host} loses the bus"),
            Self::BusAway => write!(f, "the bus is away"),
            Self::Slow(ms) => write!(f, "messages take up to {ms} ms"),
            Self::Jump(host, s) => write!(f, "the wall clock of {host} jumps by {s} s"),
        }
    }
}

/// A fault with its time.
pub type Planned = nova_workload::Planned<Fault>;

/// Faults of a run that lasts so long.
pub(crate) fn plan(random: &mut SmallRng, span: Duration) -> Vec<Planned> {
    let mut all = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(random.random_range(0..CALM_MS));
        if at >= span {
            return all;
        }
        let until = at + Duration::from_millis(random.random_range(1..LASTS_MS));
        all.push(Planned { number: all.len(), at, until: until.min(span), fault: fault(random) });
    }
}

fn fault(random: &mut SmallRng) -> Fault {
    let host = HOSTS[random.random_range(0..HOSTS.len())];
    let members: Vec<Host> = HOSTS.iter().copied().filter(|it| it.role == Role::Coordinator).collect();
    let member = members[random.random_range(0..members.len())];
    match random.random_range(0..100) {
        0..14 => Fault::Kill(host),
        14..16 => Fault::Damage(member),
        16..23 => Fault::Power(host),
        23..29 => Fault::Power(member),
        29..32 => Fault::Blackout,
        32..43 => Fault::Pause(host),
        43..50 => Fault::Alone(host),
        50..57 => Fault::Split(random.random_range(1..1 << (HOSTS.len() + 4))),
        57..66 if host == member => Fault::Alone(host),
        57..62 => Fault::OneWay(host.name, member.name),
        62..66 => Fault::OneWay(member.name, host.name),
        66..70 => Fault::NoBus(host),
        70..73 => Fault::OneWay(host.name, BROKER),
        73..76 => Fault::OneWay(BROKER, host.name),
        76..80 => Fault::BusAway,
        80..84 => Fault::Slow(random.random_range(5..150)),
        84..90 => Fault::Jump(host, random.random_range(-JUMP_S..=JUMP_S)),
        90..92 => Fault::Disk(member, Trouble::Slow(Duration::from_millis(random.random_range(5..400)))),
        92..95 => Fault::SlowDisks(Duration::from_millis(random.random_range(5..400))),
        95..98 => Fault::Disk(member, Trouble::Fails),
        _ => Fault::Disk(member, Trouble::Full),
    }
}
