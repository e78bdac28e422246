//! What workers of the simulation carry out: they note it, and come to a number.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use nova_checker::{Effect, Id};
use nova_execution::{Executor, Failure, Registry, Task};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::os;
use crate::workload::WORK;

/// As often an attempt does something.
const STEP: Duration = Duration::from_millis(100);

/// How long a slow attempt takes.
const SLOW: Duration = Duration::from_secs(6);

/// What all workers did.
pub(crate) type Effects = Arc<Mutex<Vec<Effect>>>;

/// The executors of a worker.
pub(crate) fn registry(process: &str, effects: Effects) -> Registry {
    Registry::default().with(Arc::new(Work { process: process.to_owned(), effects }))
}

struct Work {
    process: String,
    effects: Effects,
}

#[derive(Deserialize)]
struct Argument {
    value: Value,
    ms: u64,
    /// The first so many attempts fail; below zero: all, and for good.
    fails: i64,
    /// The first so many attempts take longer than they may.
    #[serde(default)]
    slow: u32,
}

impl Work {
    /// An attempt begins; gives its place among the effects.
    fn begin(&self, task: &Task) -> usize {
        let now = os::now_ns().unsigned_abs();
        let mut effects = self.effects.lock();
        effects.push(Effect {
            key: task.idempotency_key.to_string(),
            execution: Id::parse(&task.execution).expect("an execution has an id"),
            attempt: task.attempt,
            process: self.process.clone(),
            begun_ns: now,
            ended_ns: now,
        });
        effects.len() - 1
    }

    /// It does something. Nothing is done by one that is dropped, or stands still.
    fn step(&self, place: usize) {
        self.effects.lock()[place].ended_ns = os::now_ns().unsigned_abs();
    }
}

#[async_trait]
impl Executor for Work {
    fn kinds(&self) -> Vec<&'static str> {
        vec![WORK]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        let place = self.begin(task);
        let Argument { value, ms, fails, slow } = serde_json::from_slice(&task.with)
            .map_err(|error| Failure::permanent("work.argument", error.to_string()))?;
        let takes = if task.attempt <= slow { SLOW } else { Duration::from_millis(ms) };
        let end = Instant::now() + takes;
        while Instant::now() < end {
            tokio::select! {
                () = sleep_until(end.min(Instant::now() + STEP)) => self.step(place),
                () = stop.cancelled() => return Err(Failure::retryable("work.stopped", "stopped")),
            }
        }
        if fails < 0 {
            return Err(Failure::permanent("work.broken", "it always fails"));
        }
        if i64::from(task.attempt) <= fails {
            return Err(Failure::retryable("work.flaky", "this attempt fails"));
        }
        Ok(value.to_string().into())
    }
}
