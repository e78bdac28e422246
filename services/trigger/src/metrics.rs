//! What a trigger service measures.

/// Executions submitted by `kind` (`cron`, `kafka`). Several services may submit the same one.
pub(crate) const FIRED: &str = "nova_trigger_fired_total";
/// Records and slots put aside, by `kind` and `reason` (a code).
pub(crate) const DEAD_LETTERS: &str = "nova_trigger_dead_letters_total";
/// Missed slots that were left out, as `catchUp` says.
pub(crate) const LEFT_OUT: &str = "nova_trigger_slots_left_out_total";
/// Triggers that run, by `kind`.
pub(crate) const TRIGGERS: &str = "nova_trigger_triggers";
/// Triggers whose document cannot be read.
pub(crate) const INVALID: &str = "nova_trigger_invalid_triggers";
/// Triggers that wait for something that is missing: a workflow, a topic.
pub(crate) const HELD: &str = "nova_trigger_held_triggers";
/// Records that stand behind the applied positions, over all triggers.
pub(crate) const KAFKA_LAG: &str = "nova_trigger_kafka_lag_records";
/// How late the latest trigger by time is, in seconds.
pub(crate) const CRON_LAG: &str = "nova_trigger_cron_lag_seconds";
/// Things that went wrong and were tried again, by `what`.
pub(crate) const ERRORS: &str = "nova_trigger_errors_total";
/// Partitions that are not read any more, with an alarm: their topic was made anew.
pub(crate) const HALTED: &str = "nova_trigger_partitions_halted";
/// Records that were gone before they were read.
pub(crate) const LOST: &str = "nova_trigger_records_lost_total";
/// From submitting to the acknowledgement of the bus, in seconds, of the first submission of each record.
pub(crate) const ACKNOWLEDGE_SECONDS: &str = "nova_trigger_acknowledge_seconds";
/// Submissions that the bus has not acknowledged, in bytes.
pub(crate) const WAITING: &str = "nova_trigger_submissions_waiting_bytes";
