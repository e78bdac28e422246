//! The table for people.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableStyle};

use super::{Figure, Phase, Record, Spread};
use crate::machine::Machine;
use crate::verify::Verdict;

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
        let parked = match self.parked_before {
            0 => String::new(),
            parked => format!(" beside {parked} parked executions"),
        };
        let keyed = if self.keyed { " with keys" } else { "" };
        let Self { scenario, work, target, nova, commit, .. } = self;
        let mut text = format!("{scenario} {work}{keyed} on {target}{parked}, {nova} ({commit})\n");
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        if self.verified {
            if !self.phases.is_empty() {
                let _ = writeln!(text, "{}", phases(&self.phases));
            }
            for phase in &self.phases {
                let part = |(kind, us): (&&str, &f64)| format!("{kind} {us:.0} µs ({} MiB)", phase.resident_mib[*kind]);
                let parts: Vec<_> = phase.cpu_us_per_execution.iter().map(part).collect();
                let _ = writeln!(text, "CPU each, {}, {}: {}", phase.key, phase.name, parts.join(", "));
            }
            text.push_str(&self.spreads());
            if !self.figures.is_empty() {
                let _ = writeln!(text, "{}", figures(&self.figures));
            }
        }
        let Verdict { submitted, completed, parked, refused, answered_wrong, missing, .. } = &self.verdict;
        let Verdict { unfinished, duplicates, wrong, repeated_attempts, examples, .. } = &self.verdict;
        let right = if self.verified { "every result is right" } else { "NOT VERIFIED, so there are no figures" };
        let parked = if *parked > 0 { format!("{parked} parked, ") } else { String::new() };
        let _ = writeln!(
            text,
            "{right}: {submitted} submitted, {completed} completed once with the right output, {parked}{refused} turned away, \
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
        let mut keys: Vec<&str> = self.phases.iter().map(|phase| phase.key.as_str()).collect();
        keys.dedup();
        for key in keys {
            let phases: Vec<_> = self.phases.iter().filter(|phase| phase.key == key).collect();
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
                "median of {}, {key}, {}: {} s, {} exec/s, p50 {} ms, p99 {} ms, CPU {} µs each",
                phases.len(),
                phases[0].name,
                spread(|phase| phase.seconds, 3),
                spread(|phase| phase.executions_per_s, 0),
                spread(|phase| phase.p50_ms, 2),
                spread(|phase| phase.p99_ms, 2),
                spread(|phase| phase.cpu_us_per_execution_total, 0),
            );
        }
        text
    }
}

fn phases(phases: &[Phase]) -> Table {
    let mut table = empty();
    let header = [
        "",
        "",
        "s",
        "exec/s",
        "p50 ms",
        "p90",
        "p99",
        "p99.9",
        "max",
        "sent late p99",
        "CPU µs each",
        "busy %",
        "others %",
        "429",
    ];
    table.set_header(header);
    for phase in phases {
        let batch = if phase.batch > 1 { format!(" by {}", phase.batch) } else { String::new() };
        let mut row = vec![Cell::new(&phase.key), Cell::new(format!("{}{batch}", phase.name))];
        let mut number = |text: String| row.push(Cell::new(text).set_alignment(CellAlignment::Right));
        number(format!("{:.3}", phase.seconds));
        number(format!("{:.0}", phase.executions_per_s));
        for ms in [phase.p50_ms, phase.p90_ms, phase.p99_ms, phase.p999_ms, phase.max_ms, phase.late_p99_ms] {
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

fn figures(figures: &[Figure]) -> Table {
    let mut table = empty();
    table.set_header(["", "median", "least", "most", "runs", "unit"]);
    for figure in figures {
        let mut row = vec![Cell::new(&figure.name)];
        let mut number = |text: String| row.push(Cell::new(text).set_alignment(CellAlignment::Right));
        for value in [figure.median, figure.least, figure.most] {
            number(round(value));
        }
        number(figure.runs.to_string());
        row.push(Cell::new(figure.unit));
        table.add_row(row);
    }
    table
}

/// With as many digits as say something.
pub(crate) fn round(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

pub(crate) fn empty() -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn record() -> Record {
        let phase = Phase {
            key: "closed".into(),
            name: "closed 1".into(),
            batch: 1,
            seconds: 1.0,
            executions_per_s: 77_777.0,
            p50_ms: 1.0,
            p90_ms: 1.0,
            p99_ms: 1.0,
            p999_ms: 1.0,
            max_ms: 1.0,
            late_p99_ms: 0.0,
            cpu_us_per_execution: BTreeMap::from([("api", 5.0)]),
            cpu_us_per_execution_total: 5.0,
            resident_mib: BTreeMap::from([("api", 5)]),
            busy_percent: 1.0,
            others_percent: 1.0,
            refused: 0,
        };
        let dir = tempfile::tempdir().unwrap();
        Record {
            scenario: "s1",
            target: "embedded",
            work: "noop",
            keyed: false,
            parked_before: 0,
            commit: "c".into(),
            nova: "n".into(),
            machine: Machine::look(dir.path()).unwrap(),
            notes: vec!["as it is".into()],
            phases: vec![phase.clone(), phase],
            figures: vec![Figure::of("gap", "ms", vec![88_888.0]).unwrap()],
            verdict: Verdict { submitted: 5, missing: 1, ..Verdict::default() },
            read_back_ms: 1,
            verified: true,
        }
    }

    #[test]
    fn there_are_no_figures_of_what_is_not_verified() {
        let mut record = record();
        let table = record.table();
        for part in ["77777", "88888", "median of 2", "api 5 µs", "as it is"] {
            assert!(table.contains(part), "{table}");
        }
        record.verified = false;
        let table = record.table();
        assert!(!table.contains("77777") && !table.contains("88888"), "{table}");
        assert!(table.contains("NOT VERIFIED") && table.contains("1 missing"), "{table}");
    }

    #[test]
    fn runs_on_targets_of_their_own_are_one_record() {
        let runs = |verified: bool| {
            let (one, mut other) = (record(), record());
            other.figures =
                [("gap", 4.0), ("wait", 1.0)].map(|(name, ms)| Figure::of(name, "ms", vec![ms]).unwrap()).into();
            (other.verified, other.notes) = (verified, vec!["as it is".into(), "and so".into()]);
            Record::of_all(vec![one, other]).unwrap()
        };
        let all = runs(true);
        let figures: Vec<_> = all.figures.iter().map(|it| (&*it.name, it.runs, it.median, it.most)).collect();
        assert_eq!(figures, [("gap", 2, 4.0, 88_888.0), ("wait", 1, 1.0, 1.0)]);
        assert_eq!((all.phases.len(), all.verdict.submitted, all.verdict.missing), (4, 10, 2));
        assert_eq!(all.notes, ["as it is", "and so"]);
        let all = runs(false);
        assert!(!all.verified && all.phases.is_empty() && all.figures.is_empty(), "one wrong result is one too many");
    }

    #[test]
    fn a_figure_has_the_digits_that_say_something() {
        assert_eq!([0.0, 1.23456, 56.78, 12_345.6].map(round), ["0", "1.235", "56.8", "12346"]);
    }
}
