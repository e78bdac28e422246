//! A client: submits by keys and without, repeats what has no answer, cancels, and notes all of it.
//!
//! It asks the apis by HTTP, as users do. What it is answered is taken at its word (docs/reference/api.md): 503 says that
//! nothing was changed, 504 and a lost connection say nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nova_bus::{Outgoing, SharedBus, Topic};
use nova_checker::{Answer, Id, Kind, Operation, Submission};
use nova_client::Coordinators;
use nova_testkit::ledger::boot_ns;
use nova_workload::{NAMESPACE, Noted, ORDERS, ORDERS_PARTITIONS, Workflow};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

/// Longest wait for an answer: longer than an api waits.
const ANSWER: Duration = Duration::from_secs(15);
/// Pause before a submission is repeated.
const AGAIN: Duration = Duration::from_millis(500);
/// Label by which a submission is found in the topic of commands.
pub const LABEL: &str = "attempt";

/// A client.
pub struct Client {
    /// Where apis are.
    pub urls: Vec<String>,
    /// The bus, for records of the users' topic.
    pub bus: SharedBus,
    /// Coordinators.
    pub coordinators: Coordinators,
    /// What it submits.
    pub workflows: Arc<Vec<Workflow>>,
    /// What it notes.
    pub noted: Arc<Noted>,
    /// Between two things that it asks for, on average.
    pub pause: Duration,
    /// Submissions, by the number on their label; their ids are those of the topic.
    pub submissions: Arc<Mutex<BTreeMap<u64, Operation>>>,
    /// Answers that no api may give.
    pub wrong: Arc<Mutex<Vec<String>>>,
}

struct Shared {
    client: Client,
    http: reqwest::Client,
    next: AtomicU64,
    random: Mutex<SmallRng>,
}

/// Something to be submitted.
#[derive(Clone)]
struct Wanted {
    workflow: usize,
    n: i64,
    key: Option<String>,
}

impl Client {
    /// Asks for things until it shall not any more.
    pub async fn run(self, http: reqwest::Client, mut random: SmallRng) {
        let own = SmallRng::seed_from_u64(random.random());
        let shared = Arc::new(Shared { client: self, http, next: AtomicU64::new(1), random: Mutex::new(own) });
        let noted = Arc::clone(&shared.client.noted);
        for n in 0_u64.. {
            sleep(shared.client.pause.mul_f64(random.random_range(0.0..2.0))).await;
            if noted.stop.load(Ordering::Relaxed) {
                return;
            }
            let wanted = Wanted {
                workflow: random.random_range(0..shared.client.workflows.len()),
                n: random.random_range(0..1_000_000),
                key: random.random_bool(0.6).then(|| format!("k{n}")),
            };
            noted.open.fetch_add(1, Ordering::Relaxed);
            match random.random_range(0..20) {
                0 | 1 => tokio::spawn(Arc::clone(&shared).record(wanted.n)),
                2 => tokio::spawn(Arc::clone(&shared).cancelled(wanted, random.random_range(0..3_000))),
                3 => tokio::spawn(Arc::clone(&shared).twice(wanted)),
                4 => tokio::spawn(Arc::clone(&shared).both(wanted)),
                5 | 6 => tokio::spawn(Arc::clone(&shared).added(n)),
                _ => tokio::spawn(Arc::clone(&shared).one(wanted)),
            };
        }
    }
}

impl Shared {
    fn url(&self, path: &str) -> String {
        let urls = &self.client.urls;
        format!("{}/api/v1{path}", urls.choose(&mut *self.random.lock()).expect("there are apis"))
    }

    fn closed(&self) {
        self.client.noted.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Status and body of an answer; or whether it is sure that nothing was sent.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<(StatusCode, Value), Answer> {
        let failed = |error: &reqwest::Error| if error.is_connect() { Answer::NotSent } else { Answer::Unknown };
        let answer = request.timeout(ANSWER).send().await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|_| Answer::Unknown)?;
        match serde_json::from_slice(&body) {
            Ok(body) => Ok((status, body)),
            Err(error) => {
                let text = String::from_utf8_lossy(&body).into_owned();
                self.client.wrong.lock().push(format!("{status}: no JSON ({error}): {text}"));
                Err(Answer::Unknown)
            }
        }
    }

