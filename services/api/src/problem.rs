//! Errors as RFC 9457 problems.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nova_client::ClientError;
use nova_history::HistoryError;
use nova_wire::v1;
use serde::Serialize;
use utoipa::ToSchema;

/// The codes of all problems; each has a heading in `docs/reference/errors.md`.
pub const PROBLEM_CODES: &[&str] = &[
    "OUTCOME_UNKNOWN",
    "bad_request",
    "document.invalid",
    "execution.ended",
    "idempotency.conflict",
    "input.invalid",
    "invalid",
    "limit.batch",
    "limit.body",
    "limit.headers",
    "limit.payload",
    "media_type",
    "method_not_allowed",
    "namespace.unknown",
    "not_found",
    "refused",
    "request.slow",
    "source.repeated",
    "too_busy",
    "trigger.invalid",
    "unavailable",
    "workflow.changed",
    "workflow.unknown",
];

/// An error, as RFC 9457 wants it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: a page of the reference.
    #[serde(rename = "type")]
    pub kind: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// For people.
    pub title: String,
    /// More about this one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The execution that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<String>,
    /// Each place that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Place>,
    #[serde(skip)]
    retry_after_seconds: Option<u64>,
}

/// A place that is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Place {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// JSON pointer or path in the document.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, title: &str) -> Self {
        debug_assert!(PROBLEM_CODES.contains(&code), "{code} is not in the list that the reference is held to");
        Self {
            // As the headings of the page are named.
            kind: format!("https://novaflow.dev/errors#{}", code.replace('.', "").to_lowercase()),
            status: status.as_u16(),
            code: code.into(),
            title: title.into(),
            detail: String::new(),
            execution: None,
            problems: Vec::new(),
            retry_after_seconds: None,
        }
    }

    pub(crate) fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    pub(crate) fn execution(self, id: impl Into<String>) -> Self {
        Self { execution: Some(id.into()), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_seconds: Some(seconds), ..self }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "the request is not understood").detail(detail)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is no such thing").detail(what)
    }

    pub(crate) fn unknown_namespace() -> Self {
        Self::new(StatusCode::NOT_FOUND, "namespace.unknown", "no such namespace")
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the cluster cannot take this now; nothing was changed",
        )
        .detail(detail)
        .retry_after(1)
    }

    pub(crate) fn too_busy(detail: impl Into<String>, seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_busy", "too much is waiting; nothing was changed")
            .detail(detail)
            .retry_after(seconds)
    }

    pub(crate) fn overloaded(seconds: u64) -> Self {
        Self::too_busy("more is submitted than can be done; of this namespace enough is under way", seconds)
    }

    pub(crate) fn outcome_unknown(detail: impl Into<String>) -> Self {
        let title = "the request was handed over and no answer came in time: it may or may not have been taken";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "OUTCOME_UNKNOWN", title).detail(detail)
    }

    pub(crate) fn invalid_document(problems: &nova_model::Problems) -> Self {
        let title = "the document is not a valid workflow";
        let places = problems.iter().map(Place::of_document).collect();
        Self { problems: places, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "document.invalid", title) }
    }

    pub(crate) fn invalid_trigger(problems: &[nova_trigger_rules::Problem]) -> Self {
        let place = |it: &nova_trigger_rules::Problem| Place {
            code: it.code.into(),
            message: it.message.clone(),
            help: None,
            path: it.path.clone(),
            line: None,
            column: None,
        };
        let title = "the document is not a valid trigger";
        let places = problems.iter().map(place).collect();
        Self { problems: places, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "trigger.invalid", title) }
    }

    pub(crate) fn invalid_input(problems: Vec<nova_model::InputProblem>) -> Self {
        let place = |it: nova_model::InputProblem| Place {
            code: "input.schema".into(),
            message: it.message,
            help: None,
            path: it.pointer,
            line: None,
            column: None,
        };
        let title = "the input does not fit the workflow's schema";
        let places = problems.into_iter().map(place).collect();
        Self { problems: places, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "input.invalid", title) }
    }

    pub(crate) fn body_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "limit.body", "the request body is too large").detail(detail)
    }

    pub(crate) fn too_long(what: &str, bytes: usize) -> Self {
        let title = "a value is out of its limits";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title)
            .detail(format!("{what}: {bytes} bytes; at most {}", nova_engine::limits::MAX_TEXT))
    }

    pub(crate) fn rejected(id: &str, rejection: &v1::Rejection) -> Self {
        use v1::rejection::Kind;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let problem = match rejection.kind() {
            Kind::UnknownNamespace => Self::unknown_namespace(),
            Kind::UnknownWorkflow => Self::new(StatusCode::NOT_FOUND, "workflow.unknown", "no such workflow version"),
            Kind::WorkflowChanged => {
                Self::new(StatusCode::CONFLICT, "workflow.changed", "the workflow version is another one; try again")
            }
            Kind::KeyConflict => {
                let title = "the idempotency key was used with another request";
                let first = hex(&rejection.first);
                return Self::new(StatusCode::CONFLICT, "idempotency.conflict", title).execution(first);
            }
            Kind::SourceRepeated => {
                Self::new(StatusCode::CONFLICT, "source.repeated", "this number of the source was decided before")
            }
            Kind::QuotaExecutions => Self::too_busy("the namespace has as many open executions as it may", 5),
            Kind::QuotaKeys => Self::too_busy("the namespace has as many idempotency keys as it may", 60),
            Kind::BacklogFull => Self::too_busy("the backlog is full", 5),
            Kind::NotOpen => Self::new(StatusCode::CONFLICT, "execution.ended", "the execution has ended"),
            Kind::Invalid => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "a value is out of its limits")
                .detail(&*rejection.what),
            Kind::BadId | Kind::Unspecified => Self::unavailable("the submission was not taken; try again"),
        };
        problem.execution(id)
    }

    pub(crate) fn refused(refusal: &v1::Refusal) -> Self {
        use v1::refusal::Kind;
        match refusal.kind() {
            Kind::UnknownNamespace => Self::unknown_namespace(),
            Kind::NotFound => Self::not_found(&refusal.what),
            Kind::Invalid => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "a value is out of its limits")
                .detail(&*refusal.what),
            kind => Self::new(StatusCode::CONFLICT, "refused", "refused").detail(kind.as_str_name()),
        }
    }
}

impl Place {
    pub(crate) fn of_document(problem: &nova_model::Problem) -> Self {
        Self {
            code: problem.code.into(),
            message: problem.message.clone(),
            help: problem.help.clone(),
            path: problem.path.clone(),
            line: Some(problem.line),
            column: Some(problem.column),
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unavailable { last } => Self::unavailable(format!("no coordinator leads: {last}")),
            ClientError::OutcomeUnknown(why) => Self::outcome_unknown(why),
            ClientError::Refused(status) => Self::bad_request(status.message()),
        }
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        tracing::error!(%error, source = ?std::error::Error::source(&error), "the history failed");
        Self::unavailable("the history cannot be read")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_seconds;
        let mut response = (status, Json(self)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
