//! Sessions of workers: who renews, who is judged lost (rules 23 to 27).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_engine::ids::{SessionId, WorkerId};
use nova_plants::Plant;
use nova_replication::Group;
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tonic::Status;

use crate::machine::{EngineMachine, View};
use crate::proposer::Proposer;
use crate::status;

/// One round to a quorum serves all renewals of this interval.
const ROUND: Duration = Duration::from_millis(100);
/// Renewals that wait for a round.
const WAITING: usize = 20_000;

type Key = (u32, u64);
type Answer = Result<v1::RenewResponse, Status>;

#[derive(Clone)]
pub(crate) struct Sessions(Arc<Inner>);

struct Inner {
    group: Group<EngineMachine>,
    view: Arc<View>,
    proposer: Proposer,
    ttl: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// The term in which this leader counts, and since when; none while it does not lead.
    counting: Option<(u64, Instant)>,
    received: BTreeMap<Key, Instant>,
    /// Sessions for which a loss is proposed: no renewal of them is answered any more.
    judged: BTreeSet<Key>,
    waiting: Vec<(v1::RenewRequest, oneshot::Sender<Answer>)>,
}

impl Sessions {
    pub(crate) fn start(group: Group<EngineMachine>, view: Arc<View>, proposer: Proposer, ttl_ms: u64) -> Self {
        let inner = Inner { group, view, proposer, ttl: Duration::from_millis(ttl_ms), table: Mutex::default() };
        let sessions = Self(Arc::new(inner));
        tokio::spawn(sessions.clone().rounds());
        tokio::spawn(sessions.clone().judge());
        sessions
    }

    pub(crate) fn ttl_ms(&self) -> u64 {
        self.0.ttl.as_millis() as u64
    }

    /// A registration was applied: its session counts from now.
    pub(crate) fn registered(&self, worker: u32, session: u64) {
        self.0.table.lock().received.insert((worker, session), Instant::now());
    }

