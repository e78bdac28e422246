//! The generator: connections that submit executions, wait for their results, and note what the answers say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::cpu::{Reading, Used};
use crate::http::{Answer, Connection};
use crate::pace::{self, Pace};
use crate::request::{Asks, Due, Said, Submission, Template, read_answer, read_line};
use crate::tally::Tally;
use crate::workflow::{Expect, Workflow};

/// Longest wait for a result that is asked for.
const WAIT_SECONDS: u64 = 60;
/// Until all that was sent is answered: longer than one exchange may take.
const DRAIN: Duration = Duration::from_secs(120);
/// Until a burst is over.
const BURST: Duration = Duration::from_secs(900);
/// After one that was turned away.
const BREATH: Duration = Duration::from_millis(5);

/// When executions are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    /// The next one when one has ended, so that this many are in flight.
    Closed { in_flight: u32 },
    /// By the clock, whatever became of those before.
    Open { per_second: u64 },
    /// So many as fast as can be, with so many in flight, and then no more; all of it is measured.
    Burst { count: u64, in_flight: u32 },
}

/// One loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub kind: Loop,
    pub warmup: Duration,
    pub measured: Duration,
    /// Executions in one request.
    pub batch: u32,
    /// Each execution has a key.
    pub keyed: bool,
    /// Number of the first one.
    pub first: u64,
    /// What answers are waited for.
    pub asks: Asks,
    /// When they wake, if they wait.
    pub due: Option<Due>,
}

/// What a loop brought.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub tally: Tally,
    pub used: Used,
    /// The number after the last one.
    pub next: u64,
    /// The measured time, by the clock of the machine.
    pub from: Timestamp,
    /// When the measured time of the loop was over.
    pub until: Instant,
}

impl Plan {
    /// How many an open loop sends: whole requests.
    fn total(&self) -> u64 {
        let batch = u64::from(self.batch);
        match self.kind {
            Loop::Closed { .. } => u64::MAX,
            Loop::Burst { count, .. } => count,
            Loop::Open { per_second } => {
                let all = u128::from(per_second) * (self.warmup + self.measured).as_micros() / 1_000_000;
                (all as u64 / batch).max(1) * batch
            }
        }
    }

    /// Enough that none is waited for while answers come within a second or so; later ones are counted from when they
    /// were due in any case.
    fn connections(&self) -> u32 {
        match self.kind {
            Loop::Closed { in_flight } | Loop::Burst { in_flight, .. } => (in_flight / self.batch).max(1),
            Loop::Open { per_second } => ((per_second / 8) as u32 / self.batch).clamp(16, 4_096),
        }
    }
}

/// What the connections of one loop share.
struct Shared {
    end: Instant,
    pace: Option<Pace>,
    permits: Arc<Semaphore>,
    total: u64,
    first: u64,
    given: AtomicU64,
    broken: AtomicBool,
    expect: Expect,
    asks: Asks,
    tally: Mutex<Tally>,
}

/// Runs one loop against the api at `address` to the end of its last execution; `read` reads the CPU counters.
pub(crate) async fn run<R>(address: SocketAddr, read: R, workflow: &Workflow, plan: &Plan) -> Result<Loaded, Error>
where
    R: Fn() -> Result<Reading, Error>,
{
    run_telling(address, read, workflow, plan, || ()).await
}

