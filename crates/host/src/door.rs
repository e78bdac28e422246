//! Who may be connected to a port: so many at once, and nobody for nothing.
//!
//! ```text
//! connect ─▶ first request ─▶ idle ⇄ request under way
//!    │ nothing asked │ half a head   │ nothing written, for too long
//!    ▼               ▼               ▼
//!  sent away       sent away       sent away;  where all places are taken: who has been idle for longest
//! ```
//!
//! A connection costs a file, some memory and a task, whether or not it asks for anything. Without a bound a client that
//! only connects takes the files that the log needs for its next segment.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tonic::transport::server::Connected;

/// How often it is looked at who stays for nothing.
const LOOK: Duration = Duration::from_secs(1);

/// Of the files that a process may have open, those for one port: logs, segments, the bus and the history need theirs.
const PART_OF_FILES: u64 = 4;

/// Who comes has this long to ask, from when it was first seen that nothing had been said: connections that come in a
/// flood would else end those of who was about to ask.
const GREETING: Duration = Duration::from_secs(1);

/// How often it is tried again to find a place for who came, while all others came just now.
const AGAIN: Duration = Duration::from_millis(10);

/// Of all places, those that become free at once where none is left: looking for them costs as much as there are places.
const PART_FREED: usize = 64;

/// Allows this process as many open files as its user may give it, and says how many that are. The usual first limit of
/// 1,024 is for programs that look at files with `select`.
pub fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How long a connection may do what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until its first request is there, and from the first byte of a later one to the end of its head.
    pub head: Duration,
    /// With no request under way and nothing written to it.
    pub idle: Duration,
    /// With something to read for it that it does not read.
    pub stalled: Duration,
}

impl Patience {
    /// With peers that are not known.
    pub const DEFAULT: Self = Self {
        head: Duration::from_secs(10),
        // Above the 90 s after which common clients give up a connection themselves: who is closed on while a request is
        // on its way does not know whether it was taken.
        idle: Duration::from_secs(120),
        stalled: Duration::from_secs(30),
    };
}

/// The places of one port. Clones share them.
#[derive(Clone)]
pub struct Door(Arc<Places>);

struct Places {
    most: usize,
    patience: Patience,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    slots: BTreeMap<u64, Arc<Slot>>,
}

struct Slot {
    away: AtomicBool,
    waker: AtomicWaker,
    state: Mutex<State>,
}

struct State {
    /// Requests under way.
    requests: u32,
    asked: bool,
    /// When it was first seen that there was nothing to read.
    silent: Option<Instant>,
    /// HTTP/2 has frames that belong to no request.
    frames: bool,
    /// When it was last of use.
    used: Instant,
    head: Option<Instant>,
    stalled: Option<Instant>,
}

impl State {
    /// What it is while no request is under way.
    fn guest(&self, now: Instant) -> Kind {
        if self.asked {
            Kind::Idle
        } else if self.silent.is_some_and(|silent| now.duration_since(silent) >= GREETING) {
            Kind::Silent
        } else {
            Kind::Newcomer
        }
    }

    fn stays_for_nothing(&self, patience: &Patience, now: Instant) -> bool {
        let over = |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) > limit);
        let head = match self.asked {
            false => Some(self.used),
            true => self.head.filter(|_| !self.frames),
        };
        over(self.stalled, patience.stalled)
            || (self.requests == 0 && (over(head, patience.head) || over(Some(self.used), patience.idle)))
    }
}

impl Slot {
    fn send_away(&self) {
        self.away.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_away(&self, context: &Context<'_>) -> bool {
        if self.away.load(Ordering::Acquire) {
            return true;
        }
        self.waker.register(context.waker());
        self.away.load(Ordering::Acquire)
    }
}

impl Door {
    /// So many places, or fewer where the process may not have that many files open. Call it within a runtime: it looks
    /// after the places until the last clone and the last guest are gone.
    #[must_use]
    pub fn new(most: usize, patience: Patience) -> Self {
        let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| (files / PART_OF_FILES) as usize);
        let most = most.min(files).max(1);
        let places = Arc::new(Places { most, patience, taken: Mutex::default() });
        tokio::spawn(look_after(Arc::downgrade(&places)));
        Self(places)
    }

