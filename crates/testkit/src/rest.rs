//! The api, as a test sees it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Error, Result};

/// Longest wait for an answer that is not waited for on purpose.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest wait that one request asks for.
const ROUND: Duration = Duration::from_secs(20);
const END_STATES: [&str; 4] = ["COMPLETED", "FAILED", "CANCELLED", "REJECTED"];

/// An execution, as far as an answer tells.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// 32 hexadecimal digits.
    pub id: String,
    /// RECEIVED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED, REJECTED.
    pub state: String,
    /// Whether the key was known already.
    #[serde(default)]
    pub repeated: bool,
    /// Input, where it is told.
    pub input: Option<Value>,
    /// Output, once completed.
    pub output: Option<Value>,
    /// Why it failed.
    pub error: Option<Value>,
}

impl Execution {
    /// Whether nothing more happens to it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        END_STATES.contains(&self.state.as_str())
    }
}

/// A page of executions, newest first.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// The executions.
    pub executions: Vec<Execution>,
    /// Asks for the next page; none: this is the last one.
    pub cursor: Option<String>,
    /// How old the answer may be, in milliseconds.
    pub age_ms: u64,
}

/// A workflow that was stored.
#[derive(Clone, Debug, Deserialize)]
pub struct Applied {
    /// Its name.
    pub name: String,
    /// The version that holds the document.
    pub version: u32,
    /// Whether it is new.
    pub new: bool,
}

/// A client of one api.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client,
    url: String,
}

impl Rest {
    /// A client of the api at `url`, `http://host:port`.
    ///
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(url: impl Into<String>) -> Result<Self> {
        Ok(Self { client: client()?, url: url.into().trim_end_matches('/').to_owned() })
    }

    /// Where the api is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stores a workflow, YAML or JSON.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn apply(&self, document: &str) -> Result<Applied> {
        self.send("apply", self.to(Method::POST, "/workflows").body(document.to_owned())).await
    }

    /// Starts an execution; it is accepted when this returns.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn submit(&self, workflow: &str, input: &Value) -> Result<Execution> {
        self.send("submit", self.submission(workflow, input)).await
    }

    /// Starts one execution per `key`, however often it is called.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn submit_once(&self, workflow: &str, input: &Value, key: &str) -> Result<Execution> {
        self.send("submit", self.submission(workflow, input).header("idempotency-key", key)).await
    }

    /// Starts an execution and waits for its end.
    ///
    /// # Errors
    /// When it is refused, not answered, or does not end in time.
    pub async fn run(&self, workflow: &str, input: &Value, within: Duration) -> Result<Execution> {
        let execution = self.submit(workflow, input).await?;
        self.wait(&execution.id, within).await
    }

    /// Waits for the end of an execution and gives it with its result.
    ///
    /// # Errors
    /// When it is not known, or at the deadline.
    pub async fn wait(&self, id: &str, within: Duration) -> Result<Execution> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let round = left.min(ROUND).as_secs().max(1);
            let request = self.to(Method::GET, &format!("/executions/{id}/result"));
            let request = request.header("prefer", format!("wait={round}"));
            let execution: Execution = self.send("wait for the result", request).await?;
            if execution.has_ended() {
                return Ok(execution);
            }
            if Instant::now() >= end {
                let what = format!("the end of execution {id}");
                return Err(Error::Deadline { what, within, last: execution.state });
            }
        }
    }

    /// An execution with its nodes, as JSON.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn get(&self, id: &str) -> Result<Value> {
        self.send("get an execution", self.to(Method::GET, &format!("/executions/{id}"))).await
    }

    /// Its events, in order.
    ///
    /// # Errors
    /// When it is not known.
    pub async fn events(&self, id: &str) -> Result<Value> {
        self.send("get events", self.to(Method::GET, &format!("/executions/{id}/events"))).await
    }

    /// Ends an execution early.
    ///
    /// # Errors
    /// When it is not known or has ended.
    pub async fn cancel(&self, id: &str) -> Result<Execution> {
        self.send("cancel", self.to(Method::POST, &format!("/executions/{id}/cancel"))).await
    }

    /// Stores a trigger.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn trigger(&self, spec: &Value) -> Result<Value> {
        self.send("put a trigger", self.to(Method::POST, "/triggers").json(spec)).await
    }

    /// A page of executions, newest first, of one workflow and state if these are named; `cursor` is that of the page
    /// before.
    ///
    /// # Errors
    /// When it is refused or not answered.
    pub async fn list(&self, workflow: Option<&str>, state: Option<&str>, cursor: Option<&str>) -> Result<Page> {
        let fields = [("workflow", workflow), ("state", state), ("cursor", cursor)];
        let query: Vec<_> = fields.iter().filter_map(|(name, value)| value.map(|value| (*name, value))).collect();
        let request = self.to(Method::GET, "/executions").query(&[("limit", "500")]).query(&query);
        self.send("list executions", request).await
    }

    /// All executions of a workflow, newest first.
    ///
    /// # Errors
    /// When a page is refused or not answered.
    pub async fn list_all(&self, workflow: &str) -> Result<Vec<Execution>> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.list(Some(workflow), None, cursor.as_deref()).await?;
            all.extend(page.executions);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// All workers, as JSON.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn workers(&self) -> Result<Vec<Value>> {
        let body: Value = self.send("list workers", self.to(Method::GET, "/workers")).await?;
        Ok(body["workers"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until so many workers are connected.
    ///
    /// # Errors
    /// At the deadline.
    pub async fn connected(&self, workers: usize, within: Duration) -> Result<()> {
        crate::until(&format!("{workers} connected workers"), within, || async {
            let all = self.workers().await.map_err(|error| error.chain())?;
            let connected = all.iter().filter(|worker| worker["state"] == "CONNECTED").count();
            if connected >= workers { Ok(()) } else { Err(format!("{connected} are connected")) }
        })
        .await
    }

    /// Its metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// When it is not answered.
    pub async fn metrics(&self) -> Result<String> {
        let what = || "metrics".to_owned();
        let sending = self.client.get(format!("{}/metrics", self.url)).timeout(PATIENCE).send();
        let answer = sending.await.map_err(|source| Error::Unanswered { what: what(), source })?;
        answer.text().await.map_err(|source| Error::Unanswered { what: what(), source })
    }

    fn to(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/api/v1{path}", self.url)).timeout(PATIENCE)
    }

    fn submission(&self, workflow: &str, input: &Value) -> RequestBuilder {
        self.to(Method::POST, "/executions").json(&json!({ "workflow": workflow, "input": input }))
    }

    async fn send<T: DeserializeOwned>(&self, what: &str, request: RequestBuilder) -> Result<T> {
        let unanswered = |source| Error::Unanswered { what: what.to_owned(), source };
        let answer = request.send().await.map_err(unanswered)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unanswered)?;
        let text = || String::from_utf8_lossy(&body).into_owned();
        if !status.is_success() {
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = problem["code"].as_str().unwrap_or_default().to_owned();
            return Err(Error::Refused { what: what.to_owned(), status: status.as_u16(), code, body: text() });
        }
        let read = serde_json::from_slice(&body);
        read.map_err(|error| Error::Unexpected { what: what.to_owned(), why: format!("{error}: {}", text()) })
    }
}

/// A client; each test has a runtime of its own, so that connections cannot be shared among them.
pub(crate) fn client() -> Result<Client> {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    // The client is built with TLS, which wants to know its provider even where nothing is encrypted.
    PROVIDER.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let built = Client::builder().connect_timeout(Duration::from_secs(5)).build();
    built.map_err(|source| Error::Unanswered { what: "making an HTTP client".into(), source })
}
