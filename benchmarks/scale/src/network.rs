//! A network of queues: hosts with cores, threads that run on them, stations that serve what waits in batches.
//!
//! ```text
//! token ─▶ station's queue ─▶ a batch of all that waits ─▶ phases, one after the other ─▶ next station
//!                                                          │ cpu: its thread is free, then a core of the host
//!                                                          │ delay, sync: time alone
//!                                                          └ fork: other stations do something first, and join
//! ```
//!
//! Owns: time, queues, batches, and what was used. Must not know: what an execution is.

use std::collections::VecDeque;
use std::rc::Rc;

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::agenda::{Agenda, Ns};
pub(crate) use crate::parts::{
    BatchId, Cost, Counts, HostId, Item, Phase, PoolId, Service, StationId, ThreadId, ThreadUse, Token,
};

/// A core is given to another after so long, as an operating system does.
const QUANTUM: Ns = 500_000;

/// Who knows where items go.
pub(crate) trait Router {
    /// `item` has left `station`.
    fn route(&mut self, network: &mut Network, station: StationId, item: Item);
    /// A time has come.
    fn alarm(&mut self, network: &mut Network, number: u32);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Slice { host: HostId, thread: ThreadId, batch: Option<BatchId>, left: Ns, ran: Ns },
    Advance(BatchId),
    Begin(StationId),
    End(StationId),
    Alarm(u32),
}

/// What waits for a thread, and then for a core.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// A station's next batch: what is in it is known when it has a core, as a task takes what waits when it runs.
    Next(StationId),
    Of(Option<BatchId>, Ns),
}

#[derive(Debug)]
struct Host {
    name: String,
    cores: u32,
    running: u32,
    ready: VecDeque<(ThreadId, Work, Ns)>,
    busy: Ns,
}

#[derive(Debug)]
struct Thread {
    name: String,
    kind: &'static str,
    host: HostId,
    width: u32,
    active: u32,
    waiting: VecDeque<Work>,
    used: Ns,
}

#[derive(Debug)]
struct Station {
    service: Service,
    phases: Rc<[Phase]>,
    busy: u32,
    /// Of these, those that have not taken anything yet.
    starting: u32,
    queue: VecDeque<Token>,
    threads: Vec<ThreadId>,
    count: Counts,
}

#[derive(Debug, Default)]
struct Batch {
    station: usize,
    tokens: Vec<Token>,
    items: u64,
    phase: usize,
    needed: u32,
    /// Forks that have not joined.
    out: u32,
    done: bool,
}

impl Batch {
    fn work(&self, cost: Cost) -> Ns {
        (cost.batch + cost.token * self.tokens.len() as f64 + cost.item * self.items as f64) as Ns
    }
}

#[derive(Debug)]
struct Pool {
    free: u32,
    waiting: VecDeque<StationId>,
}

/// All queues and what is in them.
#[derive(Debug)]
pub(crate) struct Network {
    agenda: Agenda<Event>,
    hosts: Vec<Host>,
    threads: Vec<Thread>,
    stations: Vec<Station>,
    pools: Vec<Pool>,
    batches: Vec<Batch>,
    free: Vec<BatchId>,
    random: StdRng,
    /// CPU that it takes to wake a thread.
    wake: Ns,
}

impl Network {
    pub(crate) fn new(seed: u64, wake: Ns) -> Self {
        Self {
            agenda: Agenda::new(),
            hosts: Vec::new(),
            threads: Vec::new(),
            stations: Vec::new(),
            pools: Vec::new(),
            batches: Vec::new(),
            free: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            wake,
        }
    }

    pub(crate) fn now(&self) -> Ns {
        self.agenda.now()
    }

    pub(crate) fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    pub(crate) fn host(&mut self, name: impl Into<String>, cores: u32) -> HostId {
        self.hosts.push(Host { name: name.into(), cores, running: 0, ready: VecDeque::new(), busy: 0 });
        HostId(self.hosts.len() - 1)
    }

    /// Something on a host that does `width` things at once; `kind` is whose CPU it is.
    pub(crate) fn thread(&mut self, name: impl Into<String>, kind: &'static str, host: HostId, width: u32) -> ThreadId {
        let waiting = VecDeque::new();
        self.threads.push(Thread { name: name.into(), kind, host, width, active: 0, waiting, used: 0 });
        ThreadId(self.threads.len() - 1)
    }

    pub(crate) fn find_thread(&self, name: &str) -> Option<ThreadId> {
        self.threads.iter().position(|it| it.name == name).map(ThreadId)
    }

    pub(crate) fn pool(&mut self, free: u32) -> PoolId {
        self.pools.push(Pool { free, waiting: VecDeque::new() });
        PoolId(self.pools.len() - 1)
    }

    pub(crate) fn station(&mut self, service: Service) -> StationId {
        let phases: Rc<[Phase]> = service.phases.clone().into();
        let threads = phases.iter().filter_map(|it| if let Phase::Cpu(thread, _) = it { Some(*thread) } else { None });
        let threads = threads.collect();
        self.stations.push(Station {
            service,
            phases,
            busy: 0,
            starting: 0,
            queue: VecDeque::new(),
            threads,
            count: Counts::default(),
        });
        StationId(self.stations.len() - 1)
    }

