//! The streams to the leader.

use std::time::Duration;

use nova_client::Coordinators;
use nova_wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Proposals that wait to be sent.
const QUEUE: usize = 64;
const PATIENCE: Duration = Duration::from_secs(2);

/// Streams to one leader; when one of them breaks, all are opened anew.
pub(crate) struct Link {
    coordinators: Coordinators,
    address: String,
    member: nova_client::Member,
    requests: mpsc::Sender<v1::ProposeRequest>,
    answers: Streaming<v1::ProposeResponse>,
    outputs: Option<Streaming<v1::SubscribeResponse>>,
}

/// What came from the leader.
pub(crate) enum FromLeader {
    Answer(v1::ProposeResponse),
    Output(v1::SubscribeResponse),
    Broken(String),
}

impl Link {
    pub(crate) async fn open(coordinators: &Coordinators) -> Result<Self, String> {
        let (address, mut member) = coordinators.leader().map_err(|error| error.to_string())?;
        let (requests, receiver) = mpsc::channel(QUEUE);
        let opening = member.propose(ReceiverStream::new(receiver));
        let answers = match tokio::time::timeout(PATIENCE, opening).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => {
                coordinators.learn(&address, &status);
                return Err(status.to_string());
            }
            Err(_) => {
                coordinators.learn(&address, &Status::unavailable("no answer"));
                return Err(format!("{address} does not answer"));
            }
        };
        Ok(Self { coordinators: coordinators.clone(), address, member, requests, answers, outputs: None })
    }

    /// Subscribes to these shards instead of those before.
    pub(crate) async fn subscribe(&mut self, request: v1::SubscribeRequest) -> Result<(), String> {
        self.outputs = None;
        match tokio::time::timeout(PATIENCE, self.member.subscribe(request)).await {
            Ok(Ok(outputs)) => {
                self.outputs = Some(outputs.into_inner());
                Ok(())
            }
            Ok(Err(status)) => Err(self.broken(&status)),
            Err(_) => Err(self.broken(&Status::unavailable("no answer"))),
        }
    }

    fn broken(&self, status: &Status) -> String {
        self.coordinators.learn(&self.address, status);
        status.to_string()
    }

    /// Hands a proposal over; false when there is no room now.
    pub(crate) fn try_send(&self, request: v1::ProposeRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.requests.capacity() > 0
    }

    /// What comes next; outputs only when `outputs` is set. Safe to cancel.
    pub(crate) async fn next(&mut self, outputs: bool) -> FromLeader {
        let output = async {
            match &mut self.outputs {
                Some(stream) if outputs => stream.message().await,
                _ => std::future::pending().await,
            }
        };
        let status = tokio::select! {
            answer = self.answers.message() => match answer {
                Ok(Some(answer)) => return FromLeader::Answer(answer),
                Ok(None) => Status::unavailable("the stream of proposals ended"),
                Err(status) => status,
            },
            output = output => match output {
                Ok(Some(output)) => return FromLeader::Output(output),
                Ok(None) => Status::unavailable("the subscription ended"),
                Err(status) => status,
            },
        };
        FromLeader::Broken(self.broken(&status))
    }
}
