//! One run of a layout under a load, and what was seen.

use std::collections::BTreeMap;

use crate::agenda::Ns;
use crate::cluster;
use crate::flow::{Flow, Load};
use crate::input::{Layout, Measured};
use crate::network::Network;

/// What to run, for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub load: Load,
    /// Tasks in sequence of an execution.
    pub tasks: u8,
    pub warm_up: Ns,
    pub measured: Ns,
    pub seed: u64,
}

impl Plan {
    pub(crate) fn new(load: Load, tasks: u8, seed: u64) -> Self {
        Self { load, tasks, warm_up: 500_000_000, measured: 1_500_000_000, seed }
    }
}

/// A part that can do one thing at a time, or as many as it has cores, and so has an end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub name: String,
    /// Of what it can do, the share that was used.
    pub used: f64,
    /// Executions/s at which it is used fully, if the cost of each stays as it was. Batches grow with the load, so that it is
    /// rather more.
    pub end_per_s: f64,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub begun: u64,
    pub in_flight: u64,
    pub ended_ever: u64,
    pub wrong: u64,
    pub per_s: f64,
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub mean_in_flight: f64,
    /// CPU microseconds of an execution by kind of process.
    pub cpu: BTreeMap<&'static str, f64>,
    /// Serial threads and servers, the narrowest first.
    pub parts: Vec<Part>,
    /// By kind of station: batches and things per second.
    pub stations: BTreeMap<String, (f64, f64)>,
    /// Data syncs per second of all logs.
    pub syncs_per_s: f64,
}

/// Lets the load run.
pub(crate) fn run(measured: &Measured, layout: &Layout, plan: Plan) -> Seen {
    let mut network = Network::new(plan.seed, (measured.wake_us * 1_000.0) as Ns);
    let wiring = cluster::build(&mut network, measured, layout);
    let mut flow = Flow::new(wiring, plan.load, plan.tasks);
    flow.begin(&mut network);
    network.run(&mut flow, plan.warm_up);
    let ended_before = flow.ended;
    network.reset();
    flow.reset(plan.warm_up);
    network.run(&mut flow, plan.warm_up + plan.measured);
    seen(&network, &mut flow, plan, ended_before)
}

fn seen(network: &Network, flow: &mut Flow, plan: Plan, ended_before: u64) -> Seen {
    let seconds = plan.measured as f64 / 1e9;
    let per_s = flow.ended as f64 / seconds;
    let (mut cpu, mut parts) = (BTreeMap::new(), Vec::new());
    for thread in network.threads() {
        *cpu.entry(thread.kind).or_insert(0.0) += thread.used as f64 / 1e3 / flow.ended.max(1) as f64;
        if thread.width == 1 && thread.used > 0 {
            let used = thread.used as f64 / plan.measured as f64;
            parts.push(Part { name: thread.name, used, end_per_s: per_s * thread.served / used });
        }
    }
    for (name, cores, busy) in network.hosts() {
        let used = busy as f64 / plan.measured as f64 / f64::from(cores);
        if used > 0.0 {
            parts.push(Part { name: format!("{name}, its {cores} cores"), used, end_per_s: per_s / used });
        }
    }
    parts.sort_by(|one, other| one.end_per_s.total_cmp(&other.end_per_s));
    let mut stations: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    let mut syncs = 0;
    for (name, count) in network.counts() {
        let words = name.split(' ').take_while(|word| word.parse::<u32>().is_err());
        let kind = stations.entry(words.collect::<Vec<_>>().join(" ")).or_default();
        kind.0 += count.batches as f64 / seconds;
        kind.1 += count.begun as f64 / seconds;
        syncs += count.syncs;
    }
    let end = plan.warm_up + plan.measured;
    Seen {
        begun: flow.begun(),
        in_flight: flow.in_flight(),
        ended_ever: ended_before + flow.ended,
        wrong: flow.wrong,
        per_s,
        mean_ms: flow.mean_ms(),
        p50_ms: flow.quantile_ms(0.5),
        p99_ms: flow.quantile_ms(0.99),
        mean_in_flight: flow.mean_in_flight(end),
        cpu,
        parts,
        stations,
        syncs_per_s: syncs as f64 / seconds,
    }
}

/// Longest p99 of a load that counts as carried.
const P99_MS: f64 = 250.0;

/// The most executions/s that are carried: as many end as begin, and p99 stays below a quarter of a second.
pub(crate) fn knee(measured: &Measured, layout: &Layout, most: f64, seed: u64) -> (f64, Seen) {
    let at = |rate: f64| {
        let plan = Plan { measured: 1_000_000_000, ..Plan::new(Load::Open(rate), 1, seed) };
        run(measured, layout, plan)
    };
    let carried = |seen: &Seen, rate: f64| seen.per_s >= 0.98 * rate && seen.p99_ms <= P99_MS;
    let (mut low, mut high) = (0.0, most);
    let mut best = at(most / 16.0);
    for _ in 0..6 {
        let rate = f64::midpoint(low, high);
        let seen = at(rate);
        if carried(&seen, rate) {
            low = rate;
            best = seen;
        } else {
            high = rate;
        }
    }
    (low, best)
}
