//! A tenant that submits little, beside one that floods the api.

use std::net::SocketAddr;
use std::time::Duration;

use nova_client::{Coordinators, Repeat};
use nova_wire::v1;

use crate::Error;
use crate::bench::Bench;
use crate::cpu::Reading;
use crate::load::{self, Loaded, Loop, Plan};
use crate::request::{Asks, FIRST};
use crate::tally::Sent;
use crate::workflow::Workflow;

const NAME: &str = "load-quiet";
const PER_SECOND: u64 = 50;
const OPEN_EXECUTIONS: u64 = 100_000;
const KEYS: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the workflow is offered: who stores it may not know the namespace yet.
const AGAIN: Duration = Duration::from_millis(100);

/// Its loops, one after the other.
pub(super) struct Tenant {
    address: SocketAddr,
    workflow: Workflow,
    next: u64,
    sent: Vec<Sent>,
    refused: u64,
}

impl Tenant {
    /// Makes its namespace and stores its workflow.
    pub(super) async fn new(bench: &mut Bench<'_>) -> Result<Self, Error> {
        let coordinators = Coordinators::new(bench.target.coordinators());
        let namespace = v1::Namespace { name: NAME.into(), max_open_executions: OPEN_EXECUTIONS, max_keys: KEYS };
        let asking = coordinators.call(PATIENCE, Repeat::Harmless, |mut leader| {
            let namespace = namespace.clone();
            async move { leader.put_namespace(namespace).await }
        });
        let failed = |source| Error::Coordinator { what: "the namespace of the quiet tenant", source };
        match asking.await.map_err(failed)?.result {
            Some(v1::put_response::Result::Refused(refusal)) => return Err(Error::Engine { why: refusal.what }),
            _ => tokio::time::sleep(AGAIN).await,
        }
        let workflow = Workflow::chain("quiet", 1, bench.args.work()).of(NAME);
        bench.deploy(&workflow).await?;
        Ok(Self { address: bench.address, workflow, next: FIRST, sent: Vec::new(), refused: 0 })
    }

    /// Starts a loop on a thread of its own: it must not wait behind the flood in the generator too.
    pub(super) fn start(&self, warmup: Duration, measured: Duration) -> Running {
        let (address, workflow) = (self.address, self.workflow.clone());
        let kind = Loop::Open { per_second: PER_SECOND };
        let plan =
            Plan { kind, warmup, measured, batch: 1, keyed: false, first: self.next, asks: Asks::End, due: None };
        Running(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| Error::Connect { address, source })?;
            runtime.block_on(load::run(address, || Ok(Reading::default()), &workflow, &plan))
        }))
    }

    /// What a loop brought: p50 and p99, in milliseconds.
    pub(super) async fn ended(&mut self, running: Running) -> Result<[f64; 2], Error> {
        let waiting = tokio::task::spawn_blocking(|| running.0.join().expect("a loop does not panic"));
        let Loaded { tally, next, .. } = waiting.await.expect("joining does not panic")?;
        self.next = next;
        self.refused += tally.refused;
        self.sent.extend(tally.sent);
        let ms = |share: f64| tally.latency_us.value_at_quantile(share) as f64 / 1e3;
        Ok([ms(0.5), ms(0.99)])
    }

    /// Tells its figures, and reads all of it back.
    pub(super) async fn tell(self, bench: &mut Bench<'_>, quiet: [f64; 2], flooded: [f64; 2]) -> Result<(), Error> {
        for (name, ms) in [("before the overload", quiet), ("during it", flooded)] {
            bench.figure(format!("quiet tenant, {PER_SECOND}/s, p50 {name}"), "ms", vec![ms[0]]);
            bench.figure(format!("quiet tenant, {PER_SECOND}/s, p99 {name}"), "ms", vec![ms[1]]);
        }
        bench.figure("quiet tenant, p99 during the overload, times that before", "", vec![flooded[1] / quiet[1]]);
        bench.figure("quiet tenant, turned away with 429", "executions", vec![self.refused as f64]);
        bench.verify(&self.workflow, &self.sent).await.map(drop)
    }
}

/// A loop that runs.
pub(super) struct Running(std::thread::JoinHandle<Result<Loaded, Error>>);
