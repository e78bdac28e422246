//! Raft groups: their members, the entries of their logs, and what leads to them and from them.

use super::{Builder, MANY, OF_A_SCHEDULER, Process};
use crate::flow::Exit;
use crate::input::Servers;
use crate::network::{HostId, Phase, Service, StationId, ThreadId};

/// Entries on their way, requests in one.
const ENTRIES: u32 = 16;
const BODIES: usize = 256;
/// Requests to a follower on their way, entries in one.
const TO_FOLLOWER: u32 = 8;
const OF_FOLLOWER: usize = 64;
/// One member of one group.
#[derive(Clone, Copy, Debug)]
struct Member {
    process: Process,
    core: ThreadId,
    log: ThreadId,
    apply: ThreadId,
}

impl Builder<'_> {
    fn member(&mut self, group: usize, member: usize, host: HostId, cores: u32) -> Member {
        let name = |what: &str| format!("coordinator {} group {} {what}", member + 1, group + 1);
        let mut thread = |what: &str, width| self.network.thread(name(what), "coordinator", host, width);
        let pool = thread("calls", cores);
        let (core, log, apply) = (thread("raft", 1), thread("log", 1), thread("apply", 1));
        Member { process: Process { host, pool }, core, log, apply }
    }

    pub(super) fn coordinators(&mut self, servers: &[(HostId, Servers)], schedulers: &[Process]) {
        let mut hosts = Vec::new();
        for (host, server) in servers {
            hosts.extend((0..server.coordinator).map(|_| (*host, server.cores)));
        }
        for group in 0..self.layout.groups as usize {
            // Leaders on different servers.
            let members = (0..hosts.len()).map(|it| (it + group) % hosts.len());
            let members: Vec<_> = members.map(|it| self.member(group, it, hosts[it].0, hosts[it].1)).collect();
            self.group(group, &members, schedulers);
        }
    }

    fn group(&mut self, group: usize, members: &[Member], schedulers: &[Process]) {
        let leader = members[0];
        let phases = vec![self.cpu(leader.log, "coordinator.log"), self.sync(), Phase::Join];
        let log = self.one(format!("log syncs {group}"), phases, Exit::Nowhere);
        let (mut appends, mut applies) = (vec![log], Vec::new());
        for (number, follower) in members.iter().enumerate().skip(1) {
            let (there, back) = (
                self.way(leader.process.host, follower.process.host),
                self.way(follower.process.host, leader.process.host),
            );
            let phases = vec![back, self.cpu(leader.core, "coordinator.followed"), Phase::Join];
            let told = self.add(
                Service { slots: MANY, ..Service::new(format!("followed {group} {number}"), phases) },
                Exit::Nowhere,
            );
            let phases = vec![self.cpu(follower.log, "coordinator.log"), self.sync(), Phase::Pass(told)];
            let log = self.one(format!("log syncs {group} {number}"), phases, Exit::Nowhere);
            let phases = vec![
                self.cpu(leader.process.pool, "coordinator.send"),
                there,
                self.cpu(follower.core, "coordinator.follow"),
                Phase::Pass(log),
            ];
            let send = Service {
                slots: TO_FOLLOWER,
                limit: OF_FOLLOWER,
                ..Service::new(format!("send {group} {number}"), phases)
            };
            appends.push(self.add(send, Exit::Nowhere));
            let phases = vec![self.cpu(follower.apply, "coordinator.apply"), Phase::Join];
            applies.push(self.one(format!("apply {group} {number}"), phases, Exit::Nowhere));
        }
        let proposer =
            self.network.thread(format!("group {} proposer", group + 1), "coordinator", leader.process.host, 1);
        let majority = members.len() as u32 / 2 + 1;
        let phases = vec![
            self.cpu(proposer, "coordinator.entry"),
            self.cpu(leader.core, "coordinator.core"),
            Phase::Fork { stations: appends.into(), need: majority },
            self.cpu(leader.apply, "coordinator.apply"),
            Phase::Fork { stations: applies.into(), need: 0 },
            Phase::Route,
            Phase::Join,
        ];
        let service = Service { slots: ENTRIES, limit: BODIES, ..Service::new(format!("entries {group}"), phases) };
        let entries = self.add(service, Exit::Applied { group });
        self.links(group, leader, entries, schedulers);
    }

    /// The stations between a group's leader and each scheduler.
    fn links(&mut self, group: usize, leader: Member, entries: StationId, schedulers: &[Process]) {
        let mut subscriptions = Vec::new();
        for (number, scheduler) in schedulers.iter().enumerate() {
            let name = format!("scheduler {} loop", number + 1);
            // A scheduler has one loop for all groups.
            let main = match self.network.find_thread(&name) {
                Some(thread) => thread,
                None => self.network.thread(name, "scheduler", scheduler.host, 1),
            };
            let pool = (group == 0).then(|| self.network.pool(OF_A_SCHEDULER));
            let name = format!("group {} outbox of {}", group + 1, number + 1);
            let sender = self.network.thread(name, "coordinator", leader.process.host, 1);
            let take = vec![self.call(scheduler.pool), self.cpu(main, "scheduler.take"), Phase::Route];
            let take = self.one(format!("take {group} {number}"), take, Exit::OutOfOutbox);
            let phases = vec![
                self.cpu(sender, "coordinator.subscribe"),
                self.call(sender),
                self.call_way(leader.process.host, scheduler.host),
                Phase::Pass(take),
            ];
            subscriptions.push(self.one(format!("outbox {group} {number}"), phases, Exit::Nowhere));
            if let Some(pool) = pool {
                self.wiring.pools.push(pool);
            }
        }
        self.wiring.subscriptions.push(subscriptions);
        self.wiring.entries.push((entries, leader.process.host, leader.process.pool));
    }
}
