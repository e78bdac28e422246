//! What a run found out: figures, and the record for programs.

mod table;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::{Loaded, Loop, Plan};
use crate::machine::Machine;
use crate::verify::Verdict;

#[cfg(test)]
pub(crate) use table::tests;
pub(crate) use table::{empty as empty_table, machine, round};

/// All that a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The scenario.
    pub scenario: &'static str,
    /// The target.
    pub target: &'static str,
    /// `noop`, `bare` or `echo`.
    pub work: &'static str,
    /// Each execution had an idempotency key.
    pub keyed: bool,
    /// Executions that were parked before.
    pub parked_before: u64,
    /// Commit of the checkout.
    pub commit: String,
    /// What `nova --version` says.
    pub nova: String,
    /// Where it ran.
    pub machine: Machine,
    /// What exactly was done, where the name of the scenario does not say it.
    pub notes: Vec<String>,
    /// The loops, in order.
    pub phases: Vec<Phase>,
    /// What is not of one loop.
    pub figures: Vec<Figure>,
    /// Executions of all loops, warm-up too, as they were read back.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// From the last answer until the history had all of them.
    pub read_back_ms: u64,
    /// Whether every result is right.
    pub verified: bool,
}

/// Figures of one loop.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// What it is called in every run, whatever its rate comes to: loops of the same key are runs of the same.
    pub key: String,
    /// `closed 256` or `open 8000/s`.
    pub name: String,
    /// Executions in one request.
    pub batch: u32,
    /// Measured seconds; of a burst, until its last answer.
    pub seconds: f64,
    /// Completed per second; accepted, where answers say no more.
    pub executions_per_s: f64,
    /// From when an execution was due to its answer.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// How late the generator sent, 99th percentile: part of the above.
    pub late_p99_ms: f64,
    /// CPU of each kind of process, in microseconds per execution.
    pub cpu_us_per_execution: BTreeMap<&'static str, f64>,
    /// The sum without the generator.
    pub cpu_us_per_execution_total: f64,
    /// Memory of each kind at the end, in MiB.
    pub resident_mib: BTreeMap<&'static str, u64>,
    /// Share of all cores that was busy, in percent.
    pub busy_percent: f64,
    /// Share of all cores that others used, in percent.
    pub others_percent: f64,
    /// Turned away with 429.
    pub refused: u64,
}

/// One figure, measured once or several times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// How often it was measured.
    pub runs: usize,
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Figure {
    /// Of what was measured; none of nothing.
    pub(crate) fn of(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Option<Self> {
        let runs = values.len();
        let Spread { least, median, most } = Spread::of(values)?;
        Some(Self { name: name.into(), unit, runs, median, least, most })
    }

    /// The same figure of several runs: the middle one of their medians.
    fn of_all(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let median = Spread::of(all.iter().map(|it| it.median).collect())?.median;
        let least = all.iter().map(|it| it.least).fold(f64::INFINITY, f64::min);
        let most = all.iter().map(|it| it.most).fold(f64::NEG_INFINITY, f64::max);
        Some(Self {
            name: first.name.clone(),
            unit: first.unit,
            runs: all.iter().map(|it| it.runs).sum(),
            median,
            least,
            most,
        })
    }
}

impl Record {
    /// Of several runs of one scenario, on targets of their own: their loops one after the other, and each figure once.
    pub(crate) fn of_all(runs: Vec<Self>) -> Option<Self> {
        let mut figures: Vec<Vec<Figure>> = Vec::new();
        let mut all: Option<Self> = None;
        for mut run in runs {
            for figure in std::mem::take(&mut run.figures) {
                match figures.iter_mut().find(|same| same[0].name == figure.name) {
                    Some(same) => same.push(figure),
                    None => figures.push(vec![figure]),
                }
            }
            let Some(all) = &mut all else {
                all = Some(run);
                continue;
            };
            let notes = run.notes.into_iter().filter(|note| !all.notes.contains(note)).collect::<Vec<_>>();
            all.notes.extend(notes);
            all.phases.extend(run.phases);
            all.verdict.add(run.verdict);
            all.read_back_ms = all.read_back_ms.max(run.read_back_ms);
            all.verified &= run.verified;
        }
        let mut all = all?;
        if all.verified {
            all.figures = figures.iter().filter_map(|same| Figure::of_all(same)).collect();
        } else {
            all.phases = Vec::new();
        }
        Some(all)
    }
}

/// The middle one of several figures, with the outer ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// None of none.
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_unstable_by(f64::total_cmp);
        // Of an even number the lower one, which was measured.
        let median = *figures.get(figures.len().checked_sub(1)? / 2)?;
        Some(Self { least: figures[0], median, most: figures[figures.len() - 1] })
    }
}

impl Phase {
    pub(crate) fn of(key: impl Into<String>, plan: &Plan, loaded: &Loaded, cores: usize) -> Self {
        let (tally, used) = (&loaded.tally, &loaded.used);
        let name = match plan.kind {
            Loop::Closed { in_flight } => format!("closed {in_flight}"),
            Loop::Open { per_second } => format!("open {per_second}/s"),
            Loop::Burst { count, .. } => format!("{count} at once"),
        };
        let window = tally.window();
        let at = |share: f64| tally.latency_us.value_at_quantile(share) as f64 / 1e3;
        let cpu = used.per_execution(tally.completed);
        Self {
            key: key.into(),
            name,
            batch: plan.batch,
            seconds: window.as_secs_f64(),
            executions_per_s: tally.completed as f64 / window.as_secs_f64(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: tally.latency_us.max() as f64 / 1e3,
            late_p99_ms: tally.late_us.value_at_quantile(0.99) as f64 / 1e3,
            cpu_us_per_execution_total: cpu.iter().filter(|(kind, _)| **kind != "generator").map(|(_, us)| us).sum(),
            cpu_us_per_execution: cpu,
            resident_mib: used.resident.iter().map(|(kind, bytes)| (*kind, bytes >> 20)).collect(),
            busy_percent: used.busy_percent,
            others_percent: used.others_percent(window, cores),
            refused: tally.refused,
        }
    }
}

#[cfg(test)]
mod spread_tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let of = |figures: &[f64]| Spread::of(figures.to_vec()).map(|it| (it.least, it.median, it.most));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0]), Some((1.0, 1.0, 4.0)));
        assert_eq!(of(&[]), None);
        assert_eq!(Figure::of("x", "ms", vec![4.0, 1.0]).map(|it| (it.runs, it.median)), Some((2, 1.0)));
    }
}
