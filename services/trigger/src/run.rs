//! The loop: one task per trigger of the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use nova_bus::SharedBus;
use nova_client::load::{self, Marks};
use nova_client::{Coordinators, Repeat};
use nova_trigger_rules::{Kind, TriggerSpec};
use nova_wire::{ClusterId, v1};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, SystemClock};
use crate::config::Config;
use crate::context::{Context, Entry};
use crate::metrics as names;
use crate::submit::Submitter;
use crate::workflows::Workflows;
use crate::{cron, kafka};

/// Three quarters of the outbox above which a shard takes no more (rule 35).
const OUTBOX_BYTES: u64 = nova_engine::limits::OUTBOX_BYTES / 4 * 3;
/// Longest wait of the coordinator for a newer catalogue.
const CATALOGUE_WAIT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(1);
/// Longest wait for the bus when it stops; what is not written then is written by the next one.
const LEAVE: Duration = Duration::from_secs(5);

/// What triggers and workflows there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalogue {
    revision: Option<u64>,
    /// Newest version by namespace and name.
    workflows: Arc<BTreeMap<String, BTreeMap<String, u32>>>,
    triggers: Arc<Vec<v1::Trigger>>,
}

impl Catalogue {
    fn of(answer: v1::GetCatalogueResponse) -> Self {
        let mut workflows: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
        for info in answer.workflows {
            workflows.entry(info.namespace).or_default().insert(info.name, info.version);
        }
        Self { revision: Some(answer.revision), workflows: Arc::new(workflows), triggers: Arc::new(answer.triggers) }
    }

    pub(crate) fn newest(&self, namespace: &str, name: &str) -> Option<u32> {
        self.workflows.get(namespace)?.get(name).copied()
    }
}

/// A trigger service.
pub struct Trigger {
    config: Config,
    bus: SharedBus,
    clock: SharedClock,
    coordinators: Coordinators,
}

/// A trigger that runs, or cannot.
struct Running {
    of: v1::Trigger,
    /// None when its document cannot be read.
    task: Option<Task>,
}

struct Task {
    entry: Arc<Entry>,
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

type Tasks = BTreeMap<(String, String), Running>;

impl Trigger {
    /// A service that runs nothing yet.
    #[must_use]
    pub fn new(config: &Config, coordinators: Coordinators, bus: SharedBus) -> Self {
        Self { config: config.clone(), bus, clock: Arc::new(SystemClock), coordinators }
    }

