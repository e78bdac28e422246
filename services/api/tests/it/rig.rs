//! An api whose submissions are decided when the test says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nova_api::{Api, Config};
use nova_bus::{Bus, Layout, MemoryBus, Topic};
use nova_client::Coordinators;
use nova_telemetry::{LogFormat, MetricsPage, Options, Telemetry, TraceSettings};
use nova_wire::v1::coordinator_server::{Coordinator, CoordinatorServer};
use nova_wire::{ClusterId, v1};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

pub const SHARDS: u32 = 2;
pub const PATIENCE: Duration = Duration::from_secs(60);
const DOCUMENT: &str = "apiVersion: nova/v1\nkind: Workflow\nmetadata: { name: w }\nspec:\n  do:\n    - { id: a, type: task, kind: noop }\n";

/// A coordinator of which nothing is wanted but what an api reads.
struct Member;

#[tonic::async_trait]
impl Coordinator for Member {
    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Result<Response<v1::GetShardsResponse>, Status> {
        let shards = (0..SHARDS).map(|shard| v1::ShardView { shard, ..Default::default() }).collect();
        Ok(Response::new(v1::GetShardsResponse { shards }))
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::GetWorkflowResponse>, Status> {
        let document = nova_model::parse(DOCUMENT.as_bytes(), "w", nova_model::Format::Yaml).unwrap();
        let compiled = nova_model::compile(&document).unwrap();
        let request = request.into_inner();
        let info = v1::WorkflowInfo {
            namespace: request.namespace,
            name: request.name,
            version: 1,
            hash: compiled.hash.to_vec().into(),
            ..Default::default()
        };
        let document = compiled.canonical.into();
        Ok(Response::new(v1::GetWorkflowResponse { info: Some(info), document, unknown_namespace: false }))
    }
}

pub struct World {
    pub address: SocketAddr,
    bus: Arc<MemoryBus>,
    /// The next number of a message of each shard.
    seq: BTreeMap<u32, u64>,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

/// A submission as it is on the bus.
pub struct Submitted {
    pub shard: u32,
    pub submit: v1::Submit,
}

/// Once for all tests of the process.
fn metrics() -> MetricsPage {
    static PAGE: OnceLock<MetricsPage> = OnceLock::new();
    let start = || {
        let trace = TraceSettings::default();
        let options = Options { service: "api", format: LogFormat::Text, default_filter: "error", trace };
        Telemetry::start(&options).unwrap().metrics()
    };
    PAGE.get_or_init(start).clone()
}

fn cluster() -> ClusterId {
    ClusterId::of_name("test")
}

impl World {
    pub async fn new(config: Config) -> Self {
        let bus = Arc::new(MemoryBus::new());
        bus.ensure_topics(&Layout { shards: SHARDS, events: 1, inboxes: 1, apis: 1 }.topics()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            cluster: "test".into(),
            listen: "127.0.0.1:0".into(),
            history: dir.path().join("history.db"),
            ..config
        };
        let stop = CancellationToken::new();
        let coordinators = Coordinators::here(CoordinatorServer::new(Member));
        let shared: nova_bus::SharedBus = Arc::<MemoryBus>::clone(&bus);
        let api = Api::start(config, coordinators, shared, metrics(), stop.clone()).await.unwrap();
        let address = api.address().unwrap();
        tokio::spawn(api.run());
        Self { address, bus, seq: BTreeMap::new(), _dir: dir, _stop: stop.drop_guard() }
    }

    /// All submissions that are on the bus, as soon as there are so many.
    pub async fn submitted(&self, count: usize) -> Vec<Submitted> {
        let waiting = async {
            loop {
                let all = self.all().await;
                if all.len() >= count {
                    return all;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("they come to the bus")
    }

    async fn all(&self) -> Vec<Submitted> {
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            let range = self.bus.offsets(&Topic::Commands, shard).await.unwrap();
            let mut reader = self.bus.reader().unwrap();
            reader.assign(&Topic::Commands, shard, range.start).unwrap();
            let mut next = range.start;
            while next < range.end {
                let batch = reader.next(PATIENCE).await.unwrap().expect("records that are there");
                for record in &batch.records {
                    next = record.offset + 1;
                    let opened = nova_wire::open(&record.value, cluster()).unwrap();
                    for command in v1::CommandBatch::decode(opened.body).unwrap().commands {
                        if let Some(v1::command::Kind::Submit(submit)) = command.kind {
                            all.push(Submitted { shard, submit });
                        }
                    }
                }
            }
        }
        all
    }

    /// Says that it is accepted.
    pub async fn accept(&mut self, submitted: &Submitted) {
        let seq = self.seq.entry(submitted.shard).or_default();
        *seq += 1;
        let accepted = v1::Accepted { execution: submitted.submit.execution.clone(), version: 1, repeated: false };
        let reply = v1::Reply { to: submitted.submit.reply_to, answer: Some(v1::reply::Answer::Accepted(accepted)) };
        let message =
            v1::OutboxMessage { seq: *seq, body: Some(v1::outbox_message::Body::Reply(reply)), ..Default::default() };
        let body = v1::OutboxBatch { messages: vec![message] }.encode_to_vec();
        let record = nova_wire::seal(cluster(), v1::RecordKind::Outbox, submitted.shard, body.into());
        self.bus.append(&Topic::Replies, 0, vec![record.into()]).await.unwrap();
    }
}

/// What was answered: status, header, body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection that stays open.
pub struct Client(TcpStream);

impl Client {
    pub async fn new(world: &World) -> Self {
        Self(TcpStream::connect(world.address).await.unwrap())
    }

    pub async fn submit(&mut self, namespace: &str) -> Answer {
        self.post("", namespace, r#"{"workflow":"w"}"#).await
    }

    pub async fn post(&mut self, path: &str, namespace: &str, body: &str) -> Answer {
        let head = format!(
            "POST /api/v1/executions{path} HTTP/1.1\r\nhost: x\r\nnova-namespace: {namespace}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        // In two parts, as a client may send them.
        self.0.write_all(head.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
        self.0.write_all(body.as_bytes()).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        let mut text = String::new();
        let mut buffer = vec![0; 4_096];
        loop {
            let count = tokio::time::timeout(PATIENCE, self.0.read(&mut buffer)).await.expect("an answer").unwrap();
            assert!(count > 0, "the connection was closed after: {text}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let answer = Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() };
            let length: usize = answer.header("content-length").expect("each answer has one").parse().unwrap();
            if answer.body.len() == length {
                return answer;
            }
        }
    }
}
