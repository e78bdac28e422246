//! A coordinator of one member: the engine, without replication.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_engine::ids::{Epoch, OwnerId, Seq, ShardId, TimeMs, Token};
use nova_engine::input::{Entry, EntryBody};
use nova_engine::output::{MessageBody, Refusal, Verdict};
use nova_wire::v1;
use nova_wire::v1::coordinator_server::Coordinator;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// A scheduler of which nothing is seen but that it takes shards.
pub const SOMEBODY: OwnerId = OwnerId(1);

pub struct Group {
    pub engine: nova_engine::State,
    index: u64,
    pub lease: Duration,
    leases: BTreeMap<u32, Instant>,
    /// Shards that are given away to who asks.
    pub to_give: BTreeSet<u32>,
    /// Shards whose owner is asked once to give them back.
    pub wanted_back: BTreeSet<u32>,
    /// Shards whose records are refused, as with a full outbox.
    pub full: BTreeSet<u32>,
    /// Shards whose next proposal is lost.
    pub lost: BTreeSet<u32>,
    /// Shards of which the next subscription says that they have another owner.
    pub denied: BTreeSet<u32>,
    /// Ends the streams that were opened before.
    pub links: u64,
    /// Documents cannot be had now.
    pub silent: bool,
    /// Documents are not what they were.
    pub damaged: bool,
    /// What came.
    pub acquired: Vec<v1::AcquireShardsRequest>,
    /// Subscribers are told, once, to ask for shards.
    pub news: bool,
    pub proposed: Vec<v1::Proposal>,
    pub positions_asked: usize,
}

impl Group {
    pub fn new(shards: u32) -> Self {
        Self {
            engine: nova_engine::State::new(nova_engine::Config { shards: shards as u16 }),
            index: 0,
            lease: Duration::from_secs(600),
            leases: BTreeMap::new(),
            to_give: (0..shards).collect(),
            wanted_back: BTreeSet::new(),
            full: BTreeSet::new(),
            lost: BTreeSet::new(),
            denied: BTreeSet::new(),
            links: 0,
            silent: false,
            damaged: false,
            acquired: Vec::new(),
            news: false,
            proposed: Vec::new(),
            positions_asked: 0,
        }
    }

    pub fn entry(&mut self, body: EntryBody) -> Verdict {
        self.index += 1;
        self.engine.apply(&Entry { now: TimeMs(self.index), index: self.index, term: 1, body })
    }

    pub fn grant(&mut self, shard: u32, owner: OwnerId) {
        let shard = ShardId(shard as u16);
        let after = self.engine.shard(shard).unwrap().epoch;
        self.entry(EntryBody::Grant { shard, after, owner });
    }

    pub fn epoch(&self, shard: u32) -> Epoch {
        self.engine.shard(ShardId(shard as u16)).unwrap().epoch
    }

    fn acquire(&mut self, request: v1::AcquireShardsRequest) -> v1::AcquireShardsResponse {
        let mut answer = v1::AcquireShardsResponse { lease_ms: self.lease.as_millis() as u64, ..Default::default() };
        let now = Instant::now();
        let mut held = BTreeSet::new();
        for it in request.held.iter().filter(|_| !request.leaving) {
            if self.leases.get(&it.shard).is_some_and(|until| *until < now) {
                self.grant(it.shard, SOMEBODY);
            }
            if self.epoch(it.shard).0 == it.epoch {
                held.insert(it.shard);
                self.leases.insert(it.shard, now + self.lease);
            } else {
                answer.lost.push(it.shard);
            }
        }
        answer.wanted_back = std::mem::take(&mut self.wanted_back).into_iter().collect();
        let free: Vec<u32> = self.to_give.difference(&held).copied().filter(|_| !request.leaving).collect();
        for shard in free {
            self.grant(shard, OwnerId(request.owner));
            self.leases.insert(shard, now + self.lease);
            let position = self.engine.position(ShardId(shard as u16)).as_ref().map(nova_wire::position_to_wire);
            answer.granted.push(v1::GrantedShard { shard, position });
        }
        self.acquired.push(request);
        answer
    }

    fn answer(&mut self, proposal: v1::Proposal) -> v1::propose_response::Result {
        use v1::propose_response::{Result, Retry};
        if self.lost.remove(&proposal.shard) {
            return Result::Retry(Retry { why: "the test says so".into() });
        }
        Result::Verdict(self.propose(proposal))
    }

    fn propose(&mut self, mut proposal: v1::Proposal) -> v1::Verdict {
        let full = !proposal.records.is_empty() && self.full.contains(&proposal.shard);
        self.proposed.push(proposal.clone());
        if full {
            // As the engine does: what is acknowledged counts, the rest does not.
            (proposal.records, proposal.locals) = (Vec::new(), Vec::new());
            proposal.next_offset = proposal.first_offset;
        }
        let body = v1::EntryBody { kind: Some(v1::entry_body::Kind::Propose(proposal)) };
        let verdict = self.entry(nova_wire::entry_body_from_wire(body).unwrap());
        let refused = full && matches!(verdict, Verdict::Applied(_));
        nova_wire::verdict_to_wire(&if refused { Verdict::Refused(Refusal::OutboxFull) } else { verdict })
    }

