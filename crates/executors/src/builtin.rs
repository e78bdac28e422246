//! `noop`, `echo`, `sleep`, `fail`: for trying workflows out and for tests.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_execution::{Executor, Failure, Task};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::argument;

/// Longest sleep: a `wait` costs no slot, this one does.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1_000;

pub(crate) struct Builtin;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sleep {
    /// Milliseconds.
    ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fail {
    code: String,
    message: String,
    retryable: bool,
    /// Only the first this many attempts fail; all when left out.
    attempts: Option<u32>,
}

impl Default for Fail {
    fn default() -> Self {
        Self { code: "task.failed".into(), message: "asked to fail".into(), retryable: true, attempts: None }
    }
}

#[async_trait]
impl Executor for Builtin {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["noop", "echo", "sleep", "fail"]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        match &*task.kind {
            "echo" => Ok(task.with.clone()),
            "sleep" => {
                let Sleep { ms } = argument(task)?;
                if ms > LONGEST_MS {
                    let why = format!("sleep: {ms} ms is above {LONGEST_MS}");
                    return Err(Failure::permanent("task.bad_argument", why));
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(Bytes::from_static(b"null")),
                    () = stop.cancelled() => Err(Failure::retryable("task.stopped", "stopped while sleeping")),
                }
            }
            "fail" => {
                let Fail { code, message, retryable, attempts } = argument::<Option<Fail>>(task)?.unwrap_or_default();
                if attempts.is_some_and(|attempts| task.attempt > attempts) {
                    return Ok(Bytes::from_static(b"null"));
                }
                Err(Failure { retryable, ..Failure::retryable(code, message) })
            }
            _ => Ok(Bytes::from_static(b"null")),
        }
    }
}
