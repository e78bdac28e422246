//! Following an execution by server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use nova_history::Told;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::events::{Renderer, is_last};
use crate::problem::Problem;
use crate::state::{App, Id, Namespace};
use crate::workflows::Version;

/// Entries of the history in one page.
const PAGE: u32 = 1_000;

/// Follow an execution: one event of the stream for each event of it, from `Last-Event-ID` on; ends with it.
#[utoipa::path(get, path = "/api/v1/executions/{id}/watch", tag = "executions",
    params(("id" = String, Path), ("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = Problem)))]
pub(crate) async fn watch(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let after = match headers.get("last-event-id") {
        None => 0,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Problem::bad_request("header Last-Event-ID is not a number"))?,
    };
    // Followed before it is read, so that nothing falls between.
    let told = app.ingester.follow();
    let (workflow, version) = super::executions::whose(&app, &namespace, id).await?;
    let version = app.workflows.get(&namespace, &workflow, Some(version)).await?;
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(follow(app, id.0.to_be_bytes(), version, after, told, sender));
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

async fn follow(
    app: App,
    id: [u8; 16],
    version: Arc<Version>,
    after: u64,
    mut told: broadcast::Receiver<Told>,
    out: mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut renderer = Renderer::new(&version.compiled.program);
    // Paths of scopes come from their events, so all events are read, and those that are known are not sent.
    let (mut read, mut sent) = (0, after);
    loop {
        let Ok(rows) = app.history.events(&id, read, PAGE).await else { return };
        for row in &rows {
            if row.happened.first_number <= read {
                continue;
            }
            for event in renderer.entry(row, sent) {
                let number = event["number"].as_u64().unwrap_or(0);
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                let message = Event::default().id(number.to_string()).event(kind).data(event.to_string());
                if out.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            read = row.happened.first_number + row.happened.events.len() as u64 - 1;
            sent = sent.max(read);
            if is_last(row) {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = out.closed() => return,
            };
            match next {
                Ok(told) if told.happened.execution[..] != id => {}
                Err(broadcast::error::RecvError::Closed) => return,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
            }
        }
    }
}
