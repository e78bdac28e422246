//! Commands to the bus: many requests share one record, and a command is handed over once (rule 31).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use metrics::histogram;
use nova_bus::{AppendError, SharedBus, Topic};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

/// Commands of one record.
const COMMANDS: usize = 256;
/// Bytes of commands in one record; one that is larger stands alone.
const RECORD_BYTES: usize = 256 << 10;
/// Commands without a key go to one shard for this many, then to the next: fuller records.
const TURN: usize = 128;

struct Waiting {
    command: Bytes,
    acknowledged: oneshot::Sender<Result<(), AppendError>>,
}

/// Hands commands over.
pub(crate) struct Submitter {
    shards: Vec<Shard>,
    turn: AtomicUsize,
    window: usize,
}

struct Shard {
    queue: mpsc::Sender<Waiting>,
    unanswered: Arc<AtomicUsize>,
}

/// A submission that counts as unanswered until this is dropped.
pub(crate) struct Ticket(Arc<AtomicUsize>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Submitter {
    pub(crate) fn start(bus: &SharedBus, cluster: ClusterId, shards: u32, window: usize) -> Self {
        let shard = |number| {
            let (queue, commands) = mpsc::channel(window);
            tokio::spawn(publish(Arc::clone(bus), cluster, number, commands));
            Shard { queue, unanswered: Arc::default() }
        };
        Self { shards: (0..shards).map(shard).collect(), turn: AtomicUsize::new(rand::random_range(0..1_000)), window }
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    /// A shard for a command that may go to any.
    pub(crate) fn any(&self) -> u16 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (turn / TURN % self.shards.len().max(1)) as u16
    }

    /// Room for a submission; none when too many of the shard are unanswered.
    pub(crate) fn admit(&self, shard: u16) -> Option<Ticket> {
        let shard = self.shards.get(usize::from(shard))?;
        let ticket = Ticket(Arc::clone(&shard.unanswered));
        let before = shard.unanswered.fetch_add(1, Ordering::Relaxed);
        (before < self.window).then_some(ticket)
    }

    pub(crate) fn unanswered(&self) -> usize {
        self.shards.iter().map(|shard| shard.unanswered.load(Ordering::Relaxed)).sum()
    }

    /// Hands a command over, and waits until it is durable.
    pub(crate) async fn send(&self, shard: u16, kind: v1::command::Kind) -> Result<(), AppendError> {
        let not_sent = |why: &str| AppendError::NotSent { why: why.into() };
        let queue = &self.shards.get(usize::from(shard)).ok_or_else(|| not_sent("no such shard"))?.queue;
        let command = v1::Command { kind: Some(kind) }.encode_to_vec().into();
        let (acknowledged, answer) = oneshot::channel();
        queue.try_send(Waiting { command, acknowledged }).map_err(|_| not_sent("the queue to the bus is full"))?;
        answer.await.unwrap_or_else(|_| Err(AppendError::OutcomeUnknown { why: "the process stops".into() }))
    }
}

async fn publish(bus: SharedBus, cluster: ClusterId, shard: u32, mut commands: mpsc::Receiver<Waiting>) {
    let mut over = None;
    loop {
        let first = match over.take() {
            Some(first) => first,
            None => match commands.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut bytes = first.command.len();
        let mut batch = vec![first];
        while batch.len() < COMMANDS {
            let Ok(next) = commands.try_recv() else { break };
            if bytes + next.command.len() > RECORD_BYTES {
                over = Some(next);
                break;
            }
            bytes += next.command.len();
            batch.push(next);
        }
        histogram!(crate::metrics::BATCH).record(batch.len() as f64);
        let mut body = Vec::with_capacity(bytes + 8 * batch.len());
        for waiting in &batch {
            // A repeated field of messages: tag, length, bytes. The commands are encoded already.
            prost::encoding::bytes::encode(1, &waiting.command, &mut body);
        }
        let record = nova_wire::seal(cluster, v1::RecordKind::Commands, shard, body.into());
        let result = bus.append(&Topic::Commands, shard, vec![record.into()]).await.map(drop);
        for waiting in batch {
            let _ = waiting.acknowledged.send(result.clone());
        }
    }
}
