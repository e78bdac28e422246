//! Entries on their way to another member, several requests at once.
//!
//! One stream of requests and one of answers, both in order: the follower syncs what has come while more is on its way,
//! so a sync serves all of it, and no request waits for the answer to the one before.

use std::collections::VecDeque;
use std::time::Duration;

use futures::channel::mpsc;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use nova_wire::raft_v1 as v1;
use nova_wire::raft_v1::raft_client::RaftClient;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::codec::{answer_from_wire, answer_to_wire, append_from_wire, append_to_wire};
use crate::machine::StateMachine;
use crate::network::unreachable;
use crate::types::{LogId, Raft, Types};

/// Requests without an answer, per follower: enough that neither its disk nor the link is ever idle.
const IN_FLIGHT: usize = 8;

type Answers = BoxStream<'static, Result<StreamAppendResult<Types>, RPCError<Types>>>;

/// What one request, of those without an answer, covers.
struct Sent {
    prev: Option<LogId>,
    last: Option<LogId>,
}

struct Session<S> {
    target: v1::Target,
    /// Dropped with the session, which is what makes the next one possible: openraft lends it out once.
    input: Option<S>,
    requests: mpsc::Sender<v1::AppendRequest>,
    answers: Streaming<v1::AppendResponse>,
    sent: VecDeque<Sent>,
    patience: Duration,
    /// When the follower was last heard, or asked while nothing else was open.
    moved: Instant,
}

/// Sends the requests of `input` and gives the answers, in order. `patience` is how long the follower may be silent
/// while it owes an answer.
pub(crate) async fn open<S>(
    mut client: RaftClient<Channel>,
    target: v1::Target,
    mut input: S,
    patience: Duration,
) -> Result<Answers, RPCError<Types>>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
    let (mut requests, outgoing) = mpsc::channel(IN_FLIGHT);
    let mut sent = VecDeque::with_capacity(IN_FLIGHT);
    // The first request goes with the call: a stream of one request costs one round trip.
    hand_over(&mut requests, &mut sent, &target, &first)?;
    let opening = client.append_stream(outgoing);
    let opened = tokio::time::timeout(patience, opening).await.map_err(|_| unreachable("no answer in time"))?;
    let answers = opened.map_err(unreachable)?.into_inner();
    let input = Some(input);
    let session = Session { target, input, requests, answers, sent, patience, moved: Instant::now() };
    let answers = futures::stream::unfold(Some(session), |session| async {
        let mut session = session?;
        match session.next().await {
            Ok(Some(answer)) => {
                let goes_on = answer.is_ok();
                Some((Ok(answer), goes_on.then_some(session)))
            }
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(answers.boxed())
}

fn hand_over(
    requests: &mut mpsc::Sender<v1::AppendRequest>,
    sent: &mut VecDeque<Sent>,
    target: &v1::Target,
    request: &AppendEntriesRequest<Types>,
) -> Result<(), RPCError<Types>> {
    let prev = request.prev_log_id;
    sent.push_back(Sent { prev, last: request.entries.last().map(|entry| entry.log_id).or(prev) });
    let request = append_to_wire(target.clone(), request).map_err(unreachable)?;
    // There is room for as many as may be without an answer.
    requests.try_send(request).map_err(|_| unreachable("the stream has ended"))
}

impl<S> Session<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    /// The next answer; none once all requests are answered and there are no more.
    async fn next(&mut self) -> Result<Option<StreamAppendResult<Types>>, RPCError<Types>> {
        loop {
            if self.sent.is_empty() && self.input.is_none() {
                return Ok(None);
            }
            let may_send = self.sent.len() < IN_FLIGHT;
            let request = async {
                match &mut self.input {
                    Some(input) if may_send => input.next().await,
                    _ => std::future::pending().await,
                }
            };
            let waits = !self.sent.is_empty();
            tokio::select! {
                answer = self.answers.message() => return self.answered(answer).map(Some),
                request = request => match request {
                    None => self.input = None,
                    Some(request) => {
                        if self.sent.is_empty() {
                            self.moved = Instant::now();
                        }
                        hand_over(&mut self.requests, &mut self.sent, &self.target, &request)?;
                    }
                },
                () = tokio::time::sleep_until(self.moved + self.patience), if waits => {
                    return Err(unreachable("no answer in time"));
                }
            }
        }
    }

    fn answered(
        &mut self,
        answer: Result<Option<v1::AppendResponse>, Status>,
    ) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
        self.moved = Instant::now();
        let answer = answer.map_err(unreachable)?.ok_or_else(|| unreachable("the stream has ended"))?;
        let sent = self.sent.pop_front().ok_or_else(|| unreachable("an answer to nothing"))?;
        let answer = answer_from_wire(answer).map_err(unreachable)?;
        Ok(answer.into_stream_result(sent.prev, sent.last))
    }
}

/// The other end: appends what comes and answers once it is synced.
pub(crate) fn serve<M: StateMachine>(
    raft: &Raft<M>,
    requests: Streaming<v1::AppendRequest>,
    check: impl Fn(Option<&v1::Target>) -> Result<(), Status> + Send + 'static,
) -> BoxStream<'static, Result<v1::AppendResponse, Status>> {
    let (refuse, refused) = mpsc::channel(1);
    let accepted = requests.map(move |request| {
        let request = request?;
        check(request.target.as_ref())?;
        append_from_wire(request).map_err(|error| Status::invalid_argument(error.to_string()))
    });
    // The first request that is refused ends the stream, behind the answers to those before it.
    let accepted = accepted.scan(refuse, |refuse, request: Result<_, Status>| {
        let request = request.map_err(|status| refuse.try_send(status)).ok();
        futures::future::ready(request)
    });
    let answers = raft.stream_append(accepted).map_err(|fatal| Status::unavailable(fatal.to_string()));
    let answers = answers.map_ok(|answer| answer_to_wire(answer.into()));
    answers.chain(refused.map(Err)).boxed()
}
