//! A session that is open: reads its inbox, runs attempts, until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, shard_of, stopped};
use crate::drain::{Drain, Step};
use crate::feed::Feed;
use crate::inbox::{Inbox, Incoming};
use crate::metrics as names;
use crate::renewal::{self, Session};
use crate::results::Results;
use crate::running::{Running, STOP_LIMIT};
use crate::session::{MEASURE_EVERY, Next, RunError, Worker};
use crate::validity::Validity;

/// A session that is open.
pub(crate) struct Live<'a> {
    pub worker: &'a Worker,
    pub session: Session,
    pub results: Arc<Results>,
    pub inbox: Inbox,
    /// The next offset of the inbox.
    pub read: Arc<AtomicU64>,
    pub validity: Arc<Validity>,
}

/// Never without a drain.
async fn step(drain: &mut Option<Drain>) -> Step {
    match drain {
        Some(drain) => drain.step().await,
        None => std::future::pending().await,
    }
}

impl Live<'_> {
    pub(crate) async fn run(
        &self,
        feed: &mut Feed,
        mut renewing: tokio::task::JoinHandle<renewal::Ended>,
        stop: &CancellationToken,
    ) -> Result<Next, RunError> {
        let (finished, mut done) = mpsc::channel(1_024);
        let mut running = Running::new(finished);
        let mut drain = None;
        let mut measure_at = Instant::now();
        let next = loop {
            if Instant::now() >= measure_at {
                self.measure(&running);
                measure_at = Instant::now() + MEASURE_EVERY;
            }
            tokio::select! {
                biased;
                ended = &mut renewing => {
                    tracing::warn!(session = self.session.session, ?ended, "the session ended");
                    break Ok(Next::Again);
                }
                () = stop.cancelled(), if drain.is_none() => {
                    let limit = Duration::from_millis(self.worker.config.drain_ms);
                    let (coordinators, results) = (self.worker.coordinators.clone(), Arc::clone(&self.results));
                    drain = Some(Drain::begin(coordinators, self.session, results, limit));
                }
                step = step(&mut drain) => match step {
                    Step::Leave => break Ok(Next::Stop),
                    Step::StopAll => running.revoke_all(),
                    Step::GiveUp => {
                        tracing::warn!(session = self.session.session, "the drain is given up; the session lapses");
                        break Ok(Next::Stop);
                    }
                },
                Some(finished) = done.recv() => {
                    let said = running.ended(finished);
                    self.results.report(said.shard, said.token, said.kind);
                }
                token = running.stuck() => break Err(RunError::Stuck { token }),
                records = feed.next() => match records {
                    Ok(records) => {
                        for record in &records {
                            self.read.store(record.offset + 1, Ordering::Relaxed);
                            let (shard, highest, incoming) = self.inbox.read(record);
                            for message in incoming {
                                self.take(message, &mut running);
                            }
                            if highest > 0 {
                                self.inbox.seen.lock().insert(shard, highest);
                            }
                        }
                        if drain.as_ref().is_some_and(Drain::is_over) {
                            running.revoke_all();
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "the inbox cannot be read on: the session is given up");
                        break Ok(Next::Again);
                    }
                },
            }
        };
        renewing.abort();
        self.validity.end();
        let next = next?;
        // Nothing of this session may run when the next one begins.
        let ending = async {
            while running.len() > 0
                && let Some(finished) = done.recv().await
            {
                running.ended(finished);
            }
        };
        if tokio::time::timeout(STOP_LIMIT, ending).await.is_err()
            && let Some(token) = running.first()
        {
            return Err(RunError::Stuck { token });
        }
        Ok(if stop.is_cancelled() { Next::Stop } else { next })
    }

    fn measure(&self, running: &Running) {
        gauge!(names::SLOTS).set(f64::from(self.worker.config.slots));
        gauge!(names::RUNNING).set(running.len() as f64);
        gauge!(names::OLDEST).set(running.oldest().map_or(0.0, |since| since.elapsed().as_secs_f64()));
        gauge!(names::RESULTS_WAITING).set(self.results.waiting.load(Ordering::Relaxed) as f64);
    }

    fn take(&self, message: Incoming, running: &mut Running) {
        match message {
            Incoming::Assign(_, lease) if running.contains(lease.token) => {}
            Incoming::Assign(assignment, lease) => {
                self.results.holding.lock().tokens.insert(lease.token, shard_of(&lease));
                let executor = self.worker.registry.get(&assignment.kind).cloned();
                let measured = self.worker.attempts.get(&*assignment.kind).cloned();
                let stop = self.validity.over().child_token();
                let (validity, ledger) = (Arc::clone(&self.validity), self.worker.ledger.clone());
                running.begin(Attempt { assignment, lease, stop, validity, ledger }, executor.zip(measured));
            }
            Incoming::Revoke(lease) => {
                // When it has ended its result is on its way or was lost: what counts is that nothing runs.
                if !running.revoke(lease.token) {
                    self.results.report(shard_of(&lease), lease.token, stopped(lease));
                }
            }
            Incoming::Stale(lease) => running.stop(lease.token),
        }
    }
}
