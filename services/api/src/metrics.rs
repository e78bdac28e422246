//! What an api measures.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};
use parking_lot::RwLock;

use crate::state::App;

/// Requests by `route` and `status`.
const REQUESTS: &str = "nova_api_requests_total";
/// How long requests took, in seconds, by `route`.
const REQUEST_SECONDS: &str = "nova_api_request_seconds";
/// Submissions by `outcome` (`accepted`, `rejected`, `received`, `too_busy`, `unavailable`, `not_sent`, `unknown`).
const SUBMISSIONS: &str = "nova_api_submissions_total";
/// From taking a submission to its committed answer, in seconds.
const SUBMIT_SECONDS: &str = "nova_api_submit_seconds";
/// Submissions refused with 429 by this api, by `reason` (`overload`, `shard`, `window`).
const REFUSED: &str = "nova_api_refused_total";
/// Submissions that may be under way; 0 while there is no limit.
const ADMISSION_LIMIT: &str = "nova_api_admission_limit";
/// What the cluster took for the answers of the last look, in seconds, to which the limit is adapted.
const ADMISSION_ANSWER: &str = "nova_api_admission_answer_seconds";
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

/// What is measured of each request. By route and status it is looked up once, since requests are many.
#[derive(Default)]
pub(crate) struct Requests(RwLock<BTreeMap<Box<str>, BTreeMap<u16, (Counter, Histogram)>>>);

impl Requests {
    pub(crate) fn note(&self, route: &str, status: u16, took: Duration) {
        if let Some((count, seconds)) = self.0.read().get(route).and_then(|route| route.get(&status)) {
            count.increment(1);
            return seconds.record(took.as_secs_f64());
        }
        let count = counter!(REQUESTS, "route" => route.to_owned(), "status" => status.to_string());
        let seconds = histogram!(REQUEST_SECONDS, "route" => route.to_owned());
        count.increment(1);
        seconds.record(took.as_secs_f64());
        self.0.write().entry(route.into()).or_default().insert(status, (count, seconds));
    }
}

/// What is measured of each submission. Looked up once: they are many.
pub(crate) struct Submissions {
    pub accepted: Counter,
    pub rejected: Counter,
    pub received: Counter,
    too_busy: Counter,
    refused: [Counter; 3],
    pub unavailable: Counter,
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
            refused: ["overload", "shard", "window"].map(|reason| counter!(REFUSED, "reason" => reason)),
            unavailable: of("unavailable"),
            not_sent: of("not_sent"),
            unknown: of("unknown"),
            seconds: histogram!(SUBMIT_SECONDS),
        }
    }

    /// One was refused because all that is under way takes too long.
    pub(crate) fn overloaded(&self) {
        self.too_busy(0);
    }

    /// One was refused because its shard has enough to do.
    pub(crate) fn shard_is_busy(&self) {
        self.too_busy(1);
    }

    /// One was refused because too many of its shard wait for their answer.
    pub(crate) fn window_is_full(&self) {
        self.too_busy(2);
    }

    fn too_busy(&self, reason: usize) {
        self.too_busy.increment(1);
        self.refused[reason].increment(1);
    }
}

/// Sets the gauges, as long as it runs.
pub(crate) async fn run(app: App) {
    loop {
        gauge!(UNANSWERED).set(app.submitter.unanswered() as f64);
        let (waiting, oldest) = app.replies.waiting();
        gauge!(WAITING).set(waiting as f64);
        gauge!(OLDEST).set(oldest.as_secs_f64());
        let (limit, taken) = app.admission.look();
        gauge!(ADMISSION_LIMIT).set(limit.unwrap_or(0.0));
        gauge!(ADMISSION_ANSWER).set(taken.as_secs_f64());
        if let Some(lag) = app.replies.lag(&app.bus).await {
            gauge!(REPLIES_LAG).set(lag as f64);
        }
        tokio::time::sleep(EVERY).await;
    }
}
