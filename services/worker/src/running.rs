//! The attempts that run, and whether they end when they are told to (rule 18).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_execution::Executor;
use nova_wire::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Finished, stopped};
use crate::metrics::Attempts;

/// From telling an attempt to stop to its end: it is dropped after [`crate::attempt::GRACE`], and the rest is for a machine
/// that is busy. One that still runs then holds a thread, and only the end of the process ends it.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(4);

pub(crate) struct Running {
    attempts: BTreeMap<u64, Told>,
    /// Who was told to stop, and until when it has to, in this order.
    told: VecDeque<(Instant, u64)>,
    finished: mpsc::Sender<Finished>,
}

struct Told {
    lease: v1::LeaseRef,
    stop: CancellationToken,
    /// What it comes to does not matter.
    revoked: bool,
    since: Instant,
}

impl Running {
    pub(crate) fn new(finished: mpsc::Sender<Finished>) -> Self {
        Self { attempts: BTreeMap::new(), told: VecDeque::new(), finished }
    }

    pub(crate) fn len(&self) -> usize {
        self.attempts.len()
    }

    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.attempts.values().map(|it| it.since).min()
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.attempts.keys().next().copied()
    }

    pub(crate) fn contains(&self, token: u64) -> bool {
        self.attempts.contains_key(&token)
    }

    pub(crate) fn begin(&mut self, attempt: Attempt, executor: Option<(Arc<dyn Executor>, Attempts)>) {
        let told =
            Told { lease: attempt.lease.clone(), stop: attempt.stop.clone(), revoked: false, since: Instant::now() };
        self.attempts.insert(attempt.lease.token, told);
        let finished = self.finished.clone();
        tokio::spawn(async move { finished.send(attempt.run(executor).await).await });
    }

    /// What is to be said of an attempt that ended.
    pub(crate) fn ended(&mut self, finished: Finished) -> Finished {
        match self.attempts.remove(&finished.token) {
            Some(it) if it.revoked => Finished { kind: stopped(it.lease), ..finished },
            _ => finished,
        }
    }

    /// Its lease is no longer this session's.
    pub(crate) fn stop(&mut self, token: u64) {
        if let Some(it) = self.attempts.get(&token) {
            it.stop.cancel();
            self.told.push_back((Instant::now() + STOP_LIMIT, token));
        }
    }

    /// False when it does not run.
    pub(crate) fn revoke(&mut self, token: u64) -> bool {
        self.stop(token);
        self.attempts.get_mut(&token).map(|it| it.revoked = true).is_some()
    }

    pub(crate) fn revoke_all(&mut self) {
        let all: Vec<u64> = self.attempts.iter().filter(|(_, it)| !it.revoked).map(|(token, _)| *token).collect();
        for token in all {
            self.revoke(token);
        }
    }

    /// Returns when an attempt was told to stop long ago and still runs. Safe to cancel.
    pub(crate) async fn stuck(&mut self) -> u64 {
        loop {
            let Some((by, token)) = self.told.front().copied() else { return std::future::pending().await };
            if self.contains(token) {
                tokio::time::sleep_until(by.into()).await;
                return token;
            }
            self.told.pop_front();
        }
    }
}
