//! One cluster of real processes, and what a stranger with access to its topics and ports can see and do.

use std::collections::BTreeMap;

use bytes::Bytes;
use nova_bus::{Bus, Record, Topic};
use nova_bus_kafka::KafkaBus;
use nova_client::{Coordinators, Repeat};
use nova_testkit::ledger::{Ledger, Line};
use nova_testkit::{Cluster, ClusterOptions, Dir, Error, Execution, MembersOptions, Process, Rest, until};
use nova_wire::v1::outbox_message::Body;
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde_json::{Value, json};

use crate::{PATIENCE, nova};

pub const SHARDS: u16 = 6;

const ECHO: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: echo }
spec:
  nodes:
    - { id: echo, type: task, kind: echo, with: "${ input.n }" }
  output: "${ nodes.echo.output }"
"#;
/// Its last node is done when the server that it asks says so.
const HELD: &str = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: held }
spec:
  do:
    - { id: first, type: task, kind: echo, with: 1 }
    - { id: ask, type: http, with: { url: "${ input.url }" } }
  output: "${ nodes.ask.output.body }"
"#;

/// The cluster, and what was asked of it.
pub struct Rig {
    pub cluster: Cluster,
    pub rest: Rest,
    pub bus: KafkaBus,
    pub id: ClusterId,
    pub coordinators: Coordinators,
    /// Where the scheduler shows its metrics.
    scheduler: Rest,
    /// The second worker of one name, once there is one.
    pub twin: Option<Process>,
    /// Executions that were accepted, and how many attempts each takes.
    pub accepted: BTreeMap<String, usize>,
    keys: u32,
}

/// What must not change when nothing happens: epoch, next offset, checksum, last message, open executions.
pub type Place = (u64, u64, u64, u64, u64);

