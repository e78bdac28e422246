//! One producer at a time, and what becomes of the appends that were handed to it.
//!
//! ```text
//!   create ──> down ──answers──> up ──all brokers gone──> down      refuse appends while down
//!     ^          │               │
//!     └── purge ─┴── an error it cannot heal, or an append too old
//! ```
//!
//! A generation is given up as a whole: nothing that was queued behind a failed record may be sent, for its readers
//! would take it as proof that the record before it will not come. So the library retries for ever, and this module
//! alone decides that it has been long enough.
//!
//! A broker keeps the order of what one producer has under way to a partition by numbers that have no gap. It cannot
//! for a producer that it does not know yet: it takes any number as the first, also one behind a record that it has just
//! refused. So the first record of a generation to a partition goes alone, and what comes behind it waits here.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nova_bus::{Ack, AppendError, BusError, Outgoing};
use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext, PurgeConfig};
use tokio::sync::{oneshot, watch};

use crate::config::Config;

/// How often the thread looks at more than what the library reports. The reports end no wait, and rdkafka 0.39 waits in
/// whole milliseconds and spins for the rest of the last one: with 20 ms that took 4.5 % of a core in each idle process,
/// with 100 ms it takes 0.9 %.
const TICK: Duration = Duration::from_millis(100);

/// An append that waits so long may wait for a broker that no longer leads its partition: from then on it is asked every
/// so often who does. The library by itself asks once a second.
const LATE: Duration = Duration::from_millis(250);

/// Longest wait for that answer; reports of other brokers wait behind it.
const ASK: Duration = Duration::from_millis(100);

/// Longest wait for an answer while nobody knows whether the brokers are there.
const PROBE: Duration = Duration::from_millis(500);

type Outcome = Result<u64, AppendError>;
type Generation = BaseProducer<Reports>;

/// What the appends, the library's reports and the thread tell each other.
struct Signals {
    /// Why appends are refused; none while they are taken.
    down: watch::Sender<Option<String>>,
    /// By partition: the first append that was refused or lost and whose caller has not seen that. Until then all behind it
    /// are refused. A caller with several under way may have handed over the next one before; taken, it would stand in the
    /// log without the one before it.
    held: Mutex<HashMap<(Arc<str>, i32), Weak<()>>>,
    in_flight_bytes: AtomicU64,
}

impl Signals {
    fn set_down(&self, why: Option<String>) {
        self.down.send_if_modified(|now| {
            let changed = now.is_some() != why.is_some();
            *now = why;
            changed
        });
    }

    fn hold(&self, topic: &Arc<str>, partition: i32, unseen: &Weak<()>) {
        let mut held = self.held.lock();
        let first = held.entry((Arc::clone(topic), partition)).or_default();
        if first.strong_count() == 0 {
            first.clone_from(unseen);
        }
    }

    fn is_held(&self, topic: &Arc<str>, partition: i32) -> bool {
        let mut held = self.held.lock();
        if held.is_empty() {
            return false;
        }
        held.retain(|_, unseen| unseen.strong_count() > 0);
        held.contains_key(&(Arc::clone(topic), partition))
    }
}

/// One call of `append` on its way.
pub(crate) struct Append {
    topic: Arc<str>,
    partition: i32,
    bytes: u64,
    since: Instant,
    count: u32,
    /// Records without a report.
    left: AtomicU32,
    /// Records that the library gave back without ever sending them.
    unsent: AtomicU32,
    first: AtomicU64,
    /// Its first record is the first of its generation to the partition, and has no report yet.
    opens: AtomicBool,
    failure: Mutex<Option<String>>,
    answer: Mutex<Option<oneshot::Sender<Outcome>>>,
    /// Until the caller has seen the answer.
    unseen: Weak<()>,
    signals: Arc<Signals>,
}

impl Append {
    fn settled(&self) -> bool {
        self.answer.lock().is_none()
    }

    fn settle(&self, outcome: Outcome) {
        let Some(answer) = self.answer.lock().take() else { return };
        self.signals.in_flight_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        if outcome.is_err() {
            self.signals.hold(&self.topic, self.partition, &self.unseen);
        }
        // A caller that no longer waits has dropped its ack; the records are written all the same.
        drop(answer.send(outcome));
    }

    /// Counts reports; the last one settles it.
    fn reported(&self, reports: u32) {
        if self.left.fetch_sub(reports, Ordering::AcqRel) != reports {
            return;
        }
        self.settle(match self.failure.lock().take() {
            None => Ok(self.first.load(Ordering::Acquire)),
            Some(why) if self.unsent.load(Ordering::Acquire) == self.count => Err(AppendError::NotSent { why }),
            Some(why) => Err(AppendError::OutcomeUnknown { why }),
        });
    }
}

