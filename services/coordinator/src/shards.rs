//! Which scheduler may have which shard. A lease only decides when a shard is given away; the epoch in the log decides
//! what is safe (rule 14). So what is likely is good enough: an owner whose stream broke, and who does not open another at
//! once, is taken for dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_engine::ids::ShardId;
use nova_replication::Group;
use nova_wire::v1;
use tokio::sync::{Mutex, watch};
use tonic::Status;

use crate::machine::{EngineMachine, View};
use crate::proposer::Proposer;
use crate::status;

/// An owner without a stream comes back within this time, if it lives.
const AWAY: Duration = Duration::from_millis(500);
/// As long an owner that lives needs to find a new leader, at most.
const UNHEARD: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct ShardLeases {
    group: Group<EngineMachine>,
    view: Arc<View>,
    proposer: Proposer,
    lease: Duration,
    table: Arc<Mutex<Table>>,
    /// Changes when an owner may get shards, or should give some back, and does not know it.
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Table {
    term: u64,
    owners: BTreeMap<u64, Instant>,
    /// Streams of each owner, and since when those have none that had one.
    links: BTreeMap<u64, u32>,
    away: BTreeMap<u64, Instant>,
    until: BTreeMap<u16, (u64, Instant)>,
    progress: BTreeMap<u16, (u64, u64)>,
}

impl ShardLeases {
    pub(crate) fn new(group: Group<EngineMachine>, view: Arc<View>, proposer: Proposer, lease_ms: u64) -> Self {
        let (table, news) = (Arc::default(), watch::Sender::new(0));
        Self { group, view, proposer, lease: Duration::from_millis(lease_ms), table, news }
    }

    /// An owner opened a stream, which tells it the news.
    pub(crate) async fn linked(&self, owner: u64) -> watch::Receiver<u64> {
        let mut table = self.table.lock().await;
        *table.links.entry(owner).or_default() += 1;
        table.away.remove(&owner);
        // What was told while it had none is told now.
        let mut news = self.news.subscribe();
        news.mark_changed();
        news
    }

    /// A stream of an owner ended. Should it have no other soon, the rest is told that its shards are free.
    pub(crate) async fn unlinked(&self, owner: u64) {
        let since = Instant::now();
        if !self.table.lock().await.unlink(owner, since) {
            return;
        }
        tokio::time::sleep(AWAY).await;
        let table = self.table.lock().await;
        if table.away.get(&owner) == Some(&since) && table.owners.contains_key(&owner) {
            tracing::info!(owner, "a scheduler is gone; its shards are free");
            self.tell();
        }
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Renews what the owner holds and gives it more, up to its fair share.
    pub(crate) async fn acquire(&self, request: v1::AcquireShardsRequest) -> Result<v1::AcquireShardsResponse, Status> {
        self.group.confirm_leadership(Duration::from_secs(2)).await.map_err(status::read)?;
        let (leads, term) = {
            let status = self.group.status();
            let status = status.borrow();
            (status.leads(), status.term)
        };
        if !leads {
            return Err(Status::unavailable("the leader is not ready"));
        }
        let mut table = self.table.lock().await;
        let now = Instant::now();
        table.begin_term(term, &self.view, now + self.lease.min(UNHEARD));
        table.forget_absent(now, self.lease);
        if request.leaving {
            table.owners.remove(&request.owner);
            table.until.retain(|_, (owner, _)| *owner != request.owner);
            self.tell();
            return Ok(v1::AcquireShardsResponse { lease_ms: self.lease.as_millis() as u64, ..Default::default() });
        }
        let is_new = table.owners.insert(request.owner, now).is_none();
        if is_new || !request.give_back.is_empty() {
            self.tell();
        }
        let lost = table.renew(&request, &self.view, now + self.lease);
        for shard in &request.give_back {
            table.until.remove(&(*shard as u16));
        }
        let (wanted, wanted_back) = table.balance(request.owner, self.view.read().config.shards, now);
        let granted = self.grant(request.owner, &wanted).await?;
        for shard in &granted {
            table.until.insert(shard.shard as u16, (request.owner, now + self.lease));
        }
        let lease_ms = self.lease.as_millis() as u64;
        Ok(v1::AcquireShardsResponse { granted, lost, wanted_back, lease_ms })
    }

    async fn grant(&self, owner: u64, shards: &[u16]) -> Result<Vec<v1::GrantedShard>, Status> {
        let mut pending = Vec::with_capacity(shards.len());
        for shard in shards {
            let Some(epoch) = self.view.read().shard(ShardId(*shard)).map(|it| it.epoch.0) else { continue };
            let grant = v1::Grant { shard: u32::from(*shard), after: epoch, owner };
            pending.push((*shard, self.proposer.hand_over(v1::entry_body::Kind::Grant(grant)).await));
        }
        let mut granted = Vec::with_capacity(pending.len());
        for (shard, verdict) in pending {
            let verdict = verdict.wait().await.map_err(status::no_verdict)?;
            if let Some(v1::verdict::Kind::Applied(v1::Applied { kind: Some(v1::applied::Kind::Granted(position)) })) =
                verdict.kind
            {
                granted.push(v1::GrantedShard { shard: u32::from(shard), position: Some(position) });
            }
        }
        Ok(granted)
    }

    /// Records that the owner of a shard has still to read, as it last said.
    pub(crate) async fn lag(&self, shard: u16) -> u64 {
        self.table.lock().await.progress.get(&shard).map_or(0, |(read, end)| end.saturating_sub(*read))
    }
}

impl Table {
    /// A new leader knows nobody: each owner in the state keeps what it has until it should have been heard of.
    fn begin_term(&mut self, term: u64, view: &View, until: Instant) {
        if self.term == term {
            return;
        }
        let state = view.read();
        let owned = state.shards.iter().filter_map(|shard| Some((shard.id.0, (shard.owner?.0, until))));
        // Streams are those of this process. Who had none while another led is not away: it was linked there.
        let links = std::mem::take(&mut self.links);
        *self = Self { term, until: owned.collect(), links, ..Self::default() };
    }

    /// Whether that was the last stream of the owner.
    fn unlink(&mut self, owner: u64, now: Instant) -> bool {
        let left = self.links.get(&owner).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            self.links.insert(owner, left);
            return false;
        }
        self.links.remove(&owner);
        self.away.insert(owner, now);
        true
    }

    /// Forgets owners that have not renewed for a lease, or have lost their streams.
    fn forget_absent(&mut self, now: Instant, lease: Duration) {
        let away = &self.away;
        let is_away = |owner: &u64| away.get(owner).is_some_and(|since| now.duration_since(*since) >= AWAY);
        self.owners.retain(|owner, seen| now.duration_since(*seen) < lease && !is_away(owner));
        self.until.retain(|_, (owner, _)| !is_away(owner));
        self.away.retain(|_, since| now.duration_since(*since) < lease);
    }

    fn renew(&mut self, request: &v1::AcquireShardsRequest, view: &View, until: Instant) -> Vec<u32> {
        // It asks again only after it has read the last answer: what it does not name it does not have.
        let named: BTreeSet<u32> = request.held.iter().map(|held| held.shard).collect();
        self.until.retain(|shard, (owner, _)| *owner != request.owner || named.contains(&u32::from(*shard)));
        let state = view.read();
        let mut lost = Vec::new();
        for held in &request.held {
            let number = held.shard as u16;
            let current = state.shard(ShardId(number));
            let own = |it: &&nova_engine::state::Shard| {
                it.epoch.0 == held.epoch && it.owner.is_some_and(|owner| owner.0 == request.owner)
            };
            if current.filter(own).is_some() {
                self.until.insert(number, (request.owner, until));
                self.progress.insert(number, (held.read_offset, held.end_offset));
            } else {
                lost.push(held.shard);
            }
        }
        lost
    }

    /// Shards to give to `owner` now, and shards of it that others should have.
    fn balance(&self, owner: u64, shards: u16, now: Instant) -> (Vec<u16>, Vec<u32>) {
        let share = usize::from(shards).div_ceil(self.owners.len().max(1));
        let alive = |(_, (who, until)): &(&u16, &(u64, Instant))| *who == owner && *until > now;
        let held: BTreeSet<u16> = self.until.iter().filter(alive).map(|(shard, _)| *shard).collect();
        let free = |shard: &u16| self.until.get(shard).is_none_or(|(_, until)| *until <= now);
        let wanted = (0..shards).filter(free).take(share.saturating_sub(held.len())).collect();
        let too_many = held.len().saturating_sub(share);
        let wanted_back = held.iter().rev().take(too_many).map(|shard| u32::from(*shard)).collect();
        (wanted, wanted_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(5);

    fn table(owners: &[u64], now: Instant) -> Table {
        Table { owners: owners.iter().map(|owner| (*owner, now)).collect(), ..Table::default() }
    }

    #[test]
    fn a_lease_that_is_over_is_no_part_of_the_share() {
        let now = Instant::now();
        let mut table = table(&[1, 2], now);
        table.until.extend((0..4).map(|shard| (shard, (1, now))));
        table.until.extend((4..8).map(|shard| (shard, (2, now + LEASE))));
        assert_eq!(table.balance(1, 8, now), (vec![0, 1, 2, 3], vec![]));
        assert_eq!(table.balance(2, 8, now), (vec![], vec![]), "it has its share");
        table.owners.remove(&1);
        assert_eq!(table.balance(2, 8, now), (vec![0, 1, 2, 3], vec![]));
    }

    #[test]
    fn an_owner_without_a_stream_is_away_unless_it_opens_another() {
        let now = Instant::now();
        let mut table = table(&[1, 2], now);
        table.until.extend((0..8).map(|shard| (shard, (1, now + LEASE))));
        table.links.insert(1, 2);
        assert!(!table.unlink(1, now), "it has another");
        table.forget_absent(now + AWAY, LEASE);
        assert!(table.owners.contains_key(&1));
        assert!(table.unlink(1, now));
        table.forget_absent(now + AWAY - Duration::from_millis(1), LEASE);
        assert_eq!(table.balance(2, 8, now), (vec![], vec![]), "it may still come back");
        table.forget_absent(now + AWAY, LEASE);
        assert_eq!(table.balance(2, 8, now), ((0..8).collect(), vec![]));
        table.forget_absent(now + LEASE, LEASE);
        assert!(table.away.is_empty(), "nobody is remembered for ever");
    }

    #[test]
    fn who_was_linked_to_another_leader_is_not_away() {
        let now = Instant::now();
        let (view, mut table) = (View::new(8), table(&[1, 2], now));
        assert!(table.unlink(1, now), "it follows the leadership");
        table.begin_term(7, &view, now + UNHEARD);
        table.until.extend((0..8).map(|shard| (shard, (1, now + UNHEARD))));
        table.forget_absent(now + AWAY, LEASE);
        assert_eq!(table.balance(2, 8, now + AWAY), (vec![], vec![]), "it may still be heard of");
    }

    #[test]
    fn what_an_owner_does_not_name_it_does_not_have() {
        let now = Instant::now();
        let (view, mut table) = (View::new(8), table(&[1, 2], now));
        table.until.extend((0..8).map(|shard| (shard, (1, now + LEASE))));
        let nothing_held = v1::AcquireShardsRequest { owner: 1, ..Default::default() };
        assert!(table.renew(&nothing_held, &view, now + LEASE).is_empty());
        assert_eq!(table.balance(2, 8, now), (vec![0, 1, 2, 3], vec![]), "nothing is held back for it");
    }

    #[test]
    fn an_owner_with_more_than_its_share_is_asked_for_the_rest() {
        let now = Instant::now();
        let mut table = table(&[1, 2], now);
        table.until.extend((0..8).map(|shard| (shard, (1, now + LEASE))));
        assert_eq!(table.balance(1, 8, now), (vec![], vec![7, 6, 5, 4]));
    }
}
