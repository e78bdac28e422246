//! The table for people and the record for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableStyle};
use serde::Serialize;

use crate::load::{Loaded, Loop, Plan};
use crate::machine::Machine;
use crate::verify::Verdict;

/// All that a run found out.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// `s1` or `s2`.
    pub scenario: &'static str,
    /// The target.
    pub target: &'static str,
    /// `noop`, `bare` or `echo`.
    pub work: &'static str,
    /// Commit of the checkout.
    pub commit: String,
    /// What `nova --version` says.
    pub nova: String,
    /// Where it ran.
    pub machine: Machine,
    /// The loops, in order.
    pub phases: Vec<Phase>,
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
    /// `closed 256` or `open 8000/s`.
    pub name: String,
    /// Whether it is an open one.
    pub open: bool,
    /// Executions in one request.
    pub batch: u32,
    /// Measured seconds.
    pub seconds: f64,
    /// Completed per second.
    pub executions_per_s: f64,
    /// From when an execution was due to the answer with its result.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
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
    pub(crate) fn of(plan: &Plan, loaded: &Loaded, cores: usize) -> Self {
        let (tally, used) = (&loaded.tally, &loaded.used);
        let name = match plan.kind {
            Loop::Closed { in_flight } => format!("closed {in_flight}"),
            Loop::Open { per_second } => format!("open {per_second}/s"),
        };
        let window = tally.window();
        let at = |share: f64| tally.latency_us.value_at_quantile(share) as f64 / 1e3;
        let cpu = used.per_execution(tally.completed);
        Self {
            name,
            open: matches!(plan.kind, Loop::Open { .. }),
            batch: plan.batch,
            seconds: window.as_secs_f64(),
            executions_per_s: tally.completed as f64 / window.as_secs_f64(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: tally.latency_us.max() as f64 / 1e3,
            cpu_us_per_execution_total: cpu.iter().filter(|(kind, _)| **kind != "generator").map(|(_, us)| us).sum(),
            cpu_us_per_execution: cpu,
            resident_mib: used.resident.iter().map(|(kind, bytes)| (*kind, bytes >> 20)).collect(),
            busy_percent: used.busy_percent,
            others_percent: used.others_percent(window, cores),
            refused: tally.refused,
        }
    }
}

/// What is known before anything is measured.
pub(crate) fn machine(machine: &Machine) -> String {
    let busy = 100.0 - machine.idle_percent;
    let calm = if machine.check().is_ok() { "calm" } else { "BUSY: figures are not those of a calm machine" };
    format!(
        "machine  {} cores, {}, {} MiB, Linux {}\ndisk     {}, fdatasync of 4 KiB {} µs (p50), {} µs (p99)\nload     {}, {busy:.0} % of the CPU used by others: {calm}\n",
        machine.cores,
        machine.cpu,
        machine.memory_mib,
        machine.kernel,
        machine.file_system,
        machine.fdatasync_p50_us,
        machine.fdatasync_p99_us,
        machine.load_average,
    )
}

