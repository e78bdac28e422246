//! Gathers what is waiting into one entry of the log.
//!
//! There is no timer: while entries are on their way, the next one grows by itself.

use std::sync::Arc;
use std::time::Duration;

use nova_replication::{Group, ProposeError};
use nova_telemetry::trace;
use nova_wire::v1;
use prost::Message;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::clock::SharedClock;
use crate::level;
use crate::machine::{EngineMachine, View};

/// Entries on their way.
const IN_FLIGHT: usize = 16;
/// Requests in one entry.
const BODIES: usize = 256;
/// Bytes of one entry (one request may exceed it).
const ENTRY_BYTES: usize = 512 << 10;
/// Requests that wait.
const WAITING: usize = 4_096;
/// Longest wait for an entry to be applied.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request has no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoVerdict {
    /// Certainly not appended.
    NotLeader(Option<(u64, String)>),
    /// Never appended: every member would stop at it.
    Malformed(String),
    /// It may or may not be applied.
    Unknown(String),
}

struct Waiting {
    body: v1::EntryBody,
    answer: oneshot::Sender<Result<v1::Verdict, NoVerdict>>,
}

/// A handle to propose with.
#[derive(Clone)]
pub(crate) struct Proposer {
    queue: mpsc::Sender<Waiting>,
    permits: Arc<Semaphore>,
}

/// The verdict to come.
pub(crate) struct PendingVerdict(oneshot::Receiver<Result<v1::Verdict, NoVerdict>>);

impl PendingVerdict {
    pub(crate) async fn wait(self) -> Result<v1::Verdict, NoVerdict> {
        self.0.await.unwrap_or_else(|_| Err(NoVerdict::Unknown("the member stopped".into())))
    }
}

impl Proposer {
    pub(crate) fn start(group: Group<EngineMachine>, view: Arc<View>, clock: SharedClock) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let permits = Arc::new(Semaphore::new(IN_FLIGHT));
        tokio::spawn(run(group, view, clock, receiver, Arc::clone(&permits)));
        Self { queue: sender, permits }
    }

    /// How many requests wait for an entry, and how many entries are on their way.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.queue.max_capacity() - self.queue.capacity(), IN_FLIGHT - self.permits.available_permits())
    }

    /// Hands a request over; requests are appended in this order.
    pub(crate) async fn hand_over(&self, kind: v1::entry_body::Kind) -> PendingVerdict {
        let (answer, receiver) = oneshot::channel();
        let mut body = v1::EntryBody { kind: Some(kind) };
        match nova_wire::check_entry_body(&mut body) {
            Ok(0) => {}
            Ok(records) => {
                tracing::error!(records, "commands that nobody can read count as none");
                metrics::counter!(crate::metrics::UNREADABLE).increment(records as u64);
            }
            Err(error) => {
                let _ = answer.send(Err(NoVerdict::Malformed(error.to_string())));
                return PendingVerdict(receiver);
            }
        }
        // A closed queue drops `answer`, which the receiver sees.
        let _ = self.queue.send(Waiting { body, answer }).await;
        PendingVerdict(receiver)
    }

    pub(crate) async fn propose(&self, kind: v1::entry_body::Kind) -> Result<v1::Verdict, NoVerdict> {
        self.hand_over(kind).await.wait().await
    }
}

async fn run(
    group: Group<EngineMachine>,
    view: Arc<View>,
    clock: SharedClock,
    mut queue: mpsc::Receiver<Waiting>,
    permits: Arc<Semaphore>,
) {
    let status = group.status();
    let shards = u32::from(view.read().config.shards);
    while let Some(first) = queue.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let mut bytes = first.body.encoded_len();
        let (mut bodies, mut answers) = (vec![first.body], vec![first.answer]);
        while bodies.len() < BODIES && bytes < ENTRY_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.body.encoded_len();
            bodies.push(next.body);
            answers.push(next.answer);
        }
        let term = status.borrow().term;
        let (floor, level) = {
            let state = view.read();
            (state.now.0, state.level)
        };
        let now_ms = clock.stamp(term, floor);
        let version = bodies.iter().map(needed).fold(level, u32::max);
        let count = bodies.len();
        let mut spans = trace::of_commands(trace::names::COMMIT, bodies.iter().flat_map(records));
        let entry = v1::LogEntry { version, now_ms, bodies, shards }.encode_to_vec();
        metrics::histogram!(crate::metrics::ENTRY_BODIES).record(count as f64);
        let handed = group.propose(entry.into()).await;
        let begun = std::time::Instant::now();
        tokio::spawn(async move {
            let reply = match handed {
                Ok(pending) => pending.reply(PATIENCE).await,
                Err(error) => Err(error),
            };
            metrics::histogram!(crate::metrics::COMMIT_SECONDS).record(begun.elapsed().as_secs_f64());
            drop(permit);
            if reply.is_err() {
                spans.iter_mut().for_each(|span| span.fail("no verdict"));
            }
            drop(spans);
            match reply {
                Ok(reply) => {
                    let verdicts = v1::Verdicts::decode(reply.answer).map(|it| it.verdicts).unwrap_or_default();
                    for (answer, verdict) in answers.into_iter().zip(verdicts) {
                        let _ = answer.send(Ok(verdict));
                    }
                }
                Err(error) => {
                    let why = match error {
                        ProposeError::NotLeader { leader } => NoVerdict::NotLeader(leader),
                        other => NoVerdict::Unknown(other.to_string()),
                    };
                    for answer in answers {
                        let _ = answer.send(Err(why.clone()));
                    }
                }
            }
        });
    }
}

/// The feature level that is needed to understand a request.
fn needed(body: &v1::EntryBody) -> u32 {
    match &body.kind {
        Some(v1::entry_body::Kind::Recover(_) | v1::entry_body::Kind::RaiseLevel(_)) => level::RECOVER,
        _ => level::FIRST,
    }
}

/// The records that a request proposes.
fn records(body: &v1::EntryBody) -> impl Iterator<Item = &bytes::Bytes> {
    let records = match &body.kind {
        Some(v1::entry_body::Kind::Propose(proposal)) => &proposal.records[..],
        _ => &[],
    };
    records.iter().map(|record| &record.commands)
}
