//! The hosts of a cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// What a host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member of the group.
    Coordinator,
    /// Carries commands and messages.
    Scheduler,
    /// Carries out attempts.
    Worker,
    /// Starts executions.
    Trigger,
    /// Answers clients.
    Api,
    /// Of Kafka.
    Broker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coordinator => "coordinator",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
            Self::Trigger => "trigger",
            Self::Api => "api",
            Self::Broker => "broker",
        })
    }
}

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub role: Role,
    /// Number among those of its role, from 1.
    pub number: u8,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

const fn host(name: &'static str, role: Role, number: u8) -> Host {
    Host { name, role, number }
}

/// All hosts; the members first, the brokers last.
pub const HOSTS: [Host; 15] = [
    host("c1", Role::Coordinator, 1),
    host("c2", Role::Coordinator, 2),
    host("c3", Role::Coordinator, 3),
    host("s1", Role::Scheduler, 1),
    host("s2", Role::Scheduler, 2),
    host("w1", Role::Worker, 1),
    host("w2", Role::Worker, 2),
    host("w3", Role::Worker, 3),
    host("t1", Role::Trigger, 1),
    host("t2", Role::Trigger, 2),
    host("a1", Role::Api, 1),
    host("a2", Role::Api, 2),
    host("k1", Role::Broker, 1),
    host("k2", Role::Broker, 2),
    host("k3", Role::Broker, 3),
];

/// All hosts of a role.
pub fn of(role: Role) -> impl Iterator<Item = Host> {
    HOSTS.into_iter().filter(move |host| host.role == role)
}

impl Host {
    /// Its place in [`HOSTS`].
    #[must_use]
    pub fn place(self) -> usize {
        HOSTS.iter().position(|it| *it == self).unwrap_or_default()
    }

    /// Its address in the net with this number.
    #[must_use]
    pub fn address(self, net: u8) -> IpAddr {
        Ipv4Addr::new(10, 77, net, 10 + self.place() as u8).into()
    }
}