    /// How many may be connected.
    #[must_use]
    pub fn most(&self) -> usize {
        self.0.most
    }

    /// How many are.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.taken.lock().slots.len()
    }

    /// Takes a place for a connection. Where there is none, who has been idle for longest loses theirs; where half of
    /// those came just now it waits until they have asked or had the time to.
    ///
    /// # Errors
    /// The connection, where a request is under way on each of the others.
    pub async fn enter<T>(&self, connection: T) -> Result<Guest<T>, T> {
        let patience = Instant::now() + GREETING;
        loop {
            match self.0.take(Instant::now() < patience) {
                Ok(place) => return Ok(Guest { connection, place }),
                Err(Keeps::Busy) => return Err(connection),
                Err(Keeps::JustCame) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

/// Why nobody loses a place.
enum Keeps {
    /// A request is under way on each connection.
    Busy,
    /// Or they came just now, or have just asked.
    JustCame,
}

/// Who has no request under way, in the order in which places are lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Never asked, and had the time to.
    Silent,
    /// Has asked before. Newcomers take at most half of the places from these.
    Idle,
    /// Came just now.
    Newcomer,
}

impl Places {
    /// `patient`: who came just now keeps their place.
    fn take(self: &Arc<Self>, patient: bool) -> Result<Place, Keeps> {
        let now = Instant::now();
        let mut taken = self.taken.lock();
        if taken.slots.len() >= self.most {
            self.make_room(&mut taken, patient, now)?;
        }
        taken.next += 1;
        let number = taken.next;
        let state =
            State { requests: 0, asked: false, silent: None, frames: false, used: now, head: None, stalled: None };
        let slot = Arc::new(Slot { away: AtomicBool::default(), waker: AtomicWaker::new(), state: Mutex::new(state) });
        taken.slots.insert(number, Arc::clone(&slot));
        Ok(Place { number, places: Arc::downgrade(self), slot })
    }

    fn make_room(&self, taken: &mut Taken, patient: bool, now: Instant) -> Result<(), Keeps> {
        let mut idle = Vec::new();
        for (&number, slot) in &taken.slots {
            let state = slot.state.lock();
            if state.requests == 0 {
                idle.push((state.guest(now), state.used, number));
            }
        }
        let count = |kind| idle.iter().filter(|guest| guest.0 == kind).count();
        let (newcomers, asked) = (count(Kind::Newcomer), count(Kind::Idle));
        let goes = if count(Kind::Silent) > 0 {
            Kind::Silent
        } else if asked > newcomers || (asked > 0 && !patient) {
            Kind::Idle
        } else if newcomers == 0 {
            return Err(Keeps::Busy);
        } else if patient {
            return Err(Keeps::JustCame);
        } else {
            Kind::Newcomer
        };
        idle.retain(|guest| guest.0 == goes);
        let room = (self.most / PART_FREED).max(1);
        if idle.len() > room {
            idle.select_nth_unstable(room);
            idle.truncate(room);
        }
        for (_, _, number) in &idle {
            let Some(slot) = taken.slots.get(number).map(Arc::clone) else { continue };
            // Who has asked meanwhile stays.
            if slot.state.lock().requests == 0 {
                // It is counted no more from now on; its file is closed as soon as its task runs.
                taken.slots.remove(number);
                slot.send_away();
            }
        }
        if taken.slots.len() < self.most { Ok(()) } else { Err(Keeps::JustCame) }
    }

    fn look(&self) {
        let now = Instant::now();
        for slot in self.taken.lock().slots.values() {
            if slot.state.lock().stays_for_nothing(&self.patience, now) {
                slot.send_away();
            }
        }
    }
}

async fn look_after(places: Weak<Places>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(places) = places.upgrade() else { return };
        places.look();
    }
}

struct Place {
    number: u64,
    places: Weak<Places>,
    slot: Arc<Slot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.upgrade() {
            places.taken.lock().slots.remove(&self.number);
        }
    }
}

/// Tells the door that a request is under way, until this is dropped.
pub struct Visit(Arc<Slot>);

impl Drop for Visit {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.requests -= 1;
        state.used = Instant::now();
    }
}