    /// The same by another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Works until `stop`; then what it has submitted is given a few seconds to reach the bus.
    pub async fn run(self, stop: CancellationToken) {
        let leaving = CancellationToken::new();
        let _leave = leaving.clone().drop_guard();
        let shards = tokio::select! {
            shards = self.shards() => shards,
            () = stop.cancelled() => return,
        };
        let (sender, catalogue) = watch::channel(Catalogue::default());
        let following = follow(self.coordinators.clone(), sender);
        let marks = Marks {
            open_executions: self.config.max_open_per_shard,
            read_lag: self.config.max_read_lag,
            outbox_bytes: OUTBOX_BYTES,
        };
        let (load, looking) = load::watch(self.coordinators.clone(), marks);
        let cluster = ClusterId::of_name(&self.config.cluster);
        let submitter =
            Submitter::new(Arc::clone(&self.bus), cluster, shards, self.config.trace_ratio, leaving.clone());
        let workflows = Workflows::new(self.coordinators.clone(), catalogue.clone());
        let context = Arc::new(Context::new(
            Arc::clone(&self.bus),
            Arc::clone(&self.clock),
            submitter,
            load,
            self.config.window,
            self.coordinators.clone(),
            workflows,
        ));
        let supervising = supervise(Arc::clone(&context), catalogue, stop.clone());
        tokio::select! {
            () = following => {}
            () = looking => {}
            () = supervising => {}
        }
        let end = Instant::now() + LEAVE;
        while context.submitter.waiting() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The number of shards, which is fixed when the cluster is made.
    async fn shards(&self) -> u16 {
        let mut pause = PAUSE;
        loop {
            let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
                member.describe(v1::DescribeRequest { without_hash: true }).await
            });
            match asking.await {
                Ok(answer) => match u16::try_from(answer.shards) {
                    Ok(shards) if shards > 0 => return shards,
                    _ => tracing::error!(shards = answer.shards, "the coordinator names no usable number of shards"),
                },
                Err(error) => tracing::warn!(%error, "the coordinators are asked again"),
            }
            counter!(names::ERRORS, "what" => "describe").increment(1);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Keeps the catalogue up to date. While no coordinator answers, triggers go on with the last one.
async fn follow(coordinators: Coordinators, sender: watch::Sender<Catalogue>) {
    let mut pause = PAUSE;
    loop {
        let request = v1::GetCatalogueRequest {
            after_revision: sender.borrow().revision,
            wait_ms: CATALOGUE_WAIT.as_millis() as u64,
        };
        let asking = coordinators.call_slow(CATALOGUE_WAIT + PATIENCE, Repeat::Read, |mut member| async move {
            member.get_catalogue(request).await
        });
        match asking.await {
            Ok(answer) => {
                pause = PAUSE;
                let news = sender.borrow().revision != Some(answer.revision);
                if news {
                    sender.send_replace(Catalogue::of(answer));
                }
            }
            Err(error) => {
                counter!(names::ERRORS, "what" => "catalogue").increment(1);
                tracing::warn!(%error, "the catalogue is asked for again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Has one task run for each trigger, until `stop`.
async fn supervise(context: Arc<Context>, mut catalogue: watch::Receiver<Catalogue>, stop: CancellationToken) {
    let mut tasks = Tasks::new();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            changed = catalogue.changed() => {
                if changed.is_err() {
                    break;
                }
                let triggers = Arc::clone(&catalogue.borrow_and_update().triggers);
                reconcile(&context, &mut tasks, &triggers).await;
            }
            _ = tick.tick() => {
                for running in tasks.values_mut() {
                    if let Some(task) = &mut running.task && task.handle.is_finished() {
                        // It never ends by itself.
                        counter!(names::ERRORS, "what" => "task").increment(1);
                        tracing::error!(trigger = %task.entry.id, "a trigger's task broke and is started again");
                        *task = start(&context, Arc::clone(&task.entry));
                    }
                }
                measure(&context, &tasks);
            }
        }
    }
    for running in std::mem::take(&mut tasks).into_values() {
        end(&context, running).await;
    }
}

async fn reconcile(context: &Arc<Context>, tasks: &mut Tasks, triggers: &[v1::Trigger]) {
    let wanted: BTreeMap<(String, String), &v1::Trigger> =
        triggers.iter().map(|it| ((it.namespace.clone(), it.id.clone()), it)).collect();
    let others: Vec<_> =
        tasks.iter().filter(|(key, it)| wanted.get(*key) != Some(&&it.of)).map(|(key, _)| key.clone()).collect();
    for key in others {
        if let Some(running) = tasks.remove(&key) {
            tracing::info!(namespace = key.0, trigger = key.1, "a trigger ends or changes");
            end(context, running).await;
        }
    }
    for (key, trigger) in wanted {
        tasks.entry(key).or_insert_with(|| begin(context, trigger));
    }
}

fn begin(context: &Arc<Context>, trigger: &v1::Trigger) -> Running {
    let of = trigger.clone();
    match TriggerSpec::parse_stored(&trigger.id, &trigger.workflow, &trigger.spec) {
        Ok(spec) => {
            let entry = Arc::new(Entry {
                namespace: trigger.namespace.as_str().into(),
                id: trigger.id.as_str().into(),
                workflow: trigger.workflow.as_str().into(),
                spec,
            });
            tracing::info!(namespace = trigger.namespace, trigger = trigger.id, "a trigger begins");
            Running { of, task: Some(start(context, entry)) }
        }
        Err(problems) => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let problems = problems.join("; ");
            tracing::error!(namespace = trigger.namespace, trigger = trigger.id, problems, "a trigger cannot be read");
            Running { of, task: None }
        }
    }
}

fn start(context: &Arc<Context>, entry: Arc<Entry>) -> Task {
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let (context, of) = (Arc::clone(context), Arc::clone(&entry));
    let handle = tokio::spawn(async move {
        let kind = of.spec.kind.clone();
        let running = async {
            match kind {
                Kind::Cron(cron) => cron::run(context, of, *cron).await,
                Kind::Kafka(kafka) => kafka::run(context, of, kafka).await,
            }
        };
        tokio::select! {
            () = running => {}
            () = stopped => {}
        }
    });
    Task { entry, stop, handle }
}

async fn end(context: &Context, running: Running) {
    let Some(task) = running.task else { return };
    task.stop.cancel();
    if let Err(error) = task.handle.await {
        tracing::error!(trigger = %task.entry.id, %error, "a trigger's task broke");
    }
    context.forget(&task.entry);
}

fn measure(context: &Context, tasks: &Tasks) {
    for kind in ["cron", "kafka"] {
        let running = tasks.values().filter_map(|it| it.task.as_ref());
        let count = running.filter(|task| task.entry.spec.type_name() == kind).count();
        gauge!(names::TRIGGERS, "kind" => kind).set(count as f64);
    }
    gauge!(names::INVALID).set(tasks.values().filter(|it| it.task.is_none()).count() as f64);
    context.measure();
}
