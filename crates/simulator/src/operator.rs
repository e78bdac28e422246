//! What an operator does about a member whose files are damaged: lets it go, and lets it in again, empty, under a new
//! number, as its log says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nova_client::{Coordinators, Repeat};
use nova_wire::v1;
use tokio::time::sleep;

/// Longest wait for a change of the members.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_secs(1);

/// How far it is.
#[derive(Default)]
pub(crate) struct Steps {
    /// The old number is no member any more.
    pub gone: AtomicBool,
    /// A process runs under the new number.
    pub runs: AtomicBool,
    /// The new number is a member.
    pub done: AtomicBool,
}

/// Has a member replaced; somebody else starts its process when the old one is gone.
pub(crate) async fn replace(coordinators: Coordinators, old: u64, new: v1::Member, steps: Arc<Steps>) {
    loop {
        let going = coordinators.call_slow(PATIENCE, Repeat::Harmless, |mut member| async move {
            member.remove_member(v1::RemoveMemberRequest { id: old }).await
        });
        let gone = |members: &[v1::Member]| members.iter().all(|it| it.id != old);
        if going.await.is_ok_and(|it| gone(&it.members)) || members(&coordinators).await.is_some_and(|it| gone(&it)) {
            break;
        }
        sleep(AGAIN).await;
    }
    steps.gone.store(true, Ordering::Relaxed);
    while !steps.runs.load(Ordering::Relaxed) {
        sleep(AGAIN).await;
    }
    loop {
        let coming = coordinators.call_slow(PATIENCE, Repeat::Harmless, |mut member| {
            let new = new.clone();
            async move { member.add_member(new).await }
        });
        if let Err(error) = coming.await {
            tracing::info!(%error, member = new.id, "the member is let in once more");
        } else {
            break;
        }
        sleep(AGAIN).await;
    }
    steps.done.store(true, Ordering::Relaxed);
}

/// The members, as somebody knows them.
async fn members(coordinators: &Coordinators) -> Option<Vec<v1::Member>> {
    let asking = coordinators.call(AGAIN, Repeat::Read, |mut member| async move {
        // Only the leader answers this, and its members are those that count.
        member.get_shards(v1::GetShardsRequest {}).await?;
        member.describe(v1::DescribeRequest { without_hash: true }).await
    });
    Some(asking.await.ok()?.members)
}
