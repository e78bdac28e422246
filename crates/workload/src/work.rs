//! What workers carry out: they note it, and come to a number.

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

use crate::{Clock, WORK};

/// As often an attempt does something.
const STEP: Duration = Duration::from_millis(100);

/// How long a slow attempt takes.
const SLOW: Duration = Duration::from_secs(6);

/// Where workers note what they do.
pub trait Notes: Send + Sync {
    /// An attempt begins; gives its number, for [`Notes::step`].
    fn begin(&self, effect: Effect) -> usize;
    /// It does something, at this time.
    fn step(&self, number: usize, at_ns: u64);
}

impl Notes for Mutex<Vec<Effect>> {
    fn begin(&self, effect: Effect) -> usize {
        let mut all = self.lock();
        all.push(effect);
        all.len() - 1
    }

    fn step(&self, number: usize, at_ns: u64) {
        self.lock()[number].ended_ns = at_ns;
    }
}

/// The executors of a worker.
#[must_use]
pub fn registry(process: &str, notes: Arc<dyn Notes>, now: Clock) -> Registry {
    Registry::default().with(Arc::new(Work { process: process.to_owned(), notes, now }))
}

struct Work {
    process: String,
    notes: Arc<dyn Notes>,
    now: Clock,
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
    fn begin(&self, task: &Task) -> usize {
        let now = (self.now)();
        self.notes.begin(Effect {
            key: task.idempotency_key.to_string(),
            execution: Id::parse(&task.execution).expect("an execution has an id"),
            attempt: task.attempt,
            token: task.token,
            process: self.process.clone(),
            begun_ns: now,
            ended_ns: now,
        })
    }

    /// It does something. Nothing is done by one that is dropped, or stands still.
    fn step(&self, number: usize) {
        self.notes.step(number, (self.now)());
    }
}

#[async_trait]
impl Executor for Work {
    fn kinds(&self) -> Vec<&'static str> {
        vec![WORK]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        let number = self.begin(task);
        let Argument { value, ms, fails, slow } = serde_json::from_slice(&task.with)
            .map_err(|error| Failure::permanent("work.argument", error.to_string()))?;
        let takes = if task.attempt <= slow { SLOW } else { Duration::from_millis(ms) };
        let end = Instant::now() + takes;
        while Instant::now() < end {
            tokio::select! {
                () = sleep_until(end.min(Instant::now() + STEP)) => self.step(number),
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