/// Tells the door about the requests of one connection.
#[derive(Clone)]
pub struct Visitor(Arc<Slot>);

impl Visitor {
    /// A request begins; `frames` where it came by HTTP/2.
    #[must_use]
    pub fn asks(&self, frames: bool) -> Visit {
        let mut state = self.0.state.lock();
        state.requests += 1;
        state.asked = true;
        state.frames |= frames;
        state.head = None;
        drop(state);
        Visit(Arc::clone(&self.0))
    }
}

/// A connection that has a place.
pub struct Guest<T> {
    connection: T,
    place: Place,
}

impl<T> Guest<T> {
    /// Whom to tell about its requests.
    #[must_use]
    pub fn visitor(&self) -> Visitor {
        Visitor(Arc::clone(&self.place.slot))
    }

    fn wrote<R>(&self, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        let mut state = self.place.slot.state.lock();
        match &result {
            Poll::Ready(_) => {
                state.used = if state.asked { Instant::now() } else { state.used };
                state.stalled = None;
            }
            Poll::Pending => drop(state.stalled.get_or_insert_with(Instant::now)),
        }
        result
    }
}

/// What a connection meets that is sent away.
fn sent_away<R>() -> Poll<io::Result<R>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the connection was of no use for too long")))
}

impl<T: AsyncRead + Unpin> AsyncRead for Guest<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.place.slot.is_away(context) {
            return sent_away();
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.connection).poll_read(context, buffer);
        let heard = buffer.filled().len() > before;
        let mut state = this.place.slot.state.lock();
        if heard && state.requests == 0 {
            state.head.get_or_insert_with(Instant::now);
        }
        if result.is_pending() && !state.asked {
            state.silent.get_or_insert_with(Instant::now);
        }
        drop(state);
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guest<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.place.slot.is_away(context) {
            return sent_away();
        }
        let result = Pin::new(&mut this.connection).poll_write(context, bytes);
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.place.slot.is_away(context) {
            return sent_away();
        }
        let result = Pin::new(&mut this.connection).poll_write_vectored(context, bytes);
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(context)
    }
}

/// A gRPC service finds the visitor among the extensions of each request.
impl<T> Connected for Guest<T> {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.visitor()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Client {
        far: DuplexStream,
        near: Guest<DuplexStream>,
    }

    async fn connect(door: &Door) -> Option<Client> {
        let (far, near) = duplex(64);
        let mut client = Client { far, near: door.enter(near).await.ok()? };
        // As a server does.
        assert!(!client.is_away().await);
        Some(client)
    }

