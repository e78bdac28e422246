//! What an api measures.

/// Requests by `route` and `status`.
pub(crate) const REQUESTS: &str = "nova_api_requests_total";
/// How long requests took, in seconds, by `route`.
pub(crate) const REQUEST_SECONDS: &str = "nova_api_request_seconds";
/// Submissions by `outcome`.
pub(crate) const SUBMISSIONS: &str = "nova_api_submissions_total";
/// From taking a submission to its committed answer, in seconds.
pub(crate) const SUBMIT_SECONDS: &str = "nova_api_submit_seconds";
/// Submissions that wait for their answer.
pub(crate) const UNANSWERED: &str = "nova_api_unanswered";
/// Commands gathered into one record.
pub(crate) const BATCH: &str = "nova_api_submit_batch_records";
