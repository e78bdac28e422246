//! An open loop that outlives its target: each submission has a key and is sent again under it until it is answered, so
//! that nothing is lost or doubled whatever is killed meanwhile, and every acknowledgement is noted with its time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::http::Connection;
use crate::pace::{self, Pace};
use crate::request::{Asks, Said, Submission, Template, read_answer};
use crate::tally::{Sent, histogram};
use crate::workflow::Workflow;

/// After a try that came to nothing.
const PAUSE: Duration = Duration::from_millis(10);
/// After an answer that is none: who comes again at once is a load of its own.
const TURNED_AWAY: Duration = Duration::from_millis(100);
/// Longest wait for one answer: somewhat longer than an api waits for a commit.
const TRY: Duration = Duration::from_secs(12);
/// Longest time over which one submission is tried again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Connections per submission and second: enough for two seconds without an answer.
const CONNECTIONS_PER_RATE: u64 = 2;

/// Acknowledgement of one submission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub due: Instant,
    pub at: Instant,
}

/// What the loop brought.
#[derive(Debug)]
pub(crate) struct Ended {
    pub sent: Vec<Sent>,
    /// In the order in which they came.
    pub acks: Vec<Ack>,
    /// From due to acknowledged, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Tries that were answered with an error, or not at all.
    pub errors: u64,
    /// The number after the last one.
    pub next: u64,
    /// Some of what was answered in the place of an acknowledgement.
    pub examples: Vec<String>,
}

/// A loop that runs until it is ended.
#[derive(Debug)]
pub(crate) struct Steady {
    shared: Arc<Shared>,
    running: JoinSet<()>,
    pacer: std::thread::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    pace: Pace,
    permits: Arc<Semaphore>,
    workflow: Workflow,
    first: u64,
    given: AtomicU64,
    stop: AtomicBool,
    errors: AtomicU64,
    done: Mutex<Done>,
}

#[derive(Debug, Default)]
struct Done {
    sent: Vec<Sent>,
    acks: Vec<Ack>,
    examples: Vec<String>,
}

