//! The gRPC service.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use nova_engine::ids::ShardId;
use nova_host::Dialer;
use nova_plants::Plant;
use nova_replication::Group;
use nova_wire::ClusterId;
use nova_wire::v1;
use nova_wire::v1::coordinator_server::Coordinator;
use nova_wire::v1::entry_body::Kind;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::machine::{EngineMachine, View};
use crate::proposer::{NoVerdict, Proposer};
use crate::sessions::Sessions;
use crate::shards::ShardLeases;
use crate::{level, reads, status, subscribe};

/// Longest wait for a quorum before a read is refused.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// Longest wait of a membership change.
const MEMBERSHIP_PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait until the state is written for a backup.
const BACKUP_PATIENCE: Duration = Duration::from_secs(600);
/// Bytes of one part of a backup, and parts that wait for the receiver.
const BACKUP_PART: usize = 256 << 10;
const BACKUP_PARTS: usize = 8;
/// Longest wait for a newer catalogue.
const CATALOGUE_WAIT_MS: u64 = 30_000;
/// Proposals of one stream on their way.
const PROPOSALS: usize = 64;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub(crate) struct Service {
    pub cluster: ClusterId,
    pub cluster_name: String,
    pub member: u64,
    pub inboxes: u32,
    pub dialer: Dialer,
    pub group: Group<EngineMachine>,
    pub view: Arc<View>,
    pub proposer: Proposer,
    pub sessions: Sessions,
    pub leases: ShardLeases,
    pub stop: CancellationToken,
}

impl Service {
    async fn barrier(&self) -> Result<(), Status> {
        if nova_plants::is(Plant::StaleRead) {
            return Ok(());
        }
        self.group.read_barrier(READ_PATIENCE).await.map_err(status::read)
    }

    async fn propose(&self, kind: Kind) -> Result<v1::Verdict, Status> {
        self.proposer.propose(kind).await.map_err(status::no_verdict)
    }

    async fn put(&self, kind: Kind) -> Result<Response<v1::PutResponse>, Status> {
        use v1::put_response::Result as Put;
        let result = match self.propose(kind).await?.kind {
            Some(v1::verdict::Kind::Applied(applied)) => Put::Applied(applied),
            Some(v1::verdict::Kind::Refused(refusal)) => Put::Refused(refusal),
            None => return Err(Status::internal("a verdict without content")),
        };
        Ok(Response::new(v1::PutResponse { result: Some(result) }))
    }

    fn require_leader(&self) -> Result<(), Status> {
        let status = self.group.status();
        let status = status.borrow();
        if status.leads() {
            return Ok(());
        }
        let leader = status.leader.filter(|id| *id != self.member);
        Err(status::not_leader(leader.and_then(|id| Some((id, status.address(id)?.to_owned())))))
    }
}

#[deny(clippy::missing_trait_methods)] // A call that is left out would be answered "unimplemented".
#[tonic::async_trait]
impl Coordinator for Service {
    async fn describe(&self, request: Request<v1::DescribeRequest>) -> Result<Response<v1::DescribeResponse>, Status> {
        let status = self.group.status().borrow().clone();
        let frozen = self.view.freeze();
        let (shards, state_index, level) = (u32::from(frozen.config.shards), frozen.index, frozen.level);
        let (group, without_hash) = (self.group.clone(), request.into_inner().without_hash);
        // The hash is over the whole state, and the disk may take its time: not on a thread that serves others.
        let looking = nova_host::blocking::run(move || {
            let state_hash = if without_hash { 0 } else { frozen.hash() };
            (state_hash, group.disk().unwrap_or_default(), group.unread_warning())
        });
        let (state_hash, disk, warning) = looking.await.map_err(|error| Status::internal(error.to_string()))?;
        let log = self.group.log_stats();
        let voters = status.members.iter().filter(|it| it.voter).map(|it| it.id).collect();
        let member = |it: nova_replication::MemberInfo| v1::Member { id: it.id, address: it.address };
        Ok(Response::new(v1::DescribeResponse {
            cluster: self.cluster.0.to_vec().into(),
            member: self.member,
            leader: status.leader,
            term: status.term,
            committed: status.committed,
            applied: status.applied,
            members: status.members.into_iter().map(member).collect(),
            shards,
            inboxes: self.inboxes,
            version: env!("CARGO_PKG_VERSION").into(),
            state_hash,
            last: status.last,
            snapshot: status.snapshot,
            voters,
            used_members: self.group.used_members().into_iter().collect(),
            disk_free_bytes: disk.free,
            disk_total_bytes: disk.total,
            sync_median_us: log.median_us,
            sync_longest_us: log.longest_us,
            highest_level: level::highest(),
            level,
            state_index,
            unsafe_recovery: warning.map(|(path, _)| path.display().to_string()).unwrap_or_default(),
        }))
    }

