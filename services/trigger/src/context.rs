//! What all tasks of a trigger service share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use nova_bus::SharedBus;
use nova_client::load::Load;
use nova_client::{ClientError, Coordinators, Repeat};
use nova_trigger_rules::TriggerSpec;
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::clock::SharedClock;
use crate::metrics as names;
use crate::submit::{Outlet, Submitter};
use crate::workflows::{Missing, Target, Workflows};

/// Questions for positions at once: when a service starts, all its triggers ask.
const ASKING: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A trigger of the catalogue.
pub(crate) struct Entry {
    pub namespace: Arc<str>,
    pub id: Arc<str>,
    pub workflow: Arc<str>,
    pub spec: TriggerSpec,
}

impl Entry {
    fn key(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.namespace), Arc::clone(&self.id))
    }
}

/// How a trigger does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Health {
    held: Option<String>,
    /// Records.
    kafka_lag: u64,
    /// Milliseconds.
    cron_lag: u64,
    halted: u64,
}

pub(crate) struct Context {
    pub bus: SharedBus,
    pub clock: SharedClock,
    pub submitter: Submitter,
    pub load: Load,
    pub window: u64,
    coordinators: Coordinators,
    workflows: Workflows,
    asking: Semaphore,
    health: Mutex<BTreeMap<(Arc<str>, Arc<str>), Health>>,
}

impl Context {
    pub(crate) fn new(
        bus: SharedBus,
        clock: SharedClock,
        submitter: Submitter,
        load: Load,
        window: u64,
        coordinators: Coordinators,
        workflows: Workflows,
    ) -> Self {
        let asking = Semaphore::new(ASKING);
        Self { bus, clock, submitter, load, window, coordinators, workflows, asking, health: Mutex::default() }
    }

    /// The highest number of a source that was applied. A linearizable read.
    pub(crate) async fn position(&self, outlet: &Outlet) -> Result<Option<u64>, ClientError> {
        let _permit = self.asking.acquire().await;
        let request = v1::GetSourcePositionRequest {
            namespace: outlet.namespace.to_string(),
            source: outlet.source.name().to_owned(),
            shard: outlet.shard,
        };
        let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| {
            let request = request.clone();
            async move { member.get_source_position(request).await }
        });
        Ok(asking.await?.last)
    }

    /// The same, however long it takes: without it a trigger can do nothing.
    pub(crate) async fn first_position(&self, outlet: &Outlet) -> Option<u64> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.position(outlet).await {
                Ok(last) => return last,
                Err(error) => {
                    counter!(names::ERRORS, "what" => "position").increment(1);
                    tracing::warn!(source = %outlet.source, %error, "a position is asked for again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The version that a trigger starts now.
    pub(crate) async fn target(&self, entry: &Entry) -> Result<Arc<Target>, Missing> {
        self.workflows.target(&entry.namespace, &entry.workflow, entry.spec.version).await
    }

    fn health(&self, entry: &Entry, change: impl FnOnce(&mut Health)) {
        change(self.health.lock().entry(entry.key()).or_default());
    }

    /// Tells that a trigger waits for something that is missing.
    pub(crate) fn hold(&self, entry: &Entry, why: String) {
        self.health(entry, |health| {
            if health.held.as_ref() != Some(&why) {
                tracing::warn!(namespace = %entry.namespace, trigger = %entry.id, why, "the trigger waits");
                health.held = Some(why);
            }
        });
    }

    /// Tells that nothing is missing.
    pub(crate) fn release(&self, entry: &Entry) {
        self.health(entry, |health| {
            if health.held.take().is_some() {
                tracing::info!(namespace = %entry.namespace, trigger = %entry.id, "the trigger goes on");
            }
        });
    }

    pub(crate) fn kafka_lag(&self, entry: &Entry, records: u64, halted: u64) {
        self.health(entry, |health| {
            health.kafka_lag = records;
            health.halted = halted;
        });
    }

    pub(crate) fn cron_lag(&self, entry: &Entry, late_ms: u64) {
        self.health(entry, |health| health.cron_lag = late_ms);
    }

    /// Forgets a trigger that does not run any more.
    pub(crate) fn forget(&self, entry: &Entry) {
        self.health.lock().remove(&entry.key());
    }

    pub(crate) fn measure(&self) {
        let health = self.health.lock();
        let held = health.values().filter(|it| it.held.is_some()).count();
        gauge!(names::HELD).set(held as f64);
        gauge!(names::KAFKA_LAG).set(health.values().map(|it| it.kafka_lag).sum::<u64>() as f64);
        gauge!(names::HALTED).set(health.values().map(|it| it.halted).sum::<u64>() as f64);
        let latest = health.values().map(|it| it.cron_lag).max().unwrap_or(0);
        gauge!(names::CRON_LAG).set(latest as f64 / 1_000.0);
        gauge!(names::WAITING).set(self.submitter.waiting() as f64);
    }
}
