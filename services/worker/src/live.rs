//! A session that is open: reads its inbox, runs attempts, until it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use nova_bus::{ReadError, Reader};
use nova_wire::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Finished, shard_of, stopped};
use crate::drain::{Drain, Step};
use crate::inbox::{Inbox, Incoming};
use crate::metrics as names;
use crate::renewal::{self, Session};
use crate::results::Results;
use crate::session::{Next, PAUSE, Worker};
use crate::validity::Validity;

/// A session that is open.
pub(crate) struct Live<'a> {
    pub worker: &'a Worker,
    pub session: Session,
    pub results: Arc<Results>,
    pub inbox: Inbox,
    pub validity: Arc<Validity>,
}

/// An attempt that runs.
struct Running {
    lease: v1::LeaseRef,
    stop: CancellationToken,
    revoked: bool,
}

impl Running {
    fn revoke(&mut self) {
        self.revoked = true;
        self.stop.cancel();
    }
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
        reader: &mut dyn Reader,
        mut renewing: tokio::task::JoinHandle<renewal::Ended>,
        stop: &CancellationToken,
    ) -> Next {
        let mut running: BTreeMap<u64, Running> = BTreeMap::new();
        let (finished, mut done) = mpsc::channel::<Finished>(1_024);
        let mut drain = None;
        let next = loop {
            gauge!(names::RUNNING).set(running.len() as f64);
            gauge!(names::RESULTS_WAITING).set(self.results.waiting.load(std::sync::atomic::Ordering::Relaxed) as f64);
            tokio::select! {
                biased;
                ended = &mut renewing => {
                    tracing::warn!(session = self.session.session, ?ended, "the session ended");
                    break Next::Again;
                }
                () = stop.cancelled(), if drain.is_none() => {
                    let limit = Duration::from_millis(self.worker.config.drain_ms);
                    let (coordinators, results) = (self.worker.coordinators.clone(), Arc::clone(&self.results));
                    drain = Some(Drain::begin(coordinators, self.session, results, limit));
                }
                step = step(&mut drain) => match step {
                    Step::Leave => break Next::Stop,
                    Step::StopAll => running.values_mut().for_each(Running::revoke),
                    Step::GiveUp => {
                        tracing::warn!(session = self.session.session, "the drain is given up; the session lapses");
                        break Next::Stop;
                    }
                },
                Some(finish) = done.recv() => {
                    // What a revoked attempt came to does not matter.
                    let revoked = running.remove(&finish.token).filter(|it| it.revoked);
                    let kind = revoked.map_or(finish.kind, |it| stopped(it.lease));
                    self.results.report(finish.shard, finish.token, kind);
                }
                batch = reader.next(Duration::from_millis(100)) => match batch {
                    Ok(Some(batch)) => {
                        for record in &batch.records {
                            let (shard, highest, incoming) = self.inbox.read(record);
                            for message in incoming {
                                self.take(message, &mut running, &finished);
                            }
                            if highest > 0 {
                                self.inbox.seen.lock().insert(shard, highest);
                            }
                        }
                        if drain.as_ref().is_some_and(Drain::is_over) {
                            running.values_mut().for_each(Running::revoke);
                        }
                    }
                    Ok(None) => {}
                    Err(error @ ReadError::OutOfRange { .. }) => {
                        tracing::error!(%error, "the inbox was cut: the session is given up");
                        break Next::Again;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the inbox cannot be read");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        };
        renewing.abort();
        self.validity.end();
        // Nothing of this session may run when the next one begins.
        drop(finished);
        while done.recv().await.is_some() {}
        if stop.is_cancelled() { Next::Stop } else { next }
    }

    fn take(&self, message: Incoming, running: &mut BTreeMap<u64, Running>, finished: &mpsc::Sender<Finished>) {
        match message {
            Incoming::Assign(assignment, lease) => {
                let stop = self.validity.over().child_token();
                let attempt = Running { lease: lease.clone(), stop: stop.clone(), revoked: false };
                if running.insert(lease.token, attempt).is_some() {
                    return;
                }
                self.results.holding.lock().tokens.insert(lease.token, shard_of(&lease));
                let executor = self.worker.registry.get(&assignment.kind).cloned();
                let (validity, ledger) = (Arc::clone(&self.validity), self.worker.ledger.clone());
                let attempt = Attempt { assignment, lease, stop, validity, ledger };
                let finished = finished.clone();
                tokio::spawn(async move { finished.send(attempt.run(executor).await).await });
            }
            Incoming::Revoke(lease) => match running.get_mut(&lease.token) {
                Some(attempt) => attempt.revoke(),
                // It has ended, and its result is on its way or was lost: what counts is that nothing runs.
                None => {
                    let (shard, token) = (shard_of(&lease), lease.token);
                    self.results.report(shard, token, stopped(lease));
                }
            },
            Incoming::Stale(lease) => {
                if let Some(attempt) = running.get(&lease.token) {
                    attempt.stop.cancel();
                }
            }
        }
    }
}
