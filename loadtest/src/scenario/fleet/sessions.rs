//! Sessions of workers that do not exist. Each has a stream of renewals, as a worker has; many streams share a connection.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use hdrhistogram::Histogram;
use nova_client::{Coordinators, Member, Repeat};
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::Error;
use crate::tally::histogram;

/// Streams of one connection: below what servers of HTTP/2 allow.
const STREAMS: usize = 100;
/// Each session is renewed once in this time.
const EVERY: Duration = Duration::from_secs(1);
/// Registrations in flight: each is an entry of the log.
const REGISTERING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(30);
/// Until a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_millis(50);
/// Room for the tasks of those that die.
const SLOTS: u32 = 2;

/// A session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub worker: u32,
    pub session: u64,
}

/// Sessions that are kept until this is dropped.
pub(crate) struct Sessions {
    pub all: Vec<Session>,
    pub connections: usize,
    shared: Arc<Shared>,
    streams: JoinSet<()>,
}

struct Shared {
    dead: Mutex<BTreeSet<u32>>,
    closed: Mutex<BTreeSet<u32>>,
    answers_us: Mutex<Histogram<u64>>,
}

impl Sessions {
    /// Registers so many workers with the coordinators at these addresses. Each is renewed as soon as it is registered: a
    /// session lasts some seconds only.
    pub(crate) async fn start(addresses: &[String], count: u32) -> Result<Self, Error> {
        let shared =
            Arc::new(Shared { dead: Mutex::default(), closed: Mutex::default(), answers_us: Mutex::new(histogram()) });
        // A client has one connection to the leader.
        let connections = (count as usize).div_ceil(STREAMS).max(1);
        let clients: Vec<_> = (0..connections).map(|_| Coordinators::new(addresses.to_vec())).collect();
        let mut sessions = Self { all: Vec::new(), connections, shared, streams: JoinSet::new() };
        let one = async |number: u32| {
            let client = clients[number as usize % connections].clone();
            register(&client, number).await.map(|session| (client, session))
        };
        let mut registered = stream::iter((0..count).map(one)).buffer_unordered(REGISTERING);
        while let Some(done) = registered.next().await {
            let (client, session) = done?;
            sessions.all.push(session);
            sessions.streams.spawn(renew(client, Arc::clone(&sessions.shared), session));
        }
        drop(registered);
        Ok(sessions)
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
    pub(crate) fn answers_us(&self) -> Histogram<u64> {
        self.shared.answers_us.lock().clone()
    }
}

async fn register(coordinators: &Coordinators, number: u32) -> Result<Session, Error> {
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
}

/// Renews a session until its worker dies or is told that the session is closed. A stream that breaks off is opened again
/// with whoever leads, as a worker does; a session that lapses meanwhile is told by the verification.
async fn renew(coordinators: Coordinators, shared: Arc<Shared>, session: Session) {
    let mut n = 0;
    loop {
        let Ok((address, member)) = coordinators.leader() else { return };
        match over_one_stream(member, &shared, session, &mut n).await {
            Ok(()) => return,
            Err(status) => drop(coordinators.learn(&address, &status)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn over_one_stream(mut member: Member, shared: &Shared, session: Session, n: &mut u64) -> Result<(), Status> {
    let Session { worker, session } = session;
    let (sender, receiver) = mpsc::channel(4);
    let mut answers = member.renew(ReceiverStream::new(receiver)).await?.into_inner();
    let mut ticks = tokio::time::interval(EVERY);
    let mut sent = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if shared.dead.lock().contains(&worker) {
                    return Ok(());
                }
                (*n, sent) = (*n + 1, Instant::now());
                let request = v1::RenewRequest { worker, session, n: *n, ..v1::RenewRequest::default() };
                // With several unanswered ones the session is about to lapse, which the verification tells.
                let _ = sender.try_send(request);
            }
            answer = answers.message() => {
                let answer = answer?.ok_or_else(|| Status::unavailable("the stream ended"))?;
                if answer.closed {
                    shared.closed.lock().insert(worker);
                    return Ok(());
                }
                if answer.n == *n {
                    shared.answers_us.lock().saturating_record(sent.elapsed().as_micros() as u64);
                }
            }
        }
    }
}
