//! What all handlers share.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use nova_bus::SharedBus;
use nova_client::Coordinators;
use nova_client::load::Load;
use nova_engine::ids::ExecutionId;
use nova_history::{History, Ingester};

use crate::admission::Admission;
use crate::config::Config;
use crate::metrics::Submissions;
use crate::problem::Problem;
use crate::replies::Replies;
use crate::submitter::Submitter;
use crate::workflows::Workflows;

/// Longest wait for an answer of the coordinators.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A leader with a quorum that is silent for longer than this is gone for now: longer than an election and a look.
const SILENCE: Duration = Duration::from_secs(5);

pub(crate) struct Shared {
    pub config: Config,
    pub bus: SharedBus,
    pub coordinators: Coordinators,
    pub load: Load,
    pub admission: Arc<Admission>,
    pub workflows: Arc<Workflows>,
    pub replies: Arc<Replies>,
    pub submitter: Submitter,
    pub submissions: Submissions,
    pub history: History,
    pub ingester: Ingester,
}

impl Shared {
    /// Why nothing would be committed now; none: as far as known it would be. An election is no reason yet.
    pub(crate) fn cannot_commit(&self) -> Option<String> {
        match self.load.age() {
            None => Some("no coordinator with a quorum was reached yet".into()),
            Some(age) if age > SILENCE => {
                Some(format!("no coordinator with a quorum has answered for {} s", age.as_secs()))
            }
            Some(_) => None,
        }
    }
}

pub(crate) type App = Arc<Shared>;

/// The namespace of a request: header `Nova-Namespace`, else `default`.
pub(crate) struct Namespace(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Namespace {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.headers.get("nova-namespace") {
            None => Ok(Self("default".into())),
            Some(value) => match value.to_str() {
                Ok(name) if (1..=256).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Ok(Self(name.into()))
                }
                _ => Err(Problem::bad_request("header Nova-Namespace: 1 to 256 visible ASCII characters")),
            },
        }
    }
}

/// The execution named in the path.
pub(crate) struct Id(pub ExecutionId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        text.parse()
            .map(Self)
            .map_err(|error: nova_engine::ids::BadExecutionId| Problem::bad_request(error.to_string()))
    }
}

/// `Prefer: wait=10` or `Prefer: respond-async` (RFC 7240).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    pub wait: Option<Duration>,
    pub respond_async: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut prefer = Self::default();
        for value in parts.headers.get_all("prefer") {
            let text = value.to_str().map_err(|_| Problem::bad_request("header Prefer is not ASCII"))?;
            for word in text.split([',', ';']).map(str::trim) {
                if let Some(seconds) = word.strip_prefix("wait=") {
                    let seconds = seconds.parse().map_err(|_| {
                        Problem::bad_request(format!("header Prefer: wait={seconds} is not a number of seconds"))
                    })?;
                    prefer.wait = Some(Duration::from_secs(seconds));
                } else if word == "respond-async" {
                    prefer.respond_async = true;
                }
            }
        }
        Ok(prefer)
    }
}
