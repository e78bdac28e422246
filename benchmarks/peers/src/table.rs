//! The figures and the ratios, for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableStyle};

use crate::case::{Form, Scenario};
use crate::record::{Key, Measurement, Record};
use crate::system::SystemName;

/// Medians of one system with its steps in one place.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    /// The best of the numbers in flight: rate, CPU per execution there, and in flight.
    s1: Option<(Spread, f64, u32)>,
    s2: Option<(f64, f64)>,
    s3_seconds: Option<f64>,
    s4_seconds: Option<f64>,
}

/// The middle one of several figures, with the outer ones.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(measured: &[&Measurement], figure: fn(&Measurement) -> f64) -> Self {
        let mut figures: Vec<_> = measured.iter().map(|it| figure(it)).collect();
        figures.sort_unstable_by(f64::total_cmp);
        // Of an even number the lower one, which was measured.
        let median = figures[(figures.len() - 1) / 2];
        Self { least: figures[0], median, most: figures[figures.len() - 1] }
    }
}

impl Row {
    fn of(by_key: &BTreeMap<Key, Vec<&Measurement>>, system: SystemName, form: Form) -> Self {
        let mut row = Self::default();
        for ((_, _, scenario, in_flight), measured) in by_key.iter().filter(|(key, _)| (key.0, key.1) == (system, form))
        {
            let median = |figure| Spread::of(measured, figure).median;
            match scenario {
                Scenario::S1 => {
                    let rate = Spread::of(measured, |it| it.executions_per_s);
                    if row.s1.is_none_or(|(best, _, _)| rate.median > best.median) {
                        row.s1 = Some((rate, median(|it| it.cpu_us_per_execution_total), *in_flight));
                    }
                }
                Scenario::S2 => row.s2 = Some((median(|it| it.figures.p50_ms), median(|it| it.figures.p99_ms))),
                Scenario::S3 => row.s3_seconds = Some(median(|it| it.figures.seconds)),
                Scenario::S4 => row.s4_seconds = Some(median(|it| it.figures.p50_ms / 1e3)),
            }
        }
        row
    }
}

/// What a form is called.
pub(crate) fn form(form: Form) -> &'static str {
    match form {
        Form::Dispatched => "steps dispatched",
        Form::Chained => "values handed on",
        Form::Inside => "steps inside",
    }
}

/// Everything: machine, systems, figures, ratios.
pub(crate) fn text(record: &Record) -> String {
    let mut text = String::new();
    let fact = |name: &str| record.machine[name].to_string().trim_matches('"').to_owned();
    let _ = writeln!(
        text,
        "{} commit {}\n{}, {} cores, {} MiB, kernel {}, {}, fdatasync p50 {} µs",
        record.date,
        record.commit,
        fact("cpu"),
        fact("cores"),
        fact("memory_mib"),
        fact("kernel"),
        fact("file_system"),
        fact("fdatasync_p50_us")
    );
    for (system, about) in &record.systems {
        let _ = writeln!(text, "{}: {}", system.name(), about.version);
        for setting in &about.settings {
            let _ = writeln!(text, "  {setting}");
        }
    }
    let mut by_key: BTreeMap<Key, Vec<&Measurement>> = BTreeMap::new();
    for measurement in &record.measurements {
        by_key.entry(measurement.key()).or_default().push(measurement);
    }
    let mut rows: BTreeMap<(SystemName, Form), Row> = BTreeMap::new();
    for (system, form, _, _) in by_key.keys() {
        rows.entry((*system, *form)).or_insert_with(|| Row::of(&by_key, *system, *form));
    }
    let most = by_key.values().map(Vec::len).max().unwrap_or(0);
    let others = record.measurements.iter().map(|it| it.others_percent).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "\nMedians of up to {most} rounds, every result right; others used at most {others:.0} % of the CPU:"
    );
    let _ = writeln!(text, "{}", figures(&rows));
    let ratios = ratios(&rows);
    if ratios.row_count() > 0 {
        let _ = writeln!(text, "\nNovaFlow against them, above 1 where it is ahead:");
        let _ = writeln!(text, "{ratios}");
    }
    text
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table
}

