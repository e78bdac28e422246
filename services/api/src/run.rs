//! Putting it together.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures::StreamExt;
use nova_bus::{BusError, SharedBus, Topic};
use nova_client::Coordinators;
use nova_client::load::{self, Marks};
use nova_history::{History, HistoryError, Ingester};
use nova_host::Patience;
use nova_service_kit::http::{self, Reading, Unread};
use nova_service_kit::observe;
use nova_telemetry::MetricsPage;
use nova_wire::ClusterId;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Gate, Limits};
use crate::config::Config;
use crate::handlers::{cluster, executions, submit, watch, workflows};
use crate::metrics::{self as names, Requests};
use crate::openapi;
use crate::problem::Problem;
use crate::replies::Replies;
use crate::state::{App, Shared};
use crate::submitter::Submitter;
use crate::workflows::Workflows;

/// Why an api ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its port cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its topics are not there or cannot be reached.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Its history cannot be opened.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Its data directory cannot be made.
    #[error("cannot make the data directory {path}")]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Three quarters of the outbox above which a shard takes no more (rule 35).
const OUTBOX_BYTES: u64 = nova_engine::limits::OUTBOX_BYTES / 4 * 3;

/// Largest sum of the headers of a request, in bytes; what the server itself reads is more, so that this has an answer.
const HEADER_BYTES: usize = 16 << 10;

/// Bytes that are read of a body that is refused.
const THROWN_AWAY: usize = 8 << 20;

/// Longest wait for the history to be closed.
const CLOSING: Duration = Duration::from_secs(5);

/// An api that is ready to run.
pub struct Api {
    listener: TcpListener,
    app: App,
    metrics: MetricsPage,
    stop: CancellationToken,
}

impl Api {
    /// Opens the port and the history; begins to read replies and events.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn start(
        config: Config,
        coordinators: Coordinators,
        bus: SharedBus,
        metrics: MetricsPage,
        stop: CancellationToken,
    ) -> Result<Self, RunError> {
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|source| RunError::Listen { address: config.listen.clone(), source })?;
        if let Some(folder) = config.history.parent() {
            let failed = |source| RunError::Data { path: folder.to_owned(), source };
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        let cluster = ClusterId::of_name(&config.cluster);
        // Before anybody else is asked: a file that is not ours is refused also where the bus cannot be reached.
        let history = History::open(&config.history, cluster).await?;
        let missing = || BusError::NoSuchPartition { topic: Topic::Commands, partition: 0 };
        let shards = bus.partitions(&Topic::Commands).await?.ok_or_else(missing)?;
        let marks = Marks {
            open_executions: config.max_open_per_shard,
            read_lag: config.max_read_lag,
            outbox_bytes: OUTBOX_BYTES,
        };
        let (load, looking) = load::watch(coordinators.clone(), marks);
        tokio::spawn(stop.clone().run_until_cancelled_owned(looking));
        let app = Arc::new(Shared {
            load,
            admission: Admission::new(Limits {
                quick: Duration::from_millis(config.quick_answer_ms),
                most: config.max_undecided,
            }),
            workflows: Workflows::start(coordinators.clone(), stop.clone()),
            replies: Replies::start(Arc::clone(&bus), cluster, config.instance, stop.clone()).await?,
            submitter: Submitter::start(&bus, cluster, shards, config.window),
            submissions: names::Submissions::new(),
            ingester: Ingester::start(history.clone(), Arc::clone(&bus), cluster, stop.clone()),
            history,
            coordinators,
            bus,
            config,
        });
        tokio::spawn(stop.clone().run_until_cancelled_owned(names::run(Arc::clone(&app))));
        Ok(Self { listener, app, metrics, stop })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is stopped; requests that are being answered get a moment.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        let Self { listener, app, metrics, stop } = self;
        let measured = Arc::new(Requests::default());
        let router = router(Arc::clone(&app), metrics, Arc::clone(&measured));
        let gate = Gate::new(router, Arc::clone(&app), measured);
        let limits = http::Limits {
            connections: app.config.max_connections,
            body_bytes: app.config.max_bodies_bytes,
            patience: Patience::DEFAULT,
        };
        let serving = http::serve(listener, gate, limits, stop.clone());
        let overtime = async {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        tokio::select! {
            () = serving => {}
            () = overtime => {}
        }
        if tokio::time::timeout(CLOSING, app.history.close()).await.is_err() {
            tracing::warn!(
                "the history was not closed in {CLOSING:?}: the next start finds its rows in the side files"
            );
        }
        Ok(())
    }
}

