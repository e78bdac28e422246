//! The network: connections that carry bytes in order, with delays, and links that break.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use nova_host::Dialer;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Uri;

use crate::os;

/// Bytes on their way or not read, above which a writer waits.
const WINDOW: usize = 256 << 10;
/// Packets arrive at multiples of this, in nanoseconds.
const PACE_NS: i64 = 100_000;
/// Connections that nobody has accepted.
const BACKLOG: usize = 128;

/// How long messages take, and which links are broken. Names are those of hosts.
#[derive(Clone, Debug)]
pub struct Weather {
    /// One way, at least.
    pub delay_least: Duration,
    /// And at most.
    pub delay_most: Duration,
    /// From, to: nothing gets through.
    pub cut: BTreeSet<(Arc<str>, Arc<str>)>,
    /// What waits for a link that was cut is sent again about so long after it was healed.
    pub again: Duration,
}

impl Default for Weather {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { delay_least: ms(1) / 4, delay_most: ms(1), cut: BTreeSet::new(), again: ms(200) }
    }
}

/// A host that is up.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    name: Arc<str>,
    process: usize,
}

/// The network of a world.
#[derive(Clone)]
pub struct SharedNet(Arc<Mutex<Net>>);

struct Net {
    weather: Weather,
    random: SmallRng,
    /// By name of host: the process that is up.
    hosts: BTreeMap<Arc<str>, usize>,
    /// By `host:port`.
    listeners: BTreeMap<String, (usize, mpsc::Sender<Stream>)>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    /// When something arrives, and on which lane: the first that is there.
    queue: BinaryHeap<Reverse<(i64, u64, LaneKey)>>,
    lanes: BTreeMap<LaneKey, Lane>,
    next_event: u64,
}

/// What stays in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LaneKey {
    /// Alone.
    Single(u64),
    /// To one end of a connection.
    Stream(u64, usize),
    /// Words of a process, by a number that it gave.
    Words(usize, u64),
}

#[derive(Default)]
struct Lane {
    events: VecDeque<Event>,
    /// Events that stand before a cut: they have no place in the queue.
    held: usize,
    /// Nothing arrives before this.
    not_before: i64,
    /// When the last event was put here.
    put_at: i64,
}

enum Event {
    /// A request to connect has come.
    Connect { from: Host, address: String, answer: oneshot::Sender<io::Result<Stream>> },
    /// And its answer.
    Connected { from: Arc<str>, to: Arc<str>, answer: oneshot::Sender<io::Result<Stream>>, result: io::Result<Stream> },
    /// Bytes for one end of a connection; none: no more come.
    Bytes { link: u64, end: usize, bytes: Option<Vec<u8>> },
    /// The connection is no more.
    Reset { link: u64, end: usize },
    /// Something is done there.
    Word { from: Arc<str>, to: Arc<str>, act: Act },
}

/// What is done where a word arrives.
pub(crate) type Act = Box<dyn FnOnce() + Send>;

struct Link {
    ends: [End; 2],
}

struct End {
    host: Host,
    /// What came and was not read.
    read: VecDeque<u8>,
    /// Bytes of the other end on their way here.
    coming: usize,
    /// No more will come.
    finished: bool,
    reset: bool,
    reader: Option<Waker>,
    /// Waits for room on the way to the other end.
    writer: Option<Waker>,
    /// This end was dropped.
    gone: bool,
}

impl End {
    fn new(host: Host) -> Self {
        Self {
            host,
            read: VecDeque::new(),
            coming: 0,
            finished: false,
            reset: false,
            reader: None,
            writer: None,
            gone: false,
        }
    }
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

impl SharedNet {
    pub(crate) fn new(seed: u64) -> Self {
        let random = SmallRng::seed_from_u64(seed ^ 0x6e65_7477_6f72_6b73);
        Self(Arc::new(Mutex::new(Net {
            weather: Weather::default(),
            random,
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            queue: BinaryHeap::new(),
            lanes: BTreeMap::new(),
            next_event: 0,
        })))
    }

    /// Changes the weather. What a link that is healed held back is sent again.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        let mut net = self.0.lock();
        change(&mut net.weather);
        net.send_again();
    }