/// The same; `begins` is called when all its connections are open, which takes a while where there are thousands.
pub(crate) async fn run_telling<R>(
    address: SocketAddr,
    read: R,
    workflow: &Workflow,
    plan: &Plan,
    begins: impl FnOnce(),
) -> Result<Loaded, Error>
where
    R: Fn() -> Result<Reading, Error>,
{
    let mut connections = Vec::new();
    for _ in 0..plan.connections() {
        let opened = Connection::open(address).await;
        connections.push(opened.map_err(|source| Error::Connect { address, source })?);
    }
    begins();
    let (begin, wall) = (Instant::now(), Timestamp::now());
    let (from, end) = match plan.kind {
        // Its end is that of its last execution.
        Loop::Burst { .. } => (begin, begin + BURST),
        _ => (begin + plan.warmup, begin + plan.warmup + plan.measured),
    };
    let permits = Arc::new(Semaphore::new(0));
    let pace = match plan.kind {
        Loop::Closed { .. } | Loop::Burst { .. } => None,
        Loop::Open { per_second } => Some(Pace { begin, per_second }),
    };
    let shared = Arc::new(Shared {
        end,
        pace,
        permits: Arc::clone(&permits),
        total: plan.total(),
        first: plan.first,
        given: AtomicU64::new(0),
        broken: AtomicBool::new(false),
        expect: workflow.expect,
        asks: plan.asks,
        tally: Mutex::new(Tally::new(from, end)),
    });
    let pacer = pace.map(|pace| pace::keep(pace, shared.total, Arc::clone(&permits)));
    let template = Template::new(&Submission {
        host: &address.to_string(),
        whose: &workflow.header(),
        workflow: &workflow.name,
        lines: plan.batch,
        asks: plan.asks,
        wait_seconds: WAIT_SECONDS,
        due: plan.due,
        keyed: plan.keyed,
    });
    let result = supervise(read, plan, &shared, connections, template).await;
    permits.close();
    if let Some(pacer) = pacer {
        // It looks at the semaphore each time that it wakes, and sleeps no longer than until the next one is due.
        let _ = pacer.join();
    }
    let used = result?;
    let next = plan.first + shared.given.load(Ordering::Relaxed);
    let shared = Arc::into_inner(shared).expect("all connections have ended");
    let mut tally = shared.tally.into_inner();
    if matches!(plan.kind, Loop::Burst { .. }) {
        tally.end_with_last();
    }
    let warmup = SignedDuration::try_from(from - begin).unwrap_or_default();
    Ok(Loaded { tally, used, next, from: wall + warmup, until: end })
}

async fn supervise<R>(
    read: R,
    plan: &Plan,
    shared: &Arc<Shared>,
    connections: Vec<Connection>,
    template: Template,
) -> Result<Used, Error>
where
    R: Fn() -> Result<Reading, Error>,
{
    let mut running = JoinSet::new();
    for connection in connections {
        running.spawn(drive(Arc::clone(shared), connection, template.clone(), plan.batch));
    }
    let mut ended = async |until: Instant| -> Result<bool, Error> {
        loop {
            let next = tokio::time::timeout_at(until.into(), running.join_next()).await;
            match next {
                Err(_) => return Ok(false),
                Ok(None) => return Ok(true),
                Ok(Some(result)) => result.expect("a connection does not panic")?,
            }
        }
    };
    if matches!(plan.kind, Loop::Burst { .. }) {
        let before = read()?;
        let all = ended(shared.end).await?;
        return if all { Ok(read()?.since(&before)) } else { Err(Error::Stuck { within: BURST }) };
    }
    ended(shared.end - plan.measured).await?;
    let before = read()?;
    ended(shared.end).await?;
    // An open loop that was too short for a second reading to differ ends before; its CPU is that until now.
    let used = read()?.since(&before);
    if ended(shared.end + DRAIN).await? { Ok(used) } else { Err(Error::Stuck { within: DRAIN }) }
}

/// One connection, until the loop ends or an exchange fails.
async fn drive(
    shared: Arc<Shared>,
    mut connection: Connection,
    mut template: Template,
    batch: u32,
) -> Result<(), Error> {
    while let Some((first, due)) = shared.next(batch).await {
        let request = template.fill(first);
        let sent = Instant::now();
        let answer = connection.exchange(request).await;
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                if shared.note(&answer, first, batch, [due, sent, now]) == Busy::Yes {
                    tokio::time::sleep(BREATH).await;
                }
            }
            Err(source) => {
                shared.broken.store(true, Ordering::Relaxed);
                shared.permits.close();
                let answered = shared.tally.lock().sent.len();
                let what = format!("the submission of {first} ({answered} were answered before)");
                return Err(Error::Unanswered { what, source });
            }
        }
    }
    Ok(())
}