impl Steady {
    /// Starts it.
    pub(crate) fn start(address: SocketAddr, workflow: &Workflow, per_second: u64, first: u64) -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let pace = Pace { begin: Instant::now(), per_second };
        let pacer = pace::keep(pace, u64::MAX, Arc::clone(&permits));
        let shared = Arc::new(Shared {
            address,
            pace,
            permits,
            workflow: workflow.clone(),
            first,
            given: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            errors: AtomicU64::new(0),
            done: Mutex::default(),
        });
        let mut running = JoinSet::new();
        for _ in 0..(per_second * CONNECTIONS_PER_RATE).clamp(16, 4_000) {
            running.spawn(Arc::clone(&shared).drive());
        }
        Self { shared, running, pacer }
    }

    /// How many are acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.done.lock().acks.len()
    }

    /// Waits until so many more are acknowledged.
    ///
    /// # Errors
    /// When they are not within this time.
    pub(crate) async fn goes_on(&self, more: usize, within: Duration) -> Result<(), Error> {
        let (begun, wanted) = (Instant::now(), self.acknowledged() + more);
        while self.acknowledged() < wanted {
            if begun.elapsed() > within {
                return Err(Error::Late { what: format!("{more} more acknowledgements"), within });
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Sends nothing more, and waits for what was sent.
    pub(crate) async fn end(mut self) -> Ended {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.permits.close();
        while let Some(ended) = self.running.join_next().await {
            ended.expect("a connection does not panic");
        }
        // It looks at the semaphore each time that it wakes, and sleeps no longer than until the next one is due.
        let _ = self.pacer.join();
        let shared = Arc::into_inner(self.shared).expect("all connections have ended");
        let next = shared.first + shared.given.load(Ordering::Relaxed);
        let Done { sent, mut acks, examples } = shared.done.into_inner();
        acks.sort_unstable_by_key(|ack| ack.at);
        let mut latency_us = histogram();
        for ack in &acks {
            latency_us.saturating_record(ack.at.saturating_duration_since(ack.due).as_micros() as u64);
        }
        Ended { sent, acks, latency_us, errors: shared.errors.load(Ordering::Relaxed), next, examples }
    }
}

impl Shared {
    async fn drive(self: Arc<Self>) {
        let mut connection = None;
        let mut template = Template::new(&Submission {
            host: &self.address.to_string(),
            whose: &self.workflow.header(),
            workflow: &self.workflow.name,
            lines: 1,
            asks: Asks::Commit,
            wait_seconds: 0,
            due: None,
            keyed: true,
        });
        while let Ok(permit) = self.permits.acquire().await {
            permit.forget();
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let index = self.given.fetch_add(1, Ordering::Relaxed);
            let (number, due) = (self.first + index, self.pace.due(index));
            let said = self.until_answered(&mut connection, &mut template, number).await;
            let mut done = self.done.lock();
            done.sent.push(Sent { number, said });
            if matches!(said, Said::Accepted(_)) {
                done.acks.push(Ack { due, at: Instant::now() });
            }
        }
    }

    async fn until_answered(&self, connection: &mut Option<Connection>, template: &mut Template, number: u64) -> Said {
        let begun = Instant::now();
        loop {
            let pause = match tokio::time::timeout(TRY, self.attempt(connection, template, number)).await {
                Ok(Some(said @ Said::Accepted(_))) => return said,
                Ok(Some(_)) => TURNED_AWAY,
                // What comes later on this connection would be taken for an answer to something else.
                Ok(None) | Err(_) => {
                    *connection = None;
                    PAUSE
                }
            };
            self.errors.fetch_add(1, Ordering::Relaxed);
            if begun.elapsed() > PATIENCE {
                return Said::Other;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, connection: &mut Option<Connection>, template: &mut Template, number: u64) -> Option<Said> {
        if connection.is_none() {
            *connection = Some(Connection::open(self.address).await.ok()?);
        }
        let answer = connection.as_mut()?.exchange(template.fill(number)).await.ok()?;
        let said = read_answer(answer.status, answer.body, number, self.workflow.expect, Asks::Commit);
        if !matches!(said, Said::Accepted(_)) {
            let mut done = self.done.lock();
            // 429, 503 and 504 say: try again with the same key.
            if !matches!(answer.status, 429 | 503 | 504) && done.examples.len() < 3 {
                done.examples.push(format!("{} {}", answer.status, String::from_utf8_lossy(answer.body)));
            }
        }
        Some(said)
    }
}

/// The longest time without an acknowledgement that touches the span, in milliseconds.
pub(crate) fn gap_ms(acks: &[Ack], from: Instant, to: Instant) -> f64 {
    let first = acks.partition_point(|ack| ack.at < from).saturating_sub(1);
    let mut longest = Duration::ZERO;
    for pair in acks[first..].windows(2) {
        if pair[0].at >= to {
            break;
        }
        longest = longest.max(pair[1].at - pair[0].at);
    }
    longest.as_secs_f64() * 1e3
}

/// The longest wait of a submission that was due in the span, in milliseconds.
pub(crate) fn longest_ms(acks: &[Ack], from: Instant, to: Instant) -> f64 {
    let due = acks.iter().filter(|ack| from <= ack.due && ack.due < to);
    due.map(|ack| ack.at.saturating_duration_since(ack.due).as_secs_f64() * 1e3).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Work;
    use crate::fake::{Fake, Fault};
    use crate::request::FIRST;
    use crate::verify::{Verdict, read_back};

    #[test]
    fn a_gap_is_the_longest_time_without_an_answer() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let ack = |ms| Ack { due: at(ms - 2), at: at(ms) };
        let acks = [ack(10), ack(11), ack(100), ack(700), ack(701), ack(2_000)];
        // The last answer before a kill begins its gap.
        assert!((gap_ms(&acks, at(120), at(800)) - 1_299.0).abs() < 1e-9);
        assert!((gap_ms(&acks, at(120), at(701)) - 600.0).abs() < 1e-9);
        assert!((gap_ms(&acks, at(0), at(50)) - 89.0).abs() < 1e-9);
        assert!((longest_ms(&acks, at(0), at(800)) - 2.0).abs() < 1e-9);
        assert!(gap_ms(&[], at(0), at(50)).abs() < 1e-9);
    }

    async fn found(fault: Fault) -> (Ended, Verdict) {
        let workflow = Workflow::chain("s7", 1, Work::Noop);
        let address = Fake::start(fault, &workflow).await;
        let steady = Steady::start(address, &workflow, 500, FIRST);
        steady.goes_on(40, Duration::from_secs(30)).await.unwrap();
        let ended = steady.end().await;
        let mut connection = Connection::open(address).await.unwrap();
        let host = address.to_string();
        let found = read_back(&mut connection, &host, &workflow, &ended.sent, Duration::ZERO).await.unwrap();
        (ended, found.verdict)
    }

    #[tokio::test]
    async fn what_is_turned_away_or_cut_off_is_sent_again() {
        for fault in [Fault::None, Fault::BusyOnce, Fault::GoneOnce] {
            let (ended, verdict) = found(fault).await;
            assert!(verdict.is_right(), "{fault:?}: {verdict:?}");
            assert_eq!(ended.errors, u64::from(fault != Fault::None), "{fault:?}");
            assert_eq!((ended.sent.len() as u64, ended.acks.len()), (ended.next - FIRST, ended.sent.len()));
        }
    }

    #[tokio::test]
    async fn what_is_lost_or_doubled_is_found() {
        let (_, verdict) = found(Fault::Lost).await;
        assert!(!verdict.is_right() && verdict.missing == 1, "{verdict:?}");
        let (_, verdict) = found(Fault::Doubled).await;
        assert!(!verdict.is_right() && verdict.duplicates == 1, "{verdict:?}");
    }
}
