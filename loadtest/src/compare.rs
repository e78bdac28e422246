//! This run beside an older one.

use std::fmt::Write;
use std::path::Path;

use comfy_table::{Cell, CellAlignment};
use serde_json::Value;

use crate::args::Args;
use crate::report::{Spread, empty_table, round};
use crate::{Error, Record};

/// Figures of a loop that are compared: those that say how fast it was and what it cost.
const OF_A_LOOP: [(&str, &str); 6] = [
    ("seconds", "s"),
    ("executions_per_s", "exec/s"),
    ("p50_ms", "ms"),
    ("p99_ms", "ms"),
    ("p999_ms", "ms"),
    ("cpu_us_per_execution_total", "µs each"),
];

/// The record of an older run.
#[derive(Clone, Debug)]
pub struct Old {
    record: Value,
    name: String,
}

impl Old {
    /// Reads one with which a run of `args` can be compared.
    ///
    /// # Errors
    /// When it is no record, is of something else, or was not verified.
    pub fn read(path: &Path, args: &Args) -> Result<Self, Error> {
        let name = path.display().to_string();
        let unusable = |why: String| Error::Incomparable { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
        let record: Value =
            serde_json::from_str(&text).map_err(|error| unusable(format!("it is no record: {error}")))?;
        let expected =
            [("scenario", args.scenario.name()), ("target", args.target.name()), ("work", args.work().name())];
        for (field, ours) in expected {
            match record[field].as_str() {
                Some(theirs) if theirs == ours => {}
                Some(theirs) => {
                    return Err(unusable(format!("its {field} is {theirs}, that of this run is {ours}")));
                }
                None => return Err(unusable(format!("it is no record: it has no {field}"))),
            }
        }
        if record["verified"] != true {
            return Err(unusable("its results were not verified".into()));
        }
        Ok(Self { record, name })
    }

    /// Each figure, old and new, with the change.
    ///
    /// # Panics
    /// Never: a record is JSON.
    #[must_use]
    pub fn beside(&self, new: &Record) -> String {
        let new = serde_json::to_value(new).expect("a record of texts and numbers is JSON");
        let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("unknown").to_owned();
        let mut said =
            format!("compared with {}: {} → {}\n", self.name, text(&self.record, "commit"), text(&new, "commit"));
        for field in ["/machine/cpu", "/machine/cores", "/machine/file_system", "/keyed", "/parked_before"] {
            let (old, new) = (self.record.pointer(field), new.pointer(field));
            if old != new {
                let show = |value: Option<&Value>| value.map_or_else(|| "unknown".into(), ToString::to_string);
                let _ = writeln!(said, "  {}: {} → {}", &field[1..], show(old), show(new));
            }
        }
        let _ = writeln!(said, "{}", rows(&figures(&self.record), &figures(&new)));
        said
    }
}

/// Name, unit and value of all figures of a record, medians where there are several.
fn figures(record: &Value) -> Vec<(String, String, f64)> {
    let list = |name: &str| record[name].as_array().cloned().unwrap_or_default();
    let phases = list("phases");
    let mut all = Vec::new();
    let mut keys: Vec<(&str, u64)> = Vec::new();
    let key = |phase: &Value| phase["batch"].as_u64().unwrap_or(1);
    for phase in &phases {
        let this = (phase["key"].as_str().unwrap_or_default(), key(phase));
        if !keys.contains(&this) {
            keys.push(this);
        }
    }
    for (name, batch) in keys {
        let same: Vec<_> = phases.iter().filter(|it| it["key"] == name && key(it) == batch).collect();
        let by = if batch > 1 { format!(" by {batch}") } else { String::new() };
        for (field, unit) in OF_A_LOOP {
            let values = same.iter().filter_map(|phase| phase[field].as_f64()).collect();
            if let Some(spread) = Spread::of(values) {
                all.push((format!("{name}{by}: {field}"), unit.to_owned(), spread.median));
            }
        }
    }
    for figure in list("figures") {
        if let (Some(name), Some(unit), Some(median)) =
            (figure["name"].as_str(), figure["unit"].as_str(), figure["median"].as_f64())
        {
            all.push((name.to_owned(), unit.to_owned(), median));
        }
    }
    all
}

fn rows(old: &[(String, String, f64)], new: &[(String, String, f64)]) -> String {
    let mut table = empty_table();
    table.set_header(["", "old", "new", "change", "unit"]);
    let find = |all: &[(String, String, f64)], name: &str| all.iter().find(|it| it.0 == name).map(|it| it.2);
    let gone = old.iter().filter(|it| find(new, &it.0).is_none());
    for (name, unit, _) in new.iter().chain(gone) {
        let (old, new) = (find(old, name), find(new, name));
        let show = |value: Option<f64>| value.map_or_else(|| "–".into(), round);
        let change = match (old, new) {
            (Some(old), Some(new)) if old != 0.0 => format!("{:+.1} %", 100.0 * (new - old) / old),
            _ => "–".into(),
        };
        let mut row = vec![Cell::new(name)];
        row.extend([show(old), show(new), change].map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
        row.push(Cell::new(unit));
        table.add_row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::report::tests::record;

    fn args(words: &str) -> Args {
        Args::try_parse_from(["nova-loadtest"].into_iter().chain(words.split_whitespace())).unwrap()
    }

    fn read(record: &Value, words: &str) -> Result<Old, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.json");
        std::fs::write(&path, record.to_string()).unwrap();
        Old::read(&path, &args(words))
    }

    #[test]
    fn each_figure_is_told_with_its_change() {
        let mut new = record();
        let old = read(&serde_json::to_value(&new).unwrap(), "s1").unwrap();
        new.phases.iter_mut().for_each(|phase| phase.executions_per_s *= 1.5);
        new.figures[0].median = 44_444.0;
        new.figures[0].name = "other".into();
        new.parked_before = 5;
        let text = old.beside(&new);
        let row = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}"));
        for (name, parts) in [
            ("closed: executions_per_s", ["77777", "116666", "+50.0 %"]),
            ("closed: p50_ms", ["1.000", "1.000", "+0.0 %"]),
            // Only one of the two has it.
            ("gap", ["88888", "–", "–"]),
            ("other", ["–", "44444", "–"]),
            ("parked_before", ["0", "→", "5"]),
        ] {
            for part in parts {
                assert!(row(name).contains(part), "{part}: {text}");
            }
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        let good = serde_json::to_value(record()).unwrap();
        let refused = |record: &Value, words: &str| match read(record, words) {
            Err(Error::Incomparable { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&good, "s2"), "its scenario is s1, that of this run is s2");
        assert_eq!(refused(&good, "s1 --target kafka-1"), "its target is embedded, that of this run is kafka-1");
        assert_eq!(refused(&good, "s1 --work echo"), "its work is noop, that of this run is echo");
        let mut wrong = good.clone();
        wrong["verified"] = false.into();
        assert_eq!(refused(&wrong, "s1"), "its results were not verified");
        assert!(refused(&serde_json::json!([1]), "s1").contains("no record"));
        let missing = Old::read(Path::new("/no/such/old.json"), &args("s1"));
        assert!(matches!(missing, Err(Error::Incomparable { .. })));
    }
}
