//! One session after the other, until the worker is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use nova_bus::{BusError, ReadError, Reader, SharedBus, Topic};
use nova_client::{ClientError, Coordinators, Repeat};
use nova_execution::{Failure, Registry, Task};
use nova_executors::{Egress, EgressConfig, EgressError};
use nova_journal::{DirLock, LockError};
use nova_telemetry::trace::{self, Context, Side, Span, keys};
use nova_wire::{ClusterId, v1};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::inbox::{Inbox, Incoming};
use crate::ledger::Ledger;
use crate::memory::{self, Memory};
use crate::metrics::{self as names, Attempts};
use crate::renewal::{self, Session};
use crate::results::Results;

/// Largest output of an attempt, in bytes: what the replicated state takes inline.
const MAX_OUTPUT_BYTES: usize = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);
/// How often gauges are set.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another process has its directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Its directory or ledger cannot be read or written.
    #[error("cannot use the data directory")]
    Data(#[from] std::io::Error),
    /// Its HTTP client cannot be built.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The coordinators will never take it under this name or with these settings.
    #[error("the worker is refused: {0}")]
    Refused(String),
}

/// A worker.
pub struct Worker {
    config: Config,
    bus: SharedBus,
    coordinators: Coordinators,
    registry: Registry,
    attempts: BTreeMap<&'static str, Attempts>,
    cluster: ClusterId,
    ledger: Ledger,
    boot: u64,
    _lock: DirLock,
}

/// How a session went.
enum Next {
    Again,
    Stop,
}

