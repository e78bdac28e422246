//! The way to a member.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Error};

type Request = http::Request<Body>;
type Response = http::Response<Body>;
type Answer<E> = Pin<Box<dyn Future<Output = Result<Response, E>> + Send>>;

/// Over the network, or by a call within this process.
#[derive(Clone)]
pub enum Transport {
    /// HTTP/2.
    Network(Channel),
    /// The messages are the same; no connection carries them, and no task but those that send and receive is woken.
    Here(Here),
}

/// A member in this process.
#[derive(Clone)]
pub struct Here(Arc<dyn Fn(Request) -> Answer<Infallible> + Send + Sync>);

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network(_) => "Network",
            Self::Here(_) => "Here",
        })
    }
}

impl Transport {
    pub(crate) fn here<S: Coordinator>(member: CoordinatorServer<S>) -> Self {
        Self::Here(Here(Arc::new(move |request| member.clone().call(request))))
    }
}

impl Service<Request> for Transport {
    type Response = Response;
    type Error = Error;
    type Future = Answer<Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Self::Network(channel) => channel.poll_ready(context),
            Self::Here(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self {
            Self::Network(channel) => Box::pin(channel.call(request)),
            Self::Here(Here(member)) => {
                let answer = member(request);
                Box::pin(async move { answer.await.map_err(|never| match never {}) })
            }
        }
    }
}
