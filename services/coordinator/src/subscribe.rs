//! Outbox messages and offers, as they come to be (rules 9 and 13).

use std::sync::Arc;

use nova_engine::ids::{Seq, ShardId, Token};
use nova_engine::output::{Message as OutboxMessage, MessageBody, Offer};
use nova_plants::Plant;
use nova_wire::v1;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::machine::View;

/// Messages and offers of one shard in one response.
const AT_ONCE: usize = 256;
/// Bytes of one response, about: what many shards have must not grow over what a receiver takes.
const RESPONSE_BYTES: u64 = 1 << 20;

struct Subscribed {
    shard: ShardId,
    epoch: u64,
    sent: Seq,
    offered: Token,
}

struct Found {
    shard: ShardId,
    superseded: bool,
    messages: Vec<Arc<OutboxMessage>>,
    offers: Vec<Offer>,
}

/// Sends until the receiver is gone. `news` says that shards should be asked for anew.
pub(crate) async fn run(
    view: Arc<View>,
    request: v1::SubscribeRequest,
    mut news: watch::Receiver<u64>,
    out: mpsc::Sender<Result<v1::SubscribeResponse, Status>>,
) {
    let mut changes = view.changes();
    let mut shards: Vec<Subscribed> = request
        .shards
        .iter()
        .map(|it| Subscribed {
            shard: ShardId(it.shard as u16),
            epoch: it.epoch,
            sent: Seq(it.after_seq),
            offered: if nova_plants::is(Plant::OffersForgotten) { last_offered(&view, it.shard) } else { Token(0) },
        })
        .collect();
    loop {
        changes.borrow_and_update();
        let found = look(&view, &mut shards);
        let renew = news.has_changed().unwrap_or_default();
        if found.is_empty() && !renew {
            tokio::select! {
                changed = changes.changed(), if !shards.is_empty() => if changed.is_err() { return },
                changed = news.changed() => if changed.is_err() { return } else { news.mark_changed() },
                () = out.closed() => return,
            }
            continue;
        }
        news.mark_unchanged();
        let shards = found.into_iter().map(to_wire).collect();
        if out.send(Ok(v1::SubscribeResponse { shards, renew })).await.is_err() {
            return;
        }
    }
}

/// The newest offer of a shard.
fn last_offered(view: &View, shard: u32) -> Token {
    let state = view.read();
    let shard = state.shard(ShardId(shard as u16));
    shard.and_then(|shard| shard.offers.last_key_value()).map_or(Token(0), |(token, _)| *token)
}

/// What is new, as far as one response has room. Shards take turns in being the first.
fn look(view: &View, shards: &mut Vec<Subscribed>) -> Vec<Found> {
    let state = view.read();
    let mut all = Vec::new();
    let mut room = RESPONSE_BYTES;
    if !shards.is_empty() {
        shards.rotate_left(1);
    }
    shards.retain_mut(|it| {
        let Some(current) = state.shard(it.shard) else { return false };
        if current.epoch.0 > it.epoch {
            all.push(Found { shard: it.shard, superseded: true, messages: Vec::new(), offers: Vec::new() });
            return false;
        }
        // A member that is behind does not know of the grant yet.
        if current.epoch.0 < it.epoch || room == 0 {
            return true;
        }
        let messages: Vec<_> = if current.outbox.last() > it.sent {
            let new = state.outbox(it.shard, it.sent, AT_ONCE);
            fitting(&mut room, new.cloned(), |message| message.body.bytes())
        } else {
            Vec::new()
        };
        let offers = if current.offers.last_key_value().is_some_and(|(token, _)| *token > it.offered) {
            fitting(&mut room, state.offers(it.shard, it.offered, AT_ONCE), Offer::bytes)
        } else {
            Vec::new()
        };
        if messages.is_empty() && offers.is_empty() {
            return true;
        }
        it.sent = messages.last().map_or(it.sent, |last| last.seq);
        it.offered = offers.last().map_or(it.offered, |last| last.token);
        all.push(Found { shard: it.shard, superseded: false, messages, offers });
        true
    });
    all
}

/// Takes items while there is room; the one that fills it is the last.
fn fitting<T>(room: &mut u64, items: impl IntoIterator<Item = T>, bytes: impl Fn(&T) -> u64) -> Vec<T> {
    let mut taken = Vec::new();
    for item in items {
        if *room == 0 {
            break;
        }
        *room = room.saturating_sub(bytes(&item));
        taken.push(item);
    }
    taken
}

fn to_wire(found: Found) -> v1::ShardOutput {
    let shard = u32::from(found.shard.0);
    let item = |message: &Arc<OutboxMessage>| {
        let (topic, partition) = address(&message.body, shard);
        let message_bytes = nova_wire::message_to_wire(message).encode_to_vec().into();
        v1::OutboxItem { seq: message.seq.0, topic: topic.into(), partition, message: message_bytes }
    };
    v1::ShardOutput {
        shard,
        messages: found.messages.iter().map(item).collect(),
        offers: found.offers.iter().map(nova_wire::offer_to_wire).collect(),
        superseded: found.superseded,
    }
}

/// Topic and partition of a message.
fn address(body: &MessageBody, shard: u32) -> (v1::TopicKind, u32) {
    match body {
        MessageBody::Assign(assignment) => (v1::TopicKind::Tasks, assignment.inbox),
        MessageBody::Revoke { inbox, .. } | MessageBody::StaleToken { inbox, .. } => (v1::TopicKind::Tasks, *inbox),
        MessageBody::Reply { to, .. } => (v1::TopicKind::Replies, to.inbox),
        MessageBody::Events(_) => (v1::TopicKind::Events, shard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_with_the_item_that_fills_it() {
        let mut room = 100;
        assert_eq!(fitting(&mut room, [60, 60, 60], |bytes| *bytes), [60, 60]);
        assert_eq!(fitting(&mut room, [1], |bytes| *bytes), [0; 0]);
    }

    #[test]
    fn a_member_that_is_behind_takes_no_shard_away() {
        let view = View::new(1);
        let ahead = Subscribed { shard: ShardId(0), epoch: 7, sent: Seq(0), offered: Token(0) };
        let mut shards = vec![ahead];
        assert!(look(&view, &mut shards).is_empty());
        assert_eq!(shards.len(), 1, "it waits for the grant");
    }
}
