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
    pub cut: BTreeSet<(String, String)>,
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
    name: String,
    process: usize,
}

/// The network of a world.
#[derive(Clone)]
pub struct SharedNet(Arc<Mutex<Net>>);

struct Net {
    weather: Weather,
    random: SmallRng,
    /// By name of host: the process that is up.
    hosts: BTreeMap<String, usize>,
    /// By `host:port`.
    listeners: BTreeMap<String, (usize, mpsc::Sender<Stream>)>,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    /// What stands before a cut, in order.
    held: Vec<Event>,
}

enum Event {
    /// A request to connect has come.
    Connect { from: Host, address: String, answer: oneshot::Sender<io::Result<Stream>> },
    /// And its answer.
    Connected { from: String, to: String, answer: oneshot::Sender<io::Result<Stream>>, result: io::Result<Stream> },
    /// Bytes for one end of a connection; none: no more come.
    Bytes { link: u64, end: usize, bytes: Option<Vec<u8>> },
    /// The connection is no more.
    Reset { link: u64, end: usize },
}

struct Link {
    ends: [End; 2],
}

struct End {
    host: Host,
    /// What came and was not read.
    read: VecDeque<u8>,
    /// Bytes of the other end on their way here.
    coming: usize,
    /// Nothing comes before this, so that bytes stay in order.
    not_before: i64,
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
            not_before: 0,
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
            events: BTreeMap::new(),
            next_event: 0,
            held: Vec::new(),
        })))
    }

    /// Changes the weather. What a link that is healed held back is sent again.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        let mut net = self.0.lock();
        change(&mut net.weather);
        let held = std::mem::take(&mut net.held);
        let again = net.weather.again.as_nanos() as i64;
        for event in held {
            let extra = net.random.random_range(0..=again);
            net.put(event, extra);
        }
    }

    /// Cuts both ways between hosts on one side and on the other.
    pub fn cut(&self, one: &[&str], other: &[&str]) {
        self.change(|weather| {
            for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                weather.cut.insert(((*a).to_owned(), (*b).to_owned()));
                weather.cut.insert(((*b).to_owned(), (*a).to_owned()));
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
        Socket { net: self.clone(), host: Host { name: host.to_owned(), process } }
    }

    pub(crate) fn boot(&self, name: &str, process: usize) -> Host {
        self.0.lock().hosts.insert(name.to_owned(), process);
        Host { name: name.to_owned(), process }
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
            net.put(Event::Reset { link, end: 1 - end }, 0);
        }
    }

    /// Forgets all that is on its way.
    pub(crate) fn end(&self) {
        let mut net = self.0.lock();
        let (events, held) = (std::mem::take(&mut net.events), std::mem::take(&mut net.held));
        drop(net);
        // Streams among them come back here.
        drop((events, held));
    }

    /// When the next thing arrives.
    pub(crate) fn next_at(&self) -> Option<i64> {
        self.0.lock().queue.peek().map(|Reverse((at, _))| *at)
    }

    /// Delivers what arrives until then.
    pub(crate) fn deliver(&self, until: i64) {
        loop {
            let mut net = self.0.lock();
            match net.queue.peek() {
                Some(Reverse((at, _))) if *at <= until => {}
                _ => return,
            }
            let Some(Reverse((_, number))) = net.queue.pop() else { return };
            let Some(event) = net.events.remove(&number) else { continue };
            let (from, to) = net.way(&event);
            if net.weather.cut.contains(&(from, to)) {
                net.held.push(event);
                continue;
            }
            // Who is woken or dropped by it comes back here.
            let after = net.arrive(event, self);
            drop(net);
            after();
        }
    }
}

type After = Box<dyn FnOnce()>;

impl Net {
    /// The hosts that an event comes from and goes to.
    fn way(&self, event: &Event) -> (String, String) {
        match event {
            Event::Connect { from, address, .. } => (from.name.clone(), host_of(address).to_owned()),
            Event::Connected { from, to, .. } => (from.clone(), to.clone()),
            Event::Bytes { link, end, .. } | Event::Reset { link, end } => match self.links.get(link) {
                Some(link) => (link.ends[1 - end].host.name.clone(), link.ends[*end].host.name.clone()),
                None => Default::default(),
            },
        }
    }

    /// Puts an event on its way; it takes `extra` nanoseconds longer than others.
    fn put(&mut self, event: Event, extra: i64) {
        let (least, most) = (self.weather.delay_least.as_nanos() as i64, self.weather.delay_most.as_nanos() as i64);
        let mut at = os::now_ns() + extra + self.random.random_range(least..=most.max(least));
        if let Event::Bytes { link, end, .. } | Event::Reset { link, end } = &event
            && let Some(link) = self.links.get_mut(link)
        {
            at = at.max(link.ends[*end].not_before);
            link.ends[*end].not_before = at;
        }
        let number = self.next_event;
        self.next_event += 1;
        self.queue.push(Reverse((at, number)));
        self.events.insert(number, event);
    }

    fn arrive(&mut self, event: Event, net: &SharedNet) -> After {
        match event {
            Event::Connect { from, address, answer } => {
                let host = host_of(&address).to_owned();
                if !self.hosts.contains_key(&host) {
                    // A host that is off says nothing, and who asks waits.
                    self.held.push(Event::Connect { from, address, answer });
                    return Box::new(|| {});
                }
                let result = match self.listeners.get(&address) {
                    Some((process, queue)) if queue.capacity() > 0 => {
                        let number = self.next_link;
                        self.next_link += 1;
                        let there = Host { name: host.clone(), process: *process };
                        self.links.insert(number, Link { ends: [End::new(from.clone()), End::new(there)] });
                        let stream = |end| Stream { net: net.clone(), link: number, end };
                        let queue = queue.clone();
                        let (ours, theirs) = (stream(0), stream(1));
                        let event = Event::Connected { from: host, to: from.name, answer, result: Ok(ours) };
                        self.put(event, 0);
                        return Box::new(move || drop(queue.try_send(theirs)));
                    }
                    _ => Err(refused()),
                };
                self.put(Event::Connected { from: host, to: from.name, answer, result }, 0);
                Box::new(|| {})
            }
            Event::Connected { answer, result, .. } => Box::new(move || drop(answer.send(result))),
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
        self.net.0.lock().put(event, 0);
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
        net.put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: Some(bytes[..count].to_vec()) }, 0);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.0.lock().put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: None }, 0);
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
            net.put(Event::Bytes { link: self.link, end: 1 - self.end, bytes: None }, 0);
        }
    }
}