    /// Puts something into a station's queue.
    pub(crate) fn push(&mut self, station: StationId, token: Token) {
        let it = &mut self.stations[station.0];
        it.count.arrived += 1;
        it.queue.push_back(token);
        if it.busy < it.service.slots {
            self.start(station);
        }
    }

    pub(crate) fn alarm(&mut self, wait: Ns, number: u32) {
        self.agenda.after(wait, Event::Alarm(number));
    }

    /// Forgets what was counted so far.
    pub(crate) fn reset(&mut self) {
        self.hosts.iter_mut().for_each(|it| it.busy = 0);
        self.threads.iter_mut().for_each(|it| it.used = 0);
        self.stations.iter_mut().for_each(|it| it.count = Counts::default());
    }

    /// Lets time pass until `until`.
    pub(crate) fn run(&mut self, router: &mut impl Router, until: Ns) {
        while let Some(event) = self.agenda.next(until) {
            match event {
                Event::Slice { host, thread, batch, left, ran } => {
                    self.hosts[host.0].running -= 1;
                    self.hosts[host.0].busy += ran;
                    self.threads[thread.0].used += ran;
                    if left > 0 {
                        self.hosts[host.0].ready.push_back((thread, Work::Of(batch, left), 0));
                    } else {
                        self.leave(thread);
                        if let Some(batch) = batch {
                            self.advance(router, batch);
                        }
                    }
                    self.dispatch(host);
                }
                Event::Advance(batch) => self.advance(router, batch),
                Event::Begin(station) => match self.stations[station.0].phases.first() {
                    Some(Phase::Cpu(thread, _)) if !self.stations[station.0].service.prompt => {
                        self.enter(*thread, Work::Next(station));
                    }
                    _ => match self.take(station) {
                        Some(batch) => self.advance(router, batch),
                        None => self.end(station),
                    },
                },
                Event::End(station) => self.end(station),
                Event::Alarm(number) => router.alarm(self, number),
            }
        }
    }

    /// Begins as many batches as there are slots for, and no more than what waits can fill.
    fn start(&mut self, station: StationId) {
        loop {
            let it = &mut self.stations[station.0];
            // What comes at the same moment, later in the agenda, is still taken along.
            let spoken_for = it.service.limit.saturating_mul(it.starting as usize);
            if it.busy >= it.service.slots || it.queue.len() <= spoken_for {
                return;
            }
            if let Some(pool) = it.service.pool {
                let pool = &mut self.pools[pool.0];
                if pool.free == 0 {
                    if !pool.waiting.contains(&station) {
                        pool.waiting.push_back(station);
                    }
                    return;
                }
                pool.free -= 1;
            }
            it.busy += 1;
            it.starting += 1;
            // Nothing is gathered where a full batch waits.
            let full = it.queue.len() >= it.service.limit;
            self.agenda.after(if full { 0 } else { it.service.gather }, Event::Begin(station));
        }
    }

    /// Makes a batch of what waits; none when another slot took it.
    fn take(&mut self, station: StationId) -> Option<BatchId> {
        let it = &mut self.stations[station.0];
        it.starting -= 1;
        let count = it.queue.len().min(it.service.limit);
        if count == 0 {
            return None;
        }
        let tokens: Vec<Token> = it.queue.drain(..count).collect();
        it.count.begun += count as u64;
        it.count.batches += 1;
        let items = tokens.iter().map(|token| self.items_of(*token)).sum();
        let batch = Batch { station: station.0, tokens, items, ..Batch::default() };
        Some(match self.free.pop() {
            Some(id) => {
                self.batches[id.0] = batch;
                id
            }
            None => {
                self.batches.push(batch);
                BatchId(self.batches.len() - 1)
            }
        })
    }

    fn items_of(&self, token: Token) -> u64 {
        match token {
            Token::Item(_) => 1,
            Token::Batch(batch) => self.batches[batch.0].items,
        }
    }

    /// Goes on with a batch until it has to wait.
    fn advance(&mut self, router: &mut impl Router, id: BatchId) {
        loop {
            let batch = &mut self.batches[id.0];
            let station = StationId(batch.station);
            let phases = Rc::clone(&self.stations[station.0].phases);
            let Some(phase) = phases.get(batch.phase) else {
                batch.done = true;
                self.release(id);
                return self.end(station);
            };
            batch.phase += 1;
            match phase {
                Phase::Cpu(thread, cost) => {
                    let work = batch.work(*cost);
                    if work > 0 {
                        return self.enter(*thread, Work::Of(Some(id), work));
                    }
                }
                Phase::Delay(0) => {}
                Phase::Delay(time) => return self.agenda.after(*time, Event::Advance(id)),
                Phase::Sync { usual, slow, slow_share } => {
                    let time = if self.random.random_bool(*slow_share) { *slow } else { *usual };
                    self.stations[station.0].count.syncs += 1;
                    return self.agenda.after(time, Event::Advance(id));
                }
                Phase::Fork { stations, need } => {
                    batch.out += stations.len() as u32;
                    batch.needed = *need;
                    for next in &**stations {
                        self.push(*next, Token::Batch(id));
                    }
                    if *need > 0 {
                        return;
                    }
                }
                Phase::Pass(next) => {
                    for token in std::mem::take(&mut batch.tokens) {
                        self.push(*next, token);
                    }
                }
                Phase::Join => {
                    for token in std::mem::take(&mut batch.tokens) {
                        self.join(token);
                    }
                }
                Phase::Route => {
                    let mut items = Vec::new();
                    self.collect(id, &mut items);
                    for item in items {
                        router.route(self, station, item);
                    }
                }
            }
        }
    }

