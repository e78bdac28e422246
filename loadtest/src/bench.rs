//! What every scenario works with: a target that runs, numbers that are given out once, and all that was found out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nova_testkit::{Usage, own_usage};

use crate::args::Args;
use crate::cpu::Reading;
use crate::http::Connection;
use crate::load::{self, Loaded, Loop, Plan};
use crate::report::{Figure, Phase};
use crate::request::{Asks, FIRST};
use crate::tally::Sent;
use crate::target::Target;
use crate::verify::{Found, Verdict};
use crate::workflow::Workflow;
use crate::{Error, first, verify};

/// How long the history may bring nothing new while something is missing in it.
const PATIENCE: Duration = Duration::from_secs(60);
/// CPU of the target below which it does nothing but live.
const QUIET_PERCENT: f64 = 15.0;
const SETTLE: Duration = Duration::from_secs(1);
/// A target that is still busy after this is measured as it is.
const SETTLE_WITHIN: Duration = Duration::from_secs(180);

/// A run.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub args: &'a Args,
    pub target: Target,
    pub address: SocketAddr,
    pub notes: Vec<String>,
    pub phases: Vec<Phase>,
    pub figures: Vec<Figure>,
    pub verdict: Verdict,
    pub read_back: Duration,
    cores: usize,
    /// The number of the next execution.
    next: u64,
    examples: Vec<String>,
}

impl<'a> Bench<'a> {
    /// Waits until a target that was started brings results.
    pub(crate) async fn new(args: &'a Args, target: Target, cores: usize) -> Result<Self, Error> {
        let address = target.address()?;
        let bench = Self {
            args,
            target,
            address,
            notes: Vec::new(),
            phases: Vec::new(),
            figures: Vec::new(),
            verdict: Verdict::default(),
            read_back: Duration::ZERO,
            cores,
            next: FIRST,
            examples: Vec::new(),
        };
        let first = first::workflow();
        bench.deploy(&first).await?;
        let mut connection = bench.connect().await?;
        let (took, errors) = first::results(&mut connection, &address.to_string(), &first).await?;
        eprintln!("ready    first results of all shards after {} ms, {errors} errors before", took.as_millis());
        Ok(bench)
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        let address = self.address;
        Connection::open(address).await.map_err(|source| Error::Connect { address, source })
    }

    /// Stores a workflow.
    pub(crate) async fn deploy(&self, workflow: &Workflow) -> Result<(), Error> {
        self.target.rest().apply(&workflow.document).await?;
        Ok(())
    }

    /// A loop as the options want it.
    pub(crate) fn plan(&self, kind: Loop) -> Plan {
        Plan {
            kind,
            warmup: Duration::from_secs(self.args.warmup_seconds()),
            measured: Duration::from_secs(self.args.seconds()),
            batch: self.args.batch(),
            keyed: self.args.keyed,
            first: self.next,
            asks: Asks::End,
            due: None,
        }
    }

    /// Cores of the machine.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// The number of the next execution.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Numbers below this are given out.
    pub(crate) fn given_until(&mut self, next: u64) {
        self.next = next;
    }

    /// Keeps an answer that was not right for a look.
    pub(crate) fn keep(&mut self, examples: Vec<String>) {
        self.examples.extend(examples);
    }

    /// Runs a loop in which something is to complete.
    pub(crate) async fn load(&mut self, workflow: &Workflow, plan: &Plan) -> Result<Loaded, Error> {
        let loaded = self.load_any(workflow, plan).await?;
        if loaded.tally.completed == 0 {
            let answer = loaded.tally.wrong.first().cloned().unwrap_or_else(|| "there was none".into());
            return Err(Error::Nothing { phase: format!("{:?}", plan.kind), answer });
        }
        Ok(loaded)
    }

    /// Runs a loop in which nothing need complete in the measured time.
    pub(crate) async fn load_any(&mut self, workflow: &Workflow, plan: &Plan) -> Result<Loaded, Error> {
        self.load_telling(workflow, plan, || ()).await
    }

    /// The same; `begins` is called when it begins to send.
    pub(crate) async fn load_telling(
        &mut self,
        workflow: &Workflow,
        plan: &Plan,
        begins: impl FnOnce(),
    ) -> Result<Loaded, Error> {
        let Plan { kind, warmup, measured, .. } = plan;
        match kind {
            Loop::Burst { .. } => eprintln!("load     {kind:?}"),
            _ => eprintln!("load     {kind:?} for {} + {} s", warmup.as_secs(), measured.as_secs()),
        }
        let target = &self.target;
        let loaded = match load::run_telling(self.address, || Reading::take(target), workflow, plan, begins).await {
            Ok(loaded) => loaded,
            Err(error) => {
                // The end of a process says more than a connection that broke.
                self.target.check().await?;
                return Err(error);
            }
        };
        self.next = loaded.next;
        self.keep(loaded.tally.wrong.clone());
        Ok(loaded)
    }

    /// Runs a loop and keeps its figures under this key.
    pub(crate) async fn measure(&mut self, key: &str, workflow: &Workflow, plan: &Plan) -> Result<Vec<Sent>, Error> {
        let loaded = self.load(workflow, plan).await?;
        let phase = Phase::of(key, plan, &loaded, self.cores);
        if matches!(plan.kind, Loop::Burst { .. }) && phase.refused > 0 {
            // The time until all had ended would be that of some of them.
            return Err(Error::TurnedAway { phase: format!("{key}, {}", phase.name), refused: phase.refused });
        }
        self.phases.push(phase);
        Ok(loaded.tally.sent)
    }

    /// Figures of some runs; none when there were none.
    pub(crate) fn figure(&mut self, name: impl Into<String>, unit: &'static str, values: Vec<f64>) {
        self.figures.extend(Figure::of(name, unit, values));
    }

    /// Reads all executions of a workflow back.
    pub(crate) async fn verify(&mut self, workflow: &Workflow, sent: &[Sent]) -> Result<Found, Error> {
        let begun = Instant::now();
        eprintln!("verify   {} executions of {}", sent.len(), workflow.name);
        let mut connection = self.connect().await?;
        let host = self.address.to_string();
        let found = verify::read_back(&mut connection, &host, workflow, sent, PATIENCE).await?;
        self.verdict.add(found.verdict.clone());
        self.read_back += begun.elapsed();
        Ok(found)
    }

    /// After the last of all.
    pub(crate) async fn finish(&mut self) -> Result<(), Error> {
        self.target.check().await?;
        let examples = std::mem::take(&mut self.examples);
        self.verdict.examples.extend(examples);
        Ok(())
    }

    /// Waits until the target does nothing but live: what is written behind the answers is written then.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        let begun = Instant::now();
        let cpu = || -> Result<Duration, Error> { Ok(self.target.usage()?.values().map(|usage| usage.cpu).sum()) };
        let mut before = cpu()?;
        while begun.elapsed() < SETTLE_WITHIN {
            tokio::time::sleep(SETTLE).await;
            let now = cpu()?;
            let percent = 100.0 * now.saturating_sub(before).as_secs_f64() / SETTLE.as_secs_f64();
            if percent < QUIET_PERCENT {
                return Ok(());
            }
            before = now;
        }
        eprintln!("settle   the target is still busy after {} s", SETTLE_WITHIN.as_secs());
        Ok(())
    }

    /// What each kind of process uses, the generator too.
    pub(crate) fn usage(&self) -> Result<BTreeMap<&'static str, Usage>, Error> {
        let mut usage = self.target.usage()?;
        usage.insert("generator", own_usage()?);
        Ok(usage)
    }
}
