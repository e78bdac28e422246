//! How the client asks: by HTTP, as users do. What it is answered is taken at its word (docs/reference/api.md): 503 says that
//! nothing was changed, 504 and a lost connection say nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nova_checker::{Answer, Id, Kind, Operation, Submission};
use nova_testkit::ledger::boot_ns;
use nova_workload::{Ask, NAMESPACE, Wanted, Workflow};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Longest wait for an answer: longer than an api waits.
const ANSWER: Duration = Duration::from_secs(15);
/// Label by which a submission is found in the topic of commands.
pub const LABEL: &str = "attempt";

/// The apis, and what is noted of their answers.
pub struct Apis {
    /// Where they are.
    pub urls: Vec<String>,
    /// Asks them.
    pub http: reqwest::Client,
    /// What is submitted.
    pub workflows: Arc<Vec<Workflow>>,
    /// Submissions, by the number on their label; their ids are those of the topic.
    pub submissions: Arc<Mutex<BTreeMap<u64, Operation>>>,
    /// Answers that no api may give.
    pub wrong: Arc<Mutex<Vec<String>>>,
    /// Says which api is asked.
    pub random: Mutex<SmallRng>,
    /// Of the last submission.
    pub last: AtomicU64,
}

impl Apis {
    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.urls.choose(&mut *self.random.lock()).expect("there are apis"))
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
                self.wrong.lock().push(format!("{status}: no JSON ({error}): {text}"));
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
                self.wrong.lock().push(format!("{what} is answered {status}: {body}"));
                Answer::Unknown
            }
        }
    }
}

impl Ask for Apis {
    async fn submit(&self, wanted: &Wanted) -> Answer {
        let workflow = &self.workflows[wanted.workflow];
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
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
                    self.wrong.lock().push(format!("a submission is answered {status}: {body}"));
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
        self.submissions.lock().insert(number, operation);
        answer
    }

    async fn cancel(&self, id: Id) -> Answer {
        let request = self.http.post(self.url(&format!("/executions/{id}/cancel"))).json(&json!({}));
        match self.ask(request).await {
            Ok((status, _)) if status.is_success() => Answer::Cancelling,
            Ok((status, body)) => {
                if status == StatusCode::NOT_FOUND {
                    self.wrong.lock().push(format!("{id} was accepted, and a cancel is answered {body}"));
                }
                self.refused("a cancel", status, &body)
            }
            Err(answer) => answer,
        }
    }
}
