//! The queues of a cluster: its processes on its servers, with what each step was measured to cost.

mod groups;

use std::rc::Rc;

use crate::agenda::Ns;
use crate::flow::{Exit, Wiring};
use crate::input::{Bus, Layout, Measured, Servers};
use crate::network::{Cost, HostId, Item, Network, Phase, Service, StationId, ThreadId, Token};

/// Commands of a record of an api, items of an append of anybody else.
const API_RECORD: usize = 256;
const APPEND: usize = 512;
/// Proposals on their way for a shard, over all shards of a scheduler; records of one have some hundred commands.
const OF_A_SHARD: u32 = 4;
const OF_A_SCHEDULER: u32 = 32;
/// How long the history gathers under load.
const GATHER: Ns = 50_000_000;
/// Messages of one transaction of it: 2,000 records, of which most hold a few.
const TRANSACTION: usize = 8_000;
/// How often processes do what they always do.
const IDLE: Ns = 10_000_000;
/// Threads through which a request goes in a broker (network, handler, network), and in the client library.
const BROKER_HOPS: u32 = 3;
const CLIENT_HOPS: u32 = 2;
/// Any number at once.
const MANY: u32 = u32::MAX;

/// A process: where it is, and the threads of its runtime together.
#[derive(Clone, Copy, Debug)]
struct Process {
    host: HostId,
    pool: ThreadId,
}

#[derive(Debug)]
struct Builder<'a> {
    network: &'a mut Network,
    measured: &'a Measured,
    layout: &'a Layout,
    wiring: Wiring,
    brokers: Vec<Process>,
    /// By broker: those that copy from it.
    copies: Vec<Rc<[StationId]>>,
    journal: Option<StationId>,
    quiet_journal: Option<StationId>,
}

/// Makes the stations of a layout and says how they hang together.
pub(crate) fn build(network: &mut Network, measured: &Measured, layout: &Layout) -> Wiring {
    let wiring = Wiring { whole_history: layout.whole_history, ..Wiring::default() };
    let (brokers, copies) = (Vec::new(), Vec::new());
    let mut builder =
        Builder { network, measured, layout, wiring, brokers, copies, journal: None, quiet_journal: None };
    builder.all();
    builder.wiring
}

