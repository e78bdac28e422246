//! The api, as a client sees it.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::error::{Failed, chain};

/// Longest wait for an answer that is not waited for on purpose.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of one api.
pub struct Rest {
    client: reqwest::Client,
    url: String,
    namespace: String,
}

impl Rest {
    /// A client of the api at `url`.
    pub fn new(url: &str, namespace: &str) -> Result<Self, Failed> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build();
        let client = client.map_err(|error| Failed::unreachable(&error))?;
        Ok(Self { client, url: url.trim_end_matches('/').to_owned(), namespace: namespace.to_owned() })
    }

    /// A request to a path under `/api/v1`.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1{path}", self.url);
        self.client.request(method, url).header("nova-namespace", &self.namespace)
    }

    /// Whether the api says of itself that it can serve.
    pub async fn is_ready(&self) -> bool {
        self.open(self.client.get(format!("{}/readyz", self.url)).timeout(PATIENCE)).await.is_ok()
    }

    /// Its page of metrics.
    pub async fn metrics(&self) -> Result<String, Failed> {
        let response = self.open(self.client.get(format!("{}/metrics", self.url)).timeout(PATIENCE)).await?;
        response.text().await.map_err(|error| Failed::unreachable(&error))
    }

    /// Sends a request; gives status and JSON.
    pub async fn send(&self, request: RequestBuilder) -> Result<(u16, Value), Failed> {
        let response = self.open(request.timeout(PATIENCE)).await?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|error| Failed::unreachable(&error))?;
        if bytes.is_empty() {
            return Ok((status, Value::Null));
        }
        let value = serde_json::from_slice(&bytes);
        value.map(|value| (status, value)).map_err(|error| Failed::Unreachable(format!("{}: {error}", self.url)))
    }

    /// Sends a request; gives the response once its status is good.
    pub async fn open(&self, request: RequestBuilder) -> Result<Response, Failed> {
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                let hint = "is it running? `nova dev` starts a cluster here";
                Failed::Unreachable(format!("{} does not answer ({}); {hint}", self.url, chain(&error)))
            } else {
                Failed::unreachable(&error)
            }
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let bytes = response.bytes().await.unwrap_or_default();
        let problem: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = problem_text(&problem).unwrap_or_else(|| format!("{status}: {}", String::from_utf8_lossy(&bytes)));
        Err(if status.as_u16() >= 500 { Failed::Unreachable(text) } else { Failed::Refused(text) })
    }
}

/// A problem as lines for people.
pub fn problem_text(problem: &Value) -> Option<String> {
    let mut text = format!("{} ({})", problem["title"].as_str()?, problem["code"].as_str()?);
    if let Some(detail) = problem["detail"].as_str() {
        text = format!("{text}: {detail}");
    }
    if let Some(execution) = problem["execution"].as_str() {
        text = format!("{text}\n  execution {execution}");
    }
    for place in problem["problems"].as_array().into_iter().flatten() {
        let at = match (place["line"].as_u64(), place["column"].as_u64()) {
            (Some(line), Some(column)) => format!("{line}:{column}"),
            _ => place["path"].as_str().unwrap_or_default().to_owned(),
        };
        let code = place["code"].as_str().unwrap_or_default();
        let message = place["message"].as_str().unwrap_or_default();
        let help = place["help"].as_str().map(|help| format!(" ({help})")).unwrap_or_default();
        text = format!("{text}\n  {at}  {code}  {message}{help}");
    }
    Some(text)
}