    /// Cuts both ways between hosts on one side and on the other.
    pub fn cut(&self, one: &[&str], other: &[&str]) {
        self.change(|weather| {
            for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                weather.cut.insert(((*a).into(), (*b).into()));
                weather.cut.insert(((*b).into(), (*a).into()));
            }
        });
    }

    /// Heals all links.
    pub fn heal(&self) {
        self.change(|weather| weather.cut.clear());
    }

    /// A handle for a process of this host: it listens and connects in its name.
    #[must_use]
    pub fn socket(&self, host: &str) -> Socket {
        let process = self.0.lock().hosts.get(host).copied().unwrap_or(usize::MAX);
        Socket { net: self.clone(), host: Host { name: host.into(), process } }
    }

    /// Has something done at another place, when a word from here has got there. Words of a process with the same number
    /// stay in order; without a number they may overtake each other, and may take `later` nanoseconds more.
    pub(crate) fn tell(&self, from: &str, to: &str, lane: Option<(usize, u64)>, later: i64, act: Act) {
        let mut net = self.0.lock();
        let event = Event::Word { from: from.into(), to: to.into(), act };
        let key = lane.map_or(LaneKey::Single(net.next_event), |(process, number)| LaneKey::Words(process, number));
        net.put_on(key, event, later);
    }

    /// A number below `below`.
    pub(crate) fn draw(&self, below: i64) -> i64 {
        self.0.lock().random.random_range(0..below)
    }

    pub(crate) fn boot(&self, name: &str, process: usize) -> Host {
        let name: Arc<str> = name.into();
        let mut net = self.0.lock();
        net.hosts.insert(Arc::clone(&name), process);
        net.send_again();
        Host { name, process }
    }

    /// A process ended: its listeners are closed, and its connections reset.
    pub(crate) fn halt(&self, host: &Host) {
        let mut net = self.0.lock();
        if net.hosts.get(&host.name) == Some(&host.process) {
            net.hosts.remove(&host.name);
        }
        net.listeners.retain(|_, (process, _)| *process != host.process);
        let own: Vec<(u64, usize)> = net
            .links
            .iter()
            .flat_map(|(number, link)| link.ends.iter().enumerate().map(move |(end, it)| (*number, end, it)))
            .filter(|(_, _, it)| it.host.process == host.process)
            .map(|(number, end, _)| (number, end))
            .collect();
        for (link, end) in own {
            net.put(Event::Reset { link, end: 1 - end });
        }
    }

    /// Forgets all that is on its way.
    pub(crate) fn end(&self) {
        let mut net = self.0.lock();
        let lanes = std::mem::take(&mut net.lanes);
        drop(net);
        // Streams among what is on its way come back here.
        drop(lanes);
    }

    /// When the next thing arrives.
    pub(crate) fn next_at(&self) -> Option<i64> {
        self.0.lock().queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Delivers what arrives until then.
    pub(crate) fn deliver(&self, until: i64) {
        loop {
            let mut net = self.0.lock();
            match net.queue.peek() {
                Some(Reverse((at, ..))) if *at <= until => {}
                _ => return,
            }
            let Some(Reverse((.., key))) = net.queue.pop() else { return };
            let Some(event) = net.lanes.get_mut(&key).and_then(|lane| lane.events.pop_front()) else { continue };
            if net.is_held(&event) {
                let lane = net.lanes.entry(key).or_default();
                lane.events.push_front(event);
                lane.held += 1;
                continue;
            }
            net.tidy(key);
            // Who is woken or dropped by it comes back here.
            let after = net.arrive(event, self);
            drop(net);
            after();
        }
    }
}

type After = Box<dyn FnOnce()>;

