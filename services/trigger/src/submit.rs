//! Submissions on their way to the shards of their sources, and records that are put aside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{counter, histogram};
use nova_bus::lane::{Acknowledge, Item, Lane, Seal};
use nova_bus::{AppendError, MAX_RECORD_BYTES, SharedBus, Topic};
use nova_engine::ids::ExecutionId;
use nova_telemetry::trace::{self, Side, Span, keys};
use nova_trigger_rules::{Source, execution_id, shard_of};
use nova_wire::{ClusterId, execution_bytes, v1};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics as names;
use crate::workflows::Target;

/// Bytes that the bus has not acknowledged, above which nothing more is read or fired.
const WAITING_BYTES: u64 = 16 << 20;
/// Pause between two looks at them.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the acknowledgement of dead letters before they are written again.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What a dead letter carries of a record that is nearly as large as a record may be.
const ORIGINAL_BYTES: usize = MAX_RECORD_BYTES * 3 / 4;
/// Bytes of dead letters that are handed over at once.
const DEAD_BYTES: usize = 4 << 20;

/// The highest number of a source that the bus has acknowledged.
pub(crate) type Acknowledged = watch::Sender<Option<u64>>;

/// A command on its way.
struct Submission {
    command: Bytes,
    number: u64,
    since: Instant,
    acknowledged: Acknowledged,
    /// Ends when it is acknowledged; none when its execution is not traced.
    _span: Option<Span>,
}

impl Item for Submission {
    fn bytes(&self) -> usize {
        self.command.len() + 16
    }
}

/// Where the numbers of a source go.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub namespace: Arc<str>,
    pub trigger: Arc<str>,
    pub workflow: Arc<str>,
    pub source: Source,
    pub shard: u32,
    pub acknowledged: Acknowledged,
}

/// One execution to begin.
pub(crate) struct Start {
    pub number: u64,
    pub at_ms: u64,
    pub input: Bytes,
}

/// Something that starts nothing, with its reason.
pub(crate) struct Dead {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub code: &'static str,
    pub reason: String,
    pub original: Bytes,
    pub at_ms: u64,
}

/// Takes submissions of all triggers.
pub(crate) struct Submitter {
    bus: SharedBus,
    cluster: ClusterId,
    shards: u16,
    lanes: Mutex<BTreeMap<u32, Lane<Submission>>>,
    waiting: Arc<AtomicU64>,
    trace_ratio: f64,
    stop: CancellationToken,
}

impl Submitter {
    /// Submissions are given up when `stop` is cancelled; others will make them again.
    pub(crate) fn new(
        bus: SharedBus,
        cluster: ClusterId,
        shards: u16,
        trace_ratio: f64,
        stop: CancellationToken,
    ) -> Self {
        Self { bus, cluster, shards, lanes: Mutex::default(), waiting: Arc::default(), trace_ratio, stop }
    }

    pub(crate) fn outlet(
        &self,
        namespace: &Arc<str>,
        trigger: &Arc<str>,
        workflow: &Arc<str>,
        source: Source,
    ) -> Outlet {
        let shard = u32::from(shard_of(namespace, &source, self.shards).0);
        Outlet {
            namespace: Arc::clone(namespace),
            trigger: Arc::clone(trigger),
            workflow: Arc::clone(workflow),
            source,
            shard,
            acknowledged: watch::Sender::new(None),
        }
    }

    /// Bytes that wait for the bus.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Comes back when there is room for more. Whoever submits asks before each batch or slot; so at most one batch per
    /// trigger goes above the limit.
    pub(crate) async fn room(&self) {
        while self.waiting() >= WAITING_BYTES {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }

    /// Submits an execution. Submissions of one source are in the log in the order of these calls, first ones first: a
    /// lane repeats what is not acknowledged before anything behind it goes out.
    pub(crate) fn start(&self, outlet: &Outlet, target: &Target, start: Start) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(outlet.workflow.as_bytes()).update(&[0]).update(&start.input);
        let content_hash = Bytes::copy_from_slice(hasher.finalize().as_bytes());
        self.push(outlet, start.number, start.at_ms, target.version, target.hash.clone(), content_hash, start.input);
    }

    /// Moves the position of a source without an execution. The engine decides each number once, by an execution or by a
    /// rejection, and no workflow has a version 0.
    pub(crate) fn mark(&self, outlet: &Outlet, number: u64, at_ms: u64) {
        let nothing = Bytes::from_static(&[0; 32]);
        self.push(outlet, number, at_ms, 0, nothing.clone(), nothing, Bytes::from_static(b"null"));
    }

