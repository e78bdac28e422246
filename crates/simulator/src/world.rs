//! The world: processes, the order in which they run, and time.
//!
//! Each process is a tokio runtime of one thread. The world lets one run until it sleeps, then the next that was woken;
//! when all sleep, time goes on to the next timer or delivery. So one order of events follows from one seed, and an hour
//! in which little happens takes no time.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use nova_host::blocking;
use tokio::runtime::{Builder, Runtime};
use xxhash_rust::xxh3::Xxh3;

use crate::disk::Trouble;
use crate::net::{Host, SharedNet};
use crate::os::{self, Simulates, Skew, Sleep};

/// The place of nobody: the world itself acts.
const NOBODY: usize = usize::MAX;

/// Steps of all worlds of this program.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// How often processes ran until they slept, in all worlds of this program: while it stays as it is, one never sleeps.
#[must_use]
pub fn steps() -> u64 {
    STEPS.load(Ordering::Relaxed)
}

/// A process of the world. Its number is never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process(usize);

impl Process {
    /// The number.
    #[must_use]
    pub fn number(self) -> usize {
        self.0
    }
}

struct Running {
    runtime: Runtime,
    host: Host,
    skew: Skew,
    /// What it waits for; none while it has something to do.
    sleeps: Option<Sleep>,
    paused: bool,
}

/// A world of simulated processes.
pub struct World {
    processes: Vec<Option<Running>>,
    /// Those that have something to do, in the order in which they were woken.
    ready: VecDeque<usize>,
    net: SharedNet,
    trace: Xxh3,
    steps: u64,
    // Last: until all runtimes are gone their calls are simulated.
    _os: Simulates,
}

