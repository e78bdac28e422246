//! Evaluating aside: offers wait here for their workflow, and for one of a few threads.
//!
//! What an expression costs is up to who wrote it, 200,000 steps at most. So it is never evaluated in the loop, and one
//! job is small enough that other shards' jobs come between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::histogram;
use nova_client::{Coordinators, Repeat};
use nova_model::Compiled;
use nova_wire::v1;
use tokio::sync::mpsc;

use crate::evaluate::{evaluate, unusable};
use crate::metrics as names;
use crate::run::Told;
use crate::shard::Place;

/// Workflow versions kept compiled.
const CACHE: usize = 1_000;
/// Offers evaluated by one job: about a third of a second when all of them take all steps.
const OFFERS: usize = 32;
/// Jobs at a time.
const JOBS: usize = 4;
/// Jobs that wait, above which no more offers are taken from the coordinator.
const WAITING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// A version of a workflow.
type Key = (String, String, u32);

/// Compiled, or why it cannot be: then its nodes fail.
pub(crate) type Workflow = Result<Arc<Compiled>, Arc<str>>;

/// A version that was fetched; none when it cannot be had now.
pub(crate) struct Fetched {
    key: Key,
    workflow: Option<Workflow>,
}

/// What the offers of one job came to.
pub(crate) struct Evaluated {
    pub place: Place,
    pub locals: Vec<v1::Local>,
}

type Job = (Place, Vec<(Workflow, v1::Offer)>);

pub(crate) struct Evaluator {
    coordinators: Coordinators,
    cache: BTreeMap<Key, Workflow>,
    order: VecDeque<Key>,
    /// Offers that wait for their workflow.
    unfetched: BTreeMap<Key, Vec<(Place, v1::Offer)>>,
    jobs: VecDeque<Job>,
    running: usize,
    tell: mpsc::UnboundedSender<Told>,
}

impl Evaluator {
    pub(crate) fn new(coordinators: Coordinators, tell: mpsc::UnboundedSender<Told>) -> Self {
        Self {
            coordinators,
            cache: BTreeMap::new(),
            order: VecDeque::new(),
            unfetched: BTreeMap::new(),
            jobs: VecDeque::new(),
            running: 0,
            tell,
        }
    }

    /// Whether more offers may be taken up.
    pub(crate) fn has_room(&self) -> bool {
        self.jobs.len() < WAITING
    }

    /// Takes offers of a shard up; what they come to is told.
    pub(crate) fn take(&mut self, place: Place, offers: impl Iterator<Item = v1::Offer>) {
        let mut job = Vec::new();
        for offer in offers {
            let key = (offer.namespace.clone(), offer.workflow.clone(), offer.version);
            if let Some(workflow) = self.cache.get(&key) {
                job.push((workflow.clone(), offer));
                continue;
            }
            let waiting = self.unfetched.entry(key.clone()).or_default();
            waiting.push((place, offer));
            if waiting.len() == 1 {
                tokio::spawn(fetch(self.coordinators.clone(), key, self.tell.clone()));
            }
        }
        self.begin(place, job);
    }

    /// Takes a workflow up, and the offers that waited for it.
    pub(crate) fn fetched(&mut self, fetched: Fetched) {
        let Fetched { key, workflow } = fetched;
        let Some(workflow) = workflow else {
            let (coordinators, tell) = (self.coordinators.clone(), self.tell.clone());
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                fetch(coordinators, key, tell).await;
            });
            return;
        };
        let mut waited: Vec<(Place, Vec<_>)> = Vec::new();
        for (place, offer) in self.unfetched.remove(&key).unwrap_or_default() {
            match waited.iter_mut().find(|(it, _)| *it == place) {
                Some((_, job)) => job.push((workflow.clone(), offer)),
                None => waited.push((place, vec![(workflow.clone(), offer)])),
            }
        }
        if self.cache.insert(key.clone(), workflow).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > CACHE
            && let Some(oldest) = self.order.pop_front()
        {
            self.cache.remove(&oldest);
        }
        for (place, job) in waited {
            self.begin(place, job);
        }
    }

    /// A job has ended; the next one may begin.
    pub(crate) fn ended(&mut self) {
        self.running -= 1;
        self.run();
    }

    /// Offers of a shard that is gone, or is offered the same again.
    pub(crate) fn forget(&mut self, shard: u32) {
        self.jobs.retain(|(place, _)| place.shard != shard);
        for waiting in self.unfetched.values_mut() {
            waiting.retain(|(place, _)| place.shard != shard);
        }
    }

    fn begin(&mut self, place: Place, mut job: Vec<(Workflow, v1::Offer)>) {
        while !job.is_empty() {
            let rest = job.split_off(job.len().min(OFFERS));
            self.jobs.push_back((place, std::mem::replace(&mut job, rest)));
        }
        self.run();
    }

    fn run(&mut self) {
        while self.running < JOBS
            && let Some((place, offers)) = self.jobs.pop_front()
        {
            self.running += 1;
            let tell = self.tell.clone();
            nova_host::blocking::spawn(move || {
                let begun = Instant::now();
                let evaluated = offers.iter().map(|(workflow, offer)| match workflow {
                    Ok(compiled) => evaluate(compiled, offer),
                    Err(why) => unusable(offer, why),
                });
                let locals = evaluated.collect();
                histogram!(names::EVALUATE_SECONDS).record(begun.elapsed().as_secs_f64());
                let _ = tell.send(Told::Evaluated(Evaluated { place, locals }));
            });
        }
    }
}

async fn fetch(coordinators: Coordinators, key: Key, tell: mpsc::UnboundedSender<Told>) {
    let (namespace, name, version) = key.clone();
    let request = v1::GetWorkflowRequest { namespace, name, version: Some(version) };
    let asking = coordinators.call(PATIENCE, Repeat::Read, |mut member| {
        let request = request.clone();
        async move { member.get_workflow(request).await }
    });
    let workflow = match asking.await {
        Ok(answer) => Some(Compiled::from_canonical(&answer.document).map(Arc::new).map_err(|problems| {
            tracing::error!(workflow = key.1, version = key.2, %problems, "a stored workflow cannot be compiled");
            problems.to_string().into()
        })),
        Err(error) => {
            tracing::warn!(workflow = key.1, version = key.2, %error, "a workflow cannot be fetched now");
            None
        }
    };
    let _ = tell.send(Told::Fetched(Fetched { key, workflow }));
}