    #[allow(clippy::too_many_arguments)]
    fn push(
        &self,
        outlet: &Outlet,
        number: u64,
        at_ms: u64,
        version: u32,
        hash: Bytes,
        content_hash: Bytes,
        input: Bytes,
    ) {
        let shard = shard_of(&outlet.namespace, &outlet.source, self.shards);
        let execution = execution_id(shard, &outlet.namespace, &outlet.source, number, at_ms);
        // A mark begins nothing.
        let span = if version > 0 { self.span(outlet, execution) } else { None };
        let source = v1::Source { source: outlet.source.name().to_owned(), number };
        let submit = v1::Submit {
            execution: execution_bytes(execution),
            namespace: outlet.namespace.to_string(),
            workflow: outlet.workflow.to_string(),
            version,
            hash,
            input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(input)) }),
            content_hash,
            dedupe: Some(v1::submit::Dedupe::Source(source)),
            started_by: format!("trigger:{}", outlet.trigger),
            trace: span.as_ref().map(|span| span.context().into()),
            ..Default::default()
        };
        let command = v1::Command { kind: Some(v1::command::Kind::Submit(submit)) }.encode_to_vec().into();
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(outlet.shard).or_insert_with(|| self.lane(outlet.shard));
        let since = Instant::now();
        lane.push(Submission { command, number, since, acknowledged: outlet.acknowledged.clone(), _span: span });
    }

    /// A share of executions is traced. Which ones is told by their ids, since several services may submit the same.
    fn span(&self, outlet: &Outlet, execution: ExecutionId) -> Option<Span> {
        if self.trace_ratio <= 0.0 || !trace::enabled() {
            return None;
        }
        let bytes = execution_bytes(execution);
        let random = bytes.last_chunk::<4>().map(|it| u32::from_be_bytes(*it))?;
        if f64::from(random) >= self.trace_ratio * 2_f64.powi(32) {
            return None;
        }
        let mut span = Span::root(trace::names::FIRE, Side::Internal)?;
        span.set(keys::EXECUTION, trace::execution_id(&bytes));
        span.set(keys::NAMESPACE, outlet.namespace.to_string());
        span.set(keys::WORKFLOW, outlet.workflow.to_string());
        Some(span)
    }

    fn lane(&self, shard: u32) -> Lane<Submission> {
        let cluster = self.cluster;
        let seal: Seal<Submission> = Arc::new(move |submissions: &[Submission]| {
            // A repeated field of messages: tag, length, bytes. The commands are encoded already.
            let mut body = Vec::with_capacity(submissions.iter().map(Item::bytes).sum());
            for submission in submissions {
                prost::encoding::bytes::encode(1, &submission.command, &mut body);
            }
            vec![nova_wire::seal(cluster, v1::RecordKind::Commands, shard, body.into())]
        });
        let acknowledge: Acknowledge<Submission> = Arc::new(|submissions: Vec<Submission>, _| {
            if let Some(first) = submissions.first() {
                histogram!(names::ACKNOWLEDGE_SECONDS).record(first.since.elapsed().as_secs_f64());
            }
            for submission in submissions {
                let highest = Some(submission.number);
                submission.acknowledged.send_if_modified(|known| {
                    let higher = *known < highest;
                    *known = (*known).max(highest);
                    higher
                });
            }
        });
        let (bus, waiting) = (Arc::clone(&self.bus), Arc::clone(&self.waiting));
        Lane::start(bus, Topic::Commands, shard, seal, acknowledge, waiting, self.stop.clone())
    }

    /// Puts aside what starts nothing; comes back when it is durable. The same may be put aside twice, by a repeat or by
    /// another service.
    pub(crate) async fn put_aside(&self, kind: &'static str, dead: Vec<Dead>) {
        let mut records = Vec::new();
        let mut bytes = 0;
        for letter in dead {
            counter!(names::DEAD_LETTERS, "kind" => kind, "reason" => letter.code).increment(1);
            let body = v1::DeadLetter {
                topic: letter.topic,
                partition: letter.partition,
                offset: letter.offset,
                reason: format!("{}: {}", letter.code, letter.reason),
                original: letter.original.slice(..letter.original.len().min(ORIGINAL_BYTES)),
                at_ms: letter.at_ms,
            };
            let record = nova_wire::seal(self.cluster, v1::RecordKind::DeadLetter, 0, body.encode_to_vec().into());
            bytes += record.len();
            records.push(record);
            if bytes >= DEAD_BYTES {
                self.append_dead(std::mem::take(&mut records)).await;
                bytes = 0;
            }
        }
        if !records.is_empty() {
            self.append_dead(records).await;
        }
    }

    async fn append_dead(&self, records: Vec<Bytes>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let batch = records.iter().cloned().map(Into::into).collect();
            let ack = self.bus.append(&Topic::DeadLetter, 0, batch);
            let why = match tokio::time::timeout(PATIENCE, ack).await {
                Ok(Ok(_)) => return,
                Ok(Err(error @ AppendError::TooLarge { .. })) => {
                    // Cannot be: originals are cut. Going on is better than stopping every record behind it.
                    tracing::error!(%error, "dead letters are dropped");
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no acknowledgement in time".into(),
            };
            counter!(names::ERRORS, "what" => "dead_letter").increment(1);
            tracing::warn!(why, "writing dead letters is repeated");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
