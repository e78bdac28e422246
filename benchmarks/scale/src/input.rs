//! What was measured, and what clusters are made of: two files for people.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::network::Cost;

/// Why an input file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{path}: {source}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{path}: there is no cost {name:?}")]
    NoCost { path: PathBuf, name: &'static str },
    #[error("{path}: cost {name:?} is of nothing that is modelled")]
    StrayCost { path: PathBuf, name: String },
    #[error("{path}: layout {layout:?}: {why}")]
    Layout { path: PathBuf, layout: String, why: String },
    #[error("there is no layout {name:?}; there are {known}")]
    NoLayout { name: String, known: String },
    #[error("{path} is not a verified record of scenario s1 or s2")]
    Record { path: PathBuf },
}

/// Microseconds of CPU, as the file has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostLine {
    /// For one batch, however much is in it.
    #[serde(default)]
    batch: f64,
    /// For each thing in the batch: a command, a message, a proposal, an entry.
    #[serde(default)]
    token: f64,
    /// For each command within, where things hold several.
    #[serde(default)]
    item: f64,
}

/// A disk, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    pub sync_us: f64,
    pub slow_sync_us: f64,
    pub slow_share: f64,
}

/// One way, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Distance {
    /// Between processes of one machine.
    pub loopback_us: f64,
    /// Between machines.
    pub network_us: f64,
}

/// Bytes of what an execution of one task sends and keeps.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sizes {
    pub commands: f64,
    pub tasks: f64,
    pub replies: f64,
    pub events: f64,
    /// Of the Raft log, for each execution.
    pub log: f64,
    /// In memory, for each execution that waits on a timer.
    pub parked: f64,
    /// In memory, for each execution of which something runs.
    pub running: f64,
    /// Of one row and its events in the history's file.
    pub history: f64,
}

/// A figure that the model should give.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Point {
    pub layout: String,
    /// One after the other in an execution.
    pub tasks: u8,
    /// Executions in flight; or
    pub closed: Option<u32>,
    /// executions started each second.
    pub open: Option<f64>,
    pub per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// CPU microseconds of an execution by kind of process.
    pub cpu: BTreeMap<String, f64>,
    /// Whether costs were taken from the CPU of this run. Its rate and its times are predicted all the same.
    #[serde(default)]
    pub source_of_costs: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Where and when.
    machine: String,
    /// CPU microseconds that it takes to wake a thread that sleeps.
    wake_us: f64,
    cost: BTreeMap<String, CostLine>,
    disk: Disk,
    distance: Distance,
    size: Sizes,
    point: Vec<Point>,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub machine: String,
    pub wake_us: f64,
    pub disk: Disk,
    pub distance: Distance,
    pub size: Sizes,
    pub points: Vec<Point>,
    costs: BTreeMap<&'static str, Cost>,
}

/// Every cost that the model knows.
const COSTS: [&str; 33] = [
    "api.append",
    "api.history",
    "api.reply",
    "api.request",
    "api.respond",
    "broker.copy",
    "broker.fetch",
    "broker.follow",
    "broker.idle",
    "broker.produce",
    "bus.sync",
    "client.append",
    "client.fetch",
    "client.idle",
    "coordinator.apply",
    "coordinator.core",
    "coordinator.entry",
    "coordinator.follow",
    "coordinator.followed",
    "coordinator.log",
    "coordinator.receive",
    "coordinator.send",
    "coordinator.subscribe",
    "generator.send",
    "rpc.call",
    "scheduler.answer",
    "scheduler.append",
    "scheduler.evaluate",
    "scheduler.propose",
    "scheduler.read",
    "scheduler.take",
    "worker.append",
    "worker.attempt",
];

impl Measured {
    pub(crate) fn read(path: &Path) -> Result<Self, InputError> {
        Self::parse(&text(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, InputError> {
        let mut file: File = parse(text, path)?;
        let mut costs = BTreeMap::new();
        for name in COSTS {
            let line = file.cost.remove(name).ok_or(InputError::NoCost { path: path.into(), name })?;
            let ns = |us: f64| us * 1_000.0;
            costs.insert(name, Cost { batch: ns(line.batch), token: ns(line.token), item: ns(line.item) });
        }
        if let Some((name, _)) = file.cost.pop_first() {
            return Err(InputError::StrayCost { path: path.into(), name });
        }
        let File { machine, wake_us, disk, distance, size, point, .. } = file;
        Ok(Self { machine, wake_us, disk, distance, size, points: point, costs })
    }

    /// The same on cores on which everything takes so many times as long.
    pub(crate) fn slower(mut self, times: f64) -> Self {
        for cost in self.costs.values_mut() {
            *cost = Cost { batch: cost.batch * times, token: cost.token * times, item: cost.item * times };
        }
        self.wake_us *= times;
        self
    }

    /// The cost of a name in [`COSTS`].
    pub(crate) fn cost(&self, name: &'static str) -> Cost {
        self.costs.get(name).copied().unwrap_or_else(|| panic!("{name} is among the costs that are read"))
    }
}

/// How services and brokers exchange records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bus {
    Embedded,
    Kafka,
}

/// Servers that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Servers {
    #[serde(default = "one")]
    pub count: u32,
    pub cores: u32,
    #[serde(default)]
    pub generator: u32,
    #[serde(default)]
    pub api: u32,
    #[serde(default)]
    pub scheduler: u32,
    #[serde(default)]
    pub worker: u32,
    #[serde(default)]
    pub broker: u32,
    /// Members of each group.
    #[serde(default)]
    pub coordinator: u32,
}

fn one() -> u32 {
    1
}

/// A cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    pub bus: Bus,
    /// Copies of each record on Kafka.
    #[serde(default = "one")]
    pub replicas: u32,
    /// Raft groups; shards are divided among them.
    #[serde(default = "one")]
    pub groups: u32,
    pub shards: u32,
    /// Partitions of the event topic.
    pub events: u32,
    /// Whether the coordinator is in the process of everything else.
    #[serde(default)]
    pub one_process: bool,
    /// Whether each api writes the events of all executions into a history of its own, as it does today; else each
    /// writes its share.
    #[serde(default = "yes")]
    pub whole_history: bool,
    pub server: Vec<Servers>,
}

