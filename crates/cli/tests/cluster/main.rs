//! A whole cluster of processes on three Kafka brokers, while processes of every kind are killed.
//!
//! `NOVA_FAULTS_EXECUTIONS` says how many executions run, `NOVA_FAULTS_SEED` which processes die, `NOVA_BIN` which
//! binary is tried.
#![allow(clippy::unwrap_used)]

mod clusters;
mod doctor;
mod events;
mod refusals;
mod tampered;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nova_bus::{Bus, Outgoing, Topic, TopicSpec};
use nova_bus_kafka::KafkaBus;
use nova_testkit::ledger::{self, Ledger};
use nova_testkit::{Cluster, ClusterOptions, Dir, Error, Execution, MembersOptions, Nova, Rest, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: usize = 48;
const RECORDS: u64 = 60;
const USERS: &str = "orders";

/// Six nodes: one, two side by side, one by the engine itself, one behind them, and one of both.
const WORKFLOW: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: six }
spec:
  nodes:
    - { id: start, type: task, kind: echo, with: "${ input.n }" }
    - { id: left, type: task, kind: echo, needs: [start], with: "${ nodes.start.output * 2 }" }
    - { id: right, type: task, kind: sleep, needs: [start], with: { ms: "${ input.n % 8 == 0 ? 1500 : 20 }" } }
    - { id: sum, type: transform, needs: [left, right], join: every, with: "${ nodes.left.output + nodes.start.output }" }
    - { id: last, type: task, kind: echo, needs: [sum], with: "${ nodes.sum.output + 1 }" }
    - { id: report, type: task, kind: echo, needs: [last, left], join: every, with: { result: "${ nodes.last.output }" } }
  output: "${ nodes.report.output.result }"
"#;
/// Nodes that workers run.
const TASKS: usize = 5;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

fn nova() -> Nova {
    let path = std::env::var_os("NOVA_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_nova").into());
    Nova::at(std::path::PathBuf::from(path)).unwrap()
}

/// What a client saw of its executions: number of the input → execution.
type Seen = BTreeMap<u64, Execution>;