impl Record {
    /// The table. Figures are in it only when every result is right.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{} {} on {}, {} ({})\n", self.scenario, self.work, self.target, self.nova, self.commit);
        if self.verified {
            let _ = writeln!(text, "{}", self.figures());
            for phase in &self.phases {
                let part = |(kind, us): (&&str, &f64)| format!("{kind} {us:.0} µs ({} MiB)", phase.resident_mib[*kind]);
                let parts: Vec<_> = phase.cpu_us_per_execution.iter().map(part).collect();
                let _ = writeln!(text, "CPU each, {}: {}", phase.name, parts.join(", "));
            }
            text.push_str(&self.spreads());
        }
        let Verdict { submitted, completed, refused, answered_wrong, missing, unfinished, .. } = &self.verdict;
        let Verdict { duplicates, wrong, repeated_attempts, examples, .. } = &self.verdict;
        let right = if self.verified { "every result is right" } else { "NOT VERIFIED, so there are no figures" };
        let _ = writeln!(
            text,
            "{right}: {submitted} submitted, {completed} completed once with the right output, {refused} turned away, \
             {answered_wrong} answered wrong, {missing} missing, {unfinished} unfinished, {duplicates} doubled, {wrong} wrong, \
             {repeated_attempts} with a repeated attempt; read back after {} ms",
            self.read_back_ms
        );
        for example in examples {
            let _ = writeln!(text, "  {example}");
        }
        text
    }

    /// Medians and spreads of loops that were measured more than once.
    fn spreads(&self) -> String {
        let mut text = String::new();
        for open in [false, true] {
            let phases: Vec<_> = self.phases.iter().filter(|phase| phase.open == open).collect();
            if phases.len() < 2 {
                continue;
            }
            let spread = |figure: fn(&Phase) -> f64, digits: usize| {
                let Spread { least, median, most } =
                    Spread::of(phases.iter().map(|phase| figure(phase)).collect()).expect("there are two");
                format!("{median:.digits$} [{least:.digits$}–{most:.digits$}]")
            };
            let _ = writeln!(
                text,
                "median of {}, {}: {} exec/s, p50 {} ms, p99 {} ms, CPU {} µs each",
                phases.len(),
                phases[0].name,
                spread(|phase| phase.executions_per_s, 0),
                spread(|phase| phase.p50_ms, 2),
                spread(|phase| phase.p99_ms, 2),
                spread(|phase| phase.cpu_us_per_execution_total, 0),
            );
        }
        text
    }

    fn figures(&self) -> Table {
        let mut table = Table::new();
        table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
        let header = ["", "exec/s", "p50 ms", "p90", "p99", "p99.9", "max", "CPU µs each", "busy %", "others %", "429"];
        table.set_header(header);
        for phase in &self.phases {
            let batch = if phase.batch > 1 { format!(" by {}", phase.batch) } else { String::new() };
            let mut row = vec![Cell::new(format!("{}{batch}", phase.name))];
            let mut number = |text: String| row.push(Cell::new(text).set_alignment(CellAlignment::Right));
            number(format!("{:.0}", phase.executions_per_s));
            for ms in [phase.p50_ms, phase.p90_ms, phase.p99_ms, phase.p999_ms, phase.max_ms] {
                number(format!("{ms:.2}"));
            }
            number(format!("{:.0}", phase.cpu_us_per_execution_total));
            number(format!("{:.0}", phase.busy_percent));
            number(format!("{:.0}", phase.others_percent));
            number(phase.refused.to_string());
            table.add_row(row);
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_middle_and_the_ends() {
        let of = |figures: &[f64]| Spread::of(figures.to_vec()).map(|it| (it.least, it.median, it.most));
        assert_eq!(of(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[4.0, 1.0]), Some((1.0, 1.0, 4.0)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn there_are_no_figures_of_what_is_not_verified() {
        let phase: Phase = Phase {
            name: "closed 1".into(),
            open: false,
            batch: 1,
            seconds: 1.0,
            executions_per_s: 77_777.0,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            max_ms: 1.0,
            cpu_us_per_execution: BTreeMap::from([("api", 5.0)]),
            cpu_us_per_execution_total: 5.0,
            resident_mib: BTreeMap::from([("api", 5)]),
            busy_percent: 1.0,
            others_percent: 1.0,
            refused: 0,
        };
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record {
            scenario: "s1",
            target: "embedded",
            work: "noop",
            commit: "c".into(),
            nova: "n".into(),
            machine: Machine::look(dir.path()).unwrap(),
            phases: vec![phase.clone(), phase],
            verdict: Verdict { submitted: 5, missing: 1, ..Verdict::default() },
            read_back_ms: 1,
            verified: true,
        };
        let table = record.table();
        assert!(table.contains("77777") && table.contains("median of 2") && table.contains("api 5 µs"), "{table}");
        record.verified = false;
        let table = record.table();
        assert!(!table.contains("77777") && table.contains("NOT VERIFIED") && table.contains("1 missing"), "{table}");
    }
}
