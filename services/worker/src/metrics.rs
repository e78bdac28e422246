//! What a worker measures.

/// Attempts by `kind` and `outcome` (`completed`, `failed`, `stopped`).
pub(crate) const ATTEMPTS: &str = "nova_worker_attempts_total";
/// How long attempts ran, in seconds, by `kind`.
pub(crate) const ATTEMPT_SECONDS: &str = "nova_worker_attempt_seconds";
/// Attempts that run now.
pub(crate) const RUNNING: &str = "nova_worker_running";
/// Sessions begun.
pub(crate) const SESSIONS: &str = "nova_worker_sessions_total";
/// Results that the bus has not acknowledged, in bytes.
pub(crate) const RESULTS_WAITING: &str = "nova_worker_results_waiting_bytes";
/// From sending a renewal to its answer, in seconds.
pub(crate) const RENEWAL_SECONDS: &str = "nova_worker_renewal_seconds";
