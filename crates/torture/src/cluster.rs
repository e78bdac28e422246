//! The processes of a cluster, each on a host of its own, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nova_bus::{Layout, SharedBus, Topic, TopicSpec};
use nova_bus_kafka::KafkaBus;
use nova_checker::{Log, Member};
use nova_client::{Coordinators, Repeat};
use nova_testkit::{Kafka, Launch, Nova, Process, Readiness, bytes_on_disk, until};
use nova_wire::v1;
use nova_workload::{ORDERS, ORDERS_PARTITIONS};
use tokio::task::JoinHandle;
use toml::{Table, Value};

use crate::disks::{Disk, Tampered};
use crate::faults::{DELAY, Fault, Kind, NARROW, Planned, between, parted};
use crate::hosts::{HOSTS, Host, Role, of};
use crate::net::{Net, Rule};
use crate::soak::Sample;
use crate::starved::Starved;
use crate::{logs, tools};

/// Name of the cluster.
pub const CLUSTER: &str = "tortured";
/// Its topics.
pub const LAYOUT: Layout = Layout { shards: 4, events: 2, inboxes: 2, apis: 2 };
const PORT: u16 = 7710;
const OBSERVE: u16 = 7711;
/// A process that ended by itself is started again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// What the clock of a member is off may differ from what it was to be off by less than this, in milliseconds.
const CLOSE_MS: i64 = 3_000;
/// Longest wait for what one member says.
const ANSWER: Duration = Duration::from_secs(1);

/// How quickly coordinators miss their leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// As users have it.
    Default,
    /// Slower: one small machine carries all hosts, and something is always the matter.
    Patient,
}

/// A host and the process on it.
struct Slot {
    host: Host,
    process: Process,
    /// Faults because of which it is down.
    down: BTreeSet<usize>,
    /// It ended by itself, and is started again then.
    again: Option<Instant>,
    /// The file that says how far off its clock is, and by which it is shown another one.
    clock: PathBuf,
}

/// A cluster. Everything of it ends when this is dropped: processes, then brokers, disks, the net.
pub struct Cluster {
    slots: Vec<Slot>,
    active: BTreeMap<usize, Fault>,
    tampered: BTreeMap<usize, Tampered>,
    starved: BTreeMap<usize, Starved>,
    /// Members that a bridge parts.
    parted: BTreeMap<usize, (Host, Host)>,
    /// Faults that were seen to have done something.
    effective: BTreeSet<usize>,
    /// A broker that comes back.
    restarting: Option<JoinHandle<nova_testkit::Result<String>>>,
    kafka: Arc<Kafka>,
    bus: SharedBus,
    disks: BTreeMap<&'static str, Disk>,
    net: Net,
    dir: PathBuf,
    /// How often a process ended by itself.
    pub ended: Vec<String>,
}

impl Cluster {
    /// Makes hosts and disks, and starts all processes.
    ///
    /// # Errors
    /// When a part cannot be made or started.
    pub async fn start(nova: &Nova, kinds: &BTreeSet<Kind>, timing: Timing, dir: &Path) -> Result<Self> {
        let net = Net::make()?;
        let brokers: Vec<_> = of(Role::Broker).map(|host| (net.namespace(host), net.address(host))).collect();
        let kafka = Kafka::start_on(&brokers, &dir.join("kafka")).await?;
        let mut config = nova_bus_kafka::Config::new(kafka.bootstrap());
        config.replicas = 3;
        let bus: SharedBus = Arc::new(KafkaBus::connect(config)?);
        let orders = Topic::Named(ORDERS.into());
        let orders = TopicSpec { topic: orders, partitions: ORDERS_PARTITIONS, retention_ms: 86_400_000 };
        let topics: Vec<TopicSpec> = LAYOUT.topics().into_iter().chain([orders]).collect();
        bus.ensure_topics(&topics).await.context("the topics cannot be made")?;
        let mut disks = BTreeMap::new();
        if kinds.contains(&Kind::Power) {
            for host in of(Role::Coordinator) {
                disks.insert(host.name, Disk::make(dir, host.name)?);
            }
        }
        let notes = dir.join("notes");
        std::fs::create_dir_all(&notes)?;
        let mut cluster = Self {
            slots: Vec::new(),
            active: BTreeMap::new(),
            tampered: BTreeMap::new(),
            starved: BTreeMap::new(),
            parted: BTreeMap::new(),
            effective: BTreeSet::new(),
            restarting: None,
            kafka: Arc::new(kafka),
            bus,
            disks,
            net,
            dir: dir.to_owned(),
            ended: Vec::new(),
        };
        let shifts = kinds.contains(&Kind::Clock);
        for host in HOSTS.into_iter().filter(|host| host.role != Role::Broker) {
            let launch = cluster.launch(nova, host, timing, &notes, shifts)?;
            let clock = cluster.dir.join(format!("{host}.clock"));
            std::fs::write(&clock, "+0s\n")?;
            let process = Process::spawn(launch)?;
            cluster.slots.push(Slot { host, process, down: BTreeSet::new(), again: None, clock });
        }
        Ok(cluster)
    }

