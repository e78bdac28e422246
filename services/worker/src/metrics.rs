//! What a worker measures.

use std::collections::BTreeMap;

use metrics::{Counter, Histogram, counter, histogram};

/// Attempts by `kind` and `outcome` (`completed`, `failed`, `stopped`).
const ATTEMPTS: &str = "nova_worker_attempts_total";
/// How long attempts ran, in seconds, by `kind`.
const ATTEMPT_SECONDS: &str = "nova_worker_attempt_seconds";
/// Attempts that run now.
pub(crate) const RUNNING: &str = "nova_worker_running";
/// Attempts that may run at once.
pub(crate) const SLOTS: &str = "nova_worker_slots";
/// How long the oldest attempt that runs does so, in seconds.
pub(crate) const OLDEST: &str = "nova_worker_oldest_attempt_seconds";
/// Sessions begun.
pub(crate) const SESSIONS: &str = "nova_worker_sessions_total";
/// Results that the bus has not acknowledged, in bytes.
pub(crate) const RESULTS_WAITING: &str = "nova_worker_results_waiting_bytes";
/// From sending a renewal to its answer, in seconds.
pub(crate) const RENEWAL_SECONDS: &str = "nova_worker_renewal_seconds";
/// Records of the inbox that are not read yet; other workers' are among them.
pub(crate) const LAG: &str = "nova_worker_inbox_lag_records";

/// What is measured of attempts of a kind. Looked up once: attempts are many.
#[derive(Clone)]
pub(crate) struct Attempts {
    pub seconds: Histogram,
    pub completed: Counter,
    pub failed: Counter,
    pub stopped: Counter,
}

impl Attempts {
    pub(crate) fn of(kinds: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, Self> {
        let of = |kind| {
            let ended = |outcome| counter!(ATTEMPTS, "kind" => kind, "outcome" => outcome);
            let seconds = histogram!(ATTEMPT_SECONDS, "kind" => kind);
            let (completed, failed, stopped) = (ended("completed"), ended("failed"), ended("stopped"));
            (kind, Self { seconds, completed, failed, stopped })
        };
        kinds.map(of).collect()
    }
}