impl Net {
    /// Whether it cannot get through now.
    fn is_held(&self, event: &Event) -> bool {
        let cut = |from: &Arc<str>, to: &Arc<str>| {
            !self.weather.cut.is_empty() && self.weather.cut.contains(&(Arc::clone(from), Arc::clone(to)))
        };
        match event {
            Event::Connect { from, address, .. } => {
                let host = host_of(address);
                // A host that is off says nothing, and who asks waits.
                !self.hosts.contains_key(host) || cut(&from.name, &host.into())
            }
            Event::Connected { from, to, .. } | Event::Word { from, to, .. } => cut(from, to),
            Event::Bytes { link, end, .. } | Event::Reset { link, end } => {
                self.links.get(link).is_some_and(|link| cut(&link.ends[1 - end].host.name, &link.ends[*end].host.name))
            }
        }
    }

    /// Puts an event on its way.
    fn put(&mut self, event: Event) {
        let key = match &event {
            Event::Bytes { link, end, .. } | Event::Reset { link, end } => LaneKey::Stream(*link, *end),
            Event::Connect { .. } | Event::Connected { .. } | Event::Word { .. } => LaneKey::Single(self.next_event),
        };
        self.put_on(key, event, 0);
    }

    fn put_on(&mut self, key: LaneKey, event: Event, extra: i64) {
        let (now, lane) = (os::now_ns(), self.lanes.entry(key).or_default());
        // What is written at one time goes in one packet.
        if lane.put_at == now
            && let (Some(Event::Bytes { bytes: Some(first), .. }), Event::Bytes { bytes: Some(more), .. }) =
                (lane.events.back_mut(), &event)
        {
            first.extend_from_slice(more);
            return;
        }
        lane.events.push_back(event);
        lane.put_at = now;
        self.queue(key, extra);
    }

    /// One more event of a lane arrives, `extra` nanoseconds later than others.
    fn queue(&mut self, key: LaneKey, extra: i64) {
        let (least, most) = (self.weather.delay_least.as_nanos() as i64, self.weather.delay_most.as_nanos() as i64);
        let at = os::now_ns() + extra + self.random.random_range(least..=most.max(least));
        // Processes are not woken for every packet.
        let at = (at + PACE_NS - 1) / PACE_NS * PACE_NS;
        let lane = self.lanes.entry(key).or_default();
        lane.not_before = lane.not_before.max(at);
        self.queue.push(Reverse((lane.not_before, self.next_event, key)));
        self.next_event += 1;
    }

    /// What was held is sent again.
    fn send_again(&mut self) {
        let again = self.weather.again.as_nanos() as i64;
        let held: Vec<(LaneKey, usize)> =
            self.lanes.iter().filter(|(_, lane)| lane.held > 0).map(|(key, lane)| (*key, lane.held)).collect();
        for (key, count) in held {
            let extra = self.random.random_range(0..=again);
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.held = 0;
            }
            (0..count).for_each(|_| self.queue(key, extra));
        }
    }

    /// Forgets a lane that need not keep an order any more.
    fn tidy(&mut self, key: LaneKey) {
        let over = |lane: &Lane| lane.events.is_empty() && lane.not_before <= os::now_ns();
        if self.lanes.get(&key).is_some_and(over) {
            self.lanes.remove(&key);
        }
    }

    fn arrive(&mut self, event: Event, net: &SharedNet) -> After {
        match event {
            Event::Connect { from, address, answer } => {
                let host: Arc<str> = host_of(&address).into();
                let result = match self.listeners.get(&address) {
                    Some((process, queue)) if queue.capacity() > 0 => {
                        let number = self.next_link;
                        self.next_link += 1;
                        let there = Host { name: Arc::clone(&host), process: *process };
                        self.links.insert(number, Link { ends: [End::new(from.clone()), End::new(there)] });
                        let stream = |end| Stream { net: net.clone(), link: number, end };
                        let queue = queue.clone();
                        let (ours, theirs) = (stream(0), stream(1));
                        let event = Event::Connected { from: host, to: from.name, answer, result: Ok(ours) };
                        self.put(event);
                        return Box::new(move || drop(queue.try_send(theirs)));
                    }
                    _ => Err(refused()),
                };
                self.put(Event::Connected { from: host, to: from.name, answer, result });
                Box::new(|| {})
            }
            Event::Connected { answer, result, .. } => Box::new(move || drop(answer.send(result))),
            Event::Word { act, .. } => act,
            Event::Bytes { link, end, bytes } => {
                let Some(link) = self.links.get_mut(&link) else { return Box::new(|| {}) };
                let end = &mut link.ends[end];
                match bytes {
                    Some(bytes) => {
                        end.coming -= bytes.len();
                        end.read.extend(bytes);
                    }
                    None => end.finished = true,
                }
                let reader = end.reader.take();
                Box::new(move || reader.into_iter().for_each(Waker::wake))
            }
            Event::Reset { link, end } => {
                let Some(link) = self.links.get_mut(&link) else { return Box::new(|| {}) };
                let end = &mut link.ends[end];
                end.reset = true;
                let (reader, writer) = (end.reader.take(), end.writer.take());
                Box::new(move || reader.into_iter().chain(writer).for_each(Waker::wake))
            }
        }
    }
}

