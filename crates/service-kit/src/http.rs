//! A port that speaks HTTP/1.1 and HTTP/2 to anybody, friend or not.
//!
//! What a peer can make a service hold is bounded: connections by the [`Door`], heads and streams by the limits here, bodies
//! by the time they may take and by the bytes of all of them together.

mod body;

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use axum::extract::Request;
use axum::http::Version;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use nova_host::{Door, Guest, Patience};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

pub use body::{Bodies, Reading, Unread};

/// Bytes of the head of a request that are read. Services refuse less than this with an answer of their own.
pub const HEAD_BYTES: usize = 64 << 10;

/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 128;
/// Bytes of one body that wait in a connection until they are read.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all bodies that wait in a connection until they are read.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a peer has opened and reset before they were looked at; one more ends the connection.
const RESETS: usize = 20;
/// Streams that were reset because of what the peer did on them; one more ends the connection.
const ERRORS: usize = 128;
/// Bytes of answers that wait in a stream until the peer takes them.
const SEND_BUFFER: usize = 256 << 10;

/// Pause after the system gave no connection: most often there are no files left, and one becomes free soon.
const PAUSE: Duration = Duration::from_millis(100);

/// What is said to who comes where a request is under way on each connection. It is written at once or not at all: who
/// waited for it to be read would hold what there is too little of.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 137\r\n\r\n\
{\"type\":\"https://novaflow.dev/errors#unavailable\",\"status\":503,\"code\":\"unavailable\",\"title\":\"as many are connected as may be, try again\"}";

/// How much is taken from peers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of all bodies that are being read or worked on.
    pub body_bytes: usize,
    /// How long a connection may do what.
    pub patience: Patience,
}

/// Serves until `stop`, and then what is under way.
pub async fn serve<S>(listener: TcpListener, service: S, limits: Limits, stop: CancellationToken)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let door = Door::new(limits.connections, limits.patience);
    let bodies = Bodies::new(limits.body_bytes);
    let builder = builder();
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                wait_after(&error).await;
                continue;
            }
        };
        // Answers are small: one that waited for a fuller packet would wait 40 ms.
        let _ = stream.set_nodelay(true);
        match door.enter(stream).await {
            Ok(guest) => {
                let serving = connection(builder.clone(), guest, service.clone(), bodies.clone(), stop.clone());
                connections.spawn(serving);
            }
            Err(stream) => turn_away(stream).await,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // How long a head may take is for the door, which also sees who has sent nothing yet.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES as u32)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(ERRORS)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

async fn connection<S>(
    builder: Builder<TokioExecutor>,
    guest: Guest<TcpStream>,
    service: S,
    bodies: Bodies,
    stop: CancellationToken,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let visitor = guest.visitor();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let visit = visitor.asks(request.version() == Version::HTTP_2);
        let answering = service.clone().oneshot(bodies.watch(request));
        async move {
            let answer = answering.await;
            drop(visit);
            answer
        }
    });
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(guest), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // A peer that breaks off or says what is no HTTP is nothing that anybody here can mend.
        tracing::trace!(%error, "a connection ended");
    }
}

async fn turn_away(mut stream: TcpStream) {
    if stream.try_write(FULL).is_ok() {
        let _ = stream.shutdown().await;
    }
}

async fn wait_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::warn!(%error, "no connection can be taken");
        tokio::time::sleep(PAUSE).await;
    }
}
