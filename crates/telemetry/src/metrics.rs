//! What telemetry measures about itself.

/// Spans that the receiver took.
pub(crate) const SPANS_SENT: &str = "nova_trace_spans_sent_total";
/// Spans that were dropped, since the receiver did not take them in time.
pub(crate) const SPANS_LOST: &str = "nova_trace_spans_lost_total";