/// Submits under one key until it is accepted, and waits until it ends, whatever is killed meanwhile.
async fn one(rest: &Rest, n: u64) -> Execution {
    let key = format!("order-{n}");
    let id = until(&format!("acceptance of {n}"), PATIENCE, || async {
        match rest.submit_once("six", &json!({ "n": n }), &key).await {
            Ok(execution) => Ok(execution.id),
            // All of these say: try again with the same key.
            Err(Error::Refused { status: 429 | 503 | 504, body, .. }) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(body)
            }
            Err(error) => panic!("{n} is refused: {}", error.chain()),
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
    until(&format!("the end of {n}"), PATIENCE, || async {
        rest.wait(&id, PATIENCE).await.map_err(|error| error.chain())
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()))
}

struct Load {
    count: u64,
    next: AtomicUsize,
    ended: AtomicUsize,
}

impl Load {
    async fn client(self: Arc<Self>, rest: Rest) -> Seen {
        let mut seen = Seen::new();
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed) as u64;
            if n >= self.count {
                return seen;
            }
            seen.insert(n, one(&rest, n).await);
            self.ended.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until this many more have ended.
    async fn goes_on(&self, what: &str, more: usize) {
        let from = self.ended.load(Ordering::Relaxed);
        let wanted = (from + more).min(self.count as usize);
        until(&format!("progress after {what}"), PATIENCE, || async {
            let now = self.ended.load(Ordering::Relaxed);
            if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted} ended")) }
        })
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

/// Kills one process of each kind, one after the other; each comes back after the work went on without it. Gives the
/// moments at which workers died.
async fn kill_each(cluster: &mut Cluster, load: &Load, step: usize, random: &mut StdRng) -> Vec<Vec<u64>> {
    let mut deaths = vec![Vec::new(); cluster.workers().len()];
    load.goes_on("the start", step).await;

    let leader = cluster.members().leader(PATIENCE).await.unwrap();
    cluster.members().processes()[leader].kill();
    load.goes_on("the death of the leader", step).await;
    cluster.members().processes()[leader].start().unwrap();

    let scheduler = random.random_range(0..cluster.schedulers().len());
    cluster.schedulers()[scheduler].kill();
    load.goes_on("the death of a scheduler", step).await;
    cluster.schedulers()[scheduler].start().unwrap();

    let worker = halt_busy_worker(cluster, deaths.len()).await;
    cluster.workers()[worker].kill();
    deaths[worker].push(ledger::boot_ns());
    load.goes_on("the death of a worker", step).await;
    cluster.workers()[worker].start().unwrap();

    let broker = random.random_range(1..=cluster.kafka().brokers());
    cluster.kafka().crash(Some(broker)).await.unwrap();
    load.goes_on("the death of a broker", step).await;
    cluster.kafka().restart().await.unwrap();

    cluster.ready(PATIENCE).await.unwrap();
    load.goes_on("all came back", step).await;
    deaths
}

/// The place of a worker that stands still in the midst of attempts: what a kill then cuts is known before.
async fn halt_busy_worker(cluster: &mut Cluster, count: usize) -> usize {
    let ledgers: Vec<_> = (1..=count).map(|number| cluster.ledger(number)).collect();
    let workers = &*cluster.workers();
    let halt_busy = || -> Result<usize, Error> {
        for (place, (worker, ledger)) in workers.iter().zip(&ledgers).enumerate() {
            worker.pause()?;
            if ledger.exists() && Ledger::read(ledger, Vec::new())?.running() > 1 {
                return Ok(place);
            }
            worker.resume()?;
        }
        Err(Error::Unexpected { what: "each worker".into(), why: "runs nothing".into() })
    };
    until("a busy worker", PATIENCE, || async { halt_busy().map_err(|error| error.chain()) })
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()))
}

async fn write_records(bus: &KafkaBus, from: u64, to: u64) {
    let topic = Topic::Named(USERS.into());
    for n in from..to {
        let record = Outgoing::from(bytes::Bytes::from(json!({ "n": n }).to_string()));
        bus.append(&topic, (n % 3) as u32, vec![record]).await.unwrap();
    }
}

fn expected(n: u64) -> Value {
    json!(n * 3 + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_execution_ends_once_while_processes_of_every_kind_are_killed() {
    let count = number("NOVA_FAULTS_EXECUTIONS", 400);
    let seed = number("NOVA_FAULTS_SEED", rand::random());
    println!("NOVA_FAULTS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let options = ClusterOptions {
        brokers: 3,
        members: MembersOptions { count: 3, shards: 16, ..MembersOptions::default() },
        schedulers: 2,
        workers: 3,
        triggers: 1,
        slots: 64,
        ledger: true,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(&nova(), &options, Dir::temporary().unwrap()).await.unwrap();
    let rest = cluster.rest().clone();
    rest.apply(WORKFLOW).await.unwrap();

    let mut config = nova_bus_kafka::Config::new(cluster.kafka().bootstrap());
    config.replicas = 3;
    let bus = KafkaBus::connect(config).unwrap();
    let topic = TopicSpec { topic: Topic::Named(USERS.into()), partitions: 3, retention_ms: 86_400_000 };
    bus.ensure_topics(&[topic]).await.unwrap();
    rest.trigger(&json!({ "id": "orders", "workflow": "six", "type": "kafka", "topic": USERS, "from": "earliest" }))
        .await
        .unwrap();

    let load = Arc::new(Load { count, next: AtomicUsize::new(0), ended: AtomicUsize::new(0) });
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&load).client(rest.clone()))).collect();
    // Records of the users' topic number on behind the clients' inputs.
    write_records(&bus, count, count + RECORDS / 2).await;
    let deaths = kill_each(&mut cluster, &load, count as usize / 7, &mut random).await;
    write_records(&bus, count + RECORDS / 2, count + RECORDS).await;
    let mut seen = Seen::new();
    for client in clients {
        seen.extend(client.await.expect("a client saw nothing wrong"));
    }

    // What the clients saw.
    assert_eq!(seen.len() as u64, count);
    for (n, execution) in &seen {
        let right = execution.state == "COMPLETED" && execution.output == Some(expected(*n));
        assert!(right, "{n}: {execution:?}");
    }

    // What the event topic says, which is what happened.
    let all = (count + RECORDS) as usize;
    let told = until("an end of each execution", PATIENCE, || async {
        let told = events::read(&bus, &options.members.cluster).await;
        let ended = told.values().filter(|it| it.ends > 0).count();
        if ended >= all { Ok(told) } else { Err(format!("{ended} of {all} ended")) }
    });
    let told = told.await.unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(told.len(), all, "nothing ran that nobody asked for");
    let wrong: Vec<_> = told.iter().filter(|(_, it)| (it.accepted, it.ends) != (1, 1)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (n, execution) in &seen {
        let input = told.get(&execution.id).map(|it| it.input.clone());
        assert_eq!(input, Some(json!({ "n": n })), "the id that was answered is the one that ran");
    }
    let mut inputs: Vec<_> = told.values().map(|it| it.input["n"].as_u64().unwrap()).collect();
    inputs.sort_unstable();
    assert_eq!(inputs, (0..all as u64).collect::<Vec<_>>(), "each input ran once, those of the topic too");

    // What the workers noted.
    let ledgers: Vec<_> =
        (1..).zip(deaths).map(|(number, deaths)| Ledger::read(&cluster.ledger(number), deaths).unwrap()).collect();
    let summary = ledger::check(&ledgers).unwrap_or_else(|problems| panic!("{problems:#?}"));
    println!("{all} executions, {summary:?}");
    assert_eq!(summary.visits, all * TASKS, "each task of each execution was run");
    assert!(summary.cut > 0 && summary.repeated > 0, "the worker died idle: this run shows nothing {summary:?}");
}