    /// Takes a renewal; the answer comes with the next round.
    pub(crate) fn renew(&self, request: v1::RenewRequest) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.0.table.lock();
        if table.counting.is_none() {
            let _ = answer.send(Err(self.not_ready()));
        } else if table.waiting.len() >= WAITING {
            let _ = answer.send(Err(Status::resource_exhausted("too many renewals wait")));
        } else {
            table.received.insert((request.worker, request.session), Instant::now());
            table.waiting.push((request, answer));
        }
        receiver
    }

    fn not_ready(&self) -> Status {
        let status = self.0.group.status();
        let status = status.borrow();
        let leader = status.leader.and_then(|id| Some((id, status.address(id)?.to_owned())));
        status::not_leader(leader)
    }

    async fn rounds(self) {
        loop {
            tokio::time::sleep(ROUND).await;
            let waiting = std::mem::take(&mut self.0.table.lock().waiting);
            if waiting.is_empty() {
                continue;
            }
            // The round begins after all of these were received.
            let confirmed = self.0.group.confirm_leadership(Duration::from_secs(1)).await;
            let counting = self.0.table.lock().counting;
            if nova_plants::is(Plant::NoQuorumForRenewals) && counting.is_some() {
                self.answer(waiting);
                continue;
            }
            match confirmed {
                Ok(term) if counting.is_some_and(|(counted, _)| counted == term) => self.answer(waiting),
                Ok(_) => waiting.into_iter().for_each(|(_, answer)| drop(answer.send(Err(self.not_ready())))),
                Err(error) => {
                    for (_, answer) in waiting {
                        let _ = answer.send(Err(status::read(error.clone())));
                    }
                }
            }
        }
    }

    fn answer(&self, waiting: Vec<(v1::RenewRequest, oneshot::Sender<Answer>)>) {
        let mut requeues = Vec::new();
        {
            let state = self.0.view.read();
            let table = self.0.table.lock();
            for (request, answer) in waiting {
                let (worker, session) = (WorkerId(request.worker), SessionId(request.session));
                let known = state.worker(worker).filter(|known| known.open && known.session == session);
                let judged = table.judged.contains(&(request.worker, request.session));
                let closed = known.is_none() || judged;
                let (worker, session, n) = (request.worker, request.session, request.n);
                let _ = answer.send(Ok(v1::RenewResponse { worker, session, n, closed }));
                if let (false, Some(known), Some(holding)) = (closed, known, request.holding)
                    && lost_in_the_bus(&state, known, &holding)
                {
                    requeues.push(v1::Requeue {
                        worker,
                        session,
                        seen: holding.seen,
                        last_result: holding.last_result,
                        held: holding.tokens,
                    });
                }
            }
        }
        for requeue in requeues {
            let proposer = self.0.proposer.clone();
            tokio::spawn(async move { proposer.propose(v1::entry_body::Kind::Requeue(requeue)).await.map(drop) });
        }
    }

    async fn judge(self) {
        loop {
            tokio::time::sleep(ROUND).await;
            let (leads, term) = {
                let status = self.0.group.status();
                let status = status.borrow();
                (status.leads(), status.term)
            };
            if !leads {
                *self.0.table.lock() = Table::default();
                continue;
            }
            for (worker, session) in self.overdue(term) {
                let lost = v1::SessionLost { worker, session, counted_in_term: term };
                let sessions = self.clone();
                tokio::spawn(async move {
                    tracing::info!(worker, session, "a worker's session is lost");
                    let verdict = sessions.0.proposer.propose(v1::entry_body::Kind::SessionLost(lost)).await;
                    if verdict.is_err() {
                        // Not known to be applied: it is judged again.
                        sessions.0.table.lock().judged.remove(&(worker, session));
                    }
                });
            }
        }
    }

    /// Sessions that were not renewed for a full TTL; from now on they are judged.
    fn overdue(&self, term: u64) -> Vec<Key> {
        let now = Instant::now();
        let state = self.0.view.read();
        let mut table = self.0.table.lock();
        let since = match table.counting {
            Some((counted, since)) if counted == term => since,
            _ => {
                let waiting = std::mem::take(&mut table.waiting);
                let before = if nova_plants::is(Plant::JudgesAtOnce) { self.0.ttl } else { Duration::ZERO };
                let since = now.checked_sub(before).unwrap_or(now);
                *table = Table { counting: Some((term, since)), waiting, ..Table::default() };
                since
            }
        };
        let open: BTreeSet<Key> =
            state.workers.all.iter().filter(|it| it.open).map(|it| (it.id.0, it.session.0)).collect();
        table.received.retain(|key, _| open.contains(key));
        table.judged.retain(|key| open.contains(key));
        // A session that was just applied counts from now: its registration is answered later than it is seen here.
        for key in &open {
            table.received.entry(*key).or_insert(if nova_plants::is(Plant::JudgesAtOnce) { since } else { now });
        }
        let late = |key: &Key| {
            let last = table.received.get(key).copied().map_or(since, |last| last.max(since));
            now.duration_since(last) > self.0.ttl && !table.judged.contains(key)
        };
        let overdue: Vec<Key> = open.into_iter().filter(late).collect();
        table.judged.extend(overdue.iter().copied());
        overdue
    }
}

/// Rule 27: whether a lease's assignment or result was lost on its way.
fn lost_in_the_bus(
    state: &nova_engine::State,
    worker: &nova_engine::state::Worker,
    holding: &v1::renew_request::Holding,
) -> bool {
    let number =
        |all: &[v1::ShardSeq], shard: u16| all.iter().find(|at| at.shard == u32::from(shard)).map(|at| at.number);
    worker.leases.iter().any(|(token, lease)| {
        let shard = lease.execution.shard();
        let seen = number(&holding.seen, shard.0).is_some_and(|seen| lease.assigned.0 <= seen);
        let settled = number(&holding.last_result, shard.0)
            .is_none_or(|after| state.shard(shard).is_some_and(|shard| shard.next_offset.0 >= after));
        seen && settled && !holding.tokens.contains(&token.0)
    })
}
