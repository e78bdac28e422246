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
use tokio_util::sync::CancellationToken;

use crate::os;
use crate::workload::WORK;

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
}

/// Lasts until it is dropped: also when its process is killed.
struct Noted {
    effects: Effects,
    at: usize,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.effects.lock()[self.at].ended_ns = os::now_ns().unsigned_abs();
    }
}

impl Work {
    fn note(&self, task: &Task) -> Noted {
        let now = os::now_ns().unsigned_abs();
        let mut effects = self.effects.lock();
        effects.push(Effect {
            key: task.idempotency_key.to_string(),
            execution: Id::parse(&task.execution).expect("an execution has an id"),
            attempt: task.attempt,
            process: self.process.clone(),
            begun_ns: now,
            ended_ns: u64::MAX,
        });
        Noted { effects: Arc::clone(&self.effects), at: effects.len() - 1 }
    }
}

#[async_trait]
impl Executor for Work {
    fn kinds(&self) -> Vec<&'static str> {
        vec![WORK]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        let _noted = self.note(task);
        let Argument { value, ms, fails } = serde_json::from_slice(&task.with)
            .map_err(|error| Failure::permanent("work.argument", error.to_string()))?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
            () = stop.cancelled() => return Err(Failure::retryable("work.stopped", "stopped")),
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