/// Takes the library's reports on one generation.
pub(crate) struct Reports {
    shared: Weak<Shared>,
    signals: Arc<Signals>,
    failed: Mutex<Option<String>>,
}

impl Reports {
    fn fail(&self, why: String) {
        self.failed.lock().get_or_insert(why);
    }

    fn failed(&self) -> Option<String> {
        self.failed.lock().clone()
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        crate::context::log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Authentication) => {
                self.signals.set_down(Some(reason.to_owned()));
            }
            Some(RDKafkaErrorCode::Fatal) => self.fail(reason.to_owned()),
            _ => tracing::debug!(%error, reason, "kafka producer error"),
        }
    }
}

/// Whether a record with this error certainly never left this process.
fn never_sent(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition))
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, result: &DeliveryResult<'_>, append: Self::DeliveryOpaque) {
        match result {
            Ok(message) => {
                append.first.fetch_min(u64::try_from(message.offset()).unwrap_or(u64::MAX), Ordering::AcqRel);
            }
            Err((error, _)) => {
                if never_sent(error) {
                    append.unsent.fetch_add(1, Ordering::AcqRel);
                } else {
                    self.fail(error.to_string());
                }
                // A purge is what came of the failure, not its reason.
                let why = self.failed().unwrap_or_else(|| error.to_string());
                append.failure.lock().get_or_insert(why);
            }
        }
        let opened = append.opens.swap(false, Ordering::AcqRel);
        append.reported(1);
        if opened && let Some(shared) = self.shared.upgrade() {
            shared.opened(&append, result.as_ref().map(drop).map_err(|(error, _)| error));
        }
    }
}

/// What one generation has written to a partition.
enum Lane {
    /// Its first record is under way; these wait behind it.
    Opening(VecDeque<(Arc<Append>, Vec<Outgoing>)>),
    /// The broker knows the producer.
    Open,
}

#[derive(Default)]
struct State {
    producer: Option<Arc<Generation>>,
    /// Oldest first; settled ones are dropped as they reach the front.
    outstanding: VecDeque<Arc<Append>>,
    lanes: HashMap<(Arc<str>, i32), Lane>,
}

impl State {
    fn drop_settled(&mut self) {
        while self.outstanding.front().is_some_and(|append| append.settled()) {
            self.outstanding.pop_front();
        }
    }
}

struct Shared {
    config: Config,
    signals: Arc<Signals>,
    /// Held while an append is handed over, so that the order of the calls is the order in the log.
    state: Mutex<State>,
    closing: AtomicBool,
}

/// Hands appends to Kafka. Its thread ends some time after it is dropped, when what was handed over is settled.
pub(crate) struct Publisher(Arc<Shared>);

impl Publisher {
    pub(crate) fn start(config: &Config, thread: &str) -> Result<Self, BusError> {
        let (down, _) = watch::channel(Some("no broker has answered yet".to_owned()));
        let signals = Signals { down, held: Mutex::default(), in_flight_bytes: AtomicU64::new(0) };
        let shared = Arc::new(Shared {
            config: config.clone(),
            signals: Arc::new(signals),
            state: Mutex::new(State::default()),
            closing: AtomicBool::new(false),
        });
        // Made here once, so that settings which the library refuses are seen by whoever gave them.
        let first = shared.create().map_err(|error| BusError::Unavailable { why: error.to_string() })?;
        let thread_shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || thread_shared.run(first))
            .map_err(|error| BusError::Unavailable { why: format!("no thread for the producer: {error}") })?;
        Ok(Self(shared))
    }

    pub(crate) fn append(&self, topic: &Arc<str>, partition: u32, records: Vec<Outgoing>) -> Ack {
        let Ok(number) = i32::try_from(partition) else {
            return Ack::ready(Err(AppendError::NotSent { why: format!("no partition {partition} of {topic}") }));
        };
        let unseen = Arc::new(());
        let ack = self.0.append(topic, number, records, Arc::downgrade(&unseen));
        ack.unwrap_or_else(|why| Ack::ready(Err(AppendError::NotSent { why }))).unseen(unseen)
    }

    /// Waits until appends are taken.
    pub(crate) async fn ready(&self, wait: Duration) -> Result<(), BusError> {
        let mut down = self.0.signals.down.subscribe();
        let up = down.wait_for(Option::is_none);
        if matches!(tokio::time::timeout(wait, up).await, Ok(Ok(_))) {
            return Ok(());
        }
        let why = self.0.signals.down.borrow().clone();
        why.map_or(Ok(()), |why| Err(BusError::Unavailable { why }))
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
    }
}

