//! What an api measures.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};

use crate::state::App;

/// Requests by `route` and `status`.
pub(crate) const REQUESTS: &str = "nova_api_requests_total";
/// How long requests took, in seconds, by `route`.
pub(crate) const REQUEST_SECONDS: &str = "nova_api_request_seconds";
/// Submissions by `outcome` (`accepted`, `rejected`, `received`, `too_busy`, `not_sent`, `unknown`).
const SUBMISSIONS: &str = "nova_api_submissions_total";
/// From taking a submission to its committed answer, in seconds.
const SUBMIT_SECONDS: &str = "nova_api_submit_seconds";
/// Submissions that wait for their answer.
const UNANSWERED: &str = "nova_api_unanswered";
/// Requests that wait for an answer of the cluster or the end of an execution.
const WAITING: &str = "nova_api_waiting";
/// How long the oldest of them waits, in seconds.
const OLDEST: &str = "nova_api_oldest_waiting_seconds";
/// Records of replies on the bus that are not read yet.
const REPLIES_LAG: &str = "nova_api_replies_lag_records";
/// Commands gathered into one record.
pub(crate) const BATCH: &str = "nova_api_submit_batch_records";

/// How often gauges are set.
const EVERY: Duration = Duration::from_secs(1);

/// What is measured of each submission. Looked up once: they are many.
pub(crate) struct Submissions {
    pub accepted: Counter,
    pub rejected: Counter,
    pub received: Counter,
    pub too_busy: Counter,
    pub not_sent: Counter,
    pub unknown: Counter,
    pub seconds: Histogram,
}

impl Submissions {
    pub(crate) fn new() -> Self {
        let of = |outcome| counter!(SUBMISSIONS, "outcome" => outcome);
        Self {
            accepted: of("accepted"),
            rejected: of("rejected"),
            received: of("received"),
            too_busy: of("too_busy"),
            not_sent: of("not_sent"),
            unknown: of("unknown"),
            seconds: histogram!(SUBMIT_SECONDS),
        }
    }
}

/// Sets the gauges, as long as it runs.
pub(crate) async fn run(app: App) {
    loop {
        gauge!(UNANSWERED).set(app.submitter.unanswered() as f64);
        let (waiting, oldest) = app.replies.waiting();
        gauge!(WAITING).set(waiting as f64);
        gauge!(OLDEST).set(oldest.as_secs_f64());
        if let Some(lag) = app.replies.lag(&app.bus).await {
            gauge!(REPLIES_LAG).set(lag as f64);
        }
        tokio::time::sleep(EVERY).await;
    }
}
