//! `http`: one request.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use nova_execution::{Executor, Failure, Task};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use crate::argument;
use crate::egress::Egress;

/// Longest body of an error response that is handed on, in bytes.
const ERROR_BODY_BYTES: usize = 2_048;

pub(crate) struct Http {
    egress: Egress,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    query: BTreeMap<String, Value>,
    /// Sent as JSON.
    #[serde(default, deserialize_with = "present")]
    json: Option<Value>,
    /// Sent as it is.
    body: Option<String>,
}

fn get() -> String {
    "GET".into()
}

/// `json: null` sends `null`; a missing `json` sends nothing.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Http {
    pub(crate) fn new(egress: Egress) -> Self {
        Self { egress }
    }

    async fn send(&self, task: &Task) -> Result<Bytes, Failure> {
        let request: Request = argument(task)?;
        let url = url(&request)?;
        self.egress.check(&url).map_err(|refused| Failure::permanent("http.refused", refused.to_string()))?;
        let bad = |what: String| Failure::permanent("task.bad_argument", what);
        let method: Method = request.method.to_ascii_uppercase().parse().map_err(|_| bad("http: bad method".into()))?;
        let mut headers = HeaderMap::new();
        if method != Method::GET && method != Method::HEAD {
            insert(&mut headers, "idempotency-key", &task.idempotency_key)?;
        }
        if let Some(traceparent) = &task.traceparent {
            insert(&mut headers, "traceparent", traceparent)?;
        }
        for (name, value) in &request.headers {
            insert(&mut headers, name, &text(value))?;
        }
        // Without a trace to hang on it would begin one of its own.
        let span = task.traceparent.as_ref().map_or_else(tracing::Span::none, |_| {
            tracing::info_span!(
                target: "nova_trace",
                "request",
                method = %method,
                server = url.host_str(),
                status = tracing::field::Empty,
            )
        });
        let mut outgoing = self.egress.client.request(method, url).headers(headers);
        if let Some(timeout) = task.timeout {
            outgoing = outgoing.timeout(timeout.min(self.egress.config.timeout));
        }
        outgoing = match (request.json, request.body) {
            (Some(_), Some(_)) => return Err(bad("http: json and body exclude each other".into())),
            (Some(json), None) => outgoing.json(&json),
            (None, Some(body)) => outgoing.body(body),
            (None, None) => outgoing,
        };
        let exchange = async {
            let response = outgoing.send().await.map_err(|error| network(&error))?;
            tracing::Span::current().record("status", response.status().as_u16());
            self.answer(response).await
        };
        exchange.instrument(span).await
    }

    async fn answer(&self, response: Response) -> Result<Bytes, Failure> {
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
        let headers: BTreeMap<String, String> = response
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let body = self.body(response).await?;
        let body = if is_json {
            serde_json::from_slice(&body)
                .map_err(|error| Failure::permanent("http.bad_body", format!("the body is no JSON: {error}")))?
        } else {
            Value::String(String::from_utf8_lossy(&body).into_owned())
        };
        let mut answer = json!({ "status": status.as_u16(), "headers": headers, "body": body });
        if status.is_success() || status.is_redirection() {
            return Ok(answer.to_string().into());
        }
        let number = status.as_u16();
        if let Some(text) = answer["body"].as_str().filter(|text| text.len() > ERROR_BODY_BYTES) {
            answer["body"] = text.chars().take(ERROR_BODY_BYTES / 4).collect::<String>().into();
        }
        Err(Failure {
            code: format!("http.{}xx.{number}", number / 100),
            message: format!("the server answered {status}"),
            retryable: is_retryable(status),
            retry_after: retry_after.map(Duration::from_secs),
            detail: Some(answer.to_string().into()),
        })
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, Failure> {
        let limit = self.egress.config.max_response_bytes;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| network(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(Failure::permanent("http.too_large", format!("the response is above {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

fn url(request: &Request) -> Result<Url, Failure> {
    let mut url: Url = request
        .url
        .parse()
        .map_err(|error| Failure::permanent("task.bad_argument", format!("http: url '{}': {error}", request.url)))?;
    if !request.query.is_empty() {
        let mut pairs = url.query_pairs_mut();
        for (name, value) in request.query.iter().filter(|(_, value)| !value.is_null()) {
            pairs.append_pair(name, &text(value));
        }
    }
    Ok(url)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Failure> {
    let bad = |_| Failure::permanent("task.bad_argument", format!("http: header '{name}' is not valid"));
    let value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
    let name = HeaderName::try_from(name).map_err(|error| bad(error.to_string()))?;
    headers.insert(name, value);
    Ok(())
}

fn is_json(value: &HeaderValue) -> bool {
    let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json")
}

fn is_retryable(status: StatusCode) -> bool {
    let number = status.as_u16();
    matches!(number, 408 | 425 | 429) || ((500..600).contains(&number) && number != 501 && number != 505)
}

fn network(error: &reqwest::Error) -> Failure {
    let mut cause = error.source();
    let mut message = error.to_string();
    while let Some(inner) = cause {
        if inner.downcast_ref::<crate::egress::Refused>().is_some() {
            return Failure::permanent("http.refused", inner.to_string());
        }
        message = inner.to_string();
        cause = inner.source();
    }
    let code = if error.is_timeout() {
        "timeout.attempt"
    } else if error.is_connect() && message.contains("dns") {
        "http.dns"
    } else if error.is_connect() && message.contains("certificate") {
        "http.tls"
    } else {
        "http.connect"
    };
    Failure::retryable(code, message)
}

#[async_trait]
impl Executor for Http {
    fn kinds(&self) -> Vec<&'static str> {
        vec!["http"]
    }

    async fn run(&self, task: &Task, stop: &CancellationToken) -> Result<Bytes, Failure> {
        tokio::select! {
            result = self.send(task) => result,
            () = stop.cancelled() => Err(Failure::retryable("task.stopped", "stopped while the request was on its way")),
        }
    }
}