    fn output(&mut self, it: &mut v1::SubscribedShard, offered: &mut Token) -> Option<v1::ShardOutput> {
        let shard = ShardId(it.shard as u16);
        if self.denied.remove(&it.shard) || self.epoch(it.shard).0 != it.epoch {
            return Some(v1::ShardOutput { shard: it.shard, superseded: true, ..Default::default() });
        }
        let messages: Vec<_> = self.engine.outbox(shard, Seq(it.after_seq), 256).cloned().collect();
        let offers = self.engine.offers(shard, *offered, 256);
        it.after_seq = messages.last().map_or(it.after_seq, |last| last.seq.0);
        *offered = offers.last().map_or(*offered, |last| last.token);
        let item = |message: &Arc<nova_engine::output::Message>| {
            assert!(matches!(message.body, MessageBody::Events(_)), "no workers, no replies");
            let bytes = nova_wire::message_to_wire(message).encode_to_vec().into();
            let topic = v1::TopicKind::Events.into();
            v1::OutboxItem { seq: message.seq.0, topic, partition: it.shard, message: bytes }
        };
        let (messages, offers) = (messages.iter().map(item).collect(), offers.iter().map(nova_wire::offer_to_wire));
        let output = v1::ShardOutput { shard: it.shard, messages, offers: offers.collect(), superseded: false };
        (!output.messages.is_empty() || !output.offers.is_empty()).then_some(output)
    }
}

/// The group, and who looks at it.
#[derive(Clone)]
pub struct Member {
    pub group: Arc<Mutex<Group>>,
    pub changed: watch::Sender<u64>,
}

impl Member {
    pub fn change<T>(&self, change: impl FnOnce(&mut Group) -> T) -> T {
        let result = change(&mut self.group.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Member {
    async fn acquire_shards(&self, request: Request<v1::AcquireShardsRequest>) -> Answer<v1::AcquireShardsResponse> {
        Ok(Response::new(self.change(|group| group.acquire(request.into_inner()))))
    }

    async fn propose(&self, request: Request<Streaming<v1::ProposeRequest>>) -> Answer<Answers<v1::ProposeResponse>> {
        let (member, mut requests) = (self.clone(), request.into_inner());
        let (sender, receiver) = mpsc::channel(64);
        let link = member.group.lock().links;
        let mut changes = member.changed.subscribe();
        tokio::spawn(async move {
            while member.group.lock().links == link {
                let request = tokio::select! {
                    request = requests.next() => request,
                    _ = changes.changed() => continue,
                };
                let Some(Ok(request)) = request else { return };
                let result = Some(member.change(|group| group.answer(request.proposal.unwrap())));
                let _ = sender.send(Ok(v1::ProposeResponse { request: request.request, result })).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn subscribe(&self, request: Request<v1::SubscribeRequest>) -> Answer<Answers<v1::SubscribeResponse>> {
        let (member, request) = (self.clone(), request.into_inner());
        let (sender, receiver) = mpsc::channel(1);
        let link = member.group.lock().links;
        let mut changes = member.changed.subscribe();
        let mut shards: Vec<_> = request.shards.into_iter().map(|it| (it, Token(0))).collect();
        tokio::spawn(async move {
            while member.group.lock().links == link {
                changes.borrow_and_update();
                let mut outputs = Vec::new();
                shards.retain_mut(|(it, offered)| {
                    let output = member.group.lock().output(it, offered);
                    let superseded = output.as_ref().is_some_and(|output| output.superseded);
                    outputs.extend(output);
                    !superseded
                });
                let renew = std::mem::take(&mut member.group.lock().news);
                if outputs.is_empty() && !renew {
                    let _ = changes.changed().await;
                } else if sender.send(Ok(v1::SubscribeResponse { shards: outputs, renew })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Answer<v1::GetShardsResponse> {
        let mut group = self.group.lock();
        group.positions_asked += 1;
        let view = |shard: &Arc<nova_engine::state::Shard>| v1::ShardView {
            shard: u32::from(shard.id.0),
            position: group.engine.position(shard.id).as_ref().map(nova_wire::position_to_wire),
            ..Default::default()
        };
        Ok(Response::new(v1::GetShardsResponse { shards: group.engine.shards.iter().map(view).collect() }))
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Answer<v1::GetWorkflowResponse> {
        let request = request.into_inner();
        let group = self.group.lock();
        if group.silent {
            return Err(Status::unavailable("the test says so"));
        }
        let found = group.engine.workflow(&request.namespace, &request.name, request.version).unwrap();
        let document = if group.damaged { "{}".into() } else { found.document.clone() };
        let info = v1::WorkflowInfo { name: request.name, ..Default::default() };
        Ok(Response::new(v1::GetWorkflowResponse { info: Some(info), document, unknown_namespace: false }))
    }
}