/// Runs a world on a thread of its own: what libraries keep per thread is then the same each time.
///
/// # Panics
/// When `act` does.
pub fn simulate<T: Send>(seed: u64, act: impl FnOnce(World) -> T + Send) -> T {
    let run = || act(World::new(seed));
    std::thread::scope(|threads| match threads.spawn(run).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

impl World {
    fn new(seed: u64) -> Self {
        let os = os::simulate(seed);
        blocking::set_alone(true);
        Self {
            processes: Vec::new(),
            ready: VecDeque::new(),
            net: SharedNet::new(seed),
            trace: Xxh3::new(),
            steps: 0,
            _os: os,
        }
    }

    /// The network between hosts.
    #[must_use]
    pub fn net(&self) -> &SharedNet {
        &self.net
    }

    /// Time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(os::now_ns().unsigned_abs())
    }

    /// What happened so far, in one number: equal numbers mean the same steps at the same times.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.digest()
    }

    /// How often a process ran until it slept.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Starts a process on a host of this name; `main` is its first task, and it lives on when that ends.
    ///
    /// # Panics
    /// When the system has no file descriptors left.
    pub fn start<F>(&mut self, name: &str, main: impl FnOnce(Process) -> F) -> Process
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.start_with(name, Skew::default(), main)
    }

    /// The same, with clocks that are not those of the world.
    ///
    /// # Panics
    /// When the system has no file descriptors left.
    pub fn start_with<F>(&mut self, name: &str, skew: Skew, main: impl FnOnce(Process) -> F) -> Process
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = self.processes.len();
        os::enter(number, skew);
        let host = self.net.boot(name, number);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.spawn(main(Process(number)));
        os::enter(NOBODY, Skew::default());
        self.processes.push(Some(Running { runtime, host, skew, sleeps: None, paused: false }));
        self.ready.push_back(number);
        self.note(&[number as u64, 1]);
        Process(number)
    }

    /// Ends a process at once, as `kill -9` does; those who are connected to it hear of it.
    pub fn kill(&mut self, process: Process) {
        let Some(Running { runtime, host, skew, .. }) = self.processes[process.0].take() else { return };
        self.net.halt(&host);
        os::enter(process.0, skew);
        drop(runtime);
        os::enter(NOBODY, Skew::default());
        os::forget(process.0);
        self.note(&[process.0 as u64, 2]);
        self.wake();
    }

    /// Lets a process stand still, as `kill -STOP` does: time goes on without it.
    pub fn pause(&mut self, process: Process, paused: bool) {
        if let Some(running) = &mut self.processes[process.0] {
            running.paused = paused;
            self.ready.push_back(process.0);
        }
    }

    /// Directories in this one are the disks of the hosts of these names from now on.
    pub fn put_disks_at(&mut self, folder: &std::path::Path) {
        os::disks(|disks| disks.put_at(folder));
    }

    /// Something is the matter with the disk of a host, or is no longer.
    pub fn trouble(&mut self, host: &str, trouble: Option<Trouble>) {
        os::disks(|disks| disks.trouble(host, trouble));
    }

    /// The power of a host, on which no process runs, has failed: what was not synced may be gone.
    ///
    /// # Panics
    /// When its files cannot be changed.
    pub fn power_fails(&mut self, host: &str) {
        if let Some(done) = os::disks(|disks| disks.power_fails(host)) {
            done.expect("the files of a simulation can be changed");
        }
    }

    /// All files of a host, on which no process runs, are gone for good.
    ///
    /// # Panics
    /// When they cannot be removed.
    pub fn empties(&mut self, host: &str) {
        if let Some(done) = os::disks(|disks| disks.empties(host)) {
            done.expect("the files of a simulation can be changed");
        }
    }

    /// A file of a host, on which no process runs, is damaged; gives which, where there is one.
    ///
    /// # Panics
    /// When its files cannot be changed.
    pub fn damages(&mut self, host: &str) -> Option<String> {
        os::disks(|disks| disks.damages(host))?.expect("the files of a simulation can be changed")
    }

    /// Clocks of a process are others from now on.
    pub fn skew(&mut self, process: Process, skew: Skew) {
        if let Some(running) = &mut self.processes[process.0] {
            running.skew = skew;
            self.ready.push_back(process.0);
        }
    }

    /// Goes on for so long.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(span, || false);
    }

    /// Goes on until something holds, for so long at most; gives whether it holds.
    pub fn run_until(&mut self, limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
        let end = os::now_ns() + limit.as_nanos() as i64;
        loop {
            self.wake();
            while let Some(next) = self.ready.pop_front() {
                self.step(next);
                self.wake();
            }
            if holds() {
                return true;
            }
            let timer = |(number, running): (usize, &Option<Running>)| match running {
                Some(Running { sleeps: Some(Sleep::Until(at)), paused: false, .. }) => Some((*at, number)),
                _ => None,
            };
            let timer = self.processes.iter().enumerate().filter_map(timer).min();
            let delivery = self.net.next_at();
            let next = timer.map(|(at, _)| at).into_iter().chain(delivery).min().unwrap_or(i64::MAX);
            if next > end {
                os::set_now(end);
                return holds();
            }
            os::set_now(next);
            match timer {
                // What arrives at the same time comes first.
                Some((at, number)) if delivery.is_none_or(|delivery| at < delivery) => self.ready.push_back(number),
                _ => self.net.deliver(next),
            }
        }
    }

    /// Those that were woken have something to do.
    fn wake(&mut self) {
        for number in os::take_woken() {
            if !self.ready.contains(&number) {
                self.ready.push_back(number);
            }
        }
    }

    fn step(&mut self, number: usize) {
        let Some(running) = self.processes[number].as_mut().filter(|running| !running.paused) else { return };
        os::enter(number, running.skew);
        running.sleeps = Some(running.runtime.block_on(Turn));
        os::enter(NOBODY, Skew::default());
        // Who waits for no sync, since it is short, does not have others wait for it.
        blocking::take_owed();
        self.steps += 1;
        STEPS.fetch_add(1, Ordering::Relaxed);
        self.note(&[number as u64, os::now_ns().unsigned_abs()]);
    }

    fn note(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.trace.update(&word.to_le_bytes()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for number in 0..self.processes.len() {
            self.kill(Process(number));
        }
        self.net.end();
    }
}

/// Ends when the runtime has nothing to do.
struct Turn;

impl Future for Turn {
    type Output = Sleep;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Sleep> {
        os::sleeps(context.waker()).map_or(Poll::Pending, Poll::Ready)
    }
}
