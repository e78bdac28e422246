//! Answers to the requests of this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nova_bus::{BusError, SharedBus, Topic};
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PAUSE: Duration = Duration::from_millis(200);

/// What a reply says.
pub(crate) type Answer = v1::reply::Answer;

/// Requests of this process that wait for answers.
pub(crate) struct Replies {
    pub inbox: u32,
    boot: u64,
    next: AtomicU64,
    /// By number, so the oldest is the first.
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    /// The next offset of the inbox.
    read: AtomicU64,
}

struct Waiting {
    answers: mpsc::UnboundedSender<Answer>,
    since: Instant,
}

/// A request that waits; it waits no more when this is dropped.
pub(crate) struct Expected {
    replies: Arc<Replies>,
    request: u64,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Expected {
    pub(crate) fn reply_to(&self) -> v1::ReplyTo {
        v1::ReplyTo { inbox: self.replies.inbox, boot: self.replies.boot, request: self.request }
    }

    pub(crate) async fn next(&mut self, limit: Duration) -> Option<Answer> {
        tokio::time::timeout(limit, self.answers.recv()).await.ok().flatten()
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.replies.waiting.lock().remove(&self.request);
    }
}

impl Replies {
    /// Reads the inbox from its end on: answers to an earlier process are nobody's.
    pub(crate) async fn start(
        bus: SharedBus,
        cluster: ClusterId,
        inbox: u32,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, BusError> {
        let end = bus.offsets(&Topic::Replies, inbox).await?.end;
        let replies = Arc::new(Self {
            inbox,
            boot: rand::random(),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            read: AtomicU64::new(end),
        });
        let own = Arc::clone(&replies);
        tokio::spawn(async move {
            tokio::select! {
                () = own.read(bus, cluster, end) => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(replies)
    }

    /// A new request.
    pub(crate) fn expect(self: &Arc<Self>) -> Expected {
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::unbounded_channel();
        self.waiting.lock().insert(request, Waiting { answers: sender, since: Instant::now() });
        Expected { replies: Arc::clone(self), request, answers }
    }

    /// How many requests wait, and how long the oldest does.
    pub(crate) fn waiting(&self) -> (usize, Duration) {
        let waiting = self.waiting.lock();
        let oldest = waiting.first_key_value().map(|(_, oldest)| oldest.since.elapsed());
        (waiting.len(), oldest.unwrap_or_default())
    }

    /// Records that are not read yet; none when the bus does not say.
    pub(crate) async fn lag(&self, bus: &SharedBus) -> Option<u64> {
        let end = bus.offsets(&Topic::Replies, self.inbox).await.ok()?.end;
        Some(end.saturating_sub(self.read.load(Ordering::Relaxed)))
    }

    async fn read(&self, bus: SharedBus, cluster: ClusterId, from: u64) {
        let mut next = from;
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        loop {
            let failed = match bus.reader() {
                Ok(mut reader) => match reader.assign(&Topic::Replies, self.inbox, next) {
                    Ok(()) => loop {
                        match reader.next(Duration::from_secs(1)).await {
                            Ok(Some(batch)) => {
                                for record in &batch.records {
                                    next = record.offset + 1;
                                    self.take(&record.value, cluster, &mut seen);
                                }
                                self.read.store(next, Ordering::Relaxed);
                            }
                            Ok(None) => {}
                            Err(nova_bus::ReadError::OutOfRange { high, .. }) => {
                                // Replies are best effort: who missed one asks.
                                next = high;
                                break "the reply topic was cut".to_owned();
                            }
                            Err(error) => break error.to_string(),
                        }
                    },
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            tracing::warn!(why = failed, "reading replies begins again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn take(&self, value: &bytes::Bytes, cluster: ClusterId, seen: &mut BTreeMap<u32, u64>) {
        let Ok(opened) = nova_wire::open(value, cluster) else { return };
        let Ok(batch) = v1::OutboxBatch::decode(opened.body) else { return };
        let highest = seen.entry(opened.shard).or_default();
        let mut answers = Vec::with_capacity(batch.messages.len());
        for message in batch.messages {
            if message.seq <= *highest {
                continue;
            }
            *highest = message.seq;
            if let Some(v1::outbox_message::Body::Reply(v1::Reply { to: Some(to), answer: Some(answer) })) =
                message.body
                && to.boot == self.boot
            {
                answers.push((to.request, answer));
            }
        }
        let waiting = self.waiting.lock();
        for (request, answer) in answers {
            if let Some(request) = waiting.get(&request) {
                let _ = request.answers.send(answer);
            }
        }
    }
}