    /// The items of a batch and of the batches within.
    fn collect(&self, id: BatchId, items: &mut Vec<Item>) {
        for token in &self.batches[id.0].tokens {
            match token {
                Token::Item(item) => items.push(*item),
                Token::Batch(inner) => self.collect(*inner, items),
            }
        }
    }

    fn join(&mut self, token: Token) {
        let Token::Batch(id) = token else { return };
        let batch = &mut self.batches[id.0];
        batch.out = batch.out.saturating_sub(1);
        if batch.needed > 0 {
            batch.needed -= 1;
            if batch.needed == 0 {
                return self.agenda.after(0, Event::Advance(id));
            }
        }
        self.release(id);
    }

    /// The number of a batch is used again once nobody speaks of it.
    fn release(&mut self, id: BatchId) {
        let batch = &mut self.batches[id.0];
        if batch.done && batch.out == 0 {
            // Never twice: it is no longer done.
            batch.done = false;
            batch.tokens = Vec::new();
            self.free.push(id);
        }
    }

    fn end(&mut self, station: StationId) {
        let it = &mut self.stations[station.0];
        it.busy -= 1;
        if let Some(pool) = it.service.pool {
            self.pools[pool.0].free += 1;
            if let Some(next) = self.pools[pool.0].waiting.pop_front() {
                self.start(next);
            }
        }
        self.start(station);
    }

    fn enter(&mut self, thread: ThreadId, work: Work) {
        let it = &self.threads[thread.0];
        let host = &self.hosts[it.host.0];
        // With a core at rest the thread slept too, and is woken.
        let extra = if it.active < it.width && host.running < host.cores { self.wake } else { 0 };
        self.queue(thread, work, extra);
    }

    fn queue(&mut self, thread: ThreadId, work: Work, extra: Ns) {
        let it = &mut self.threads[thread.0];
        if it.active == it.width {
            return it.waiting.push_back(work);
        }
        it.active += 1;
        let host = it.host;
        self.hosts[host.0].ready.push_back((thread, work, extra));
        self.dispatch(host);
    }

    fn leave(&mut self, thread: ThreadId) {
        let it = &mut self.threads[thread.0];
        it.active -= 1;
        if let Some(work) = it.waiting.pop_front() {
            self.queue(thread, work, 0);
        }
    }

    fn dispatch(&mut self, host: HostId) {
        while self.hosts[host.0].running < self.hosts[host.0].cores
            && let Some((thread, work, extra)) = self.hosts[host.0].ready.pop_front()
        {
            self.hosts[host.0].running += 1;
            let (batch, left) = match work {
                Work::Of(batch, left) => (batch, left),
                Work::Next(station) => self.first_work(station),
            };
            let left = left + extra;
            let ran = left.min(QUANTUM);
            self.agenda.after(ran, Event::Slice { host, thread, batch, left: left - ran, ran });
        }
    }

    fn first_work(&mut self, station: StationId) -> (Option<BatchId>, Ns) {
        let Some(id) = self.take(station) else {
            // Its slot is free again; the core looked for nothing.
            self.agenda.after(0, Event::End(station));
            return (None, 0);
        };
        let batch = &mut self.batches[id.0];
        batch.phase = 1;
        let work = match self.stations[station.0].phases.first() {
            Some(Phase::Cpu(_, cost)) => batch.work(*cost),
            _ => 0,
        };
        (Some(id), work)
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.stations.iter().map(|it| (it.service.name.as_str(), it.count))
    }

    /// Name, cores and CPU used of each host.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, u32, Ns)> {
        self.hosts.iter().map(|it| (it.name.as_str(), it.cores, it.busy))
    }

    pub(crate) fn threads(&self) -> Vec<ThreadUse> {
        let served = |thread: usize| {
            let own = self.stations.iter().filter(|it| it.threads.contains(&ThreadId(thread)) && it.count.arrived > 0);
            own.map(|it| it.count.begun as f64 / it.count.arrived as f64).fold(1.0, f64::min)
        };
        let used = self.threads.iter().enumerate().map(|(number, it)| ThreadUse {
            name: it.name.clone(),
            kind: it.kind,
            host: it.host.0,
            width: it.width,
            used: it.used,
            served: served(number),
        });
        used.collect()
    }
}
