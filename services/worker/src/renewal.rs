//! Keeps the session alive, and knows until when it is (rules 23, 24).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::histogram;
use nova_client::Coordinators;
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::results::Holding;
use crate::validity::Validity;

/// The part of a TTL that is kept for clock drift and for stopping.
const MARGIN: f64 = 0.2;
/// Every so many renewals tell what is held.
const HOLDING_EVERY: u64 = 10;

/// A session as the coordinator gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub worker: u32,
    pub session: u64,
    pub inbox: u32,
    pub ttl: Duration,
}

impl Session {
    /// Until when a renewal that was sent at `sent` keeps it alive.
    pub(crate) fn valid_until(&self, sent: Instant) -> Instant {
        sent + self.ttl.mul_f64(1.0 - MARGIN)
    }
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The leader said so.
    Closed,
    /// No renewal was answered in time.
    Lapsed,
}

/// Renews while the session is alive, and ends it.
pub(crate) async fn keep(
    coordinators: Coordinators,
    session: Session,
    validity: Arc<Validity>,
    holding: Arc<Mutex<Holding>>,
    seen: Arc<Mutex<BTreeMap<u32, u64>>>,
) -> Ended {
    let ended = tokio::select! {
        biased;
        () = validity.lapsed() => Ended::Lapsed,
        () = renew(&coordinators, session, &validity, &holding, &seen) => Ended::Closed,
    };
    validity.end();
    ended
}

/// Until the leader closes the session.
async fn renew(
    coordinators: &Coordinators,
    session: Session,
    validity: &Validity,
    holding: &Mutex<Holding>,
    seen: &Mutex<BTreeMap<u32, u64>>,
) {
    let mut n = 0;
    loop {
        match stream(coordinators, session, validity, holding, seen, &mut n).await {
            Ok(()) => return,
            Err(why) => tracing::debug!(why, "the stream of renewals is opened again"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn stream(
    coordinators: &Coordinators,
    session: Session,
    validity: &Validity,
    holding: &Mutex<Holding>,
    seen: &Mutex<BTreeMap<u32, u64>>,
    n: &mut u64,
) -> Result<(), String> {
    let (address, mut member) = coordinators.leader().map_err(|error| error.to_string())?;
    let (requests, receiver) = mpsc::channel(4);
    // The first one goes out with the stream itself.
    let mut sent_at = BTreeMap::new();
    *n += 1;
    sent_at.insert(*n, Instant::now());
    requests.send(request(session, *n, holding, seen)).await.map_err(|error| error.to_string())?;
    let opening = tokio::time::timeout(session.ttl / 3, member.renew(ReceiverStream::new(receiver)));
    let mut answers = match opening.await {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(status)) => {
            coordinators.learn(&address, &status);
            return Err(status.to_string());
        }
        Err(_) => {
            coordinators.learn(&address, &tonic::Status::unavailable("no answer"));
            return Err("no answer in time".into());
        }
    };
    let mut every = tokio::time::interval(session.ttl / 3);
    every.tick().await;
    loop {
        tokio::select! {
            _ = every.tick() => {
                if sent_at.len() > 2 {
                    coordinators.learn(&address, &tonic::Status::unavailable("no answers"));
                    return Err("renewals are not answered".into());
                }
                *n += 1;
                sent_at.insert(*n, Instant::now());
                requests.try_send(request(session, *n, holding, seen)).map_err(|error| error.to_string())?;
            }
            answer = answers.message() => match answer {
                Ok(Some(answer)) if answer.session == session.session => {
                    if answer.closed {
                        return Ok(());
                    }
                    if let Some(sent) = sent_at.get(&answer.n) {
                        histogram!(crate::metrics::RENEWAL_SECONDS).record(sent.elapsed().as_secs_f64());
                        validity.extend(session.valid_until(*sent));
                    }
                    sent_at.retain(|number, _| *number > answer.n);
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err("the stream ended".into()),
                Err(status) => {
                    coordinators.learn(&address, &status);
                    return Err(status.to_string());
                }
            }
        }
    }
}

fn request(session: Session, n: u64, holding: &Mutex<Holding>, seen: &Mutex<BTreeMap<u32, u64>>) -> v1::RenewRequest {
    let numbers = |all: &BTreeMap<u32, u64>| all.iter().map(|(s, n)| v1::ShardSeq { shard: *s, number: *n }).collect();
    let holding = n.is_multiple_of(HOLDING_EVERY).then(|| {
        // What was seen is read first: an assignment that comes meanwhile is held, and not yet told as seen.
        let seen = numbers(&seen.lock());
        let holding = holding.lock();
        v1::renew_request::Holding {
            tokens: holding.tokens.keys().copied().collect(),
            seen,
            last_result: numbers(&holding.last_result),
        }
    });
    v1::RenewRequest { worker: session.worker, session: session.session, n, free_memory_bytes: 0, holding }
}