fn host_of(address: &str) -> &str {
    address.split_once(':').map_or(address, |(host, _)| host)
}

/// The network as a process sees it.
#[derive(Clone)]
pub struct Socket {
    net: SharedNet,
    host: Host,
}

/// Connections that come.
pub struct Listener(mpsc::Receiver<Stream>);

impl Listener {
    /// The next one; none when the process ended.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

impl Socket {
    /// Takes connections to a port of this host.
    ///
    /// # Errors
    /// When somebody takes them already.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        let address = format!("{}:{port}", self.host.name);
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut net = self.net.0.lock();
        if net.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        net.listeners.insert(address, (self.host.process, sender));
        Ok(Listener(receiver))
    }

    /// Connects to `host:port`. Without an answer it waits for ever.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        let (answer, answered) = oneshot::channel();
        let event = Event::Connect { from: self.host.clone(), address: address.to_owned(), answer };
        self.net.0.lock().put(event);
        answered.await.unwrap_or_else(|_| Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl Socket {
    /// Connects where a service wants to be connected.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        let own = self.clone();
        Dialer::By(Arc::new(move |endpoint| {
            let own = own.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |to: Uri| {
                let own = own.clone();
                async move {
                    let address = to.authority().map_or_else(String::new, |authority| authority.to_string());
                    own.connect(&address).await.map(TokioIo::new)
                }
            }))
        }))
    }

    /// Takes connections for a service.
    ///
    /// # Errors
    /// When somebody takes them already.
    pub fn listener(&self, port: u16) -> io::Result<nova_host::Listener> {
        let incoming = futures::stream::unfold(self.listen(port)?, |mut listener| async move {
            let stream = listener.accept().await?;
            Some((Ok(Box::new(stream) as Box<dyn nova_host::Io>), listener))
        });
        Ok(nova_host::Listener::By(Box::pin(incoming)))
    }
}

/// One end of a connection.
pub struct Stream {
    net: SharedNet,
    link: u64,
    end: usize,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut net = self.net.0.lock();
        let Some(link) = net.links.get_mut(&self.link) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let own = &mut link.ends[self.end];
        if own.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if own.read.is_empty() {
            if own.finished {
                return Poll::Ready(Ok(()));
            }
            own.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = own.read.len().min(buffer.remaining());
        let (front, back) = own.read.as_slices();
        let first = front.len().min(count);
        buffer.put_slice(&front[..first]);
        buffer.put_slice(&back[..count - first]);
        own.read.drain(..count);
        let writer = link.ends[1 - self.end].writer.take();
        drop(net);
        writer.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut net = self.net.0.lock();
        let Some(link) = net.links.get_mut(&self.link) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if link.ends[self.end].reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let other = &mut link.ends[1 - self.end];
        let count = bytes.len().min(WINDOW.saturating_sub(other.coming + other.read.len()));
        if count == 0 && !bytes.is_empty() {
            link.ends[self.end].writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        other.coming += count;
        net.put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: Some(bytes[..count].to_vec()) });
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.0.lock().put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: None });
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut net = self.net.0.lock();
        let Some(link) = net.links.get_mut(&self.link) else { return };
        link.ends[self.end].gone = true;
        if link.ends[1 - self.end].gone {
            net.links.remove(&self.link);
        } else {
            net.put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: None });
        }
    }
}
