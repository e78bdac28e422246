//! Requests to other members.

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use nova_host::{Dialer, blocking};
use nova_wire::raft_v1 as v1;
use nova_wire::raft_v1::raft_client::RaftClient;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::append_stream;
use crate::codec::{answer_from_wire, append_to_wire, id_from_wire, id_to_wire, vote_from_wire, vote_to_wire};
use crate::snapshot::SnapshotFile;
use crate::types::{Types, Vote};

/// Bytes per part of a snapshot.
const PART_BYTES: usize = 256 << 10;
/// Largest message between members: a batch of entries.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A snapshot may take as long as it needs, while parts of it are on their way: this is how long nothing may move.
pub(crate) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);
/// The slowest that a member is expected to check and restore a snapshot, in bytes per second.
const RESTORE_BYTES_PER_SECOND: u64 = 10 << 20;

type Snapshot = openraft::alias::SnapshotOf<Types, SnapshotFile>;

pub(crate) struct Network {
    pub cluster: [u8; 16],
    pub dialer: Dialer,
}

pub(crate) struct Peer {
    target: v1::Target,
    client: Result<RaftClient<Channel>, String>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let endpoint = Endpoint::from_shared(node.addr.clone()).map_err(|error| error.to_string());
        let client = endpoint.map(|endpoint| {
            let channel = self.dialer.channel(endpoint.connect_timeout(Duration::from_millis(500)));
            RaftClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        });
        Peer { target: v1::Target { cluster: self.cluster.to_vec().into(), member: target }, client }
    }
}

pub(crate) fn unreachable(why: impl ToString) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(why)))
}

fn broken(error: &std::io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(error))
}

impl Peer {
    fn client(&self) -> Result<RaftClient<Channel>, RPCError<Types>> {
        self.client.clone().map_err(unreachable)
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
        pre_vote: bool,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let request = v1::VoteRequest {
            target: Some(self.target.clone()),
            vote: Some(vote_to_wire(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(id_to_wire),
            leadership_transfer: rpc.leadership_transfer,
            pre_vote,
        };
        let mut client = self.client()?;
        let answer = bounded(option, client.vote(request)).await?;
        Ok(VoteResponse {
            vote: vote_from_wire(answer.vote.as_ref()).map_err(|error| broken(&error))?,
            vote_granted: answer.granted,
            last_log_id: answer.last.as_ref().map(id_from_wire),
        })
    }
}

async fn bounded<T>(
    option: RPCOption,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, RPCError<Types>> {
    match tokio::time::timeout(option.hard_ttl(), call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(unreachable(status)),
        Err(_) => Err(unreachable("no answer in time")),
    }
}

/// The next part of a file; nothing at its end.
fn next_part(mut file: File) -> (File, Vec<u8>) {
    let mut buffer = vec![0; PART_BYTES];
    let read = file.read(&mut buffer).unwrap_or(0);
    buffer.truncate(read);
    (file, buffer)
}

/// Ends when nothing moved for `patience`, or no answer came within `restoring` after the last part.
async fn stalled(mut moves: watch::Receiver<()>, patience: Duration, restoring: Duration) {
    while let Ok(moved) = tokio::time::timeout(patience, moves.changed()).await {
        if moved.is_err() {
            return tokio::time::sleep(restoring).await;
        }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let request = append_to_wire(self.target.clone(), &rpc).map_err(|error| broken(&error))?;
        let mut client = self.client()?;
        let answer = bounded(option, client.append(request)).await?;
        answer_from_wire(answer).map_err(|error| broken(&error))
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let (client, target) = (self.client(), self.target.clone());
        // openraft's limit is meant for one request; here several may share the follower's disk.
        Box::pin(async move { append_stream::open(client?, target, input, 4 * option.hard_ttl()).await })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(rpc, option, false).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(rpc, option, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let gone = |why: String| StreamingError::Unreachable(Unreachable::new(&AnyError::error(why)));
        let path = snapshot.snapshot.path().to_owned();
        let opening = move || File::open(path).and_then(|file| file.metadata().map(|about| (file, about.len())));
        let opened = blocking::run(opening).await.map_err(|error| gone(error.to_string()))?;
        let (file, bytes) = opened.map_err(|error| gone(error.to_string()))?;
        let head = v1::SnapshotHead { target: Some(self.target.clone()), vote: Some(vote_to_wire(&vote)) };
        let first = v1::SnapshotPart { head: Some(head), data: bytes::Bytes::new() };
        let (moved, moves) = watch::channel(());
        let rest = futures::stream::unfold((file, moved), |(file, moved)| async move {
            // A file that cannot be read ends the stream early; the receiver finds it cut short.
            let (file, data) = blocking::run(move || next_part(file)).await.ok()?;
            moved.send_replace(());
            (!data.is_empty()).then(|| (v1::SnapshotPart { head: None, data: data.into() }, (file, moved)))
        });
        let parts = futures::stream::iter([first]).chain(rest);
        let mut client = self.client.clone().map_err(gone)?;
        let patience = option.hard_ttl();
        let restoring = patience + Duration::from_secs(bytes / RESTORE_BYTES_PER_SECOND);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            () = stalled(moves, patience, restoring) => Err(gone("the snapshot does not move".into())),
            answer = client.install_snapshot(parts) => {
                let answer = answer.map_err(|status| gone(status.to_string()))?;
                let vote = vote_from_wire(answer.into_inner().vote.as_ref()).map_err(|error| gone(error.to_string()))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
