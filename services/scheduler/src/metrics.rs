//! What a scheduler measures.

/// Shards owned.
pub(crate) const SHARDS: &str = "nova_scheduler_shards";
/// Shards that were stopped with an alarm: their command topic is not the one that was applied, or has a record of a
/// newer version.
pub(crate) const HALTED: &str = "nova_scheduler_shards_halted";
/// Records read and not proposed yet.
pub(crate) const BUFFERED: &str = "nova_scheduler_buffered_records";
/// Proposals on their way.
pub(crate) const IN_FLIGHT: &str = "nova_scheduler_proposals_in_flight";
/// Records per proposal.
pub(crate) const BATCH: &str = "nova_scheduler_proposal_records";
/// From sending a proposal to its verdict, in seconds.
pub(crate) const PROPOSE_SECONDS: &str = "nova_scheduler_propose_seconds";
/// Outbox messages that the bus has not acknowledged, in bytes.
pub(crate) const PUBLISHING: &str = "nova_scheduler_publishing_bytes";
/// Offers evaluated.
pub(crate) const EVALUATIONS: &str = "nova_scheduler_evaluations_total";
/// Records dropped as foreign or damaged.
pub(crate) const DROPPED: &str = "nova_scheduler_records_dropped_total";
/// Times that positions were asked anew.
pub(crate) const RECOVERIES: &str = "nova_scheduler_recoveries_total";
/// Evaluating the offers that came together, in seconds.
pub(crate) const EVALUATE_SECONDS: &str = "nova_scheduler_evaluate_seconds";
/// Records of commands on the bus that are not proposed yet, over all shards owned.
pub(crate) const LAG: &str = "nova_scheduler_commands_lag_records";
/// Age of the oldest record that is read and not proposed, in seconds.
pub(crate) const OLDEST: &str = "nova_scheduler_oldest_record_seconds";
