//! Points from the records of `nova-loadtest`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::input::{InputError, Point};

#[derive(Debug, Deserialize)]
struct Record {
    scenario: String,
    target: String,
    verified: bool,
    phases: Vec<Phase>,
}

#[derive(Debug, Deserialize)]
struct Phase {
    name: String,
    open: bool,
    executions_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us_per_execution: BTreeMap<String, f64>,
}

/// The phases of a record, each a point.
pub(crate) fn points(path: &Path) -> Result<Vec<Point>, InputError> {
    let text = std::fs::read_to_string(path).map_err(|source| InputError::Read { path: path.into(), source })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<Vec<Point>, InputError> {
    let record: Record = serde_json::from_str(text).map_err(|source| InputError::Json { path: path.into(), source })?;
    let tasks = match record.scenario.as_str() {
        "s1" => 1,
        "s2" => 10,
        _ => 0,
    };
    if tasks == 0 || !record.verified {
        return Err(InputError::Record { path: path.into() });
    }
    let points = record.phases.into_iter().map(|phase| {
        // "closed 256", "open 4269/s"
        let number = phase.name.split([' ', '/']).nth(1).and_then(|it| it.parse::<f64>().ok());
        let number = number.ok_or_else(|| InputError::Record { path: path.into() })?;
        Ok(Point {
            layout: record.target.clone(),
            tasks,
            closed: (!phase.open).then_some(number as u32),
            open: phase.open.then_some(number),
            per_s: phase.executions_per_s,
            p50_ms: phase.p50_ms,
            p99_ms: phase.p99_ms,
            cpu: phase.cpu_us_per_execution,
            source_of_costs: false,
        })
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(scenario: &str, verified: bool, name: &str) -> Result<Vec<Point>, InputError> {
        let open = name.starts_with("open");
        let phase = format!(
            r#"{{"name": "{name}", "open": {open}, "executions_per_s": 1, "p50_ms": 2, "p99_ms": 3, "cpu_us_per_execution": {{}}}}"#
        );
        let text = format!(
            r#"{{"scenario": "{scenario}", "target": "kafka-1", "verified": {verified}, "phases": [{phase}]}}"#
        );
        parse(&text, Path::new("it.json"))
    }

    #[test]
    fn the_load_is_in_the_name_of_a_phase() {
        let closed = &record("s1", true, "closed 256").expect("it is a record")[0];
        assert_eq!((closed.tasks, closed.closed, closed.open), (1, Some(256), None));
        let open = &record("s2", true, "open 4269/s").expect("it is a record")[0];
        assert_eq!((open.tasks, open.closed, open.open), (10, None, Some(4_269.0)));
    }

    #[test]
    fn what_is_not_verified_or_of_another_scenario_is_refused() {
        for (scenario, verified, name) in [("s4", true, "closed 1"), ("s1", false, "closed 1"), ("s1", true, "fan")] {
            let error = record(scenario, verified, name).expect_err("it is refused").to_string();
            assert_eq!(error, "it.json is not a verified record of scenario s1 or s2");
        }
    }
}
