//! Snapshots over slow links and to members that do not answer.

use futures::TryStreamExt;
use nova_wire::raft_v1::raft_server::{Raft, RaftServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::snapshot::{Header, SnapshotDir};
use crate::types::{LeaderId, SnapshotMeta};

const PATIENCE: Duration = Duration::from_secs(2);

/// Takes so many parts of a snapshot, a little after each other, and then no more. Answers so many requests to append
/// once it has all of them.
struct Slow {
    parts: usize,
}

#[tonic::async_trait]
impl Raft for Slow {
    async fn append_stream(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<BoxStream<'static, Result<v1::AppendResponse, Status>>>, Status> {
        let (mut requests, wanted) = (request.into_inner(), self.parts);
        let answers = async move {
            for _ in 0..wanted {
                requests.try_next().await?;
            }
            let success = v1::AppendResponse { result: Some(v1::append_response::Result::Success(true)) };
            Ok::<_, Status>(futures::stream::iter(vec![Ok(success); wanted]))
        };
        Ok(Response::new(futures::stream::once(answers).try_flatten().boxed()))
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

async fn connect(receiver: Slow) -> (Peer, tokio::task::JoinHandle<Result<(), tonic::transport::Error>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = format!("http://{}", listener.local_addr().expect("it has one"));
    let server = tonic::transport::Server::builder().add_service(RaftServer::new(receiver));
    let server = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let peer = Network { cluster: [1; 16], dialer: nova_host::Dialer::Tcp }.new_client(2, &BasicNode { addr }).await;
    (peer, server)
}

async fn send(parts: usize, receiver: Slow) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens");
    let header = Header { meta: SnapshotMeta::default(), seen: Vec::new() };
    let body = vec![7; parts * PART_BYTES];
    let file = dir.write(&header, |out| out.write_all(&body)).expect("there is space");
    let (mut peer, server) = connect(receiver).await;
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

/// Sends three requests, then no more and no end, and gives what was answered.
async fn append(receiver: Slow) -> Vec<Result<StreamAppendResult<Types>, RPCError<Types>>> {
    let (mut peer, server) = connect(receiver).await;
    let vote = Vote { leader_id: LeaderId { term: 1, node_id: 1 }, committed: true };
    let request = move |n| {
        let prev_log_id = Some(crate::types::log_id(1, 1, n));
        AppendEntriesRequest { vote, prev_log_id, entries: vec![crate::suite::entry(1, n + 1)], leader_commit: None }
    };
    let input = futures::stream::iter((1..=3).map(request)).chain(futures::stream::pending());
    let answers = peer.stream_append(input, RPCOption::new(PATIENCE / 4)).await.expect("it connects");
    let answers = answers.take(3).collect().await;
    server.abort();
    answers
}

#[tokio::test]
async fn requests_do_not_wait_for_the_answers_to_those_before() {
    let answers = append(Slow { parts: 3 }).await;
    let expected = (2..=4).map(|n| Ok(Some(crate::types::log_id(1, 1, n))));
    assert_eq!(
        answers.into_iter().map(|answer| answer.expect("an answer")).collect::<Vec<_>>(),
        expected.collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_follower_that_does_not_answer_is_given_up() {
    let answers = append(Slow { parts: 4 }).await;
    assert!(matches!(answers[..], [Err(RPCError::Unreachable(_))]), "{answers:?}");
}