fn add(table: &mut Table, name: String, cells: Vec<Option<String>>) {
    let right =
        |text: Option<String>| Cell::new(text.unwrap_or_else(|| "–".into())).set_alignment(CellAlignment::Right);
    table.add_row([Cell::new(name)].into_iter().chain(cells.into_iter().map(right)));
}

fn figures(rows: &BTreeMap<(SystemName, Form), Row>) -> Table {
    let mut table = table(&["", "S1 exec/s", "in flight", "CPU µs each", "S2 p50 ms", "p99", "S3 s", "S4 s"]);
    for ((system, place), row) in rows {
        let rate = row.s1.map(|(Spread { least, median, most }, _, _)| format!("{median:.0} [{least:.0}–{most:.0}]"));
        let cells = vec![
            rate,
            row.s1.map(|(_, _, in_flight)| in_flight.to_string()),
            row.s1.map(|(_, cpu, _)| format!("{cpu:.0}")),
            row.s2.map(|(p50, _)| format!("{p50:.2}")),
            row.s2.map(|(_, p99)| format!("{p99:.2}")),
            row.s3_seconds.map(|seconds| format!("{seconds:.3}")),
            row.s4_seconds.map(|seconds| format!("{seconds:.3}")),
        ];
        add(&mut table, format!("{}, {}", system.name(), form(*place)), cells);
    }
    table
}

fn ratios(rows: &BTreeMap<(SystemName, Form), Row>) -> Table {
    let mut table = table(&["", "S1 rate", "S1 CPU", "S2 p50", "p99", "S3", "S4"]);
    for ((system, place), peer) in rows {
        let Some(ours) = system.counterpart() else { continue };
        for mine in ours.forms() {
            let Some(row) = rows.get(&(ours, *mine)) else { continue };
            let ratio = |high: Option<f64>, low: Option<f64>| Some(format!("{:.1}", high? / low?));
            let cells = vec![
                ratio(row.s1.map(|it| it.0.median), peer.s1.map(|it| it.0.median)),
                ratio(peer.s1.map(|it| it.1), row.s1.map(|it| it.1)),
                ratio(peer.s2.map(|it| it.0), row.s2.map(|it| it.0)),
                ratio(peer.s2.map(|it| it.1), row.s2.map(|it| it.1)),
                ratio(peer.s3_seconds, row.s3_seconds),
                ratio(peer.s4_seconds, row.s4_seconds),
            ];
            let name = format!("{}, {} : {}, {}", ours.name(), form(*mine), system.name(), form(*place));
            add(&mut table, name, cells);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{measured, record};

    #[test]
    fn medians_of_the_best_load_and_their_ratios_are_told() {
        let peer =
            |in_flight, rate| measured(SystemName::Restate1, Form::Inside, Scenario::S1, in_flight, rate, 1_300.0);
        let ours = |rate| measured(SystemName::Embedded, Form::Dispatched, Scenario::S1, 256, rate, 130.0);
        let record =
            record(vec![peer(32, 900.0), peer(256, 1_900.0), peer(256, 1_000.0), peer(256, 1_500.0), ours(12_000.0)]);
        let text = text(&record);
        for part in
            ["abc", "restate-1: 1.2.3", "synced", "1500 [1000–1900]", "12000 [12000–12000]", "fdatasync p50 5 µs"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let ratios =
            text.lines().find(|line| line.contains("embedded, steps dispatched : restate-1, steps inside")).unwrap();
        assert!(ratios.contains("8.0") && ratios.contains("10.0") && ratios.contains('–'), "{ratios}");
    }

    #[test]
    fn without_a_counterpart_there_is_no_ratio() {
        let text = text(&record(vec![measured(SystemName::Temporal, Form::Dispatched, Scenario::S2, 1, 5.0, 1.0)]));
        assert!(text.contains("200.00") && text.contains("400.00") && !text.contains("against"), "{text}");
    }
}