    fn launch(&self, nova: &Nova, host: Host, timing: Timing, notes: &Path, shifts: bool) -> Result<Launch> {
        let dir = &self.dir;
        let at = |port: u16| format!("{}:{port}", self.net.address(host));
        let number = i64::from(host.number);
        let mut config = Table::from_iter([("cluster".to_owned(), CLUSTER.into())]);
        let mut set = |name: &str, value: Value| drop(config.insert(name.to_owned(), value));
        if host.role == Role::Coordinator {
            let all = of(Role::Coordinator).zip(self.urls(Role::Coordinator, PORT));
            let all: Vec<Value> = all.map(|(member, url)| format!("{}@{url}", member.number).into()).collect();
            set("member", number.into());
            set("members", all.into());
            set("listen", at(PORT).into());
            set("data", self.data(host).display().to_string().into());
            set("shards", i64::from(LAYOUT.shards).into());
            set("inboxes", i64::from(LAYOUT.inboxes).into());
            if timing == Timing::Patient {
                set("heartbeat_ms", 200.into());
                set("election_min_ms", 700.into());
                set("election_max_ms", 1_200.into());
            }
            // Many of them, also in a short run.
            set("snapshot_entries", 300.into());
        } else {
            let coordinators: Vec<Value> = self.urls(Role::Coordinator, PORT).into_iter().map(Into::into).collect();
            set("coordinators", coordinators.into());
            let bus = [("bootstrap", self.kafka.bootstrap().into()), ("replicas", Value::from(3))];
            set("bus", Table::from_iter(bus.map(|(name, value)| (name.to_owned(), value))).into());
        }
        match host.role {
            Role::Api => {
                set("listen", at(PORT).into());
                set("instance", (number - 1).into());
                set("history", dir.join(host.name).join("history.db").display().to_string().into());
            }
            Role::Worker => {
                set("name", host.name.into());
                set("slots", 64.into());
                set("data", dir.join(host.name).display().to_string().into());
            }
            _ => {}
        }
        if host.role != Role::Api {
            set("observe", at(OBSERVE).into());
        }
        let file = dir.join(format!("{host}.toml"));
        std::fs::write(&file, toml::to_string(&config)?)?;
        let namespace = format!("--net=/run/netns/{}", self.net.namespace(host));
        let service = host.role.to_string();
        let mut args: Vec<OsString> = vec![namespace.into()];
        if host.role == Role::Worker {
            args.extend([std::env::current_exe()?.into(), "worker".into(), "--config".into(), file.into()]);
            args.extend(["--notes".into(), notes.into()]);
        } else {
            args.extend([nova.path().into(), "serve".into(), service.into(), "--config".into(), file.into()]);
        }
        let mut env = vec![("NOVA_LOG".to_owned(), std::env::var("NOVA_LOG").unwrap_or_else(|_| "warn".into()))];
        if shifts && host.role == Role::Coordinator {
            let library = tools::faketime().context("libfaketime")?.display().to_string();
            let clock = dir.join(format!("{host}.clock")).display().to_string();
            let names =
                ["LD_PRELOAD", "FAKETIME_TIMESTAMP_FILE", "FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_CACHE_DURATION"];
            env.extend(names.map(String::from).into_iter().zip([library, clock, "1".into(), "1".into()]));
        }
        let readiness = match host.role {
            Role::Api => Readiness::Http(format!("http://{}", at(PORT))),
            Role::Worker | Role::Broker => Readiness::Started,
            _ => Readiness::Http(format!("http://{}", at(OBSERVE))),
        };
        Ok(Launch { name: host.name.into(), program: "nsenter".into(), args, env, dir: dir.join("output"), readiness })
    }

    /// Where a member has its files. A disk has its own folder for what was lost.
    fn data(&self, host: Host) -> PathBuf {
        let disk = self.disks.get(host.name).map(Disk::path);
        disk.map_or_else(|| self.dir.join(host.name), Path::to_owned).join("data")
    }