    impl Client {
        /// Whether it was sent away: else there is nothing to read.
        async fn is_away(&mut self) -> bool {
            let reading = tokio::time::timeout(Duration::ZERO, self.near.read_u8()).await;
            matches!(reading, Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_places_are_taken_who_was_idle_for_longest_loses_theirs() {
        let door = Door::new(3, Patience::DEFAULT);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(connect(&door).await.expect("there is room"));
            tokio::time::sleep(SECOND).await;
        }
        // The first to come was of use since.
        drop(clients[0].near.visitor().asks(false));
        let mut fourth = connect(&door).await.expect("room is made");
        assert_eq!(door.taken(), 3);
        assert!(clients[1].is_away().await);
        assert!(!clients[0].is_away().await && !clients[2].is_away().await && !fourth.is_away().await);
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_never_asked_lose_theirs_before_those_who_did() {
        let door = Door::new(3, Patience::DEFAULT);
        let mut client = connect(&door).await.expect("there is room");
        drop(client.near.visitor().asks(false));
        tokio::time::sleep(SECOND).await;
        let mut silent = Vec::new();
        for _ in 0..20 {
            silent.push(connect(&door).await.expect("room is made"));
        }
        assert!(!client.is_away().await, "it is of use, and was idle for longest");
        assert!(silent[0].is_away().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_just_now_has_the_time_to_ask() {
        let door = Door::new(2, Patience::DEFAULT);
        let client = connect(&door).await.expect("there is room");
        let _silent = connect(&door).await.expect("there is room");
        // The server had no time yet to look whether it had said something.
        let (_far, near) = duplex(64);
        let mut coming = std::pin::pin!(door.enter(near));
        tokio::time::timeout(GREETING / 2, coming.as_mut()).await.err().expect("both came just now");
        drop(client.near.visitor().asks(false));
        let mut unseen = coming.await.expect("the other one had the time to");
        let begun = Instant::now();
        let _next = connect(&door).await.expect("room is made by who has asked once");
        assert!(begun.elapsed() >= GREETING, "{:?}", begun.elapsed());
        assert!(tokio::time::timeout(Duration::ZERO, unseen.read_u8()).await.is_err(), "it was not seen to be silent");
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_does_not_have_others_wait_where_some_are_idle() {
        let door = Door::new(4, Patience::DEFAULT);
        let mut clients = Vec::new();
        for _ in 0..3 {
            let client = connect(&door).await.expect("there is room");
            drop(client.near.visitor().asks(false));
            clients.push(client);
            tokio::time::sleep(SECOND).await;
        }
        let mut silent = connect(&door).await.expect("there is room");
        let begun = Instant::now();
        let _next = connect(&door).await.expect("room is made");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(clients[0].is_away().await && !clients[1].is_away().await && !silent.is_away().await);
    }

    #[tokio::test(start_paused = true)]
    async fn newcomers_leave_half_of_what_is_not_busy_to_those_who_were_there() {
        let door = Door::new(6, Patience::DEFAULT);
        let (mut clients, mut visits) = (Vec::new(), Vec::new());
        for n in 0..6 {
            let client = connect(&door).await.expect("there is room");
            let visit = client.near.visitor().asks(false);
            if n < 2 {
                visits.push(visit);
            }
            clients.push(client);
        }
        let begun = Instant::now();
        let _two = (connect(&door).await.expect("room is made"), connect(&door).await.expect("room is made"));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let third = tokio::time::timeout(GREETING / 2, connect(&door)).await;
        assert!(third.is_err(), "it waits for the two before it");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_loses_a_place_while_a_request_is_under_way() {
        let door = Door::new(2, Patience::DEFAULT);
        let clients = [connect(&door).await.expect("there is room"), connect(&door).await.expect("there is room")];
        let visits: Vec<_> = clients.iter().map(|client| client.near.visitor().asks(false)).collect();
        tokio::time::sleep(SECOND * 1_000).await;
        assert!(connect(&door).await.is_none(), "there is no room");
        drop(visits);
        assert!(connect(&door).await.is_some());
        drop(clients);
        assert_eq!(door.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_nothing_is_sent_away() {
        let door = Door::new(10, Patience::DEFAULT);
        let mut silent = connect(&door).await.expect("there is room");
        let mut slow = connect(&door).await.expect("there is room");
        let mut idle = connect(&door).await.expect("there is room");
        for client in [&slow, &idle] {
            drop(client.near.visitor().asks(false));
        }
        for _ in 0..12 {
            slow.far.write_all(b"x").await.expect("it is read");
            slow.near.read_u8().await.ok();
            tokio::time::sleep(SECOND).await;
        }
        assert!(silent.is_away().await, "it never asked");
        assert!(slow.is_away().await, "its second head does not end");
        assert!(!idle.is_away().await);
        tokio::time::sleep(SECOND * 120).await;
        assert!(idle.is_away().await);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_between_requests_are_no_head_and_what_is_written_is_of_use() {
        let door = Door::new(10, Patience::DEFAULT);
        let mut client = connect(&door).await.expect("there is room");
        drop(client.near.visitor().asks(true));
        for _ in 0..300 {
            client.far.write_all(b"x").await.expect("it is read");
            client.near.read_u8().await.expect("it stays");
            client.near.write_all(b"y").await.expect("it stays");
            client.far.read_u8().await.expect("it was written");
            tokio::time::sleep(SECOND).await;
        }
        assert!(!client.is_away().await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_sent_away() {
        let door = Door::new(10, Patience::DEFAULT);
        let mut client = connect(&door).await.expect("there is room");
        let _visit = client.near.visitor().asks(false);
        let begun = Instant::now();
        let error = client.near.write_all(&[0; 1_000]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_secs(30), "{:?}", begun.elapsed());
    }
}
