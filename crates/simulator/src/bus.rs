//! The bus: a broker that loses nothing, at the other end of the network.
//!
//! An append that is not answered in time has an unknown outcome, and may be written all the same, also behind what its
//! process wrote later: so does a request on a connection that was given up.

use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use nova_bus::{
    Ack, AppendError, Batch, Bus, BusError, MAX_RECORD_BYTES, MemoryBus, Outgoing, ReadError, Reader, Topic, TopicSpec,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use xxhash_rust::xxh3::Xxh3;

use crate::net::SharedNet;
use crate::os;

/// Host of the broker.
pub(crate) const BROKER: &str = "bus";
/// Longest wait for the acknowledgement of an append.
const DELIVERY: Duration = Duration::from_secs(8);
/// Longest wait for any other answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How much later an append that was given up may be written, in nanoseconds.
const LATE_NS: i64 = 5_000_000_000;

/// The bus as a process sees it.
#[derive(Clone)]
pub(crate) struct SimulatedBus {
    broker: MemoryBus,
    net: SharedNet,
    host: Arc<str>,
    process: usize,
}

impl SimulatedBus {
    pub(crate) fn new(broker: MemoryBus, net: SharedNet, host: &str, process: usize) -> Self {
        Self { broker, net, host: host.into(), process }
    }

    /// Has the broker do something; the answer comes back over the network.
    fn ask<T: Send + 'static>(&self, act: impl FnOnce(&MemoryBus) -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        let (broker, net, host) = (self.broker.clone(), self.net.clone(), Arc::clone(&self.host));
        let asked = Box::new(move || {
            let result = act(&broker);
            net.tell(BROKER, &host, None, 0, Box::new(move || drop(answer.send(result))));
        });
        self.net.tell(&self.host, BROKER, None, 0, asked);
        answered
    }

    async fn answer<T: Send + 'static>(
        &self,
        act: impl FnOnce(&MemoryBus) -> Result<T, BusError> + Send + 'static,
    ) -> Result<T, BusError> {
        let silent = || BusError::Unavailable { why: "the broker does not answer".into() };
        timeout(ANSWER, self.ask(act)).await.map_err(|_| silent())?.map_err(|_| silent())?
    }
}

/// The answer of a broker that is asked where it is.
fn here<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("a bus in memory answers at once")
}

fn write(broker: &MemoryBus, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Result<u64, AppendError> {
    broker.set_time(os::wall_ms());
    here(broker.append(topic, partition, records))
}

#[async_trait]
impl Bus for SimulatedBus {
    fn append(&self, topic: &Topic, partition: u32, records: Vec<Outgoing>) -> Ack {
        if let Some(bytes) = records.iter().map(Outgoing::size).find(|size| *size > MAX_RECORD_BYTES) {
            return Ack::ready(Err(AppendError::TooLarge { bytes }));
        }
        let (answer, answered) = oneshot::channel();
        let (broker, net, host) = (self.broker.clone(), self.net.clone(), Arc::clone(&self.host));
        let given_up = Arc::new(AtomicBool::new(false));
        let (late, to) = (Arc::clone(&given_up), topic.clone());
        let mut lane = Xxh3::new();
        lane.write(topic.name().as_bytes());
        lane.write_u32(partition);
        let written = Box::new(move || {
            if late.load(Ordering::Relaxed) {
                let later = net.draw(2 * LATE_NS);
                if later < LATE_NS {
                    let act = move || drop(write(&broker, &to, partition, records));
                    net.tell(&host, BROKER, None, later, Box::new(act));
                }
                return;
            }
            let result = write(&broker, &to, partition, records);
            net.tell(BROKER, &host, None, 0, Box::new(move || drop(answer.send(result))));
        });
        self.net.tell(&self.host, BROKER, Some((self.process, lane.finish())), 0, written);
        let (seen, ack) = oneshot::channel();
        tokio::spawn(async move {
            let unknown = || AppendError::OutcomeUnknown { why: "no acknowledgement in time".into() };
            let result = match timeout(DELIVERY, answered).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => {
                    given_up.store(true, Ordering::Relaxed);
                    Err(unknown())
                }
            };
            let _ = seen.send(result);
        });
        Ack::waiting(ack)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        let inner = self.broker.reader()?;
        Ok(Box::new(SimulatedReader { bus: self.clone(), inner, coming: None }))
    }

    async fn offsets(&self, topic: &Topic, partition: u32) -> Result<Range<u64>, BusError> {
        let topic = topic.clone();
        self.answer(move |broker| here(broker.offsets(&topic, partition))).await
    }

    async fn partitions(&self, topic: &Topic) -> Result<Option<u32>, BusError> {
        let topic = topic.clone();
        self.answer(move |broker| here(broker.partitions(&topic))).await
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), BusError> {
        let topics = topics.to_vec();
        self.answer(move |broker| here(broker.ensure_topics(&topics))).await
    }

    async fn health(&self) -> Result<(), BusError> {
        self.answer(|broker| here(broker.health())).await
    }
}

/// Reads at the broker, and has what it read when it has come over the network.
struct SimulatedReader {
    bus: SimulatedBus,
    inner: Box<dyn Reader>,
    coming: Option<(Batch, oneshot::Receiver<()>)>,
}

impl SimulatedReader {
    fn forget(&mut self, topic: &Topic, partition: u32) {
        self.coming.take_if(|(batch, _)| batch.partition == partition && batch.topic == *topic);
    }
}

#[async_trait]
impl Reader for SimulatedReader {
    fn assign(&mut self, topic: &Topic, partition: u32, from: u64) -> Result<(), BusError> {
        self.forget(topic, partition);
        self.inner.assign(topic, partition, from)
    }

    fn remove(&mut self, topic: &Topic, partition: u32) {
        self.forget(topic, partition);
        self.inner.remove(topic, partition);
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>, ReadError> {
        let until = Instant::now() + wait;
        if self.coming.is_none() {
            let Some(batch) = self.inner.next(wait).await? else { return Ok(None) };
            let asked = self.bus.ask(|_| ());
            self.coming = Some((batch, asked));
        }
        let Some((_, arrives)) = &mut self.coming else { return Ok(None) };
        match timeout_at(until, arrives).await {
            Err(_) => Ok(None),
            Ok(_) => Ok(self.coming.take().map(|(batch, _)| batch)),
        }
    }
}
