//! What is asked of coordinators while all else runs: a set that only grows, and what a superseded scheduler would propose.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use nova_checker::{Answer, Kind, Operation};
use nova_client::{Coordinators, Repeat};
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two reads.
const READ_EVERY: Duration = Duration::from_millis(700);
/// Pause between two proposals of a superseded scheduler.
const PROPOSE_EVERY: Duration = Duration::from_secs(5);
/// What names of namespaces begin with.
const ADDED: &str = "added-";

/// Nanoseconds of the one clock by which all is noted.
pub type Clock = fn() -> u64;

/// What the client leaves behind.
#[derive(Default)]
pub struct Noted {
    /// All it asked for.
    pub operations: Mutex<Vec<Operation>>,
    /// It has made workflows and triggers.
    pub is_ready: AtomicBool,
    /// It shall ask for nothing new.
    pub stop: AtomicBool,
    /// What it asked for and has no answer.
    pub open: AtomicUsize,
}

/// Reads the namespaces again and again, and notes which are there.
pub async fn read(coordinators: &Coordinators, noted: &Noted, now: Clock) {
    loop {
        sleep(READ_EVERY).await;
        let begun_ns = now();
        let asking = coordinators.call(PATIENCE, Repeat::Read, |mut member| async move {
            member.get_catalogue(v1::GetCatalogueRequest::default()).await
        });
        if let Ok(catalogue) = asking.await {
            let number = |it: v1::Namespace| it.name.strip_prefix(ADDED)?.parse().ok();
            let there = catalogue.namespaces.into_iter().filter_map(number).collect();
            let (kind, answer, ended_ns) = (Kind::Read, Answer::There(there), now());
            noted.operations.lock().push(Operation { begun_ns, ended_ns, kind, answer });
        }
    }
}

/// Proposes what a superseded scheduler would, and notes whether it was taken.
pub async fn propose_as_before(coordinators: &Coordinators, noted: &Noted, now: Clock) {
    loop {
        sleep(PROPOSE_EVERY).await;
        let asking = coordinators
            .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_shards(v1::GetShardsRequest {}).await });
        let shards = asking.await.map_or_else(|_| Vec::new(), |answer| answer.shards);
        for shard in shards {
            let position = shard.position.unwrap_or_default();
            let Some(epoch) = position.epoch.checked_sub(1).filter(|epoch| *epoch > 0) else { continue };
            let proposal = v1::Proposal {
                shard: shard.shard,
                epoch,
                first_offset: position.next_offset,
                next_offset: position.next_offset,
                before: position.before,
                ..Default::default()
            };
            let begun_ns = now();
            let asking = coordinators.call(PATIENCE, Repeat::Never, |mut member| {
                let request = v1::ProposeRequest { request: 1, proposal: Some(proposal.clone()) };
                async move {
                    let mut answers = member.propose(futures::stream::iter([request])).await?.into_inner();
                    Ok(tonic::Response::new(answers.message().await?))
                }
            });
            use v1::{propose_response::Result as Proposed, verdict::Kind as Verdict};
            let answer = match asking.await.ok().flatten().and_then(|answer| answer.result) {
                Some(Proposed::Verdict(v1::Verdict { kind: Some(Verdict::Applied(_)) })) => Answer::Added,
                Some(Proposed::Verdict(_)) => Answer::Rejected { why: "its epoch".into(), conflict: false },
                _ => Answer::Unknown,
            };
            let kind = Kind::OldEpoch(shard.shard, epoch);
            noted.operations.lock().push(Operation { begun_ns, ended_ns: now(), kind, answer });
        }
    }
}

/// Adds a number to the set: a namespace.
pub(crate) async fn added(coordinators: &Coordinators, noted: &Noted, now: Clock, n: u64) {
    let namespace = v1::Namespace { name: format!("{ADDED}{n}"), ..Default::default() };
    let begun_ns = now();
    let asking = coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
        let namespace = namespace.clone();
        async move { member.put_namespace(namespace).await }
    });
    let answer = if asking.await.is_ok() { Answer::Added } else { Answer::Unknown };
    noted.operations.lock().push(Operation { begun_ns, ended_ns: now(), kind: Kind::Add(n), answer });
}