    async fn get_clock(&self, _: Request<v1::GetClockRequest>) -> Result<Response<v1::GetClockResponse>, Status> {
        Ok(Response::new(v1::GetClockResponse { wall_ms: crate::clock::wall_ms() }))
    }

    async fn acquire_shards(
        &self,
        request: Request<v1::AcquireShardsRequest>,
    ) -> Result<Response<v1::AcquireShardsResponse>, Status> {
        self.leases.acquire(request.into_inner()).await.map(Response::new)
    }

    async fn propose(
        &self,
        request: Request<Streaming<v1::ProposeRequest>>,
    ) -> Result<Response<Answers<v1::ProposeResponse>>, Status> {
        self.require_leader()?;
        let mut requests = request.into_inner();
        let proposer = self.proposer.clone();
        let (pending, mut ordered) = mpsc::channel(PROPOSALS);
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let handed = match request.proposal.map(Kind::Propose) {
                    Some(kind) => Ok((request.request, proposer.hand_over(kind).await)),
                    None => Err(Status::invalid_argument("a request without proposal")),
                };
                let ends = handed.is_err();
                if pending.send(handed).await.is_err() || ends {
                    return;
                }
            }
        });
        let (sender, receiver) = mpsc::channel(PROPOSALS);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = ordered.recv() => next,
                    () = stop.cancelled() => return,
                };
                let (request, verdict) = match next {
                    Some(Ok(next)) => next,
                    Some(Err(status)) => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                    None => return,
                };
                use v1::propose_response::{Result as Answer, Retry};
                let result = match verdict.wait().await {
                    Ok(verdict) => Answer::Verdict(verdict),
                    Err(NoVerdict::Unknown(why)) => Answer::Retry(Retry { why }),
                    // The stream ends: what follows belongs to the new leader, or to a sender that knows the format.
                    Err(ends @ (NoVerdict::NotLeader(_) | NoVerdict::Malformed(_))) => {
                        let _ = sender.send(Err(status::no_verdict(ends))).await;
                        return;
                    }
                };
                if sender.send(Ok(v1::ProposeResponse { request, result: Some(result) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Answers<v1::SubscribeResponse>>, Status> {
        self.require_leader()?;
        let (sender, receiver) = mpsc::channel(16);
        let (view, request, stop) = (Arc::clone(&self.view), request.into_inner(), self.stop.clone());
        let (mut leadership, leases) = (self.group.status(), self.leases.clone());
        tokio::spawn(async move {
            let owner = request.owner;
            let news = leases.linked(owner).await;
            let deposed = leadership.wait_for(|status| !status.leads());
            tokio::select! {
                () = subscribe::run(view, request, news, sender) => {}
                () = stop.cancelled() => return,
                // What it goes on to apply is true, but the new leader's subscribers see it sooner.
                _ = deposed => {}
            }
            leases.unlinked(owner).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn register(&self, request: Request<v1::Register>) -> Result<Response<v1::RegisterResponse>, Status> {
        use v1::register_response::Result as Answer;
        let register = v1::Register { inboxes: self.inboxes, ..request.into_inner() };
        let result = match self.propose(Kind::Register(register)).await?.kind {
            Some(v1::verdict::Kind::Applied(v1::Applied { kind: Some(v1::applied::Kind::Registered(done)) })) => {
                self.sessions.registered(done.worker, done.session);
                Answer::Registered(done)
            }
            Some(v1::verdict::Kind::Refused(refusal)) => Answer::Refused(refusal),
            _ => return Err(Status::internal("a verdict without content")),
        };
        Ok(Response::new(v1::RegisterResponse { result: Some(result), ttl_ms: self.sessions.ttl_ms() }))
    }

    async fn renew(
        &self,
        request: Request<Streaming<v1::RenewRequest>>,
    ) -> Result<Response<Answers<v1::RenewResponse>>, Status> {
        self.require_leader()?;
        let mut requests = request.into_inner();
        let sessions = self.sessions.clone();
        let (sender, receiver) = mpsc::channel(16);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            loop {
                let next = tokio::select! {
                    next = requests.next() => next,
                    () = stop.cancelled() => return,
                };
                let Some(Ok(request)) = next else { return };
                let answer = sessions.renew(request).await;
                let answer = answer.unwrap_or_else(|_| Err(Status::unavailable("the leader changed")));
                let ends = answer.is_err();
                if sender.send(answer).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn close_session(&self, request: Request<v1::Close>) -> Result<Response<v1::CloseResponse>, Status> {
        use v1::close_response::Result as Answer;
        let result = match self.propose(Kind::Close(request.into_inner())).await?.kind {
            Some(v1::verdict::Kind::Refused(refusal)) => Answer::Refused(refusal),
            _ => Answer::Done(v1::Nothing {}),
        };
        Ok(Response::new(v1::CloseResponse { result: Some(result) }))
    }

    async fn drain_worker(&self, request: Request<v1::Drain>) -> Result<Response<v1::DrainResponse>, Status> {
        use v1::drain_response::Result as Answer;
        let result = match self.propose(Kind::Drain(request.into_inner())).await?.kind {
            Some(v1::verdict::Kind::Refused(refusal)) => Answer::Refused(refusal),
            _ => Answer::Done(v1::Nothing {}),
        };
        Ok(Response::new(v1::DrainResponse { result: Some(result) }))
    }

    async fn list_workers(
        &self,
        _: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        self.barrier().await?;
        Ok(Response::new(v1::ListWorkersResponse { workers: reads::workers(&self.view.read()) }))
    }

    async fn put_namespace(&self, request: Request<v1::Namespace>) -> Result<Response<v1::PutResponse>, Status> {
        self.put(Kind::PutNamespace(request.into_inner())).await
    }

    async fn put_workflow(&self, request: Request<v1::PutWorkflow>) -> Result<Response<v1::PutResponse>, Status> {
        self.put(Kind::PutWorkflow(request.into_inner())).await
    }

    async fn put_trigger(&self, request: Request<v1::Trigger>) -> Result<Response<v1::PutResponse>, Status> {
        self.put(Kind::PutTrigger(request.into_inner())).await
    }

    async fn delete_trigger(&self, request: Request<v1::DeleteTrigger>) -> Result<Response<v1::PutResponse>, Status> {
        self.put(Kind::DeleteTrigger(request.into_inner())).await
    }

    async fn get_workflow(
        &self,
        request: Request<v1::GetWorkflowRequest>,
    ) -> Result<Response<v1::GetWorkflowResponse>, Status> {
        self.barrier().await?;
        let request = request.into_inner();
        let state = self.view.read();
        let found = state.workflow(&request.namespace, &request.name, request.version);
        Ok(Response::new(v1::GetWorkflowResponse {
            info: found.map(|it| reads::workflow_info(it)),
            document: found.map(|it| it.document.clone()).unwrap_or_default(),
            unknown_namespace: !state.catalogue.namespaces.contains_key(request.namespace.as_str()),
        }))
    }

    async fn get_catalogue(
        &self,
        request: Request<v1::GetCatalogueRequest>,
    ) -> Result<Response<v1::GetCatalogueResponse>, Status> {
        let request = request.into_inner();
        self.barrier().await?;
        let mut changes = self.view.changes();
        let wait = Duration::from_millis(request.wait_ms.min(CATALOGUE_WAIT_MS));
        let newer = async {
            loop {
                changes.borrow_and_update();
                let revision = self.view.read().catalogue.revision;
                if request.after_revision.is_none_or(|after| revision > after) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = newer => {}
            () = tokio::time::sleep(wait), if request.after_revision.is_some() => {}
            () = self.stop.cancelled() => return Err(Status::unavailable("the member stops")),
        }
        Ok(Response::new(reads::catalogue(&self.view.read())))
    }

    async fn get_source_position(
        &self,
        request: Request<v1::GetSourcePositionRequest>,
    ) -> Result<Response<v1::GetSourcePositionResponse>, Status> {
        self.barrier().await?;
        let request = request.into_inner();
        let shard = ShardId(request.shard as u16);
        let last = self.view.read().source_position(shard, &request.namespace, &request.source);
        Ok(Response::new(v1::GetSourcePositionResponse { last }))
    }

    async fn get_execution(
        &self,
        request: Request<v1::GetExecutionRequest>,
    ) -> Result<Response<v1::GetExecutionResponse>, Status> {
        let id = nova_wire::execution_id(&request.into_inner().execution).map_err(status::malformed)?;
        self.barrier().await?;
        let state = self.view.read();
        Ok(Response::new(v1::GetExecutionResponse {
            execution: reads::execution(&state, id),
            position: state.position(id.shard()).as_ref().map(nova_wire::position_to_wire),
        }))
    }

    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Result<Response<v1::GetShardsResponse>, Status> {
        self.barrier().await?;
        let count = self.view.read().config.shards;
        let mut shards = Vec::with_capacity(usize::from(count));
        for number in 0..count {
            let read_lag = self.leases.lag(number).await;
            let state = self.view.read();
            let stats = state.shard_stats(ShardId(number));
            shards.push(v1::ShardView {
                shard: u32::from(number),
                position: state.position(ShardId(number)).as_ref().map(nova_wire::position_to_wire),
                open_executions: stats.open,
                outbox_bytes: stats.outbox_bytes,
                read_lag,
            });
        }
        Ok(Response::new(v1::GetShardsResponse { shards }))
    }

    async fn add_member(&self, request: Request<v1::Member>) -> Result<Response<v1::MembersResponse>, Status> {
        let member = request.into_inner();
        let level = self.view.read().level;
        // One that does not answer yet gets the log once it does, and stops there if it cannot read it.
        if let Ok(known) = level::known_by(&member.address, &self.dialer).await
            && known < level
        {
            let why =
                format!("member {} knows feature level {known}, and {level} is in force: upgrade it first", member.id);
            return Err(Status::invalid_argument(why));
        }
        self.group.add_member(member.id, member.address, MEMBERSHIP_PATIENCE).await.map_err(status::membership)?;
        self.members()
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::MembersResponse>, Status> {
        self.group.remove_member(request.into_inner().id, MEMBERSHIP_PATIENCE).await.map_err(status::membership)?;
        self.members()
    }

    async fn take_snapshot(
        &self,
        _: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let applied = self.group.snapshot(MEMBERSHIP_PATIENCE).await.map_err(status::proposed)?;
        Ok(Response::new(v1::TakeSnapshotResponse { applied }))
    }

    async fn raise_level(
        &self,
        request: Request<v1::RaiseLevelRequest>,
    ) -> Result<Response<v1::RaiseLevelResponse>, Status> {
        self.barrier().await?;
        let members = self.group.status().borrow().members.clone();
        let agreed = level::agreed(&members, request.into_inner().to, &self.dialer).await;
        let to = agreed.map_err(Status::invalid_argument)?;
        match self.propose(Kind::RaiseLevel(v1::RaiseLevel { to })).await?.kind {
            Some(v1::verdict::Kind::Refused(refusal)) => Err(Status::invalid_argument(refusal.what)),
            _ => Ok(Response::new(v1::RaiseLevelResponse { level: to })),
        }
    }

    async fn backup(&self, _: Request<v1::BackupRequest>) -> Result<Response<Answers<v1::BackupPart>>, Status> {
        self.barrier().await?;
        let copy = self.group.copy(BACKUP_PATIENCE).await.map_err(status::proposed)?;
        let head = v1::BackupHead {
            cluster: self.cluster.0.to_vec().into(),
            cluster_name: self.cluster_name.clone(),
            shards: u32::from(self.view.read().config.shards),
            index: copy.index,
            term: copy.term,
            member: self.member,
            members: copy.members.into_iter().map(|(id, address)| v1::Member { id, address }).collect(),
            used_members: copy.used.into_iter().collect(),
            level: self.view.read().level,
            version: env!("CARGO_PKG_VERSION").into(),
            bytes: copy.bytes,
        };
        let (sender, receiver) = mpsc::channel(BACKUP_PARTS);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let mut part = Ok(v1::BackupPart { head: Some(head), data: bytes::Bytes::new() });
            let mut body = copy.body;
            loop {
                let ends = part.is_err();
                let sent = tokio::select! {
                    sent = sender.send(part) => sent,
                    () = stop.cancelled() => return,
                };
                if sent.is_err() || ends {
                    return;
                }
                let reading = move || {
                    let mut data = Vec::with_capacity(BACKUP_PART);
                    let read = body.by_ref().take(BACKUP_PART as u64).read_to_end(&mut data);
                    (read.map(|_| data), body)
                };
                let Ok((read, rest)) = nova_host::blocking::run(reading).await else { return };
                body = rest;
                part = match read {
                    Ok(data) if data.is_empty() => return,
                    Ok(data) => Ok(v1::BackupPart { head: None, data: data.into() }),
                    Err(error) => Err(Status::internal(error.to_string())),
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Service {
    fn members(&self) -> Result<Response<v1::MembersResponse>, Status> {
        let status = self.group.status();
        let status = status.borrow();
        let members = status.members.iter().map(|it| v1::Member { id: it.id, address: it.address.clone() });
        Ok(Response::new(v1::MembersResponse { members: members.collect() }))
    }
}
