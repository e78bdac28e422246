//! As much of a scheduler as is needed to have tasks leased: it owns one shard, submits executions to it, and reads whom
//! their tasks were given to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nova_client::{ClientError, Coordinators, Repeat};
use nova_engine::ids::{ExecutionId, ShardId};
use nova_wire::v1;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Error;
use crate::args::Work;
use crate::workflow::Workflow;

const OWNER: u64 = 9;
const NAMESPACE: &str = "default";
const PATIENCE: Duration = Duration::from_secs(30);
/// Submissions in one proposal.
const BATCH: u64 = 500;
/// A shard is held for longer than this without being asked for again.
const HOLD_EVERY: Duration = Duration::from_secs(1);

/// A task in the hands of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leased {
    pub execution: u128,
    pub worker: u32,
    pub token: u64,
    pub at: Instant,
}

/// The owner of a shard.
pub(crate) struct Scheduler {
    coordinators: Coordinators,
    workflow: Workflow,
    hash: Bytes,
    shard: u32,
    epoch: u64,
    position: u64,
    before: u64,
    seen: u64,
    outputs: tonic::Streaming<v1::SubscribeResponse>,
    holding: tokio::task::JoinHandle<()>,
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.holding.abort();
    }
}

fn failed(what: &'static str) -> impl FnOnce(ClientError) -> Error {
    move |source| Error::Coordinator { what, source }
}

impl Scheduler {
    /// Takes a shard of a cluster that has no other scheduler.
    pub(crate) async fn start(coordinators: &Coordinators) -> Result<Self, Error> {
        let workflow = Workflow::chain("s9a", 1, Work::Bare);
        let hash = put(coordinators, &workflow).await?;
        let asking = coordinators.call(PATIENCE, Repeat::Harmless, |mut member| async move {
            member.acquire_shards(v1::AcquireShardsRequest { owner: OWNER, ..Default::default() }).await
        });
        let granted = asking.await.map_err(failed("a shard"))?.granted;
        let granted = granted.into_iter().find_map(|it| Some((it.shard, it.position?)));
        let (shard, position) = granted.ok_or_else(|| Error::Engine { why: "no shard was granted".into() })?;
        let holding = tokio::spawn(hold(coordinators.clone(), shard, position.epoch));
        let (_, mut member) = coordinators.leader().map_err(failed("the leader"))?;
        let shards = vec![v1::SubscribedShard { shard, epoch: position.epoch, after_seq: position.outbox_last }];
        let outputs = member.subscribe(v1::SubscribeRequest { owner: OWNER, shards }).await;
        let outputs = outputs.map_err(|status| failed("the subscription")(ClientError::Refused(status)))?;
        Ok(Self {
            coordinators: coordinators.clone(),
            workflow,
            hash,
            shard,
            epoch: position.epoch,
            position: position.next_offset,
            before: position.before,
            seen: position.outbox_last,
            outputs: outputs.into_inner(),
            holding,
        })
    }

