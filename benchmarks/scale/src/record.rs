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
    let record: Record =
        serde_json::from_str(&text).map_err(|source| InputError::Json { path: path.into(), source })?;
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