impl Shared {
    fn create(self: &Arc<Self>) -> Result<Arc<Generation>, KafkaError> {
        let shared = Arc::downgrade(self);
        let reports = Reports { shared, signals: Arc::clone(&self.signals), failed: Mutex::default() };
        BaseProducer::from_config_and_context(&self.config.producer(), reports).map(Arc::new)
    }

    /// The error says why nothing was handed over.
    fn append(
        &self,
        topic: &Arc<str>,
        partition: i32,
        mut records: Vec<Outgoing>,
        unseen: Weak<()>,
    ) -> Result<Ack, String> {
        let count = u32::try_from(records.len()).map_err(|_| "too many records".to_owned())?;
        if count == 0 {
            return Err("no records".into());
        }
        let bytes = records.iter().map(|record| record.size() as u64 + 64).sum();
        let mut state = self.state.lock();
        if self.signals.is_held(topic, partition) {
            return Err("an append to this partition failed, and its caller has not seen it".into());
        }
        let refuse = |why: String| {
            self.signals.hold(topic, partition, &unseen);
            why
        };
        if let Some(why) = &*self.signals.down.borrow() {
            return Err(refuse(why.clone()));
        }
        let Some(producer) = state.producer.clone() else {
            return Err(refuse("the producer is being replaced".into()));
        };
        // It is replaced within a moment; what came now would go the way of the rest.
        if let Some(why) = producer.context().failed() {
            return Err(refuse(why));
        }
        // Only added to under the lock, so this cannot be overtaken.
        if self.signals.in_flight_bytes.load(Ordering::Acquire) + bytes > self.config.max_in_flight_bytes {
            return Err(refuse("too many bytes wait for acknowledgement".into()));
        }
        self.signals.in_flight_bytes.fetch_add(bytes, Ordering::AcqRel);
        let (answer, receiver) = oneshot::channel();
        let append = Arc::new(Append {
            topic: Arc::clone(topic),
            partition,
            bytes,
            since: Instant::now(),
            count,
            left: AtomicU32::new(count),
            unsent: AtomicU32::new(0),
            first: AtomicU64::new(u64::MAX),
            opens: AtomicBool::new(false),
            failure: Mutex::default(),
            answer: Mutex::new(Some(answer)),
            unseen,
            signals: Arc::clone(&self.signals),
        });
        let handed = match state.lanes.get_mut(&(Arc::clone(topic), partition)) {
            Some(Lane::Open) => hand_over(&producer, &append, &records),
            Some(Lane::Opening(behind)) => {
                behind.push_back((Arc::clone(&append), records));
                Ok(())
            }
            None => {
                append.opens.store(true, Ordering::Release);
                let rest = records.split_off(1);
                let behind = if rest.is_empty() { VecDeque::new() } else { [(Arc::clone(&append), rest)].into() };
                hand_over(&producer, &append, &records).inspect(|()| {
                    state.lanes.insert((Arc::clone(topic), partition), Lane::Opening(behind));
                })
            }
        };
        match handed {
            Ok(()) => {}
            Err(Refused { handed: 0, why }) => {
                append.settle(Err(AppendError::NotSent { why }));
                return Ok(Ack::waiting(receiver));
            }
            Err(refused) => refused.fail(&producer, &append, count),
        }
        state.outstanding.push_back(append);
        state.drop_settled();
        Ok(Ack::waiting(receiver))
    }

    /// The first record to a partition has its report: what waits behind it goes the same way.
    fn opened(&self, first: &Append, result: Result<(), &KafkaError>) {
        let mut state = self.state.lock();
        let Some(producer) = state.producer.clone() else { return };
        let key = (Arc::clone(&first.topic), first.partition);
        let Some(Lane::Opening(behind)) = state.lanes.remove(&key) else { return };
        match result {
            Ok(()) => {
                state.lanes.insert(key, Lane::Open);
                for (append, records) in behind {
                    if let Err(refused) = hand_over(&producer, &append, &records) {
                        refused.fail(&producer, &append, records.len() as u32);
                        return;
                    }
                }
            }
            Err(error) if never_sent(error) => {
                for (append, records) in behind {
                    let count = records.len() as u32;
                    append.failure.lock().get_or_insert(error.to_string());
                    append.unsent.fetch_add(count, Ordering::AcqRel);
                    append.reported(count);
                }
            }
            // The generation ends, and all that waits with it.
            Err(_) => {}
        }
    }