    /// The logs of members that have applied so much.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn logs(&self, members: &[Member]) -> Result<Vec<Log>> {
        let named = |name: &str| of(Role::Coordinator).find(|host| host.name == name);
        let hosts = members.iter().filter_map(|member| Some((named(&member.name)?, member.applied)));
        hosts.map(|(host, applied)| logs::read(&self.data(host).join("log"), host.name, CLUSTER, applied)).collect()
    }

    /// Where the hosts of a role answer.
    #[must_use]
    pub fn urls(&self, role: Role, port: u16) -> Vec<String> {
        of(role).map(|host| format!("http://{}:{port}", self.net.address(host))).collect()
    }

    /// Where apis answer.
    #[must_use]
    pub fn apis(&self) -> Vec<String> {
        self.urls(Role::Api, PORT)
    }

    /// All members, and each with its name.
    #[must_use]
    pub fn coordinators(&self) -> (Coordinators, Vec<(String, Coordinators)>) {
        let urls = self.urls(Role::Coordinator, PORT);
        let each = of(Role::Coordinator).zip(&urls);
        let each = each.map(|(host, url)| (host.name.to_owned(), Coordinators::new(vec![url.clone()]))).collect();
        (Coordinators::new(urls), each)
    }

    /// The bus, by a way that no fault is on.
    #[must_use]
    pub fn bus(&self) -> SharedBus {
        Arc::clone(&self.bus)
    }

    /// The member that leads.
    ///
    /// # Errors
    /// When none does within this time.
    pub async fn leader(&self, within: Duration) -> Result<Host> {
        let (_, members) = self.coordinators();
        let found = until("a leader", within, || async {
            let mut terms = BTreeMap::new();
            for (name, member) in &members {
                let asking = member.call(ANSWER, Repeat::Read, |mut it| async move {
                    it.describe(v1::DescribeRequest::default()).await
                });
                let Ok(said) = asking.await else { continue };
                if said.leader == Some(said.member) {
                    terms.insert(said.term, name.clone());
                }
            }
            // One that was cut off may think that it still leads.
            terms.pop_last().map(|(_, name)| name).ok_or_else(|| "nobody leads".to_owned())
        });
        let name = found.await?;
        of(Role::Coordinator).find(|host| host.name == name).context("a leader")
    }

    /// Waits until all processes are ready.
    ///
    /// # Errors
    /// When one is not.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        for slot in &mut self.slots {
            slot.process.ready(within).await?;
        }
        Ok(())
    }

    /// A fault begins.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn begin(&mut self, planned: &Planned) -> Result<()> {
        let number = planned.number;
        self.active.insert(number, planned.fault.clone());
        match &planned.fault {
            Fault::Kill(host) if host.role == Role::Broker => {
                self.broker_is_back().await?;
                self.kafka.crash(Some(host.number.into())).await?;
                self.effective.insert(number);
            }
            Fault::Pause(host) if host.role == Role::Broker => {
                self.broker_is_back().await?;
                self.kafka.pause(Some(host.number.into())).await?;
                self.effective.insert(number);
            }
            Fault::Kill(host) => {
                self.running(*host)?;
                let slot = self.slot(*host);
                slot.down.insert(number);
                slot.process.kill();
                self.effective.insert(number);
            }
            Fault::Pause(host) => {
                self.running(*host)?;
                self.slot(*host).process.pause()?;
                self.effective.insert(number);
            }
            Fault::Bridge(next) => {
                // Where nobody leads, the other faults go on meanwhile: any member does.
                let leader = self.leader(ANSWER * 2).await.unwrap_or(HOSTS[0]);
                let all: Vec<Host> = of(Role::Coordinator).collect();
                let other = all[(leader.place() + usize::from(*next)) % all.len()];
                self.parted.insert(number, (leader, other));
                self.rule()?;
            }
            Fault::Split(_) | Fault::OneWay(..) | Fault::Loss(..) | Fault::Reset(..) => self.rule()?,
            Fault::Narrow(host) => self.net.slow(*host, Some(NARROW))?,
            Fault::Delay(host) => self.net.slow(*host, Some(DELAY))?,
            Fault::Syncs(host, syncs) => {
                let pid = self.running(*host)?;
                self.tampered.insert(number, Tampered::begin(pid, *syncs, &self.dir)?);
            }
            Fault::Power(hosts) => {
                for host in hosts {
                    if self.slot(*host).down.is_empty() {
                        self.running(*host)?;
                    }
                }
                for host in hosts {
                    self.disks[host.name].cut_power()?;
                }
                for host in hosts {
                    let slot = self.slot(*host);
                    slot.down.insert(number);
                    slot.process.kill();
                }
                self.effective.insert(number);
            }
            Fault::Clock(host, seconds) => {
                std::fs::write(&self.slot(*host).clock, format!("{seconds:+}s\n"))?;
            }
            Fault::Files(host) => {
                let pid = self.running(*host)?;
                let starved = Starved::begin(pid, self.listens(*host))?;
                self.starved.insert(number, starved);
            }
        }
        Ok(())
    }

    /// A fault is over.
    ///
    /// # Errors
    /// When it cannot be undone.
    pub async fn heal(&mut self, planned: &Planned) -> Result<()> {
        let number = planned.number;
        self.is_effective(planned).await?;
        self.active.remove(&number);
        match &planned.fault {
            Fault::Kill(host) if host.role == Role::Broker => {
                let kafka = Arc::clone(&self.kafka);
                self.restarting = Some(tokio::spawn(async move { kafka.restart().await }));
            }
            Fault::Pause(host) if host.role == Role::Broker => self.kafka.resume(Some(host.number.into())).await?,
            Fault::Kill(host) => self.back(*host, number)?,
            Fault::Pause(host) => {
                let slot = self.slot(*host);
                if slot.process.pid().is_some() {
                    slot.process.resume()?;
                }
            }
            Fault::Bridge(_) | Fault::Split(_) | Fault::OneWay(..) | Fault::Loss(..) | Fault::Reset(..) => {
                self.rule()?
            }
            Fault::Narrow(host) | Fault::Delay(host) => {
                // Another one of this host may still be.
                let still = self.active.values().find_map(|fault| match fault {
                    Fault::Narrow(other) if other == host => Some(NARROW),
                    Fault::Delay(other) if other == host => Some(DELAY),
                    _ => None,
                });
                self.net.slow(*host, still)?;
            }
            Fault::Syncs(..) => {
                self.tampered.remove(&number);
            }
            Fault::Files(_) => {
                self.starved.remove(&number);
            }
            Fault::Power(hosts) => {
                for host in hosts {
                    self.disks[host.name].power_on()?;
                    self.back(*host, number)?;
                }
            }
            // A clock stays as far off as it is.
            Fault::Clock(..) => {}
        }
        Ok(())
    }

    /// Whether a fault was seen to do something by now.
    ///
    /// # Errors
    /// When that cannot be looked at.
    pub async fn is_effective(&mut self, planned: &Planned) -> Result<bool> {
        let number = planned.number;
        if let Fault::Clock(host, seconds) = &planned.fault
            && !self.effective.contains(&number)
            && self.is_off(*host, *seconds).await
        {
            self.effective.insert(number);
        }
        if let (Fault::Syncs(host, syncs), Some(tampered)) = (&planned.fault, self.tampered.get_mut(&number))
            && tampered.count() == 0
            && tampered.has_ended()
            && self.slots[host.place()].down.is_empty()
        {
            // Its process died before it synced anything.
            let pid = self.running(*host)?;
            self.tampered.insert(number, Tampered::begin(pid, *syncs, &self.dir)?);
        }
        if let (Fault::Files(host), Some(starved)) = (&planned.fault, self.starved.get_mut(&number))
            && !self.effective.contains(&number)
            && self.slots[host.place()].down.is_empty()
        {
            match starved.has_run_out() {
                Ok(true) => drop(self.effective.insert(number)),
                Ok(false) => {}
                // Its process died before it was asked for a file.
                Err(_) => {
                    let (pid, address) = (self.running(*host)?, self.listens(*host));
                    self.starved.insert(number, Starved::begin(pid, address)?);
                }
            }
        }
        let done = match &planned.fault {
            _ if !self.active.contains_key(&number) || self.effective.contains(&number) => 0,
            Fault::Bridge(_) | Fault::Split(_) | Fault::OneWay(..) | Fault::Loss(..) | Fault::Reset(..) => {
                self.net.stopped(number)?
            }
            Fault::Narrow(host) | Fault::Delay(host) => self.net.slowed(*host)?,
            Fault::Syncs(..) => self.tampered.get(&number).map_or(0, Tampered::count),
            Fault::Kill(_) | Fault::Pause(_) | Fault::Power(_) | Fault::Clock(..) | Fault::Files(_) => 0,
        };
        if done > 0 {
            self.effective.insert(number);
        }
        Ok(self.effective.contains(&number))
    }

    /// Waits for a broker that was killed.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn broker_is_back(&mut self) -> Result<()> {
        if let Some(restarting) = self.restarting.take() {
            restarting.await??;
        }
        Ok(())
    }

    /// Whether the wall clock of a member shows so many seconds more than ours. One that does not answer says nothing.
    async fn is_off(&self, host: Host, seconds: i64) -> bool {
        let (_, members) = self.coordinators();
        let Some((_, member)) = members.into_iter().find(|(name, _)| name == host.name) else { return false };
        let asking =
            member.call(ANSWER, Repeat::Read, |mut it| async move { it.get_clock(v1::GetClockRequest {}).await });
        let Ok(said) = asking.await else { return false };
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        (said.wall_ms as i64 - ours - seconds * 1_000).abs() < CLOSE_MS
    }

    /// Whether a broker that was killed is not back yet.
    #[must_use]
    pub fn lacks_broker(&self) -> bool {
        self.restarting.as_ref().is_some_and(|restarting| !restarting.is_finished())
    }

    /// Where a process takes connections.
    fn listens(&self, host: Host) -> SocketAddr {
        let port = if matches!(host.role, Role::Api | Role::Coordinator) { PORT } else { OBSERVE };
        (self.net.address(host), port).into()
    }

    fn slot(&mut self, host: Host) -> &mut Slot {
        &mut self.slots[host.place()]
    }

    /// Its process id; one that ended by itself is started before its time.
    fn running(&mut self, host: Host) -> Result<u32> {
        let slot = self.slot(host);
        if slot.process.check().is_err() {
            slot.again = None;
            slot.process.start()?;
        }
        slot.process.pid().context("it was started just now")
    }

    fn back(&mut self, host: Host, number: usize) -> Result<()> {
        let slot = self.slot(host);
        slot.down.remove(&number);
        if slot.down.is_empty() {
            slot.again = None;
            slot.process.start()?;
        }
        Ok(())
    }

    fn rule(&mut self) -> Result<()> {
        let mut rules: BTreeMap<&'static str, Vec<(usize, Rule)>> = BTreeMap::new();
        let mut add = |to: Host, number: usize, rule: Rule| rules.entry(to.name).or_default().push((number, rule));
        for (number, fault) in &self.active {
            match fault {
                Fault::Split(side) => parted(*side).for_each(|(from, to)| add(to, *number, Rule::From(from))),
                Fault::OneWay(host, role, way) => {
                    between(*host, *role, *way).for_each(|(from, to)| add(to, *number, Rule::From(from)));
                }
                Fault::Bridge(_) => {
                    if let Some((one, other)) = self.parted.get(number) {
                        add(*one, *number, Rule::From(*other));
                        add(*other, *number, Rule::From(*one));
                    }
                }
                Fault::Loss(host, percent) => add(*host, *number, Rule::Some(*percent)),
                Fault::Reset(host, role, way) => {
                    between(*host, *role, *way).for_each(|(from, to)| add(to, *number, Rule::Reset(from)));
                }
                _ => {}
            }
        }
        self.net.rule(&rules)
    }

    /// Starts those again that ended by themselves.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn look(&mut self) -> Result<()> {
        let now = Instant::now();
        for slot in &mut self.slots {
            if slot.again.is_some_and(|at| at <= now) && slot.down.is_empty() {
                slot.again = None;
                slot.process.start()?;
            } else if slot.again.is_none()
                && slot.down.is_empty()
                && let Err(error) = slot.process.check()
            {
                self.ended.push(format!("{error}"));
                slot.again = Some(now + AGAIN);
            }
        }
        Ok(())
    }

    /// What the processes use that run.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        for slot in &self.slots {
            let name = slot.host.name;
            if let (Some(pid), Ok(usage)) = (slot.process.pid(), slot.process.usage()) {
                sample.memory.insert(name, usage.anonymous_bytes);
                let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
                sample.descriptors.insert(name, open as u64);
            }
            if slot.host.role == Role::Coordinator {
                sample.disk.insert(name, bytes_on_disk(&self.data(slot.host)));
            }
        }
        sample
    }

    /// Lines of tasks that panicked, in what the processes said.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn panics(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for slot in &self.slots {
            let said = slot.process.errors()?;
            let lines = said.lines().filter(|line| line.contains("panicked at"));
            all.extend(lines.map(|line| format!("{}: {line}", slot.host)));
        }
        Ok(all)
    }
}