fn router(app: App, metrics: MetricsPage, measured: Arc<Requests>) -> Router {
    let limit = app.config.max_body_bytes;
    let own = Arc::clone(&app);
    let ready: observe::Ready = Arc::new(move || {
        let app = Arc::clone(&own);
        Box::pin(async move {
            if !app.workflows.is_ready() {
                return Err("no coordinator was reached yet".into());
            }
            if let Some(why) = app.cannot_commit() {
                return Err(why);
            }
            app.bus.health().await.map_err(|error| error.to_string())
        })
    });
    let api = Router::new()
        .route("/workflows", post(workflows::apply).get(workflows::list))
        .route("/workflows/validate", post(workflows::validate))
        .route("/workflows/{name}", get(workflows::get))
        .route("/executions", post(submit::submit).get(executions::list))
        .route("/executions/batch", post(submit::batch))
        .route("/executions/{id}", get(executions::get))
        .route("/executions/{id}/cancel", post(executions::cancel))
        .route("/executions/{id}/events", get(executions::events))
        .route("/executions/{id}/result", get(executions::result))
        .route("/executions/{id}/watch", get(watch::watch))
        .route("/triggers", post(cluster::put_trigger).get(cluster::triggers))
        .route("/triggers/{id}", delete(cluster::delete_trigger))
        .route("/workers", get(cluster::workers))
        .route("/workers/{name}/drain", post(cluster::drain))
        .route("/openapi.json", get(document));
    Router::new()
        .nest("/api/v1", api)
        .merge(observe::routes("api", metrics, ready))
        .fallback(|| async { Problem::not_found("no such path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path has no such method")
        })
        .layer(DefaultBodyLimit::max(limit))
        // One for all: each layer costs every request some microseconds.
        .layer(axum::middleware::from_fn(move |request, next| around(limit, Arc::clone(&measured), request, next)))
        .with_state(app)
}

async fn document() -> Response {
    match openapi::openapi_json() {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => Problem::unavailable(error.to_string()).into_response(),
    }
}

/// What is done about every request: one that is too large is refused by its length, before it is read; it is measured;
/// and whatever refuses it, the answer is a problem.
async fn around(limit: usize, measured: Arc<Requests>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    if let Some(problem) = refused_by_headers(request.headers()) {
        throw_away(request).await;
        return problem.into_response();
    }
    let stated = request.headers().get(header::CONTENT_LENGTH);
    let stated = stated.and_then(|value| value.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    if stated > limit as u64 {
        throw_away(request).await;
        return Problem::body_too_large(format!("{stated} bytes; at most {limit}")).into_response();
    }
    let route = request.extensions().get::<MatchedPath>().cloned();
    // Held until the answer is made: the bytes are in memory as long.
    let reading = request.extensions().get::<Reading>().cloned();
    let response = next.run(request).await;
    let response = match reading.as_ref().and_then(Reading::unread) {
        Some(why) if response.status().is_client_error() => unread(why).into_response(),
        _ => problems_everywhere(response).await,
    };
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    measured.note(route, response.status().as_u16(), begun.elapsed());
    response
}

/// What no route takes: more headers than are needed for anything, and a body that is larger than it looks.
fn refused_by_headers(headers: &HeaderMap) -> Option<Problem> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if bytes > HEADER_BYTES {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let problem = Problem::new(status, "limit.headers", "the headers of the request are too large");
        return Some(problem.detail(format!("{bytes} bytes; at most {HEADER_BYTES}")));
    }
    let encoding =
        headers.get(header::CONTENT_ENCODING).filter(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))?;
    let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", "the media type is not understood");
    Some(
        problem.detail(format!(
            "Content-Encoding {}: send the body as it is",
            String::from_utf8_lossy(encoding.as_bytes())
        )),
    )
}

fn unread(why: Unread) -> Problem {
    match why {
        Unread::TooSlow => Problem::new(StatusCode::REQUEST_TIMEOUT, "request.slow", "the body came too slowly"),
        Unread::NoRoom => Problem::unavailable("as many bodies are under way as may be"),
    }
}

/// Some of the body is read and thrown away: a client that still sends when the connection closes would not see the answer.
async fn throw_away(request: Request) {
    let reading = request.extensions().get::<Reading>().cloned();
    let mut body = request.into_body().into_data_stream();
    let throwing_away = async {
        let mut read = 0;
        while let Some(Ok(part)) = body.next().await {
            read += part.len();
            if let Some(reading) = &reading {
                reading.let_go();
            }
            if read > THROWN_AWAY {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), throwing_away).await;
}

/// Refusals that the framework makes in plain text become problems too.
async fn problems_everywhere(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !(status.is_client_error() || status.is_server_error()) || kind.contains("json") {
        return response;
    }
    let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap_or_default();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::body_too_large(String::from_utf8_lossy(&body)).into_response();
    }
    let (code, title) = match status {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("media_type", "the media type is not understood"),
        _ => ("bad_request", "the request is not understood"),
    };
    Problem::new(status, code, title).detail(String::from_utf8_lossy(&body)).into_response()
}
