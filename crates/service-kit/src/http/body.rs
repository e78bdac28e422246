//! Bodies of requests: each has to come in time, and all together have to fit.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// How long a body is waited for; each byte that comes is worth some of it, up to this.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes that are worth a second.
const RATE: u64 = 8 << 10;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Its bytes come too slowly.
    TooSlow,
    /// Others take all the room there is for bodies.
    NoRoom,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSlow => "the body came too slowly",
            Self::NoRoom => "there is no room for the body",
        })
    }
}

impl std::error::Error for Unread {}

/// Room for the bodies of all requests of a port. Clones share it.
#[derive(Clone)]
pub struct Bodies(Arc<Room>);

struct Room {
    most: usize,
    used: AtomicUsize,
}

impl Bodies {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Room { most, used: AtomicUsize::new(0) }))
    }

    /// The request, with a [`Reading`] among its extensions where it has a body.
    pub(super) fn watch(&self, request: hyper::Request<Incoming>) -> Request {
        if request.body().is_end_stream() {
            return request.map(Body::new);
        }
        let reading =
            Reading(Arc::new(Held { room: Arc::clone(&self.0), bytes: AtomicUsize::new(0), unread: AtomicU8::new(0) }));
        let mut request = request.map(|body| Body::new(Watched::new(body, reading.clone())));
        request.extensions_mut().insert(reading);
        request
    }
}

/// How far the body of a request was read. What it holds of the room is given back with the last clone.
#[derive(Clone)]
pub struct Reading(Arc<Held>);

struct Held {
    room: Arc<Room>,
    bytes: AtomicUsize,
    unread: AtomicU8,
}

impl Reading {
    /// Why it was not read to its end, if that was the reason.
    #[must_use]
    pub fn unread(&self) -> Option<Unread> {
        match self.0.unread.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Unread::TooSlow),
            _ => Some(Unread::NoRoom),
        }
    }

    /// What was read is not kept.
    pub fn let_go(&self) {
        let bytes = self.0.bytes.swap(0, Ordering::AcqRel);
        self.0.room.used.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn fail(&self, why: Unread) -> Unread {
        let code = match why {
            Unread::TooSlow => 1,
            Unread::NoRoom => 2,
        };
        self.0.unread.store(code, Ordering::Release);
        why
    }

    fn hold(&self, bytes: usize) -> Result<(), Unread> {
        let before = self.0.room.used.fetch_add(bytes, Ordering::AcqRel);
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) > self.0.room.most { Err(self.fail(Unread::NoRoom)) } else { Ok(()) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.used.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

struct Watched<B> {
    body: B,
    reading: Reading,
    /// How long it is still waited for.
    credit: Duration,
    /// The wait of now.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Watched<B> {
    fn new(body: B, reading: Reading) -> Self {
        Self { body, reading, credit: GRACE, wait: None }
    }

    fn came(&mut self, bytes: usize) {
        if let Some((since, _)) = self.wait.take() {
            let worth = Duration::from_micros(bytes as u64 * 1_000_000 / RATE);
            self.credit = (self.credit.saturating_sub(since.elapsed()) + worth).min(GRACE);
        }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Watched<B>
where
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = self.get_mut();
        if this.reading.unread().is_some() {
            // It was said once.
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) else {
            let credit = this.credit;
            let (_, sleep) = this.wait.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(credit))));
            ready!(sleep.as_mut().poll(context));
            return Poll::Ready(Some(Err(this.reading.fail(Unread::TooSlow).into())));
        };
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(Into::into)?;
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.came(bytes);
            this.reading.hold(bytes)?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn held(room: &Bodies) -> Reading {
        let held = Held { room: Arc::clone(&room.0), bytes: AtomicUsize::new(0), unread: AtomicU8::new(0) };
        Reading(Arc::new(held))
    }

    /// A body that comes in parts of so many bytes, each after a pause.
    fn parts(count: usize, bytes: usize, pause: Duration) -> Body {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            for _ in 0..count {
                tokio::time::sleep(pause).await;
                if sender.send(Ok::<_, axum::BoxError>(Bytes::from(vec![b'x'; bytes]))).await.is_err() {
                    return;
                }
            }
        });
        Body::from_stream(ReceiverStream::new(receiver))
    }

    async fn read(body: Body, reading: Reading) -> usize {
        let body = Body::new(Watched::new(body, reading));
        body.into_data_stream().map(|part| part.map_or(0, |part| part.len())).collect::<Vec<_>>().await.iter().sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up_and_one_that_flows_is_read_however_long_it_takes() {
        let room = Bodies::new(1 << 30);
        let reading = held(&room);
        let begun = Instant::now();
        read(parts(1_000_000, 1, Duration::from_secs(1)), reading.clone()).await;
        assert_eq!(reading.unread(), Some(Unread::TooSlow));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        // What came at once is no reason to wait for longer.
        let (reading, begun) = (held(&room), Instant::now());
        let stalled = futures::stream::once(async { Ok::<_, axum::BoxError>(Bytes::from(vec![b'x'; 1 << 20])) });
        let stalled = Body::from_stream(stalled.chain(futures::stream::pending()));
        assert_eq!(read(stalled, reading.clone()).await, 1 << 20);
        assert_eq!((reading.unread(), begun.elapsed().as_secs()), (Some(Unread::TooSlow), 10));
        let reading = held(&room);
        assert_eq!(read(parts(100, 10_000, Duration::from_secs(1)), reading.clone()).await, 1_000_000);
        assert_eq!(reading.unread(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_do_not_fit_together_are_refused_and_the_room_is_given_back() {
        let room = Bodies::new(25_000);
        let first = held(&room);
        assert_eq!(read(parts(2, 10_000, Duration::ZERO), first.clone()).await, 20_000);
        let second = held(&room);
        assert_eq!(read(parts(2, 10_000, Duration::ZERO), second.clone()).await, 0);
        assert_eq!((first.unread(), second.unread()), (None, Some(Unread::NoRoom)));
        first.let_go();
        drop((first, second));
        assert_eq!(room.0.used.load(Ordering::Acquire), 0);
        let third = held(&room);
        assert_eq!(read(parts(2, 10_000, Duration::ZERO), third.clone()).await, 20_000);
    }
}
