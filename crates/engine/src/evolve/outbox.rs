//! Messages and the events of executions.

use std::sync::Arc;

use crate::ids::{ExecutionId, Seq, ShardId};
use crate::output::{ExecutionEvent, ExecutionEvents, Message, MessageBody, Rejection};
use crate::state::State;

/// Payload of the events in one message. What a record of the bus may hold is four times as much, so that what
/// is not counted here, labels and names, finds room.
const MESSAGE_BYTES: u64 = 256 << 10;

impl State {
    /// Puts a message into the outbox of a shard and gives its number.
    pub(super) fn post(&mut self, shard: ShardId, body: MessageBody) -> Seq {
        let at = self.now;
        let Some(shard) = self.shard_mut(shard) else { return Seq(0) };
        let seq = Seq(shard.outbox.last().0 + 1);
        shard.outbox.bytes += body.bytes();
        shard.outbox.messages.push_back(Arc::new(Message { seq, at, body }));
        seq
    }

    pub(super) fn on_outbox_acked(&mut self, shard: ShardId, seq: Seq) {
        let Some(shard) = self.shard_mut(shard) else { return };
        let outbox = &mut shard.outbox;
        while outbox.acked < seq {
            let Some(message) = outbox.messages.pop_front() else { break };
            outbox.bytes = outbox.bytes.saturating_sub(message.body.bytes());
            outbox.acked = message.seq;
        }
    }

    /// Notes what happened to an execution; [`State::flush`] makes one message of it per entry.
    pub(crate) fn publish(&mut self, id: ExecutionId, event: ExecutionEvent) {
        let shard = self.shards.get_mut(usize::from(id.shard().0)).map(Arc::make_mut);
        let Some(execution) = shard.and_then(|shard| shard.executions.live_mut(id)) else { return };
        execution.events += 1;
        let number = execution.events;
        // Where its events of this entry are, if it has any; what stands there otherwise is another's.
        let at = execution.pending.0 as usize;
        if let Some(earlier) = self.pending.get_mut(at).filter(|events| events.execution == id) {
            earlier.events.push(event);
        } else {
            execution.pending.0 = self.pending.len() as u32;
            let namespace = execution.workflow.namespace.as_ref().into();
            self.pending.push(ExecutionEvents { execution: id, namespace, first_number: number, events: vec![event] });
        }
    }

    /// A submission that was refused leaves one event under its own id.
    pub(super) fn on_submission_rejected(&mut self, id: ExecutionId, namespace: Box<str>, why: Rejection) {
        let events = vec![ExecutionEvent::Rejected(why)];
        self.pending.push(ExecutionEvents { execution: id, namespace, first_number: 1, events });
    }

    /// Makes messages of what was published.
    pub(crate) fn flush(&mut self) {
        for mut events in std::mem::take(&mut self.pending) {
            while let Some(rest) = cut(&mut events) {
                let first = std::mem::replace(&mut events, rest);
                self.post(first.execution.shard(), MessageBody::Events(first));
            }
            self.post(events.execution.shard(), MessageBody::Events(events));
        }
    }
}

/// Takes off what is more than one message may hold, if there is more.
fn cut(events: &mut ExecutionEvents) -> Option<ExecutionEvents> {
    let mut bytes = 0;
    let over = events.events.iter().position(|event| {
        bytes += event.bytes();
        bytes > MESSAGE_BYTES
    });
    // One event alone is never too large: payloads are small or stored elsewhere.
    let at = over?.max(1);
    if at == events.events.len() {
        return None;
    }
    let rest = events.events.split_off(at);
    let first_number = events.first_number + at as u64;
    Some(ExecutionEvents {
        execution: events.execution,
        namespace: events.namespace.clone(),
        first_number,
        events: rest,
    })
}