impl Builder<'_> {
    fn all(&mut self) {
        let servers = self.servers();
        let generators = self.processes(&servers, "generator", |it| it.generator);
        let apis = self.processes(&servers, "api", |it| it.api);
        let schedulers = self.processes(&servers, "scheduler", |it| it.scheduler);
        let workers = self.processes(&servers, "worker", |it| it.worker);
        self.brokers = self.processes(&servers, "bus", |it| it.broker);
        self.copying();
        if self.layout.bus == Bus::Kafka {
            for process in apis.iter().chain(&schedulers).chain(&workers) {
                self.idle(*process, "client.idle");
            }
            for process in self.brokers.clone() {
                self.idle(process, "broker.idle");
            }
        }
        if self.layout.bus == Bus::Embedded {
            self.journals(apis[0].host);
        }
        for (number, process) in generators.iter().enumerate() {
            let phases = vec![
                self.cpu(process.pool, "generator.send"),
                self.way(process.host, apis[number % apis.len()].host),
                Phase::Route,
            ];
            let station = self.each(format!("generator {number}"), phases, Exit::Sent);
            self.wiring.generators.push(station);
        }
        self.apis(&apis, &generators);
        self.workers(&workers);
        self.coordinators(&servers, &schedulers);
        self.schedulers(&schedulers, &apis, &workers);
    }

    fn servers(&mut self) -> Vec<(HostId, Servers)> {
        let mut all = Vec::new();
        for servers in &self.layout.server {
            for _ in 0..servers.count {
                let name = format!("server {}", all.len() + 1);
                all.push((self.network.host(name, servers.cores), servers.clone()));
            }
        }
        all
    }

    fn processes(
        &mut self,
        servers: &[(HostId, Servers)],
        kind: &'static str,
        count: fn(&Servers) -> u32,
    ) -> Vec<Process> {
        let mut all = Vec::new();
        for (host, server) in servers {
            for _ in 0..count(server) {
                let pool = self.network.thread(format!("{kind} {}", all.len() + 1), kind, *host, server.cores);
                all.push(Process { host: *host, pool });
            }
        }
        all
    }

    fn cpu(&self, thread: ThreadId, name: &'static str) -> Phase {
        Phase::Cpu(thread, self.measured.cost(name))
    }

    /// The same in equal parts, one after the other: who does it hands it from thread to thread.
    fn hops(&self, thread: ThreadId, name: &'static str, count: u32) -> Vec<Phase> {
        let Cost { batch, token, item } = self.measured.cost(name);
        let share = |cost: f64| cost / f64::from(count);
        vec![Phase::Cpu(thread, Cost { batch: share(batch), token: share(token), item: share(item) }); count as usize]
    }

    /// What a request between processes costs beside what is in it; nothing within one.
    fn call(&self, thread: ThreadId) -> Phase {
        let cost = if self.layout.one_process { Cost::default() } else { self.measured.cost("rpc.call") };
        Phase::Cpu(thread, cost)
    }

    fn way(&self, from: HostId, to: HostId) -> Phase {
        let distance = self.measured.distance;
        let us = if from == to { distance.loopback_us } else { distance.network_us };
        Phase::Delay((us * 1_000.0) as Ns)
    }

    /// Between scheduler and coordinator.
    fn call_way(&self, from: HostId, to: HostId) -> Phase {
        if self.layout.one_process { Phase::Delay(0) } else { self.way(from, to) }
    }

    fn sync(&self) -> Phase {
        let disk = self.measured.disk;
        let ns = |us: f64| (us * 1_000.0) as Ns;
        Phase::Sync { usual: ns(disk.sync_us), slow: ns(disk.slow_sync_us), slow_share: disk.slow_share }
    }

    fn add(&mut self, service: Service, exit: Exit) -> StationId {
        self.wiring.exits.push(exit);
        self.network.station(service)
    }

    fn one(&mut self, name: String, phases: Vec<Phase>, exit: Exit) -> StationId {
        self.add(Service::new(name, phases), exit)
    }

    /// Each thing by itself, any number at once.
    fn each(&mut self, name: String, phases: Vec<Phase>, exit: Exit) -> StationId {
        self.add(Service { slots: MANY, limit: 1, ..Service::new(name, phases) }, exit)
    }

    /// What a process does every ten milliseconds however little happens.
    fn idle(&mut self, process: Process, name: &'static str) {
        let own = StationId(self.wiring.exits.len());
        let phases = vec![self.cpu(process.pool, name), Phase::Delay(IDLE), Phase::Pass(own)];
        let station = self.one("idle".into(), phases, Exit::Nowhere);
        self.network.push(station, Token::Item(Item { execution: 0, kind: 0 }));
    }

    fn copying(&mut self) {
        let brokers = self.brokers.clone();
        for (from, leader) in brokers.iter().enumerate() {
            let followers = (1..self.layout.replicas as usize).map(|next| (from + next) % brokers.len());
            let stations = followers.map(|to| {
                let follower = brokers[to];
                let mut phases = self.hops(leader.pool, "broker.follow", BROKER_HOPS);
                phases.push(self.way(leader.host, follower.host));
                phases.push(self.cpu(follower.pool, "broker.copy"));
                // The next request of the follower tells that it has these.
                phases.extend([self.way(follower.host, leader.host), Phase::Join]);
                self.one(format!("copies {from} {to}"), phases, Exit::Nowhere)
            });
            let stations: Vec<_> = stations.collect();
            self.copies.push(stations.into());
        }
    }

    fn journals(&mut self, host: HostId) {
        let thread = self.network.thread("bus journal", "bus", host, 1);
        let phases = vec![self.cpu(thread, "bus.sync"), self.sync(), Phase::Join];
        self.journal = Some(self.one("journal syncs".into(), phases, Exit::Nowhere));
        // What nobody waits for goes with the next that somebody waits for.
        let cost = Cost { batch: 0.0, ..self.measured.cost("bus.sync") };
        let phases = vec![Phase::Cpu(thread, cost), Phase::Join];
        self.quiet_journal = Some(self.one("journal quiet".into(), phases, Exit::Nowhere));
    }

    /// One append on its way to one partition.
    fn lane(&mut self, name: &str, writer: Process, cost: &'static str, partition: usize, exit: Exit) -> StationId {
        let own = self.cpu(writer.pool, cost);
        let phases = match (self.layout.bus, exit) {
            (Bus::Kafka, _) => {
                let broker = partition % self.brokers.len();
                let (process, copies) = (self.brokers[broker], Rc::clone(&self.copies[broker]));
                let mut phases = vec![own];
                phases.extend(self.hops(writer.pool, "client.append", CLIENT_HOPS));
                phases.push(self.way(writer.host, process.host));
                phases.extend(self.hops(process.pool, "broker.produce", BROKER_HOPS));
                if !copies.is_empty() {
                    phases.push(Phase::Fork { need: copies.len() as u32, stations: copies });
                }
                phases.extend([Phase::Route, self.way(process.host, writer.host)]);
                phases
            }
            (Bus::Embedded, Exit::CommandOnBus) => {
                let stations: Vec<_> = self.journal.into_iter().collect();
                vec![own, Phase::Route, Phase::Fork { need: 1, stations: stations.into() }]
            }
            (Bus::Embedded, Exit::EventsOnBus) => {
                let stations: Vec<_> = self.quiet_journal.into_iter().collect();
                vec![own, Phase::Route, Phase::Fork { need: 0, stations: stations.into() }]
            }
            (Bus::Embedded, _) => vec![own, Phase::Route],
        };
        let limit = if cost == "api.append" { API_RECORD } else { APPEND };
        let prompt = matches!(exit, Exit::CommandOnBus);
        self.add(Service { limit, prompt, ..Service::new(format!("append {name}"), phases) }, exit)
    }

    /// Readers of some partitions, by broker: one fetch on its way to each.
    fn reads(&mut self, name: &str, reader: Process, thread: ThreadId, then: &[Phase], exit: Exit) -> Vec<StationId> {
        let brokers = self.brokers.clone();
        if brokers.is_empty() {
            let phases = then.to_vec();
            return vec![self.one(format!("read {name}"), phases, exit)];
        }
        let stations = brokers.iter().enumerate().map(|(number, broker)| {
            let mut phases = self.hops(broker.pool, "broker.fetch", BROKER_HOPS);
            phases.push(self.way(broker.host, reader.host));
            phases.extend(self.hops(thread, "client.fetch", CLIENT_HOPS));
            phases.extend_from_slice(then);
            self.one(format!("fetch {name} {number}"), phases, exit)
        });
        stations.collect()
    }

    fn apis(&mut self, apis: &[Process], generators: &[Process]) {
        let shards = self.layout.shards as usize;
        for (number, api) in apis.iter().enumerate() {
            let phases = vec![self.cpu(api.pool, "api.request"), Phase::Route];
            let station = self.each(format!("requests {number}"), phases, Exit::Requested(number));
            self.wiring.requests.push(station);
            let back = self.way(api.host, generators[number % generators.len()].host);
            let phases = vec![self.cpu(api.pool, "api.respond"), back, Phase::Route];
            let station = self.each(format!("responds {number}"), phases, Exit::Responded);
            self.wiring.responds.push(station);
            let lanes = (0..shards).map(|it| self.lane("commands", *api, "api.append", it, Exit::CommandOnBus));
            let lanes = lanes.collect();
            self.wiring.submits.push(lanes);
            let client = self.network.thread(format!("api {} reader", number + 1), "api", api.host, 1);
            let then = [self.cpu(api.pool, "api.reply"), Phase::Route];
            let reads = self.reads("replies", *api, client, &then, Exit::ReplyRead);
            self.wiring.reply_reads.push(reads[number % reads.len()]);
            self.history(number, *api, client);
        }
    }

    fn history(&mut self, number: usize, api: Process, client: ThreadId) {
        let thread = self.network.thread(format!("api {} history", number + 1), "api", api.host, 1);
        let phases = vec![self.cpu(thread, "api.history")];
        let service =
            Service { gather: GATHER, limit: TRANSACTION, ..Service::new(format!("history {number}"), phases) };
        let write = self.add(service, Exit::Nowhere);
        // Read and written in turns by one task: one cost.
        let then = [Phase::Pass(write)];
        let reads = self.reads("events", api, client, &then, Exit::Nowhere);
        let by_partition = (0..self.layout.events as usize).map(|it| reads[it % reads.len()]).collect();
        self.wiring.event_reads.push(by_partition);
    }

    fn workers(&mut self, workers: &[Process]) {
        for (number, worker) in workers.iter().enumerate() {
            let client = self.network.thread(format!("worker {} reader", number + 1), "worker", worker.host, 1);
            let reads = self.reads("tasks", *worker, client, &[Phase::Route], Exit::TaskRead);
            self.wiring.task_reads.push(reads[number % reads.len()]);
            let phases = vec![self.cpu(worker.pool, "worker.attempt"), Phase::Route];
            let station = self.each(format!("attempts {number}"), phases, Exit::Attempted);
            self.wiring.attempts.push(station);
            let shards = self.layout.shards as usize;
            let lanes = (0..shards).map(|it| self.lane("commands", *worker, "worker.append", it, Exit::CommandOnBus));
            let lanes = lanes.collect();
            self.wiring.results.push(lanes);
        }
    }

    fn schedulers(&mut self, schedulers: &[Process], apis: &[Process], workers: &[Process]) {
        let shards = self.layout.shards as usize;
        let mut reads = Vec::new();
        for (number, scheduler) in schedulers.iter().enumerate() {
            let name = format!("scheduler {} loop", number + 1);
            let main = self.network.find_thread(&name).unwrap_or(scheduler.pool);
            let client =
                self.network.thread(format!("scheduler {} reader", number + 1), "scheduler", scheduler.host, 1);
            let then = [self.cpu(main, "scheduler.read"), Phase::Route];
            reads.push(self.reads("commands", *scheduler, client, &then, Exit::CommandRead));
            let phases = vec![self.cpu(scheduler.pool, "scheduler.evaluate"), Phase::Route];
            let evaluate = self.one(format!("evaluate {number}"), phases, Exit::CommandRead);
            self.wiring.evaluations.push(evaluate);
            let lanes =
                (0..workers.len()).map(|it| self.lane("tasks", *scheduler, "scheduler.append", it, Exit::TaskOnBus));
            let lanes = lanes.collect();
            self.wiring.tasks.push(lanes);
            let lanes =
                (0..apis.len()).map(|it| self.lane("replies", *scheduler, "scheduler.append", it, Exit::ReplyOnBus));
            let lanes = lanes.collect();
            self.wiring.replies.push(lanes);
            let lanes = (0..self.layout.events as usize)
                .map(|it| self.lane("events", *scheduler, "scheduler.append", it, Exit::EventsOnBus));
            let lanes = lanes.collect();
            self.wiring.events.push(lanes);
        }
        for shard in 0..shards {
            let owner = shard % schedulers.len();
            // Neighbours have different owners, and the shards of one owner all groups.
            let group = shard / schedulers.len() % self.layout.groups as usize;
            self.wiring.owner.push(owner);
            self.wiring.group.push(group);
            let brokers = reads[owner].len();
            self.wiring.command_reads.push(reads[owner][shard % brokers]);
            let (entries, host, pool) = self.wiring.entries[group];
            let scheduler = schedulers[owner];
            let main = self.network.find_thread(&format!("scheduler {} loop", owner + 1)).unwrap_or(scheduler.pool);
            let phases = vec![
                self.cpu(main, "scheduler.propose"),
                self.call(scheduler.pool),
                self.call_way(scheduler.host, host),
                self.call(pool),
                self.cpu(pool, "coordinator.receive"),
                Phase::Fork { stations: vec![entries].into(), need: 1 },
                self.call(pool),
                self.call_way(host, scheduler.host),
                self.call(scheduler.pool),
                self.cpu(main, "scheduler.answer"),
            ];
            let own = Some(self.wiring.pools[owner]);
            let service = Service {
                slots: OF_A_SHARD,
                limit: APPEND * 2,
                pool: own,
                ..Service::new(format!("propose {shard}"), phases)
            };
            let station = self.add(service, Exit::Nowhere);
            self.wiring.proposals.push(station);
        }
    }
}
