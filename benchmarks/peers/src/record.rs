//! The record of a comparison, for programs and for adding to it.

use std::collections::BTreeMap;
use std::path::Path;

use nova_loadtest::machine::Machine;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::case::{Case, Form, Scenario};
use crate::load::Figures;
use crate::system::{About, SystemName};

/// All that was found out on one machine with one commit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it was begun.
    pub date: String,
    /// Of the checkout.
    pub commit: String,
    /// As `nova-loadtest` records it.
    pub machine: serde_json::Value,
    pub systems: BTreeMap<SystemName, About>,
    pub measurements: Vec<Measurement>,
}

/// One case in one round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurement {
    pub system: SystemName,
    pub scenario: Scenario,
    pub form: Form,
    pub in_flight: u32,
    #[serde(flatten)]
    pub figures: Figures,
    pub executions_per_s: f64,
    /// Of each kind of process.
    pub cpu_us_per_execution: BTreeMap<String, f64>,
    /// The sum: servers, database, worker, client.
    pub cpu_us_per_execution_total: f64,
    /// What neither the system nor the client used, in percent of all cores.
    pub others_percent: f64,
}

/// The same case on the same system.
pub(crate) type Key = (SystemName, Form, Scenario, u32);

impl Measurement {
    pub(crate) fn of(
        system: SystemName,
        case: &Case,
        figures: Figures,
        cpu_us: BTreeMap<String, f64>,
        others: f64,
    ) -> Self {
        let each: BTreeMap<_, _> =
            cpu_us.into_iter().map(|(kind, us)| (kind, us / figures.executions.max(1) as f64)).collect();
        Self {
            system,
            scenario: case.scenario,
            form: case.form,
            in_flight: case.in_flight,
            executions_per_s: figures.executions as f64 / figures.seconds.max(f64::MIN_POSITIVE),
            figures,
            cpu_us_per_execution_total: each.values().sum(),
            cpu_us_per_execution: each,
            others_percent: others,
        }
    }

    /// For people who wait.
    pub(crate) fn line(&self) -> String {
        let Figures { seconds, p50_ms, p99_ms, .. } = self.figures;
        format!(
            "{:.0}/s, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {seconds:.2} s, CPU {:.0} µs each, others {:.0} %",
            self.executions_per_s, self.cpu_us_per_execution_total, self.others_percent
        )
    }

    pub(crate) fn key(&self) -> Key {
        (self.system, self.form, self.scenario, self.in_flight)
    }
}

impl Record {
    pub(crate) fn new(machine: &Machine) -> Self {
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            commit: commit(),
            machine: serde_json::to_value(machine).expect("facts of texts and numbers are JSON"),
            systems: BTreeMap::new(),
            measurements: Vec::new(),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
        serde_json::from_str(&text).map_err(|error| Error::Record { path: path.to_owned(), why: error.to_string() })
    }

    /// Written beside its place first: what was measured before is not lost when the disk is full.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_string_pretty(self).expect("a record of texts and numbers is JSON");
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
        let file = tempfile::NamedTempFile::new_in(parent).map_err(Error::file("write into", parent))?;
        std::fs::write(file.path(), text + "\n").map_err(Error::file("write", path))?;
        let read = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(file.path(), read).map_err(Error::file("write", path))?;
        file.persist(path).map_err(|error| Error::file("write", path)(error.error))?;
        Ok(())
    }

    /// That what comes now may be compared with what is here.
    pub(crate) fn check(&self, path: &Path, now: &Self) -> Result<(), Error> {
        let differs = |what: &str, here: &str, now: &str| {
            let path = path.display();
            Err(Error::Options(format!("{path} is of {what} {here}, this is {now}; begin a new record")))
        };
        let machine = |record: &Self| ["cpu", "cores", "kernel"].map(|key| record.machine[key].to_string()).join(" ");
        if self.commit != now.commit {
            return differs("commit", &self.commit, &now.commit);
        }
        if machine(self) != machine(now) {
            return differs("the machine", &machine(self), &machine(now));
        }
        Ok(())
    }
}

/// The commit of the checkout that this was built in, if it is still there.
fn commit() -> String {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let said = git.output().ok().filter(|said| said.status.success());
    said.map_or_else(|| "unknown".into(), |said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::{Amount, Work};

    pub(crate) fn measured(
        system: SystemName,
        form: Form,
        scenario: Scenario,
        in_flight: u32,
        per_s: f64,
        cpu: f64,
    ) -> Measurement {
        let case = Case { scenario, form, work: Work::Chain { steps: 1 }, in_flight, amount: Amount::Count(1) };
        let ms = 1e3 / per_s;
        let figures =
            Figures { executions: 100, seconds: 100.0 / per_s, p50_ms: ms, p99_ms: ms * 2.0, ..Figures::default() };
        Measurement::of(
            system,
            &case,
            figures,
            BTreeMap::from([("server".into(), cpu * 60.0), ("client".into(), cpu * 40.0)]),
            1.0,
        )
    }

    pub(crate) fn record(measurements: Vec<Measurement>) -> Record {
        let machine = serde_json::json!({ "cpu": "c", "cores": 2, "kernel": "6", "memory_mib": 9, "fdatasync_p50_us": 5, "file_system": "ext4 on x" });
        let about = About { version: "1.2.3".into(), settings: vec!["synced".into()] };
        let systems = measurements.iter().map(|it| (it.system, about.clone())).collect();
        Record { date: "2026-01-01T00:00:00Z".into(), commit: "abc".into(), machine, systems, measurements }
    }

    #[test]
    fn a_record_comes_back_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/r.json");
        let one = record(vec![measured(SystemName::Restate1, Form::Inside, Scenario::S1, 32, 1_500.0, 1_300.0)]);
        one.write(&path).unwrap();
        let again = Record::read(&path).unwrap();
        assert_eq!((&again.measurements, &again.systems), (&one.measurements, &one.systems));
        assert!((again.measurements[0].cpu_us_per_execution_total - 1_300.0).abs() < 1e-6);
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Record::read(&path), Err(Error::Record { .. })));
        assert!(matches!(Record::read(dir.path().join("none").as_path()), Err(Error::File { .. })));
    }

    #[test]
    fn only_what_can_be_compared_is_put_together() {
        let one = record(vec![]);
        let path = Path::new("r.json");
        assert!(one.check(path, &one).is_ok());
        let other = Record { commit: "def".into(), ..one.clone() };
        assert!(one.check(path, &other).unwrap_err().to_string().contains("commit abc, this is def"));
        let mut other = one.clone();
        other.machine["cpu"] = "another".into();
        assert!(one.check(path, &other).is_err());
    }
}