    /// Submits so many executions of one task.
    pub(crate) async fn submit(&mut self, count: u64) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(1);
        let (_, mut member) = self.coordinators.leader().map_err(failed("the leader"))?;
        let refused = |status| failed("a proposal")(ClientError::Refused(status));
        let answers = member.propose(ReceiverStream::new(receiver)).await.map_err(refused)?;
        let mut answers = answers.into_inner();
        let mut number = 0;
        while number < count {
            let batch = BATCH.min(count - number);
            let commands: Vec<_> = (number..number + batch).map(|number| self.command(number)).collect();
            number += batch;
            let proposal = self.proposal(v1::CommandBatch { commands }.encode_to_vec().into());
            let request = v1::ProposeRequest { request: number, proposal: Some(proposal) };
            sender.send(request).await.map_err(|_| Error::Engine { why: "the stream of proposals ended".into() })?;
            let answer = answers.message().await.map_err(refused)?;
            use v1::propose_response::Result as Answer;
            match answer.and_then(|answer| answer.result) {
                Some(Answer::Verdict(v1::Verdict { kind: Some(v1::verdict::Kind::Applied(_)) })) => {}
                other => return Err(Error::Engine { why: format!("a proposal: {other:?}") }),
            }
        }
        Ok(())
    }

    fn command(&self, number: u64) -> v1::Command {
        let execution = ExecutionId::new(ShardId(self.shard as u16), 1_000, number + 1).0;
        let submit = v1::Submit {
            execution: execution.to_be_bytes().to_vec().into(),
            namespace: NAMESPACE.into(),
            workflow: self.workflow.name.clone(),
            version: 1,
            hash: self.hash.clone(),
            input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from_static(b"{}"))) }),
            content_hash: vec![1; 32].into(),
            started_by: "loadtest".into(),
            ..v1::Submit::default()
        };
        v1::Command { kind: Some(v1::command::Kind::Submit(submit)) }
    }

    fn proposal(&mut self, commands: Bytes) -> v1::Proposal {
        let (offset, before) = (self.position, self.before);
        (self.position, self.before) = (offset + 1, offset + 1);
        v1::Proposal {
            shard: self.shard,
            epoch: self.epoch,
            first_offset: offset,
            next_offset: offset + 1,
            before,
            records: vec![v1::CommandRecord { offset, checksum: offset + 1, commands }],
            outbox_acked: self.seen,
            ..v1::Proposal::default()
        }
    }

    /// Waits until so many tasks are leased.
    pub(crate) async fn until_leased(&mut self, count: u64, within: Duration) -> Result<Vec<Leased>, Error> {
        let mut all = Vec::new();
        let reading = async {
            while (all.len() as u64) < count {
                all.extend(self.read().await?);
            }
            Ok(())
        };
        match tokio::time::timeout(within, reading).await {
            Ok(read) => read.map(|()| all),
            Err(_) => Err(Error::Late { what: format!("leases on all of {count} tasks"), within }),
        }
    }

    /// Reads leases until every task of the dead is leased again, and for `after` more. Fewer than all are no error here.
    pub(crate) async fn until_leased_again(
        &mut self,
        leased: &[Leased],
        dead: &BTreeSet<u32>,
        within: Duration,
        after: Duration,
    ) -> Result<Vec<Leased>, Error> {
        let mut lost: BTreeMap<u128, ()> =
            leased.iter().filter(|it| dead.contains(&it.worker)).map(|it| (it.execution, ())).collect();
        let mut again = Vec::new();
        let mut end = Instant::now() + within;
        loop {
            match tokio::time::timeout_at(end.into(), self.read()).await {
                Err(_) => return Ok(again),
                Ok(read) => {
                    let some = !lost.is_empty();
                    for lease in read? {
                        lost.remove(&lease.execution);
                        again.push(lease);
                    }
                    if some && lost.is_empty() {
                        end = Instant::now() + after;
                    }
                }
            }
        }
    }

    /// The next leases.
    async fn read(&mut self) -> Result<Vec<Leased>, Error> {
        let refused = |status| failed("the subscription")(ClientError::Refused(status));
        let output = self.outputs.message().await.map_err(refused)?;
        let output = output.ok_or_else(|| Error::Engine { why: "the subscription ended".into() })?;
        let at = Instant::now();
        let mut leases = Vec::new();
        for shard in output.shards {
            if shard.superseded {
                return Err(Error::Engine { why: "the shard was taken away".into() });
            }
            for item in shard.messages {
                self.seen = self.seen.max(item.seq);
                let message = v1::OutboxMessage::decode(item.message);
                let message = message.map_err(|error| Error::Engine { why: error.to_string() })?;
                if let Some(v1::outbox_message::Body::Assign(v1::Assignment { lease: Some(lease), .. })) = message.body
                {
                    let id: [u8; 16] = lease.execution[..]
                        .try_into()
                        .map_err(|_| Error::Engine { why: "the id of an execution has not 16 bytes".into() })?;
                    let execution = u128::from_be_bytes(id);
                    leases.push(Leased { execution, worker: lease.worker, token: lease.token, at });
                }
            }
        }
        Ok(leases)
    }
}

/// Stores the namespace and the workflow; gives the hash of the workflow.
async fn put(coordinators: &Coordinators, workflow: &Workflow) -> Result<Bytes, Error> {
    let wrong = |why: String| Error::Engine { why };
    let document = nova_model::parse(workflow.document.as_bytes(), "s9a", nova_model::Format::Yaml)
        .map_err(|error| wrong(format!("{error:?}")))?;
    let compiled = nova_model::compile(&document).map_err(|error| wrong(format!("{error:?}")))?;
    let hash = Bytes::from(vec![7; 32]);
    let stored = v1::PutWorkflow {
        namespace: NAMESPACE.into(),
        name: workflow.name.clone(),
        hash: hash.clone(),
        program: Some(nova_wire::program_to_wire(&compiled.program)),
        document: Bytes::from_static(b"{}"),
    };
    let asking = coordinators.call_slow(PATIENCE, Repeat::Harmless, |mut member| {
        let stored = stored.clone();
        async move { member.put_workflow(stored).await }
    });
    match asking.await.map_err(failed("the workflow"))?.result {
        Some(v1::put_response::Result::Applied(_)) => Ok(hash),
        other => Err(wrong(format!("the workflow: {other:?}"))),
    }
}

/// Asks for the shard again and again, which keeps it.
async fn hold(coordinators: Coordinators, shard: u32, epoch: u64) {
    loop {
        tokio::time::sleep(HOLD_EVERY).await;
        let held = vec![v1::HeldShard { shard, epoch, ..Default::default() }];
        let request = v1::AcquireShardsRequest { owner: OWNER, held, ..Default::default() };
        // One that is not answered is tried again; a shard that is lost ends the subscription.
        let _ = coordinators
            .call(PATIENCE, Repeat::Harmless, |mut member| {
                let request = request.clone();
                async move { member.acquire_shards(request).await }
            })
            .await;
    }
}
