//! The door: a submission that would be refused is turned away before it is routed or read, since during an overload
//! refusals are most of what an api does.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use futures::future::{BoxFuture, Either, FutureExt};
use tower::Service;

use super::Refusal;
use crate::metrics::Requests;
use crate::problem::Problem;
use crate::state::App;

const SUBMISSIONS: &str = "/api/v1/executions";
/// A body of a refused request up to this is read, so that the connection can be used again; in bytes.
const READ_BYTES: usize = 64 << 10;
const READ_WITHIN: Duration = Duration::from_secs(2);

/// All that the api answers, behind the door.
#[derive(Clone)]
pub(crate) struct Gate {
    router: Router,
    app: App,
    measured: Arc<Requests>,
    refused: Bytes,
}

impl Gate {
    pub(crate) fn new(router: Router, app: App, measured: Arc<Requests>) -> Self {
        let refused = serde_json::to_vec(&Problem::overloaded(1)).expect("a problem is JSON").into();
        Self { router, app, measured, refused }
    }

    fn knock(&self, request: &Request) -> Result<(), (Refusal, Instant)> {
        if request.method() != Method::POST || request.uri().path() != SUBMISSIONS {
            return Ok(());
        }
        let namespace = request.headers().get("nova-namespace");
        // What is not a name is refused for that, further on.
        let Some(namespace) = namespace.map_or(Some("default"), |name| name.to_str().ok()) else { return Ok(()) };
        self.app.admission.knock(namespace)
    }

    fn answer(&self, refusal: Refusal) -> Response {
        self.app.submissions.overloaded();
        let mut response = Response::new(Body::from(self.refused.clone()));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::RETRY_AFTER, HeaderValue::from(refusal.retry_after_s));
        response
    }
}

impl Service<Request> for Gate {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<<Router as Service<Request>>::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <Router as Service<Request>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Err((refusal, turn)) = self.knock(&request) else { return Either::Left(self.router.call(request)) };
        let begun = Instant::now();
        let response = self.answer(refusal);
        let measured = Arc::clone(&self.measured);
        let refusing = async move {
            // What is not read here closes the connection, and a client that still sends may not see the answer.
            let reading = axum::body::to_bytes(request.into_body(), READ_BYTES);
            let _ = tokio::time::timeout(READ_WITHIN, reading).await;
            // A client that waits for its answer sends no more on that connection meanwhile.
            tokio::time::sleep_until(turn.into()).await;
            measured.note(SUBMISSIONS, response.status().as_u16(), begun.elapsed());
            Ok(response)
        };
        Either::Right(refusing.boxed())
    }
}
