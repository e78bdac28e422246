//! Keeps the session alive (rules 23, 24).
//!
//! A stream whose answers are late is not given up: a slow leader answers on it still, and an answer counts from when its
//! renewal was sent. Others are opened beside it, one member after the other, until one answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use metrics::histogram;
use nova_client::{Coordinators, Member};
use nova_plants::Plant;
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::results::Holding;
use crate::validity::Validity;

/// The part of a TTL that is kept for clock drift and for stopping.
const MARGIN: f64 = 0.2;
/// Renewals in a TTL. An election may take a third of it; what is left is to be enough for finding the new leader.
const PER_TTL: u32 = 6;
/// Every so many renewals tell what is held.
const HOLDING_EVERY: u64 = 10;
/// Streams at once: a silent leader, and members that hang before they refuse.
const STREAMS: usize = 8;
/// Until a member that was refused by one asks the next.
const PAUSE: Duration = Duration::from_millis(50);

/// A session as the coordinator gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    pub worker: u32,
    pub session: u64,
    pub inbox: u32,
    pub ttl: Duration,
}

impl Session {
    /// How long a renewal keeps it alive, from when it was sent.
    fn span(&self) -> Duration {
        self.ttl.mul_f64(if nova_plants::is(Plant::NoMargin) { 1.0 } else { 1.0 - MARGIN })
    }

    /// Until when a renewal that was sent at `sent` keeps it alive.
    pub(crate) fn valid_until(&self, sent: Instant) -> Instant {
        sent + self.span()
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

/// Renews a session.
pub(crate) struct Renewal {
    pub coordinators: Coordinators,
    pub session: Session,
    pub validity: Arc<Validity>,
    pub holding: Arc<Mutex<Holding>>,
    pub seen: Arc<Mutex<BTreeMap<u32, u64>>>,
    /// Number of the last one, over all streams.
    pub last: AtomicU64,
}

impl Renewal {
    /// Renews while the session is alive, and ends it.
    pub(crate) async fn keep(self) -> Ended {
        let ended = tokio::select! {
            biased;
            () = self.validity.lapsed() => Ended::Lapsed,
            () = self.until_closed() => Ended::Closed,
        };
        self.validity.end();
        ended
    }

    async fn until_closed(&self) {
        let mut streams = FuturesUnordered::new();
        let mut asked = String::new();
        let mut look_at = Instant::now();
        loop {
            tokio::select! {
                Some(ended) = streams.next() => match ended {
                    Ok(()) => return,
                    Err(why) => {
                        tracing::debug!(why, "a stream of renewals ended");
                        look_at = look_at.min(Instant::now() + PAUSE);
                    }
                },
                () = sleep_until(look_at.into()) => {
                    look_at = Instant::now() + self.every() / 2;
                    let silent = self.is_silent();
                    if silent {
                        // Who did not even refuse is not asked again before the others were.
                        self.coordinators.learn(&asked, &Status::unavailable("no answer"));
                    }
                    if streams.is_empty() || (silent && streams.len() < STREAMS) {
                        match self.coordinators.leader() {
                            Ok((address, member)) => {
                                asked.clone_from(&address);
                                streams.push(self.stream(address, member));
                            }
                            Err(error) => tracing::warn!(%error, "no coordinator can be asked"),
                        }
                    }
                }
            }
        }
    }

    fn every(&self) -> Duration {
        self.session.ttl / PER_TTL
    }

    /// When the newest renewal was sent that was answered.
    fn answered(&self) -> Instant {
        self.validity.until() - self.session.span()
    }

    /// Whether a renewal waits for its answer for longer than the next one should.
    fn is_silent(&self) -> bool {
        self.answered().elapsed() > self.every() * 2
    }

    /// Until the leader closes the session, or why it renews no longer.
    async fn stream(&self, address: String, mut member: Member) -> Result<(), String> {
        let failed = |status: Status| {
            self.coordinators.learn(&address, &status);
            status.to_string()
        };
        let (requests, receiver) = mpsc::channel(1);
        let mut waiting = Some(self.send(&requests)?);
        let opening = tokio::time::timeout(self.session.ttl / 3, member.renew(ReceiverStream::new(receiver)));
        let opened = opening.await.map_err(|_| failed(Status::unavailable("no answer")))?;
        let mut answers = opened.map_err(failed)?.into_inner();
        let mut next = Instant::now() + self.every();
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer.map_err(failed)?.ok_or("the stream ended")?;
                    if answer.session == self.session.session && answer.closed {
                        return Ok(());
                    }
                    if let Some((_, sent)) = waiting.take_if(|(number, _)| *number == answer.n) {
                        histogram!(crate::metrics::RENEWAL_SECONDS).record(sent.elapsed().as_secs_f64());
                        self.validity.extend(self.session.valid_until(sent));
                        next = sent + self.every();
                    }
                }
                () = sleep_until(next.into()) => {
                    next = Instant::now() + self.every();
                    match waiting {
                        // More of them would only wait behind it: a stream is answered in order.
                        Some((_, sent)) if sent < self.answered() => return Err("another stream is answered".into()),
                        Some(_) => {}
                        None => waiting = Some(self.send(&requests)?),
                    }
                }
            }
        }
    }

    /// Gives its number, and when it was sent.
    fn send(&self, requests: &mpsc::Sender<v1::RenewRequest>) -> Result<(u64, Instant), String> {
        // The clock comes first: what is renewed after it lapsed would look alive.
        let sent = Instant::now();
        if !self.validity.is_alive() {
            return Err("the session lapsed".into());
        }
        let n = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        requests.try_send(self.request(n)).map_err(|error| error.to_string())?;
        Ok((n, sent))
    }

    fn request(&self, n: u64) -> v1::RenewRequest {
        let numbers =
            |all: &BTreeMap<u32, u64>| all.iter().map(|(s, n)| v1::ShardSeq { shard: *s, number: *n }).collect();
        let holding = n.is_multiple_of(HOLDING_EVERY).then(|| {
            // What was seen is read first: an assignment that comes meanwhile is held, and not yet told as seen.
            let seen = numbers(&self.seen.lock());
            let holding = self.holding.lock();
            v1::renew_request::Holding {
                tokens: holding.tokens.keys().copied().collect(),
                seen,
                last_result: numbers(&holding.last_result),
            }
        });
        let Session { worker, session, .. } = self.session;
        v1::RenewRequest { worker, session, n, free_memory_bytes: 0, holding }
    }
}