impl Worker {
    /// Takes its directory.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn new(config: Config, bus: SharedBus) -> Result<Self, RunError> {
        let lock = DirLock::take(&config.data)?;
        let egress = Egress::new(EgressConfig {
            allow_private: config.allow_private,
            timeout: Duration::from_millis(config.http_timeout_ms),
            ..EgressConfig::default()
        })?;
        let registry = nova_executors::registry(egress);
        Ok(Self {
            coordinators: Coordinators::new(config.coordinators.clone()),
            attempts: Attempts::of(registry.kinds()),
            registry,
            cluster: ClusterId::of_name(&config.cluster),
            ledger: Ledger::open(config.ledger.as_deref())?,
            boot: rand::random(),
            config,
            bus,
            _lock: lock,
        })
    }

    /// Works until `stop`; then it drains, as long as the config says.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        while !stop.is_cancelled() {
            match self.session(&stop).await? {
                Next::Again => {}
                Next::Stop => break,
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn session(&self, stop: &CancellationToken) -> Result<Next, RunError> {
        // Positions first: an assignment may come as soon as the registration is applied.
        let ends = match self.inbox_ends().await {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(%error, "the task topic cannot be reached");
                return Ok(Next::Again);
            }
        };
        let asked = Instant::now();
        let session = tokio::select! {
            session = self.register() => session?,
            () = stop.cancelled() => return Ok(Next::Stop),
        };
        let Some(session) = session else { return Ok(Next::Again) };
        counter!(names::SESSIONS).increment(1);
        memory::save(&self.config.data, Memory { last_session: session.session })?;
        tracing::info!(worker = session.worker, session = session.session, inbox = session.inbox, "session opened");
        let Some(from) = ends.get(session.inbox as usize).copied() else {
            return Err(RunError::Refused(format!("inbox {} is not a partition of the task topic", session.inbox)));
        };
        let mut reader = match self.bus.reader() {
            Ok(reader) => reader,
            Err(_) => return Ok(Next::Again),
        };
        if reader.assign(&Topic::Tasks, session.inbox, from).is_err() {
            return Ok(Next::Again);
        }
        let (valid, until) = watch::channel(session.valid_until(asked));
        let ended = CancellationToken::new();
        let results = Arc::new(Results::new(Arc::clone(&self.bus), self.cluster, ended.clone()));
        let inbox = Inbox::new(self.cluster, session);
        let renewing = renewal::keep(
            self.coordinators.clone(),
            session,
            valid,
            Arc::clone(&results.holding),
            Arc::clone(&inbox.seen),
        );
        let renewing = tokio::spawn(renewing);
        let read = Arc::new(AtomicU64::new(from));
        tokio::spawn(ended.clone().run_until_cancelled_owned(lag(
            Arc::clone(&self.bus),
            session.inbox,
            Arc::clone(&read),
        )));
        let live = Live { worker: self, session, results, inbox, read, until, ended: ended.clone() };
        let next = live.run(&mut *reader, renewing, stop).await;
        ended.cancel();
        for gauge in [names::RUNNING, names::OLDEST, names::RESULTS_WAITING, names::LAG] {
            gauge!(gauge).set(0.0);
        }
        Ok(next)
    }

    async fn inbox_ends(&self) -> Result<Vec<u64>, BusError> {
        let missing = || BusError::NoSuchPartition { topic: Topic::Tasks, partition: 0 };
        let count = self.bus.partitions(&Topic::Tasks).await?.ok_or_else(missing)?;
        let mut ends = Vec::with_capacity(count as usize);
        for partition in 0..count {
            ends.push(self.bus.offsets(&Topic::Tasks, partition).await?.end);
        }
        Ok(ends)
    }

    /// None when it should be tried again.
    async fn register(&self) -> Result<Option<Session>, RunError> {
        use v1::refusal::Kind;
        use v1::register_response::Result as Answer;
        let labels = self.config.labels.iter();
        let register = v1::Register {
            name: self.config.name.clone(),
            pool: self.config.pool.clone(),
            kinds: self.registry.kinds().map(Into::into).collect(),
            labels: labels.map(|(name, value)| v1::Label { name: name.clone(), value: value.clone() }).collect(),
            capacity: self.config.slots,
            boot: self.boot,
            last_session: memory::load(&self.config.data)?.last_session,
            // The lock of the directory is held, and attempts run in this process only.
            fenced: true,
            inboxes: 0,
        };
        let asking = self.coordinators.call(PATIENCE, Repeat::Never, |mut member| {
            let register = register.clone();
            async move { member.register(register).await }
        });
        match asking.await {
            Ok(v1::RegisterResponse { result: Some(Answer::Registered(done)), ttl_ms }) => Ok(Some(Session {
                worker: done.worker,
                session: done.session,
                inbox: done.inbox,
                ttl: Duration::from_millis(ttl_ms),
            })),
            Ok(v1::RegisterResponse { result: Some(Answer::Refused(refusal)), .. }) => match refusal.kind() {
                Kind::NotLastSession => {
                    // An answer was lost, or the directory is new. The name is ours: the lock says so.
                    memory::save(&self.config.data, Memory { last_session: refusal.number })?;
                    Ok(None)
                }
                Kind::NoInbox => {
                    tracing::warn!("all inboxes are full; the cluster needs more partitions of the task topic");
                    Ok(None)
                }
                kind => Err(RunError::Refused(format!("{}: {}", kind.as_str_name(), refusal.what))),
            },
            Ok(_) => Ok(None),
            Err(error @ ClientError::Refused(_)) => Err(RunError::Refused(error.to_string())),
            Err(error) => {
                // Tried again at once: only what lasts is worth a word, and `call` has waited already.
                tracing::warn!(%error, "no coordinator takes the registration");
                Ok(None)
            }
        }
    }

    fn task(&self, assignment: &v1::Assignment, lease: &v1::LeaseRef, trace: Option<Context>) -> Task {
        let execution: String = lease.execution.iter().map(|byte| format!("{byte:02x}")).collect();
        let node = &assignment.node_id;
        let key = format!("{execution}/{}/{node}/{}", assignment.scope, assignment.visit);
        let with = match assignment.with.as_ref().and_then(|payload| payload.kind.as_ref()) {
            Some(v1::payload::Kind::Inline(bytes)) => bytes.clone(),
            _ => bytes::Bytes::from_static(b"null"),
        };
        Task {
            kind: assignment.kind.as_str().into(),
            namespace: assignment.namespace.as_str().into(),
            idempotency_key: key.into(),
            execution: execution.into(),
            node: node.as_str().into(),
            attempt: assignment.attempt,
            with,
            timeout: assignment.attempt_timeout_ms.map(Duration::from_millis),
            traceparent: trace.map(|it| it.traceparent()),
        }
    }
}

