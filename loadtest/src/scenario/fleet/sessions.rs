//! Sessions of workers that do not exist, renewed over a few streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use hdrhistogram::Histogram;
use nova_client::{Coordinators, Repeat};
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::Error;
use crate::tally::histogram;

/// Streams that carry all renewals.
pub(crate) const STREAMS: usize = 16;
/// Each session is renewed once in this time; the streams send in steps of a tenth of it.
const EVERY: Duration = Duration::from_secs(1);
const STEPS: u32 = 10;
/// Registrations in flight: each is an entry of the log.
const REGISTERING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(30);
/// Room for the tasks of those that die.
const SLOTS: u32 = 2;

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub worker: u32,
    pub session: u64,
}

/// Registers so many workers.
pub(crate) async fn register(coordinators: &Coordinators, count: u32) -> Result<Vec<Session>, Error> {
    let one = async |number: u32| {
        let register = v1::Register {
            name: format!("simulated-{number}"),
            pool: "default".into(),
            kinds: vec!["noop".into()],
            capacity: SLOTS,
            boot: u64::from(number) + 1,
            ..v1::Register::default()
        };
        let asking = coordinators.call_slow(PATIENCE, Repeat::Never, |mut member| {
            let register = register.clone();
            async move { member.register(register).await }
        });
        let answer = asking.await.map_err(|source| Error::Coordinator { what: "a registration", source })?;
        match answer.result {
            Some(v1::register_response::Result::Registered(done)) => {
                Ok(Session { worker: done.worker, session: done.session })
            }
            other => Err(Error::Engine { why: format!("the registration of worker {number}: {other:?}") }),
        }
    };
    let mut all = stream::iter((0..count).map(one)).buffer_unordered(REGISTERING);
    let mut sessions = Vec::new();
    while let Some(session) = all.next().await {
        sessions.push(session?);
    }
    Ok(sessions)
}

/// Sessions that are kept.
pub(crate) struct Sessions {
    shared: Arc<Shared>,
    streams: JoinSet<Result<(), Error>>,
}

struct Shared {
    dead: Mutex<BTreeSet<u32>>,
    closed: Mutex<BTreeSet<u32>>,
    answers_us: Mutex<Histogram<u64>>,
}

impl Sessions {
    /// Renews them until they end or are dropped.
    pub(crate) async fn keep(coordinators: &Coordinators, all: &[Session]) -> Result<Self, Error> {
        let shared =
            Arc::new(Shared { dead: Mutex::default(), closed: Mutex::default(), answers_us: Mutex::new(histogram()) });
        let mut streams = JoinSet::new();
        for part in all.chunks(all.len().div_ceil(STREAMS).max(1)) {
            streams.spawn(renew(coordinators.clone(), Arc::clone(&shared), part.to_vec()));
        }
        Ok(Self { shared, streams })
    }

    /// These die: nothing is renewed for them any more.
    pub(crate) fn end(&self, workers: &BTreeSet<u32>) {
        self.shared.dead.lock().extend(workers);
    }

    /// Workers that were told that their session is closed.
    pub(crate) fn closed(&self) -> BTreeSet<u32> {
        self.shared.closed.lock().clone()
    }

    /// How long renewals waited for their answers, in microseconds.
    pub(crate) fn answers_ms(&self) -> Histogram<u64> {
        self.shared.answers_us.lock().clone()
    }

    /// Renews no more.
    ///
    /// # Errors
    /// When a stream had ended before.
    pub(crate) async fn stop(mut self) -> Result<(), Error> {
        match self.streams.try_join_next() {
            None => Ok(()),
            Some(ended) => ended.expect("a stream does not panic"),
        }
    }
}

async fn renew(coordinators: Coordinators, shared: Arc<Shared>, sessions: Vec<Session>) -> Result<(), Error> {
    let refused =
        |status| Error::Coordinator { what: "a stream of renewals", source: nova_client::ClientError::Refused(status) };
    // A few per step: what is in flight is never more than the sessions of one stream.
    let (sender, receiver) = mpsc::channel(sessions.len() * 2);
    let (_, mut member) = coordinators.leader().map_err(|source| Error::Coordinator { what: "the leader", source })?;
    let mut answers = member.renew(ReceiverStream::new(receiver)).await.map_err(refused)?.into_inner();
    let mut ticks = tokio::time::interval(EVERY / STEPS);
    let size = sessions.len().div_ceil(STEPS as usize).max(1);
    let (mut step, mut number) = (0, 1);
    let mut sent_at = [Instant::now(); STEPS as usize];
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let dead = shared.dead.lock().clone();
                sent_at[step] = Instant::now();
                for Session { worker, session } in sessions.chunks(size).nth(step).unwrap_or_default() {
                    if !dead.contains(worker) {
                        let (worker, session, n) = (*worker, *session, number * u64::from(STEPS) + step as u64);
                        let request = v1::RenewRequest { worker, session, n, ..v1::RenewRequest::default() };
                        sender.try_send(request).map_err(|_| Error::Late {
                            what: "answers to renewals".into(),
                            within: EVERY * 2,
                        })?;
                    }
                }
                step = (step + 1) % STEPS as usize;
                number += u64::from(step == 0);
            }
            answer = answers.message() => {
                let answer = answer.map_err(refused)?;
                let answer = answer.ok_or_else(|| refused(tonic::Status::unavailable("the stream ended")))?;
                if answer.closed {
                    shared.closed.lock().insert(answer.worker);
                } else {
                    let sent = sent_at[(answer.n % u64::from(STEPS)) as usize];
                    shared.answers_us.lock().saturating_record(sent.elapsed().as_micros() as u64);
                }
            }
        }
    }
}
