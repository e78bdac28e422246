//! What a history measures.

/// Times that reading the event topic began anew.
pub(crate) const RESTARTS: &str = "nova_history_restarts_total";
/// Messages of events written.
pub(crate) const EVENTS: &str = "nova_history_events_total";
/// Records dropped as foreign or damaged.
pub(crate) const DROPPED: &str = "nova_history_records_dropped_total";
/// Writing what was gathered, in seconds.
pub(crate) const WRITE_SECONDS: &str = "nova_history_write_seconds";
/// Records of events on the bus that are not written yet.
pub(crate) const LAG: &str = "nova_history_lag_records";
/// For how long something was missing, in seconds.
pub(crate) const AGE: &str = "nova_history_age_seconds";
