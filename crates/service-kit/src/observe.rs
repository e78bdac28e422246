//! The port on which a service is observed: `/metrics`, `/healthz`, `/readyz`, `/version`.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use nova_host::Patience;
use nova_telemetry::MetricsPage;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::http;

/// Who looks at metrics is few, and sends no body.
const LIMITS: http::Limits = http::Limits { connections: 256, body_bytes: 1 << 20, patience: Patience::DEFAULT };

/// Whether a service can do its work; why not.
pub type Ready = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The routes, to be served alone or with others.
pub fn routes<S: Clone + Send + Sync + 'static>(
    service: &'static str,
    metrics: MetricsPage,
    ready: Ready,
) -> Router<S> {
    let page = move || async move {
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], metrics.render())
    };
    let readiness = move || async move {
        match ready().await {
            Ok(()) => (StatusCode::OK, Json(json!({ "ready": true }))).into_response(),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "why": why }))).into_response(),
        }
    };
    let version = move || async move { Json(json!({ "service": service, "version": env!("CARGO_PKG_VERSION") })) };
    Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(|| async { Json(json!({ "alive": true })) }))
        .route("/readyz", get(readiness))
        .route("/version", get(version))
}

/// Serves the routes on `listen` until `stop`.
///
/// # Errors
/// When the port cannot be opened.
pub async fn serve(
    listen: &str,
    service: &'static str,
    metrics: MetricsPage,
    ready: Ready,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    http::serve(listener, routes::<()>(service, metrics, ready), LIMITS, stop).await;
    Ok(())
}
