//! A client: submits by keys and without, repeats what has no answer, cancels, adds records, and notes all of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, Outgoing, Topic};
use nova_checker::{Answer, Id, Kind, Operation};
use nova_client::Coordinators;
use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::json;
use tokio::time::sleep;

use crate::asked::{Clock, Noted};
use crate::triggers::{ORDERS, ORDERS_PARTITIONS};

/// Pause before a submission is repeated.
const AGAIN: Duration = Duration::from_millis(500);

/// Something to be submitted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which of the workflows.
    pub workflow: usize,
    /// Its input.
    pub n: i64,
    /// Its idempotency key.
    pub key: Option<String>,
}

/// The way on which a cluster is asked.
pub trait Ask: Send + Sync + 'static {
    /// Submits once, and notes it.
    fn submit(&self, wanted: &Wanted) -> impl Future<Output = Answer> + Send;

    /// Asks once for the end of an execution.
    fn cancel(&self, id: Id) -> impl Future<Output = Answer> + Send;
}

/// A client.
pub struct Client<A> {
    /// How it asks.
    pub ask: A,
    /// For namespaces.
    pub coordinators: Coordinators,
    /// For records of the users' topic.
    pub bus: Arc<dyn Bus>,
    /// How many workflows there are.
    pub workflows: usize,
    /// What it notes.
    pub noted: Arc<Noted>,
    /// The clock of its notes.
    pub now: Clock,
    /// Between two things that it asks for, on average.
    pub pause: Duration,
}

impl<A: Ask> Client<A> {
    /// Asks for things until it shall not any more; what is open then goes on.
    pub async fn run(self, mut random: SmallRng) {
        let client = Arc::new(self);
        for n in 0_u64.. {
            sleep(client.pause.mul_f64(random.random_range(0.0..2.0))).await;
            if client.noted.stop.load(Ordering::Relaxed) {
                return;
            }
            let wanted = Wanted {
                workflow: random.random_range(0..client.workflows),
                n: random.random_range(0..1_000_000),
                key: random.random_bool(0.6).then(|| format!("k{n}")),
            };
            client.noted.open.fetch_add(1, Ordering::Relaxed);
            let own = Arc::clone(&client);
            match random.random_range(0..20) {
                0 | 1 => tokio::spawn(async move { own.record(wanted.n).await }),
                2 => {
                    let after = Duration::from_millis(random.random_range(0..3_000));
                    tokio::spawn(async move { own.cancelled(&wanted, after).await })
                }
                3 => tokio::spawn(async move { own.twice(wanted).await }),
                4 => tokio::spawn(async move { own.both(&wanted).await }),
                5 | 6 => tokio::spawn(async move { own.added(n).await }),
                _ => tokio::spawn(async move { own.one(&wanted).await }),
            };
        }
    }

    fn closed(&self) {
        self.noted.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// With a key until there is an answer; else once.
    async fn accepted(&self, wanted: &Wanted) -> Option<Id> {
        loop {
            match self.ask.submit(wanted).await {
                Answer::Accepted { id, .. } => return Some(id),
                Answer::Unknown | Answer::NotSent if wanted.key.is_some() => sleep(AGAIN).await,
                _ => return None,
            }
        }
    }

    async fn one(&self, wanted: &Wanted) {
        self.accepted(wanted).await;
        self.closed();
    }

    /// The same key once more, and then for something else.
    async fn twice(&self, mut wanted: Wanted) {
        if self.accepted(&wanted).await.is_some() {
            self.ask.submit(&wanted).await;
            wanted.n += 1;
            self.ask.submit(&wanted).await;
        }
        self.closed();
    }

    /// The same key at once, from two.
    async fn both(&self, wanted: &Wanted) {
        tokio::join!(self.ask.submit(wanted), self.ask.submit(wanted));
        self.accepted(wanted).await;
        self.closed();
    }

    /// Makes a namespace.
    async fn added(&self, n: u64) {
        crate::asked::added(&self.coordinators, &self.noted, self.now, n).await;
        self.closed();
    }

    async fn cancelled(&self, wanted: &Wanted, after: Duration) {
        if let Some(id) = self.accepted(wanted).await {
            sleep(after).await;
            let begun_ns = (self.now)();
            let answer = self.ask.cancel(id).await;
            let operation = Operation { begun_ns, ended_ns: (self.now)(), kind: Kind::Cancel(id), answer };
            self.noted.operations.lock().push(operation);
        }
        self.closed();
    }

    /// A record of the users' topic; one that is not acknowledged may be there or not, and is not written again.
    async fn record(&self, n: i64) {
        let partition = (n % i64::from(ORDERS_PARTITIONS)) as u32;
        let value = Bytes::from(json!({ "n": n }).to_string());
        let _ = self.bus.append(&Topic::Named(ORDERS.into()), partition, vec![Outgoing::from(value)]).await;
        self.closed();
    }
}
