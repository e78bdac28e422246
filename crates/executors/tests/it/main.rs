//! The `http` executor against a real server.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::Query;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::{get, post};
use nova_execution::{Failure, Task};
use nova_executors::{Egress, EgressConfig};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn server() -> String {
    let app = Router::new()
        .route("/hello", get(|Query(query): Query<Value>| async move { Json(json!({ "query": query })) }))
        .route(
            "/post",
            post(|headers: HeaderMap, Json(body): Json<Value>| async move {
                Json(json!({ "key": headers["idempotency-key"].to_str().unwrap(), "body": body }))
            }),
        )
        .route("/busy", get(|| async { (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], "later") }))
        .route("/gone", get(|| async { (StatusCode::GONE, "never") }))
        .route("/large", get(|| async { "x".repeat(5_000) }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/slow", get(|| async { std::future::pending::<()>().await }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

async fn run(with: Value, allow_private: bool) -> Result<Value, Failure> {
    let config = EgressConfig {
        allow_private,
        timeout: Duration::from_millis(500),
        max_response_bytes: 4_096,
        ..EgressConfig::default()
    };
    let registry = nova_executors::registry(Egress::new(config).unwrap());
    let task = Task {
        kind: "http".into(),
        namespace: "default".into(),
        execution: "0".repeat(32).into(),
        node: "call".into(),
        idempotency_key: "key-1".into(),
        attempt: 1,
        token: 1,
        with: with.to_string().into(),
        timeout: None,
        traceparent: None,
    };
    let output = registry.get("http").unwrap().run(&task, &CancellationToken::new()).await?;
    Ok(serde_json::from_slice(&output).unwrap())
}

#[tokio::test]
async fn a_request_carries_query_body_and_key() {
    let url = server().await;
    let got = run(json!({ "url": format!("{url}/hello"), "query": { "a": 1, "b": "x y" } }), true).await.unwrap();
    assert_eq!((&got["status"], &got["body"]["query"]), (&json!(200), &json!({ "a": "1", "b": "x y" })));
    let with = json!({ "url": format!("{url}/post"), "method": "post", "json": { "n": [1, 2] } });
    let got = run(with, true).await.unwrap();
    assert_eq!(got["body"], json!({ "key": "key-1", "body": { "n": [1, 2] } }));
}

#[tokio::test]
async fn failures_say_what_they_are() {
    let url = server().await;
    let fails = async |path: &str| run(json!({ "url": format!("{url}{path}") }), true).await.unwrap_err();
    let busy = fails("/busy").await;
    assert_eq!((busy.code.as_str(), busy.retryable), ("http.4xx.429", true));
    assert_eq!(busy.retry_after, Some(Duration::from_secs(7)));
    let gone = fails("/gone").await;
    assert_eq!((gone.code.as_str(), gone.retryable), ("http.4xx.410", false));
    assert_eq!(fails("/large").await.code, "http.too_large");
    assert_eq!(fails("/slow").await.code, "timeout.attempt");
    assert!(!fails("/loop").await.code.is_empty());
    let refused = run(json!({ "url": "http://127.0.0.1:1/" }), true).await.unwrap_err();
    assert_eq!((refused.code.as_str(), refused.retryable), ("http.connect", true));
    let bad = run(json!({ "url": "no url", "wrong": 1 }), true).await.unwrap_err();
    assert_eq!((bad.code.as_str(), bad.retryable), ("task.bad_argument", false));
}

#[tokio::test]
async fn private_addresses_are_out_of_reach_unless_allowed() {
    let url = server().await;
    for hidden in [url.clone(), url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")] {
        let refused = run(json!({ "url": format!("{hidden}/hello") }), false).await.unwrap_err();
        assert_eq!((refused.code.as_str(), refused.retryable), ("http.refused", false), "{hidden}: {refused:?}");
    }
}