fn yes() -> bool {
    true
}

/// All layouts by name.
#[derive(Clone, Debug)]
pub(crate) struct Layouts(BTreeMap<String, Layout>);

impl Layouts {
    pub(crate) fn read(path: &Path) -> Result<Self, InputError> {
        Self::parse(&text(path)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, InputError> {
        let layouts: BTreeMap<String, Layout> = parse(text, path)?;
        for (name, layout) in &layouts {
            layout.check().map_err(|why| InputError::Layout { path: path.into(), layout: name.clone(), why })?;
        }
        Ok(Self(layouts))
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Layout, InputError> {
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.0.get(name).ok_or_else(|| InputError::NoLayout { name: name.into(), known: known() })
    }
}

impl Layout {
    fn check(&self) -> Result<(), String> {
        let sum = |of: fn(&Servers) -> u32| self.server.iter().map(|it| it.count * of(it)).sum::<u32>();
        let brokers = sum(|it| it.broker);
        for (what, count) in [
            ("generator", sum(|it| it.generator)),
            ("api", sum(|it| it.api)),
            ("scheduler", sum(|it| it.scheduler)),
            ("worker", sum(|it| it.worker)),
            ("coordinator", sum(|it| it.coordinator)),
            ("shard", self.shards),
            ("event partition", self.events),
            ("group", self.groups),
            ("server with cores", self.server.iter().map(|it| it.cores).min().unwrap_or(0)),
        ] {
            if count == 0 {
                return Err(format!("there is no {what}"));
            }
        }
        match self.bus {
            Bus::Embedded if brokers > 0 => Err("the embedded bus has no brokers".into()),
            Bus::Kafka if self.replicas == 0 || self.replicas > brokers => {
                Err(format!("{} copies on {brokers} brokers", self.replicas))
            }
            _ => Ok(()),
        }
    }
}

fn text(path: &Path) -> Result<String, InputError> {
    std::fs::read_to_string(path).map_err(|source| InputError::Read { path: path.into(), source })
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str, path: &Path) -> Result<T, InputError> {
    toml::from_str(text).map_err(|source| InputError::Toml { path: path.into(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout_error(text: &str) -> String {
        Layouts::parse(text, Path::new("it.toml")).expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_cluster_that_cannot_be_is_refused_by_name() {
        let head = "[it]\nshards = 4\nevents = 1\n";
        let server = "generator = 1, api = 1, scheduler = 1, worker = 1, coordinator = 1";
        let error = layout_error(&format!("{head}bus = \"kafka\"\nserver = [{{ cores = 2, {server} }}]"));
        assert_eq!(error, "it.toml: layout \"it\": 1 copies on 0 brokers");
        let error = layout_error(&format!("{head}bus = \"embedded\"\nserver = [{{ cores = 0, {server} }}]"));
        assert_eq!(error, "it.toml: layout \"it\": there is no server with cores");
        let error = layout_error(&format!("{head}bus = \"embedded\"\nserver = [{{ cores = 2, api = 1 }}]"));
        assert_eq!(error, "it.toml: layout \"it\": there is no generator");
    }

    #[test]
    fn costs_that_are_missing_or_of_nothing_are_refused_by_name() {
        let committed = include_str!("../measured.toml");
        let path = Path::new("it.toml");
        let less = committed.replace("\"rpc.call\"", "\"rpc.cull\"");
        let error = Measured::parse(&less, path).expect_err("one is missing").to_string();
        assert_eq!(error, "it.toml: there is no cost \"rpc.call\"");
        let more = committed.replace("[disk]", "[cost.\"rpc.cull\"]\nbatch = 1\n\n[disk]");
        let error = Measured::parse(&more, path).expect_err("one is too much").to_string();
        assert_eq!(error, "it.toml: cost \"rpc.cull\" is of nothing that is modelled");
    }
}
