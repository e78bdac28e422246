//! Snapshots over slow links and to members that do not answer.

use futures::TryStreamExt;
use nova_wire::raft_v1::raft_server::{Raft, RaftServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::snapshot::{Header, SnapshotDir};
use crate::types::{LeaderId, SnapshotMeta};

const PATIENCE: Duration = Duration::from_secs(2);

/// Takes so many parts of a snapshot, a little after each other, and then no more.
struct Slow {
    parts: usize,
}

#[tonic::async_trait]
impl Raft for Slow {
    async fn append(&self, _: Request<v1::AppendRequest>) -> Result<Response<v1::AppendResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn vote(&self, _: Request<v1::VoteRequest>) -> Result<Response<v1::VoteResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPart>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let mut taken = 0;
        while parts.try_next().await?.is_some() {
            taken += 1;
            if taken > self.parts {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(PATIENCE / 8).await;
        }
        let vote = v1::Vote { term: 1, node: 1, committed: true };
        Ok(Response::new(v1::SnapshotResponse { vote: Some(vote) }))
    }
}

async fn send(parts: usize, receiver: Slow) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens");
    let header = Header { meta: SnapshotMeta::default(), seen: Vec::new() };
    let body = vec![7; parts * PART_BYTES];
    let file = dir.write(&header, |out| out.write_all(&body)).expect("there is space");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = format!("http://{}", listener.local_addr().expect("it has one"));
    let server = tonic::transport::Server::builder().add_service(RaftServer::new(receiver));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut peer = Network { cluster: [1; 16] }.new_client(2, &BasicNode { addr }).await;
    let vote = Vote { leader_id: LeaderId { term: 1, node_id: 1 }, committed: true };
    let snapshot = Snapshot { meta: SnapshotMeta::default(), snapshot: file };
    let sent = peer.full_snapshot(vote, snapshot, std::future::pending(), RPCOption::new(PATIENCE)).await;
    server.abort();
    sent
}

#[tokio::test]
async fn a_snapshot_may_take_longer_than_its_limit_while_it_moves() {
    send(20, Slow { parts: usize::MAX }).await.expect("it arrives");
}

#[tokio::test]
async fn a_snapshot_that_does_not_move_is_given_up() {
    let begun = std::time::Instant::now();
    send(20, Slow { parts: 3 }).await.expect_err("nobody takes it");
    assert!(begun.elapsed() < 10 * PATIENCE);
}