    fn refused(&self, what: &str, status: StatusCode, body: &Value) -> Answer {
        match status.as_u16() {
            503 | 429 => Answer::NotSent,
            504 => Answer::Unknown,
            404 | 409 | 422 => {
                Answer::Rejected { why: body.to_string(), conflict: body["code"] == "idempotency.conflict" }
            }
            _ => {
                self.client.wrong.lock().push(format!("{what} is answered {status}: {body}"));
                Answer::Unknown
            }
        }
    }

    async fn submit(&self, wanted: &Wanted) -> Answer {
        let workflow = &self.client.workflows[wanted.workflow];
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let input = json!({ "n": wanted.n });
        let body = json!({ "workflow": workflow.name, "input": input, "labels": { LABEL: number.to_string() } });
        let mut request = self.http.post(self.url("/executions")).json(&body);
        if let Some(key) = &wanted.key {
            request = request.header("idempotency-key", key);
        }
        let begun_ns = boot_ns();
        let answer = match self.ask(request).await {
            Ok((status, body)) if status.is_success() => match body["id"].as_str().and_then(Id::parse) {
                Some(id) if status != StatusCode::ACCEPTED => {
                    Answer::Accepted { id, repeated: body["repeated"] == json!(true) }
                }
                _ => {
                    self.client.wrong.lock().push(format!("a submission is answered {status}: {body}"));
                    Answer::Unknown
                }
            },
            Ok((status, body)) => self.refused("a submission", status, &body),
            Err(answer) => answer,
        };
        let submission = Submission {
            // Until it is known from the topic.
            id: Id([0; 16]),
            key: wanted.key.clone().map(|key| (NAMESPACE.to_owned(), key)),
            content: format!("{} {input}", workflow.name),
            expected: workflow.expected(wanted.n),
        };
        let kind = Kind::Submit(submission);
        let operation = Operation { begun_ns, ended_ns: boot_ns(), kind, answer: answer.clone() };
        self.client.submissions.lock().insert(number, operation);
        answer
    }

    /// With a key until there is an answer; else once.
    async fn accepted(&self, wanted: &Wanted) -> Option<Id> {
        loop {
            match self.submit(wanted).await {
                Answer::Accepted { id, .. } => return Some(id),
                Answer::Unknown | Answer::NotSent if wanted.key.is_some() => sleep(AGAIN).await,
                _ => return None,
            }
        }
    }

    async fn one(self: Arc<Self>, wanted: Wanted) {
        self.accepted(&wanted).await;
        self.closed();
    }

    /// The same key once more, and then for something else.
    async fn twice(self: Arc<Self>, mut wanted: Wanted) {
        if self.accepted(&wanted).await.is_some() {
            self.submit(&wanted).await;
            wanted.n += 1;
            self.submit(&wanted).await;
        }
        self.closed();
    }

    /// The same key at once, from two.
    async fn both(self: Arc<Self>, wanted: Wanted) {
        tokio::join!(self.submit(&wanted), self.submit(&wanted));
        self.accepted(&wanted).await;
        self.closed();
    }

    async fn added(self: Arc<Self>, n: u64) {
        nova_workload::added(&self.client.coordinators, &self.client.noted, boot_ns, n).await;
        self.closed();
    }

    async fn cancelled(self: Arc<Self>, wanted: Wanted, after_ms: u64) {
        if let Some(id) = self.accepted(&wanted).await {
            sleep(Duration::from_millis(after_ms)).await;
            let begun_ns = boot_ns();
            let request = self.http.post(self.url(&format!("/executions/{id}/cancel"))).json(&json!({}));
            let answer = match self.ask(request).await {
                Ok((status, _)) if status.is_success() => Answer::Cancelling,
                Ok((status, body)) => {
                    if status == StatusCode::NOT_FOUND {
                        self.client.wrong.lock().push(format!("{id} was accepted, and a cancel is answered {body}"));
                    }
                    self.refused("a cancel", status, &body)
                }
                Err(answer) => answer,
            };
            let operation = Operation { begun_ns, ended_ns: boot_ns(), kind: Kind::Cancel(id), answer };
            self.client.noted.operations.lock().push(operation);
        }
        self.closed();
    }

    /// A record of the users' topic; one that is not acknowledged may be there or not, and is not written again.
    async fn record(self: Arc<Self>, n: i64) {
        let partition = (n % i64::from(ORDERS_PARTITIONS)) as u32;
        let value = bytes::Bytes::from(json!({ "n": n }).to_string());
        let _ = self.client.bus.append(&Topic::Named(ORDERS.into()), partition, vec![Outgoing::from(value)]).await;
        self.closed();
    }
}
