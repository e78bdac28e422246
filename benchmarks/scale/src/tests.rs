//! That the simulation keeps the laws of queues.

use std::path::Path;
use std::rc::Rc;

use rand::Rng;

use crate::agenda::Ns;
use crate::flow::Load;
use crate::input::{Layouts, Measured};
use crate::network::{Cost, Item, Network, Phase, Router, Service, StationId, Token};
use crate::run::{self, Plan, Seen};

fn files() -> (Measured, Layouts) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let measured = Measured::read(&folder.join("measured.toml")).expect("the committed costs are right");
    (measured, Layouts::read(&folder.join("layouts.toml")).expect("the committed layouts are right"))
}

fn see(name: &str, load: Load, tasks: u8, seed: u64) -> Seen {
    let (measured, layouts) = files();
    let plan = Plan { measured: 1_000_000_000, ..Plan::new(load, tasks, seed) };
    run::run(&measured, layouts.get(name).expect("it is among them"), plan)
}

#[test]
fn no_execution_is_lost_or_ends_twice() {
    for (name, load, tasks) in [
        ("embedded", Load::Closed(256), 1),
        ("embedded-3", Load::Closed(16), 10),
        ("kafka-3", Load::Open(500.0), 3),
        // More than it can do.
        ("kafka-1", Load::Open(20_000.0), 1),
        ("twelve-two", Load::Open(5_000.0), 1),
    ] {
        let seen = see(name, load, tasks, 7);
        assert_eq!(seen.begun, seen.ended_ever + seen.in_flight, "{name}");
        assert_eq!(seen.wrong, 0, "{name}");
        assert!(seen.ended_ever > 50, "{name}: {}", seen.ended_ever);
    }
}

#[test]
fn as_many_are_in_flight_as_begin_while_one_is() {
    let mut compared = 0;
    for (name, load) in [
        ("embedded", Load::Open(3_000.0)),
        ("embedded-3", Load::Closed(64)),
        ("kafka-3", Load::Open(600.0)),
        ("twelve", Load::Open(10_000.0)),
    ] {
        let seen = see(name, load, 1, 3);
        let little = seen.per_s * seen.mean_ms / 1e3;
        let off = (seen.mean_in_flight / little - 1.0).abs();
        assert!(off < 0.05, "{name}: {} in flight, {little} by Little's law", seen.mean_in_flight);
        compared += 1;
    }
    assert_eq!(compared, 4);
}

#[test]
fn cores_are_used_as_the_costs_of_what_was_done_add_up_to() {
    let seen = see("kafka-1", Load::Open(1_500.0), 1, 5);
    let used = seen.parts.iter().find(|it| it.name == "server 1, its 2 cores").expect("it is a part").used;
    let cpu: f64 = seen.cpu.values().sum();
    let law = cpu * seen.per_s / 1e6 / 2.0;
    assert!((used - law).abs() < 0.001, "{used} of the cores, {law} by the law of utilisation");
}

#[test]
fn a_seed_gives_the_same_run_and_another_one_another() {
    let load = Load::Open(2_000.0);
    assert_eq!(see("kafka-1", load, 1, 11), see("kafka-1", load, 1, 11));
    assert_ne!(see("kafka-1", load, 1, 11), see("kafka-1", load, 1, 12));
}

/// Counts how long things take through one station, and begins them at random moments where there is a rate.
#[derive(Default)]
struct Watch {
    per_s: f64,
    at: Option<StationId>,
    begun: Vec<Ns>,
    took: Vec<Ns>,
}

impl Router for Watch {
    fn route(&mut self, network: &mut Network, _: StationId, item: Item) {
        self.took.push(network.now() - self.begun[item.execution as usize]);
    }

    fn alarm(&mut self, network: &mut Network, _: u32) {
        let Some(station) = self.at else { return };
        network.push(station, Token::Item(Item { execution: self.begun.len() as u32, kind: 0 }));
        self.begun.push(network.now());
        let share: f64 = network.random().random();
        network.alarm((-(1.0 - share).ln() / self.per_s * 1e9) as Ns, 0);
    }
}

/// Poisson arrivals, a constant time of service, one server: the mean wait is ρ·s / 2(1 − ρ).
#[test]
fn one_server_makes_wait_as_long_as_the_formula_says() {
    const SERVICE_NS: f64 = 100_000.0;
    for load in [0.3, 0.7, 0.9] {
        let mut network = Network::new(17, 0);
        let host = network.host("one", 1);
        let thread = network.thread("thread", "kind", host, 1);
        let cost = Cost { batch: SERVICE_NS, ..Cost::default() };
        let service = Service { limit: 1, ..Service::new("station", vec![Phase::Cpu(thread, cost), Phase::Route]) };
        let at = Some(network.station(service));
        let mut watch = Watch { per_s: load / SERVICE_NS * 1e9, at, ..Watch::default() };
        network.alarm(0, 0);
        let end = 100_000_000_000;
        network.run(&mut watch, end);
        let mean = watch.took.iter().map(|it| *it as f64).sum::<f64>() / watch.took.len() as f64;
        let formula = SERVICE_NS + load * SERVICE_NS / (2.0 * (1.0 - load));
        assert!((mean / formula - 1.0).abs() < 0.05, "seed 17, load {load}: {mean} ns, {formula} by the formula");
        let used = network.threads()[0].used as f64 / end as f64;
        assert!((used / load - 1.0).abs() < 0.02, "seed 17: used {used} of {load}");
    }
}

#[test]
fn what_waits_is_served_together() {
    let mut network = Network::new(1, 0);
    let host = network.host("one", 1);
    let thread = network.thread("thread", "kind", host, 1);
    let cost = Cost { batch: 1_000.0, token: 10.0, item: 0.0 };
    let station = network.station(Service::new("station", vec![Phase::Cpu(thread, cost), Phase::Route]));
    let mut watch = Watch { begun: vec![0; 5], ..Watch::default() };
    for execution in 0..5 {
        network.push(station, Token::Item(Item { execution, kind: 0 }));
    }
    network.run(&mut watch, 1_000_000);
    assert_eq!(watch.took, [1_050; 5]);
}

#[test]
fn a_majority_is_enough() {
    let mut network = Network::new(1, 0);
    let log = |network: &mut Network, us: u64| {
        network.station(Service::new("log", vec![Phase::Delay(us * 1_000), Phase::Join]))
    };
    let logs: Rc<[StationId]> = [30, 10, 900].map(|us| log(&mut network, us)).into();
    let phases = vec![Phase::Fork { stations: logs, need: 2 }, Phase::Route];
    let station = network.station(Service { limit: 1, ..Service::new("entries", phases) });
    let mut watch = Watch { begun: vec![0; 2], ..Watch::default() };
    network.push(station, Token::Item(Item { execution: 0, kind: 0 }));
    network.push(station, Token::Item(Item { execution: 1, kind: 0 }));
    network.run(&mut watch, 10_000_000);
    assert_eq!(watch.took, [30_000, 60_000]);
}

#[test]
fn each_point_has_a_layout_and_one_load() {
    let (measured, layouts) = files();
    assert!(measured.points.len() >= 8);
    for point in &measured.points {
        layouts.get(&point.layout).expect("the layout of a point");
        assert!(point.closed.is_some() != point.open.is_some(), "{point:?}");
    }
}