/// Whether something was turned away.
#[derive(PartialEq, Eq)]
enum Busy {
    Yes,
    No,
}

impl Shared {
    /// The first number of the next request and when it was due, if there is one.
    async fn next(&self, batch: u32) -> Option<(u64, Instant)> {
        if self.pace.is_some() {
            // Closed when all is over, which ends the wait.
            self.permits.acquire_many(batch).await.ok()?.forget();
        }
        let now = Instant::now();
        if self.broken.load(Ordering::Relaxed) || (self.pace.is_none() && now >= self.end) {
            return None;
        }
        let given = |given: u64| (given < self.total).then(|| given + u64::from(batch));
        // A burst ends when all are given away; an open loop has as many permits.
        let index = self.given.fetch_update(Ordering::Relaxed, Ordering::Relaxed, given).ok()?;
        if index + u64::from(batch) >= self.total {
            // That was the last one: those who wait for a permit can go.
            self.permits.close();
        }
        Some((self.first + index, self.pace.map_or(now, |pace| pace.due(index))))
    }

    fn note(&self, answer: &Answer<'_>, first: u64, batch: u32, [due, sent, now]: [Instant; 3]) -> Busy {
        let mut tally = self.tally.lock();
        let refused = tally.refused;
        tally.note_sent(due, sent);
        if answer.status == 429 {
            tally.note_refusal(sent, now, answer.retry_after_seconds());
        }
        if batch == 1 {
            let said = read_answer(answer.status, answer.body, first, self.expect, self.asks);
            tally.note(first, said, due, now);
            if said == Said::Other {
                tally.keep(answer.status, answer.body);
            }
        } else {
            let mut lines = answer.body.split(|byte| *byte == b'\n');
            for number in first..first + u64::from(batch) {
                let line = lines.next().unwrap_or_default();
                let said = match answer.status {
                    200 => read_line(line, number, self.expect, self.asks),
                    status => read_answer(status, line, number, self.expect, self.asks),
                };
                // Each was due at its own time.
                let due = self.pace.map_or(due, |pace| pace.due(number - self.first));
                tally.note(number, said, due, now);
                if said == Said::Other {
                    tally.keep(answer.status, line);
                }
            }
        }
        if tally.refused > refused { Busy::Yes } else { Busy::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Work;
    use crate::fake::{Fake, Fault};
    use crate::request::FIRST;
    use crate::verify::{Verdict, read_back};

    fn plan(kind: Loop, batch: u32) -> Plan {
        let (warmup, measured, asks) = (Duration::from_secs(1), Duration::from_secs(2), Asks::End);
        Plan { kind, warmup, measured, batch, keyed: false, first: 5, asks, due: None }
    }

    #[test]
    fn an_open_loop_sends_whole_requests() {
        let open = |per_second, batch| plan(Loop::Open { per_second }, batch).total();
        assert_eq!((open(100, 1), open(100, 7), open(1, 1)), (300, 294, 3));
        let connections = |per_second| plan(Loop::Open { per_second }, 1).connections();
        assert_eq!((connections(1), connections(4_000), connections(100_000)), (16, 500, 4_096));
        assert_eq!(plan(Loop::Closed { in_flight: 256 }, 64).connections(), 4);
    }

    /// A short loop against an api that makes a mistake with one of the numbers, and what is found of it.
    async fn found(kind: Loop, batch: u32, fault: Fault) -> Result<(Loaded, Verdict), Error> {
        found_of(kind, batch, fault, Asks::End).await
    }

    async fn found_of(kind: Loop, batch: u32, fault: Fault, asks: Asks) -> Result<(Loaded, Verdict), Error> {
        let workflow = Workflow::chain("s1", 1, Work::Noop);
        let address = Fake::start(fault, &workflow).await;
        let (warmup, measured) = (Duration::ZERO, Duration::from_millis(100));
        let plan = Plan { kind, warmup, measured, batch, keyed: false, first: FIRST, asks, due: None };
        let loaded = run(address, || Ok(Reading::default()), &workflow, &plan).await?;
        let mut connection = Connection::open(address).await.expect("it listens");
        let sent = &loaded.tally.sent;
        let found = read_back(&mut connection, &address.to_string(), &workflow, sent, Duration::ZERO).await?;
        Ok((loaded, found.verdict))
    }

    #[tokio::test]
    async fn what_is_right_is_counted_once() {
        for (kind, batch) in [
            (Loop::Closed { in_flight: 4 }, 1),
            (Loop::Closed { in_flight: 8 }, 4),
            (Loop::Open { per_second: 500 }, 1),
            (Loop::Open { per_second: 500 }, 5),
            (Loop::Burst { count: 50, in_flight: 4 }, 1),
            (Loop::Burst { count: 50, in_flight: 10 }, 5),
        ] {
            let (loaded, verdict) = found(kind, batch, Fault::None).await.unwrap();
            assert!(verdict.is_right() && verdict.refused == 0, "{kind:?} by {batch}: {verdict:?}");
            assert_eq!(verdict.submitted, loaded.next - FIRST);
            assert!(verdict.submitted.is_multiple_of(u64::from(batch)));
            if !matches!(kind, Loop::Closed { .. }) {
                // All that were due, however late they were sent.
                assert_eq!((verdict.submitted, loaded.tally.latency_us.len()), (50, 50));
            }
        }
    }

    #[tokio::test]
    async fn a_mistake_with_one_execution_is_found() {
        for batch in [1, 2] {
            // An open loop sends all that were due, even when the machine stands still meanwhile.
            let open = Loop::Open { per_second: 500 };
            let of = async |fault| found(open, batch, fault).await.unwrap();
            let (_, verdict) = of(Fault::Lost).await;
            assert!(!verdict.is_right() && verdict.missing == 1, "{verdict:?}");
            let (_, verdict) = of(Fault::Doubled).await;
            assert!(!verdict.is_right() && verdict.duplicates == 1, "{verdict:?}");
            let (_, verdict) = of(Fault::WrongInHistory).await;
            assert!(!verdict.is_right() && verdict.wrong == 1, "{verdict:?}");
            let (loaded, verdict) = of(Fault::WrongAnswer).await;
            assert!(!verdict.is_right() && verdict.answered_wrong == 1, "{verdict:?}");
            assert_eq!(loaded.tally.wrong.len(), 1);
            let (loaded, verdict) = of(Fault::Busy).await;
            assert!(verdict.is_right() && verdict.refused == 1 && loaded.tally.refused == 1, "{verdict:?}");
            // Of a batch only lines are turned away.
            let told = loaded.tally.retry_after_s;
            assert_eq!((told.len(), told.max()), if batch == 1 { (1, 2) } else { (0, 0) });
        }
    }

    #[tokio::test]
    async fn a_target_that_goes_away_ends_the_loop() {
        let error = found(Loop::Open { per_second: 500 }, 1, Fault::Gone).await.unwrap_err();
        assert!(matches!(error, Error::Unanswered { .. }), "{error}");
    }

    #[tokio::test]
    async fn mistakes_with_what_was_only_accepted_are_found_too() {
        let burst = Loop::Burst { count: 20, in_flight: 4 };
        for batch in [1, 2] {
            let of = async |fault| found_of(burst, batch, fault, Asks::Commit).await.unwrap();
            let (loaded, verdict) = of(Fault::None).await;
            assert!(verdict.is_right() && verdict.completed == 20, "{verdict:?}");
            assert!(loaded.tally.sent.iter().all(|sent| matches!(sent.said, Said::Accepted(_))));
            let (_, verdict) = of(Fault::Lost).await;
            assert!(!verdict.is_right() && verdict.missing == 1, "{verdict:?}");
            let (_, verdict) = of(Fault::Doubled).await;
            assert!(!verdict.is_right() && verdict.duplicates == 1, "{verdict:?}");
            let (_, verdict) = of(Fault::WrongInHistory).await;
            assert!(!verdict.is_right() && verdict.wrong == 1, "{verdict:?}");
        }
    }
}
