//! Connections: TCP, or whatever else carries bytes in order.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Channel, Endpoint};

use crate::door::{Door, Guest};

/// Pause after the system gave no connection: most often there are no files left, and one becomes free soon.
const PAUSE: Duration = Duration::from_millis(100);

/// Carries bytes both ways, in order.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Makes connections to other hosts.
#[derive(Clone, Default)]
pub enum Dialer {
    /// Over TCP.
    #[default]
    Tcp,
    /// As this does; the connection is made when it is first used, and again when it broke.
    By(Arc<dyn Fn(Endpoint) -> Channel + Send + Sync>),
}

impl Dialer {
    /// A channel that connects when it is first used.
    #[must_use]
    pub fn channel(&self, endpoint: Endpoint) -> Channel {
        match self {
            Self::Tcp => endpoint.tcp_nodelay(true).connect_lazy(),
            Self::By(dial) => dial(endpoint),
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "Tcp",
            Self::By(_) => "By",
        })
    }
}

/// Takes connections of others.
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// As they come from this.
    By(BoxStream<'static, io::Result<Box<dyn Io>>>),
}

impl Listener {
    /// Connections, for a server.
    pub fn incoming(self) -> BoxStream<'static, io::Result<Connection>> {
        match self {
            // Answers are small: one that waited for a fuller packet would wait 40 ms.
            Self::Tcp(listener) => {
                TcpIncoming::from(listener).with_nodelay(Some(true)).map(|it| it.map(Connection::Tcp)).boxed()
            }
            Self::By(incoming) => incoming.map(|it| it.map(Connection::By)).boxed(),
        }
    }
}

impl Listener {
    /// The same, of those for whom there is room; the others find that they are not connected.
    pub fn through(self, door: Door) -> BoxStream<'static, io::Result<Guest<Connection>>> {
        let entering = move |taken: io::Result<Connection>| {
            let door = door.clone();
            async move {
                match taken {
                    Ok(connection) => door.enter(connection).await.ok().map(Ok),
                    Err(error) => {
                        // Whoever takes connections asks for the next one at once.
                        tokio::time::sleep(PAUSE).await;
                        Some(Err(error))
                    }
                }
            }
        };
        self.incoming().filter_map(entering).boxed()
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

/// A connection that was taken.
pub enum Connection {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over something else.
    By(Box<dyn Io>),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::By(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::By(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::By(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::By(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::By(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::By(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
