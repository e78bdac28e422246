//! Who used how much CPU between two moments.

use std::collections::BTreeMap;
use std::time::Duration;

use nova_testkit::own_usage;

use crate::Error;
use crate::machine::Ticks;
use crate::target::Target;

/// Counters at one moment.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    by_kind: BTreeMap<&'static str, Duration>,
    resident: BTreeMap<&'static str, u64>,
    ticks: Ticks,
}

/// What was used between two moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// CPU of each kind of process, `generator` among them.
    pub by_kind: BTreeMap<&'static str, Duration>,
    /// Memory of each kind at the end, in bytes.
    pub resident: BTreeMap<&'static str, u64>,
    /// Share of all cores that was busy, in percent.
    pub busy_percent: f64,
}

impl Reading {
    pub(crate) fn take(target: &Target) -> Result<Self, Error> {
        let mut all = target.usage()?;
        all.insert("generator", own_usage()?);
        let by_kind = all.iter().map(|(kind, usage)| (*kind, usage.cpu)).collect();
        let resident = all.iter().map(|(kind, usage)| (*kind, usage.rss_bytes)).collect();
        Ok(Self { by_kind, resident, ticks: Ticks::now()? })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let before = |kind| earlier.by_kind.get(kind).copied().unwrap_or_default();
        let by_kind = self.by_kind.iter().map(|(kind, cpu)| (*kind, cpu.saturating_sub(before(kind)))).collect();
        let busy_percent = self.ticks.busy_percent_since(earlier.ticks);
        Used { by_kind, resident: self.resident.clone(), busy_percent }
    }
}

impl Used {
    /// Microseconds per execution, by kind.
    pub(crate) fn per_execution(&self, executions: u64) -> BTreeMap<&'static str, f64> {
        let each = |cpu: &Duration| cpu.as_secs_f64() * 1e6 / executions.max(1) as f64;
        self.by_kind.iter().map(|(kind, cpu)| (*kind, each(cpu))).collect()
    }

    /// What neither the target nor the generator used, in percent of all cores.
    pub(crate) fn others_percent(&self, window: Duration, cores: usize) -> f64 {
        let ours: f64 = self.by_kind.values().map(Duration::as_secs_f64).sum();
        let all = window.as_secs_f64() * cores as f64;
        (self.busy_percent - 100.0 * ours / all.max(f64::MIN_POSITIVE)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_told_apart_and_per_execution() {
        let reading = |worker, api, busy| Reading {
            by_kind: BTreeMap::from([("worker", Duration::from_millis(worker)), ("api", Duration::from_millis(api))]),
            resident: BTreeMap::from([("worker", worker)]),
            ticks: Ticks { busy, total: busy * 2 },
        };
        let used = reading(1_500, 700, 300).since(&reading(500, 200, 100));
        assert_eq!(used.by_kind["worker"], Duration::from_secs(1));
        assert_eq!((used.per_execution(1_000)["worker"], used.per_execution(1_000)["api"]), (1_000.0, 500.0));
        assert_eq!(used.resident["worker"], 1_500);
        // Half of two cores for two seconds is 2 s of CPU; 1.5 s of it were ours.
        assert!((used.others_percent(Duration::from_secs(2), 2) - 12.5).abs() < 1e-9);
    }
}