/// A session that is open.
struct Live<'a> {
    worker: &'a Worker,
    session: Session,
    results: Arc<Results>,
    inbox: Inbox,
    /// The next offset of the inbox.
    read: Arc<AtomicU64>,
    until: watch::Receiver<Instant>,
    ended: CancellationToken,
}

struct Finished {
    token: u64,
    shard: u32,
    kind: v1::command::Kind,
}

/// An attempt that runs.
struct Running {
    stop: CancellationToken,
    revoked: bool,
    since: Instant,
}

impl Live<'_> {
    async fn run(
        &self,
        reader: &mut dyn Reader,
        mut renewing: tokio::task::JoinHandle<renewal::Ended>,
        stop: &CancellationToken,
    ) -> Next {
        let mut running: BTreeMap<u64, Running> = BTreeMap::new();
        let (finished, mut done) = mpsc::channel::<Finished>(1_024);
        let mut until = self.until.clone();
        let mut draining = None;
        let mut measure_at = Instant::now();
        let next = loop {
            let valid = *until.borrow_and_update();
            let drained = draining.is_some() && running.is_empty() && self.results.is_idle();
            let drain_over = draining.is_some_and(|end| Instant::now() >= end);
            if drained || drain_over {
                self.close(drained).await;
                break Next::Stop;
            }
            if Instant::now() >= measure_at {
                self.measure(&running);
                measure_at = Instant::now() + MEASURE_EVERY;
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(valid.into()), if Instant::now() >= valid => {
                    tracing::warn!(session = self.session.session, "the session lapsed: no renewal was answered");
                    break Next::Again;
                }
                ended = &mut renewing => {
                    tracing::warn!(session = self.session.session, ?ended, "the session was closed");
                    break Next::Again;
                }
                () = stop.cancelled(), if draining.is_none() => {
                    draining = Some(Instant::now() + Duration::from_millis(self.worker.config.drain_ms));
                    self.drain().await;
                }
                Some(finish) = done.recv() => {
                    let revoked = running.remove(&finish.token).is_some_and(|it| it.revoked);
                    let kind = if revoked { stopped(&finish.kind) } else { finish.kind };
                    self.results.report(finish.shard, finish.token, kind);
                }
                batch = reader.next(Duration::from_millis(100)) => match batch {
                    Ok(Some(batch)) => {
                        for record in &batch.records {
                            self.read.store(record.offset + 1, Ordering::Relaxed);
                            let (shard, highest, incoming) = self.inbox.read(record);
                            for message in incoming {
                                self.take(message, &mut running, &finished);
                            }
                            if highest > 0 {
                                self.inbox.seen.lock().insert(shard, highest);
                            }
                        }
                    }
                    Ok(None) => {}
                    Err(error @ ReadError::OutOfRange { .. }) => {
                        tracing::error!(%error, "the inbox was cut: the session is given up");
                        self.close(false).await;
                        break Next::Again;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the inbox cannot be read");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                changed = until.changed() => if changed.is_err() { break Next::Again },
            }
        };
        renewing.abort();
        for attempt in running.values() {
            attempt.stop.cancel();
        }
        // Nothing of this session may run when the next one begins.
        drop(finished);
        while done.recv().await.is_some() {}
        if stop.is_cancelled() { Next::Stop } else { next }
    }

    fn measure(&self, running: &BTreeMap<u64, Running>) {
        gauge!(names::SLOTS).set(f64::from(self.worker.config.slots));
        gauge!(names::RUNNING).set(running.len() as f64);
        let oldest = running.values().map(|it| it.since).min();
        gauge!(names::OLDEST).set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        gauge!(names::RESULTS_WAITING).set(self.results.waiting.load(Ordering::Relaxed) as f64);
    }

    fn take(&self, message: Incoming, running: &mut BTreeMap<u64, Running>, finished: &mpsc::Sender<Finished>) {
        match message {
            Incoming::Assign(assignment, lease) => {
                let stop = self.ended.child_token();
                let attempt = Running { stop: stop.clone(), revoked: false, since: Instant::now() };
                if running.insert(lease.token, attempt).is_some() {
                    return;
                }
                let shard = shard_of(&lease);
                self.results.holding.lock().tokens.insert(lease.token, shard);
                self.begin(*assignment, lease, shard, stop, finished.clone());
            }
            Incoming::Revoke(lease) => match running.get_mut(&lease.token) {
                Some(attempt) => {
                    attempt.revoked = true;
                    attempt.stop.cancel();
                }
                // It has ended, and its result is on its way or was lost: what counts is that nothing runs.
                None => {
                    let (shard, token) = (shard_of(&lease), lease.token);
                    self.results.report(shard, token, v1::command::Kind::Stopped(v1::Stopped { lease: Some(lease) }));
                }
            },
            Incoming::Stale(lease) => {
                if let Some(attempt) = running.get(&lease.token) {
                    attempt.stop.cancel();
                }
            }
        }
    }

    fn begin(
        &self,
        assignment: v1::Assignment,
        lease: v1::LeaseRef,
        shard: u32,
        stop: CancellationToken,
        finished: mpsc::Sender<Finished>,
    ) {
        // What the attempt does hangs on its span; when this process sends none, on what its execution hangs on.
        let parent = Context::carried(assignment.trace.as_ref());
        let mut span = parent.and_then(|parent| span(&assignment, &lease, parent));
        let trace = span.as_ref().map(Span::context).or(parent);
        let task = self.worker.task(&assignment, &lease, trace);
        let executor = self.worker.registry.get(&task.kind).cloned();
        let measured = self.worker.attempts.get(&*task.kind).cloned();
        let ledger = self.worker.ledger.clone();
        let until = self.until.clone();
        tokio::spawn(async move {
            let token = lease.token;
            let (Some(executor), Some(measured)) = (executor, measured) else {
                fail(&mut span, "declined");
                let reason = format!("kind '{}' is not carried here", task.kind);
                let kind = v1::command::Kind::Declined(v1::Declined { lease: Some(lease), reason });
                let _ = finished.send(Finished { token, shard, kind }).await;
                return;
            };
            // The clock is looked at before every outside effect (rule 24).
            if Instant::now() >= *until.borrow() || stop.is_cancelled() {
                fail(&mut span, "stopped");
                measured.stopped.increment(1);
                let kind = v1::command::Kind::Stopped(v1::Stopped { lease: Some(lease) });
                let _ = finished.send(Finished { token, shard, kind }).await;
                return;
            }
            ledger.write("begin", &assignment, &lease);
            let begun = Instant::now();
            let result = guard(executor.run(&task, &stop)).await;
            ledger.write("end", &assignment, &lease);
            measured.seconds.record(begun.elapsed().as_secs_f64());
            let outcome = match result {
                Ok(output) if output.len() > MAX_OUTPUT_BYTES => {
                    let why = format!("the output has {} bytes; at most {MAX_OUTPUT_BYTES} are kept", output.len());
                    Err(Failure::permanent("limit.payload", why))
                }
                other => other,
            };
            match &outcome {
                Ok(_) => measured.completed.increment(1),
                Err(_) if stop.is_cancelled() => measured.stopped.increment(1),
                Err(_) => measured.failed.increment(1),
            }
            if let Err(failure) = &outcome {
                fail(&mut span, &failure.code);
            }
            drop(span);
            let kind = result_command(lease, outcome, trace);
            let _ = finished.send(Finished { token, shard, kind }).await;
        });
    }

    async fn drain(&self) {
        tracing::info!(session = self.session.session, "draining");
        let drain = v1::Drain { worker: self.session.worker, draining: true };
        let asking = self
            .worker
            .coordinators
            .call(PATIENCE, Repeat::Harmless, |mut member| async move { member.drain_worker(drain).await });
        if let Err(error) = asking.await {
            tracing::warn!(%error, "the drain could not be announced");
        }
    }

    async fn close(&self, drained: bool) {
        if !drained {
            self.ended.cancel();
        }
        let close = v1::Close { worker: self.session.worker, session: self.session.session };
        let asking = self
            .worker
            .coordinators
            .call(PATIENCE, Repeat::Harmless, |mut member| async move { member.close_session(close).await });
        match asking.await {
            Ok(_) => tracing::info!(session = self.session.session, "session closed"),
            Err(error) => tracing::warn!(%error, "the session could not be closed; it lapses by itself"),
        }
    }
}

/// A panic in an executor is a failure of its attempt and of nothing else.
async fn guard<T>(attempt: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    use futures::FutureExt;
    let attempt = std::panic::AssertUnwindSafe(attempt).catch_unwind();
    attempt.await.unwrap_or_else(|_| Err(Failure::permanent("task.panic", "the executor panicked")))
}

/// The shard of an execution stands in the first two bytes of its id.
fn shard_of(lease: &v1::LeaseRef) -> u32 {
    match lease.execution.get(..2) {
        Some(bytes) => u32::from(bytes[0]) << 8 | u32::from(bytes[1]),
        None => 0,
    }
}

/// Looks every second how far the inbox is read.
async fn lag(bus: SharedBus, inbox: u32, read: Arc<AtomicU64>) {
    loop {
        if let Ok(range) = bus.offsets(&Topic::Tasks, inbox).await {
            gauge!(names::LAG).set(range.end.saturating_sub(read.load(Ordering::Relaxed)) as f64);
        }
        tokio::time::sleep(MEASURE_EVERY).await;
    }
}

/// What is said of an attempt that was taken back, whatever it came to.
fn stopped(kind: &v1::command::Kind) -> v1::command::Kind {
    let lease = match kind {
        v1::command::Kind::Result(result) => result.lease.clone(),
        v1::command::Kind::Declined(declined) => declined.lease.clone(),
        v1::command::Kind::Stopped(stopped) => stopped.lease.clone(),
        v1::command::Kind::Submit(_) | v1::command::Kind::Cancel(_) => None,
    };
    v1::command::Kind::Stopped(v1::Stopped { lease })
}

fn span(assignment: &v1::Assignment, lease: &v1::LeaseRef, parent: Context) -> Option<Span> {
    let mut span = Span::begin(trace::names::ATTEMPT, Side::Consumer, parent)?;
    span.set(keys::EXECUTION, trace::execution_id(&lease.execution));
    span.set(keys::NAMESPACE, assignment.namespace.clone());
    span.set(keys::NODE, assignment.node_id.clone());
    span.set(keys::ATTEMPT, i64::from(assignment.attempt));
    span.set(keys::KIND, assignment.kind.clone());
    Some(span)
}

fn fail(span: &mut Option<Span>, code: &str) {
    if let Some(span) = span {
        span.fail(code.to_owned());
    }
}

fn result_command(
    lease: v1::LeaseRef,
    outcome: Result<bytes::Bytes, Failure>,
    trace: Option<Context>,
) -> v1::command::Kind {
    use v1::task_result::Outcome;
    let outcome = match outcome {
        Ok(output) => Outcome::Completed(v1::Payload { kind: Some(v1::payload::Kind::Inline(output)) }),
        Err(failure) => Outcome::Failed(v1::Failure {
            code: failure.code,
            message: failure.message,
            retryable: failure.retryable,
            retry_after_ms: failure.retry_after.map(|after| after.as_millis() as u64),
            detail: failure.detail,
            node: String::new(),
        }),
    };
    v1::command::Kind::Result(v1::TaskResult {
        lease: Some(lease),
        outcome: Some(outcome),
        trace: trace.map(Into::into),
    })
}
