//! What was seen, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

use crate::flow::Load;
use crate::input::{Bus, InputError, Layout, Layouts, Measured, Point};
use crate::run::{self, Plan, Seen};

/// Parts that are named.
const PARTS: usize = 8;

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled).set_header(heads.to_vec());
    table
}

fn number(value: f64) -> Cell {
    let text = match value {
        _ if value >= 1_000.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn error(predicted: f64, measured: f64) -> Cell {
    Cell::new(format!("{:+.0} %", 100.0 * (predicted / measured - 1.0))).set_alignment(CellAlignment::Right)
}

/// Each point beside what the model gives for it.
pub(crate) fn check(measured: &Measured, layouts: &Layouts, points: &[Point], seed: u64) -> Result<String, InputError> {
    let mut rates = table(&["", "load", "/s", "measured", "", "p50 ms", "measured", "", "p99 ms", "measured", ""]);
    let mut cpus = table(&["", "load", "process", "CPU µs each", "measured", "", ""]);
    for point in points {
        let layout = layouts.get(&point.layout)?;
        let load = match (point.closed, point.open) {
            (Some(count), _) => Load::Closed(count),
            (None, rate) => Load::Open(rate.unwrap_or(point.per_s)),
        };
        let seen = run::run(measured, layout, Plan { measured: 3_000_000_000, ..Plan::new(load, point.tasks, seed) });
        let (name, what) = (Cell::new(&point.layout), format!("{} × {}", describe(load), point.tasks));
        let mut row = vec![name.clone(), Cell::new(&what)];
        for (one, other) in [(seen.per_s, point.per_s), (seen.p50_ms, point.p50_ms), (seen.p99_ms, point.p99_ms)] {
            row.extend([number(one), number(other), error(one, other)]);
        }
        rates.add_row(row);
        for (kind, value) in kinds(&seen, &point.cpu) {
            let Some(other) = point.cpu.get(kind) else { continue };
            let from = if point.source_of_costs { "costs were taken from it" } else { "" };
            let row =
                [name.clone(), Cell::new(&what), Cell::new(kind), number(value), number(*other), error(value, *other)];
            cpus.add_row(row.into_iter().chain([Cell::new(from)]));
        }
    }
    Ok(format!("{rates}\n\n{cpus}\n"))
}

/// CPU by the kinds of processes that a point has: what it has as one process is added up.
fn kinds<'a>(seen: &Seen, measured: &'a BTreeMap<String, f64>) -> BTreeMap<&'a str, f64> {
    let mut all = BTreeMap::new();
    for (kind, value) in &seen.cpu {
        let name = measured.keys().find(|it| it == kind).map_or("all_in_one", String::as_str);
        *all.entry(name).or_insert(0.0) += value;
    }
    all
}

fn describe(load: Load) -> String {
    match load {
        Load::Closed(count) => format!("{count} in flight"),
        Load::Open(rate) => format!("{rate:.0}/s"),
    }
}

/// A layout at a rate.
pub(crate) fn predict(
    measured: &Measured,
    name: &str,
    layout: &Layout,
    (load, tasks, parked): (Load, u8, u64),
    seed: u64,
) -> String {
    let seen = run::run(measured, layout, Plan::new(load, tasks, seed));
    let mut out = format!(
        "{name}, {}: {:.0}/s end; p50 {:.1} ms, p99 {:.1} ms; {:.0} in flight\n\n",
        describe(load),
        seen.per_s,
        seen.p50_ms,
        seen.p99_ms,
        seen.mean_in_flight
    );
    let _ = writeln!(out, "{}\n", parts(&seen, PARTS));
    let mut cpu = table(&["process", "CPU µs each", "cores"]);
    for (kind, value) in &seen.cpu {
        cpu.add_row([Cell::new(kind), number(*value), number(value * seen.per_s / 1e6)]);
    }
    let _ = writeln!(out, "{cpu}\n");
    let mut stations = table(&["station", "batches/s", "things/s", "in a batch"]);
    for (kind, (batches, things)) in &seen.stations {
        if *batches > 0.0 {
            stations.add_row([Cell::new(kind), number(*batches), number(*things), number(things / batches)]);
        }
    }
    let _ = writeln!(out, "{stations}\n");
    let _ = writeln!(out, "{}", resources(measured, layout, &seen, parked));
    out
}

/// What is used of disks, network and memory.
fn resources(measured: &Measured, layout: &Layout, seen: &Seen, parked: u64) -> Table {
    let (size, rate) = (measured.size, seen.per_s);
    let members: u32 = layout.server.iter().map(|it| it.count * it.coordinator).sum();
    let mib = |bytes: f64| number(bytes / f64::from(1 << 20));
    let on_bus = size.commands + size.tasks + size.replies + size.events;
    let copies = if layout.bus == Bus::Kafka { f64::from(layout.replicas) } else { 1.0 };
    let mut table = table(&["", ""]);
    let mut line = |what: &str, cell: Cell| {
        table.add_row([Cell::new(what), cell]);
    };
    line("data syncs/s, all logs", number(seen.syncs_per_s));
    line("log of one member of each group, MiB/s", mib(size.log * rate / f64::from(layout.groups)));
    line("a leader to its followers, MiB/s", mib(size.log * rate * f64::from(members - 1) / f64::from(layout.groups)));
    line("records into the bus, MiB/s", mib(on_bus * rate));
    line("all brokers' disks, MiB/s", mib(on_bus * rate * copies));
    line("history, all apis' files, GiB/day", number(size.history * rate * 86_400.0 / f64::from(1 << 30)));
    line("memory of a member of each group: parked, MiB", mib(size.parked * parked as f64 / f64::from(layout.groups)));
    line("the same: running, MiB", mib(size.running * seen.mean_in_flight / f64::from(layout.groups)));
    table
}

fn parts(seen: &Seen, count: usize) -> Table {
    let mut parts = table(&["ends first", "used", "ends at about, /s"]);
    for part in seen.parts.iter().filter(|it| !it.name.starts_with("generator")).take(count) {
        parts.add_row([
            Cell::new(&part.name),
            Cell::new(format!("{:.0} %", part.used * 100.0)).set_alignment(CellAlignment::Right),
            number(part.end_per_s),
        ]);
    }
    parts
}

/// The most that a layout carries.
pub(crate) fn knee(measured: &Measured, name: &str, layout: &Layout, most: f64, seed: u64) -> String {
    let (rate, seen) = run::knee(measured, layout, most, seed);
    format!(
        "{name}: carries {rate:.0}/s; there p50 {:.1} ms, p99 {:.1} ms\n\n{}\n\n",
        seen.p50_ms,
        seen.p99_ms,
        parts(&seen, 4)
    )
}
