//! Requests of other members.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use nova_host::blocking;
use nova_wire::raft_v1 as v1;
use nova_wire::raft_v1::raft_server;
use openraft::raft::VoteRequest;
use tonic::{Request, Response, Status, Streaming};

use crate::append_stream;
use crate::codec::{answer_to_wire, append_from_wire, id_from_wire, id_to_wire, vote_from_wire, vote_to_wire};
use crate::machine::StateMachine;
use crate::network::{MAX_MESSAGE_BYTES, SNAPSHOT_PATIENCE};
use crate::snapshot::SnapshotDir;
use crate::types::{Raft, Types};

pub(crate) struct Service<M: StateMachine> {
    pub raft: Raft<M>,
    pub own: Own,
    pub snapshots: SnapshotDir,
}

/// Who answers here; requests for anybody else are refused.
#[derive(Clone)]
pub(crate) struct Own {
    pub cluster: [u8; 16],
    pub member: u64,
}

/// The gRPC service that members call; to be mounted on the member's server.
pub type RaftServer = raft_server::RaftServer<Erased>;

/// The service without its state machine's type.
pub struct Erased(Arc<dyn raft_server::Raft>);

type AppendAnswers = BoxStream<'static, Result<v1::AppendResponse, Status>>;

pub(crate) fn serve<M: StateMachine>(service: Service<M>) -> RaftServer {
    raft_server::RaftServer::new(Erased(Arc::new(service)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

#[deny(clippy::missing_trait_methods)] // A call that is left out would be answered "unimplemented".
#[tonic::async_trait]
impl raft_server::Raft for Erased {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        self.0.append(request).await
    }

    async fn append_stream(
        &self,
        requests: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<AppendAnswers>, Status> {
        self.0.append_stream(requests).await
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        self.0.vote(request).await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        self.0.install_snapshot(request).await
    }
}

fn malformed(error: std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

async fn next_part(parts: &mut Streaming<v1::SnapshotPart>) -> Result<Option<v1::SnapshotPart>, Status> {
    let next = tokio::time::timeout(SNAPSHOT_PATIENCE, parts.try_next()).await;
    next.map_err(|_| Status::deadline_exceeded("the next part of the snapshot does not come"))?
}

impl Own {
    fn check(&self, target: Option<&v1::Target>) -> Result<(), Status> {
        let target = target.ok_or_else(|| Status::invalid_argument("the target is missing"))?;
        if target.cluster[..] != self.cluster {
            return Err(Status::failed_precondition("this member belongs to another cluster"));
        }
        if target.member != self.member {
            return Err(Status::failed_precondition(format!("this is member {}, not {}", self.member, target.member)));
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)] // A call that is left out would be answered "unimplemented".
#[tonic::async_trait]
impl<M: StateMachine> raft_server::Raft for Service<M> {
    async fn append(&self, request: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        let request = request.into_inner();
        self.own.check(request.target.as_ref())?;
        let request = append_from_wire(request).map_err(malformed)?;
        let answer = self.raft.append_entries(request).await.map_err(failed)?;
        Ok(Response::new(answer_to_wire(answer)))
    }

    async fn append_stream(
        &self,
        requests: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<AppendAnswers>, Status> {
        let own = self.own.clone();
        let check = move |target: Option<&v1::Target>| own.check(target);
        Ok(Response::new(append_stream::serve(&self.raft, requests.into_inner(), check)))
    }

    async fn vote(&self, request: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        let request = request.into_inner();
        self.own.check(request.target.as_ref())?;
        let mut rpc = VoteRequest::<Types>::new(
            vote_from_wire(request.vote.as_ref()).map_err(malformed)?,
            request.last.as_ref().map(id_from_wire),
        );
        rpc.leadership_transfer = request.leadership_transfer;
        let answer = if request.pre_vote { self.raft.pre_vote(rpc).await } else { self.raft.vote(rpc).await };
        let answer = answer.map_err(failed)?;
        Ok(Response::new(v1::VoteResponse {
            vote: Some(vote_to_wire(&answer.vote)),
            granted: answer.vote_granted,
            last: answer.last_log_id.as_ref().map(id_to_wire),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let first = next_part(&mut parts).await?.ok_or_else(|| Status::invalid_argument("an empty snapshot"))?;
        let head = first.head.ok_or_else(|| Status::invalid_argument("the first part has no head"))?;
        self.own.check(head.target.as_ref())?;
        let vote = vote_from_wire(head.vote.as_ref()).map_err(malformed)?;
        let unfinished = self.snapshots.unfinished();
        let path = unfinished.path().to_owned();
        let mut file = blocking::run(move || File::create(path)).await.map_err(failed)?.map_err(failed)?;
        let mut next = Some(first.data);
        while let Some(data) = next {
            let writing = move || file.write_all(&data).map(|()| file);
            file = blocking::run(writing).await.map_err(failed)?.map_err(failed)?;
            next = next_part(&mut parts).await?.map(|part| part.data);
        }
        blocking::run(move || file.sync_all()).await.map_err(failed)?.map_err(failed)?;
        let snapshots = self.snapshots.clone();
        let checking = blocking::run(move || snapshots.finished(unfinished));
        let file = checking.await.map_err(failed)?.map_err(malformed)?;
        let snapshot = openraft::storage::Snapshot { meta: file.header().meta.clone(), snapshot: file };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(failed)?;
        Ok(Response::new(v1::SnapshotResponse { vote: Some(vote_to_wire(&answer.vote)) }))
    }
}
