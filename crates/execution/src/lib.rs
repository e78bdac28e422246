//! What a worker asks of those who carry out work.
//!
//! Owns: the words *task*, *executor*, *failure*.
//! Must not know: leases, the bus, how results travel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// One attempt.
#[derive(Clone, Debug)]
pub struct Task {
    /// Kind of work.
    pub kind: Box<str>,
    /// Tenant.
    pub namespace: Box<str>,
    /// The execution: 32 hexadecimal digits.
    pub execution: Box<str>,
    /// Id of the node in the document.
    pub node: Box<str>,
    /// The same for all attempts of one visit of the node, and for nothing else: what an effect is recognised by.
    pub idempotency_key: Box<str>,
    /// From 1.
    pub attempt: u32,
    /// Fencing token: another one for each assignment, and only growing for all attempts of a visit. Who keeps the highest
    /// that it has seen can refuse what comes of an attempt that is over.
    pub token: u64,
    /// The argument as JSON.
    pub with: Bytes,
    /// The attempt is taken back after this long.
    pub timeout: Option<Duration>,
    /// W3C `traceparent` to send along, when the execution is traced.
    pub traceparent: Option<String>,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Lower-case segments: `http.5xx.503`.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether a retry policy without `only` repeats it.
    pub retryable: bool,
    /// At least this long before the next attempt.
    pub retry_after: Option<Duration>,
    /// JSON.
    pub detail: Option<Bytes>,
}

impl Failure {
    /// A failure that is repeated.
    pub fn retryable(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: true, retry_after: None, detail: None }
    }

    /// A failure that another attempt would only meet again.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retryable: false, ..Self::retryable(code, message) }
    }
}

/// Carries out one or more kinds of work.
#[async_trait]
pub trait Executor: Send + Sync {
    /// The kinds.
    fn kinds(&self) -> Vec<&'static str>;

    /// Runs an attempt; its output is JSON. Once `stop` is cancelled, nothing more may be done outside, and it returns
    /// soon.
    ///
    /// # Errors
    /// Why the attempt failed.
    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure>;
}

/// Executors by kind.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<&'static str, Arc<dyn Executor>>);

impl Registry {
    /// Adds one for all its kinds.
    #[must_use]
    pub fn with(mut self, executor: Arc<dyn Executor>) -> Self {
        for kind in executor.kinds() {
            self.0.insert(kind, Arc::clone(&executor));
        }
        self
    }

    /// The one for a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&Arc<dyn Executor>> {
        self.0.get(kind)
    }

    /// All kinds.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }
}
