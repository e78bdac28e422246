//! What a call comes to, by what the members answer. Time stands until all wait for it.

use std::cell::Cell;

use nova_wire::v1;
use tokio_stream::StreamExt;

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn members() -> Coordinators {
    Coordinators::new(["http://a:1", "http://b:1", "http://c:1"].map(String::from).to_vec())
}

/// A call whose tries are answered by `answer`, which is given their number, from 1.
async fn call(repeat: Repeat, answer: impl Fn(u32) -> Option<Result<u32, Status>>) -> (Result<u32, ClientError>, u32) {
    let tries = Cell::new(0);
    let result = members()
        .call(LIMIT, repeat, |_| {
            tries.set(tries.get() + 1);
            let answer = answer(tries.get());
            async move {
                match answer {
                    Some(answer) => answer.map(tonic::Response::new),
                    None => std::future::pending().await,
                }
            }
        })
        .await;
    (result, tries.get())
}

fn broken() -> Status {
    Status::unknown("the connection broke")
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_silent_is_left_for_another() {
    let begun = Instant::now();
    for repeat in [Repeat::Read, Repeat::Harmless] {
        let (result, tries) = call(repeat, |number| (number > 1).then_some(Ok(7))).await;
        assert_eq!((result.expect("the second answers"), tries), (7, 2));
    }
    assert!(begun.elapsed() < LIMIT);
}

#[tokio::test(start_paused = true)]
async fn a_silent_leader_is_forgotten() {
    let members = members();
    members.leads("http://b:1".into());
    let silent = |_: Member| std::future::pending::<Result<tonic::Response<()>, Status>>();
    members.call(LIMIT, Repeat::Never, silent).await.expect_err("nobody answers");
    assert_eq!(members.0.state.lock().leader, None);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_have_been_taken_has_an_unknown_outcome() {
    let silent = |_| None;
    let breaks = |_| Some(Err(broken()));
    // Once it is in doubt, later refusals do not make it certain.
    let then_refused =
        |number| Some(Err(if number == 1 { broken() } else { Status::failed_precondition("no leader") }));
    for result in [
        call(Repeat::Harmless, silent).await.0,
        call(Repeat::Harmless, breaks).await.0,
        call(Repeat::Harmless, then_refused).await.0,
        call(Repeat::Never, silent).await.0,
        call(Repeat::Never, breaks).await.0,
    ] {
        assert!(matches!(result, Err(ClientError::OutcomeUnknown(_))), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_changed_nothing_is_unavailable() {
    let refused = |_| Some(Err(Status::failed_precondition("no leader")));
    let unconnected = |_| Some(Err(Status::unavailable("tcp connect error")));
    for result in [
        call(Repeat::Read, |_| None).await.0,
        call(Repeat::Read, |_| Some(Err(broken()))).await.0,
        call(Repeat::Harmless, refused).await.0,
        call(Repeat::Harmless, unconnected).await.0,
        call(Repeat::Never, refused).await.0,
    ] {
        assert!(matches!(result, Err(ClientError::Unavailable { .. })), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_sent_once() {
    let (_, tries) = call(Repeat::Never, |_| None).await;
    assert_eq!(tries, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_may_take_all_its_time() {
    let answer = |_: Member| async {
        tokio::time::sleep(LIMIT / 2).await;
        Ok(tonic::Response::new(7))
    };
    assert_eq!(members().call_slow(LIMIT, Repeat::Read, answer).await.expect("it is waited for"), 7);
}

/// A member that knows its number, and answers each proposal with a word of its own.
struct Member3;

#[tonic::async_trait]
impl Coordinator for Member3 {
    async fn describe(
        &self,
        _: tonic::Request<v1::DescribeRequest>,
    ) -> Result<tonic::Response<v1::DescribeResponse>, Status> {
        Ok(tonic::Response::new(v1::DescribeResponse { member: 3, ..v1::DescribeResponse::default() }))
    }

    async fn propose(
        &self,
        request: tonic::Request<tonic::Streaming<v1::ProposeRequest>>,
    ) -> Result<tonic::Response<tonic::codegen::BoxStream<v1::ProposeResponse>>, Status> {
        let answers = request.into_inner().map(|request| match request?.request {
            0 => Err(Status::aborted("enough")),
            request => Ok(v1::ProposeResponse { request, result: None }),
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

#[tokio::test]
async fn a_member_in_this_process_is_called_without_a_connection() {
    let here = Coordinators::here(CoordinatorServer::new(Member3));
    let describing = here
        .call(LIMIT, Repeat::Read, |mut member| async move { member.describe(v1::DescribeRequest::default()).await });
    assert_eq!(describing.await.expect("it is there").member, 3);
    // What it does not know of is refused as by any other.
    let refused =
        here.call(LIMIT, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
    assert!(matches!(refused.await, Err(ClientError::Refused(status)) if status.code() == Code::Unimplemented));

    let (_, mut member) = here.leader().expect("there is one");
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = member.propose(requests).await.expect("the stream opens").into_inner();
    for request in [1, 2, 0] {
        sender.send(v1::ProposeRequest { request, proposal: None }).await.expect("it is taken");
        let answer = answers.message().await;
        match request {
            0 => assert_eq!(answer.expect_err("it was too much").code(), Code::Aborted),
            _ => assert_eq!(answer.expect("an answer").expect("one").request, request),
        }
    }
    // Who no longer listens takes what it sends with it.
    drop(answers);
    sender.closed().await;
}