impl Rig {
    pub async fn start() -> Self {
        let options = ClusterOptions {
            members: MembersOptions { count: 1, shards: SHARDS, ..MembersOptions::default() },
            schedulers: 1,
            workers: 1,
            ledger: true,
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(&nova(), &options, Dir::temporary().unwrap()).await.unwrap();
        let rest = cluster.rest().clone();
        rest.apply(ECHO).await.unwrap();
        rest.apply(HELD).await.unwrap();
        let bus = KafkaBus::connect(nova_bus_kafka::Config::new(cluster.kafka().bootstrap())).unwrap();
        bus.health().await.unwrap();
        let coordinators = Coordinators::new(cluster.members().urls().to_vec());
        let id = ClusterId::of_name(&options.members.cluster);
        let scheduler = Rest::new(cluster.schedulers()[0].observed().unwrap()).unwrap();
        Self { cluster, rest, bus, id, coordinators, scheduler, twin: None, accepted: BTreeMap::new(), keys: 0 }
    }

    /// A new key whose submissions go to this shard.
    pub fn key(&mut self, shard: u16) -> String {
        loop {
            self.keys += 1;
            let key = format!("key-{}", self.keys);
            if nova_wire::shard_of("default", &key, SHARDS).0 == shard {
                return key;
            }
        }
    }

    /// Starts an execution of this shard; it counts as one of those that must run.
    pub async fn submit(&mut self, workflow: &str, input: &Value, key: &str) -> Execution {
        let execution = until("acceptance", PATIENCE, || async {
            match self.rest.submit_once(workflow, input, key).await {
                Ok(execution) => Ok(execution),
                // Kafka was away for a moment: try again with the same key.
                Err(Error::Refused { status: 503 | 504, body, .. }) => Err(body),
                Err(error) => panic!("{}", error.chain()),
            }
        });
        let execution = execution.await.unwrap_or_else(|error| panic!("{}", error.chain()));
        self.accepted.insert(execution.id.clone(), if workflow == "held" { 2 } else { 1 });
        execution
    }

    /// Shows that a shard does its work; gives the key and the execution.
    pub async fn works(&mut self, shard: u16) -> (String, String) {
        let key = self.key(shard);
        let id = self.submit("echo", &json!({ "n": shard }), &key).await.id;
        let ended = self.rest.wait(&id, PATIENCE).await.unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!((ended.state.as_str(), ended.output), ("COMPLETED", Some(json!(shard))));
        assert_eq!(self.attempts(&id).len(), 1);
        (key, id)
    }

    /// The attempts that workers began for an execution.
    pub fn attempts(&self, id: &str) -> Vec<Line> {
        let lines = self.ledgers().into_iter().flat_map(|ledger| ledger.lines);
        lines.filter(|line| line.what == "begin" && line.execution == id).collect()
    }

    pub fn ledgers(&self) -> Vec<Ledger> {
        let twin = self.twin.as_ref().map(|_| self.cluster.dir().path().join("twin.ledger"));
        let paths = [self.cluster.ledger(1)].into_iter().chain(twin);
        paths.map(|path| Ledger::read(&path, Vec::new()).unwrap()).collect()
    }

    pub async fn shards(&self) -> Vec<v1::ShardView> {
        let asking = |mut member: nova_client::Member| async move { member.get_shards(v1::GetShardsRequest {}).await };
        self.coordinators.call(PATIENCE, Repeat::Read, asking).await.unwrap().shards
    }

    pub async fn position(&self, shard: u16) -> v1::ShardPosition {
        let view = self.shards().await.into_iter().find(|view| view.shard == u32::from(shard));
        view.and_then(|view| view.position).expect("the coordinator knows the shard")
    }

    pub async fn place(&self, shard: u16) -> Place {
        let view = self.shards().await.into_iter().find(|view| view.shard == u32::from(shard)).unwrap();
        let position = view.position.unwrap();
        (position.epoch, position.next_offset, position.before, position.outbox_last, view.open_executions)
    }

    /// Waits until the coordinator has applied the log of a shard up to this record.
    pub async fn applied(&self, shard: u16, offset: u64) {
        until("the position behind a record", PATIENCE, || async {
            let next = self.position(shard).await.next_offset;
            if next > offset { Ok(()) } else { Err(format!("next is {next}, wanted above {offset}")) }
        })
        .await
        .unwrap();
    }

    pub async fn append(&self, shard: u16, record: Bytes) -> u64 {
        self.bus.append(&Topic::Commands, u32::from(shard), vec![record.into()]).await.unwrap()
    }

    /// Writes commands as a service of the cluster would; gives where they stand.
    pub async fn command(&self, shard: u16, kind: v1::command::Kind) -> u64 {
        self.append(shard, seal(self.id, shard, &kind)).await
    }

    /// All records of a partition, from its beginning to its present end.
    pub async fn records(&self, topic: Topic, partition: u32) -> Vec<Record> {
        let offsets = self.bus.offsets(&topic, partition).await.unwrap();
        let mut reader = self.bus.reader().unwrap();
        let mut records: Vec<Record> = Vec::new();
        if !offsets.is_empty() {
            reader.assign(&topic, partition, offsets.start).unwrap();
        }
        while records.last().map_or(offsets.start, |last| last.offset + 1) < offsets.end {
            let batch = reader.next(PATIENCE).await.unwrap().expect("the partition has more");
            records.extend(batch.records);
        }
        records
    }

    /// Messages of a topic that `take` wants.
    pub async fn messages<T>(&self, topic: Topic, take: impl Fn(Body) -> Option<T>) -> Vec<T> {
        let mut found = Vec::new();
        for partition in 0..self.bus.partitions(&topic).await.unwrap().unwrap() {
            for record in self.records(topic.clone(), partition).await {
                let opened = nova_wire::open(&record.value, self.id).unwrap();
                let batch = v1::OutboxBatch::decode(opened.body).unwrap();
                found.extend(batch.messages.into_iter().filter_map(|message| take(message.body?)));
            }
        }
        found
    }

    /// The record that started an execution, and the submission in it.
    pub async fn submission(&self, shard: u16, id: &str) -> (Bytes, v1::Submit) {
        for record in self.records(Topic::Commands, u32::from(shard)).await {
            let Ok(opened) = nova_wire::open(&record.value, self.id) else { continue };
            for command in v1::CommandBatch::decode(opened.body).unwrap_or_default().commands {
                if let Some(v1::command::Kind::Submit(submit)) = command.kind
                    && hex(&submit.execution) == id
                {
                    return (record.value, submit);
                }
            }
        }
        panic!("no record has the submission of {id}")
    }

    /// A submission that the shard would take, and the id that it would run under.
    pub async fn forged(&mut self, shard: u16) -> (v1::Submit, String) {
        let (_, id) = self.works(shard).await;
        let (_, mut submit) = self.submission(shard, &id).await;
        let mut execution = submit.execution.to_vec();
        execution[15] ^= 1;
        submit.execution = execution.into();
        submit.dedupe = Some(v1::submit::Dedupe::Key(self.key(shard)));
        let id = hex(&submit.execution);
        (submit, id)
    }

    pub async fn is_unknown(&self, id: &str) {
        let answer = self.rest.get(id).await;
        let unknown = matches!(&answer, Err(Error::Refused { status: 404, code, .. }) if code == "not_found");
        assert!(unknown && self.attempts(id).is_empty(), "{answer:?}");
    }

    /// A figure of the scheduler; nothing was counted under a name that it does not show yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.scheduler.metrics().await.unwrap();
        let figures = page.lines().filter_map(|line| line.strip_prefix(name));
        let figures = figures.filter(|rest| rest.starts_with(['{', ' ']));
        figures.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a figure of the scheduler is this.
    pub async fn shows(&self, name: &str, wanted: f64) {
        until(name, PATIENCE, || async {
            let now = self.metric(name).await;
            if now == wanted { Ok(()) } else { Err(format!("it is {now}, wanted {wanted}")) }
        })
        .await
        .unwrap_or_else(|error| panic!("{}", error.chain()));
    }

    /// Starts the scheduler again, after it has been given its time to end.
    pub async fn restart_scheduler(&mut self) {
        let scheduler = &mut self.cluster.schedulers()[0];
        scheduler.stop(PATIENCE).await.unwrap();
        scheduler.start().unwrap();
        scheduler.ready(PATIENCE).await.unwrap();
    }

    /// How much the scheduler has said.
    pub fn said(&mut self) -> usize {
        self.cluster.schedulers()[0].errors().unwrap().len()
    }

    /// Why shards stand still, as the scheduler has told since it had said this much.
    pub fn alarms(&mut self, from: usize) -> BTreeMap<u16, String> {
        let said = self.cluster.schedulers()[0].errors().unwrap();
        let alarms = said[from..].lines().filter(|line| line.contains("ALARM"));
        let read = |line: &str| {
            assert!(line.contains("Restore the topic from a backup"), "it says what to do: {line}");
            let line: Value = serde_json::from_str(line).unwrap();
            let shard = line["fields"]["shard"].as_u64().expect("it names the shard");
            (shard as u16, line["fields"]["why"].as_str().expect("it says why").to_owned())
        };
        alarms.map(read).collect()
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(id: &str) -> Bytes {
    (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect::<Vec<_>>().into()
}

pub fn commands(kind: &v1::command::Kind) -> Bytes {
    let command = v1::Command { kind: Some(kind.clone()) };
    v1::CommandBatch { commands: vec![command] }.encode_to_vec().into()
}

pub fn seal(cluster: ClusterId, shard: u16, kind: &v1::command::Kind) -> Bytes {
    nova_wire::seal(cluster, v1::RecordKind::Commands, u32::from(shard), commands(kind))
}