    fn run(self: Arc<Self>, first: Arc<Generation>) {
        let mut next = Some(first);
        loop {
            let producer = match next.take().map_or_else(|| self.create(), Ok) {
                Ok(producer) => producer,
                Err(error) => {
                    self.signals.set_down(Some(error.to_string()));
                    if self.closing.load(Ordering::Acquire) {
                        return;
                    }
                    std::thread::sleep(PROBE);
                    continue;
                }
            };
            self.state.lock().producer = Some(Arc::clone(&producer));
            let failure = self.serve(&producer);
            self.retire(producer, failure.as_deref().unwrap_or("the bus was closed"));
            match failure {
                Some(why) => tracing::warn!(why, "kafka producer replaced"),
                None => return,
            }
        }
    }

    /// Serves a generation until it fails, or the bus is closed and all is settled: then without a reason.
    fn serve(&self, producer: &Generation) -> Option<String> {
        let mut closing_since = None;
        let mut asked = Instant::now();
        loop {
            if self.signals.down.borrow().is_some() {
                self.probe(producer);
            }
            producer.poll(TICK);
            if let Some(why) = producer.context().failed() {
                return Some(why);
            }
            if let Some((_, why)) = producer.client().fatal_error() {
                return Some(why);
            }
            let (oldest, late) = {
                let mut state = self.state.lock();
                state.drop_settled();
                let first = state.outstanding.front();
                let age = first.map(|append| append.since.elapsed());
                let late = first.filter(|_| age > Some(LATE)).map(|append| Arc::clone(&append.topic));
                (age, late)
            };
            if let Some(topic) = late.filter(|_| asked.elapsed() > LATE) {
                asked = Instant::now();
                // What it says goes where the library looks.
                drop(producer.client().fetch_metadata(Some(&topic), ASK));
            }
            if oldest.is_some_and(|age| age > self.config.message_timeout) {
                return Some(format!("no acknowledgement within {:?}", self.config.message_timeout));
            }
            if self.closing.load(Ordering::Acquire) {
                let since = *closing_since.get_or_insert_with(Instant::now);
                if oldest.is_none() || since.elapsed() > self.config.message_timeout {
                    return None;
                }
            }
        }
    }

    /// Asks whether a broker is there. Any topic does; this one is there already or is not made by asking.
    fn probe(&self, producer: &Generation) {
        let topic = format!("{}{}", self.config.prefix, nova_bus::Topic::Commands.name());
        match producer.client().fetch_metadata(Some(&topic), PROBE) {
            Ok(_) => {
                tracing::info!("kafka answers");
                self.signals.set_down(None);
            }
            Err(error) => tracing::debug!(%error, "kafka does not answer"),
        }
    }

    /// Takes a generation out of service. Nothing that still waits in it is sent after this.
    fn retire(&self, producer: Arc<Generation>, why: &str) {
        self.signals.set_down(Some(why.to_owned()));
        let lost = {
            let mut state = self.state.lock();
            std::mem::take(&mut *state).outstanding
        };
        producer.context().fail(why.to_owned());
        producer.purge(PurgeConfig::default().queue().inflight());
        // What was acknowledged before the purge is worth an answer; the rest is reported as purged.
        let deadline = Instant::now() + PROBE;
        while Instant::now() < deadline && !lost.iter().all(|append| append.settled()) {
            producer.poll(Duration::from_millis(5));
        }
        for append in lost {
            append.settle(Err(AppendError::OutcomeUnknown { why: why.to_owned() }));
        }
    }
}

/// The library refused a record of an append, after it had taken some.
struct Refused {
    handed: u32,
    why: String,
}

impl Refused {
    /// Half of an append is under way. Only an error that ends the producer can do that.
    fn fail(self, producer: &Generation, append: &Append, count: u32) {
        producer.context().fail(self.why.clone());
        append.failure.lock().get_or_insert(self.why);
        append.reported(count - self.handed);
    }
}

fn hand_over(producer: &Generation, append: &Arc<Append>, records: &[Outgoing]) -> Result<(), Refused> {
    for (handed, record) in (0_u32..).zip(records) {
        if let Err((error, _)) = producer.send(outgoing(record, append)) {
            return Err(Refused { handed, why: error.to_string() });
        }
    }
    Ok(())
}

fn outgoing<'a>(record: &'a Outgoing, append: &'a Arc<Append>) -> BaseRecord<'a, [u8], [u8], Arc<Append>> {
    let mut out = BaseRecord::with_opaque_to(&append.topic, Arc::clone(append))
        .partition(append.partition)
        .payload(&record.value[..]);
    out.key = record.key.as_deref();
    if !record.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(record.headers.len());
        out.headers = Some(
            record
                .headers
                .iter()
                .fold(headers, |headers, (name, value)| headers.insert(Header { key: name, value: Some(&value[..]) })),
        );
    }
    out
}
