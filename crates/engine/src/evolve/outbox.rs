//! Messages and the events of executions.

use std::sync::Arc;

use crate::ids::{ExecutionId, Seq, ShardId};
use crate::output::{Answer, ExecutionEvent, ExecutionEvents, Message, MessageBody, Outcome, Rejection};
use crate::payload::Payload;
use crate::state::State;

impl State {
    /// Puts a message into the outbox of a shard and gives its number.
    pub(super) fn post(&mut self, shard: ShardId, body: MessageBody) -> Seq {
        let at = self.now;
        let Some(shard) = self.shard_mut(shard) else { return Seq(0) };
        let seq = Seq(shard.outbox.last().0 + 1);
        shard.outbox.bytes += size_of_body(&body);
        shard.outbox.messages.push_back(Arc::new(Message { seq, at, body }));
        seq
    }

    pub(super) fn on_outbox_acked(&mut self, shard: ShardId, seq: Seq) {
        let Some(shard) = self.shard_mut(shard) else { return };
        let outbox = &mut shard.outbox;
        while outbox.acked < seq {
            let Some(message) = outbox.messages.pop_front() else { break };
            outbox.bytes = outbox.bytes.saturating_sub(size_of_body(&message.body));
            outbox.acked = message.seq;
        }
    }

    /// Notes what happened to an execution; [`State::flush`] makes one message of it per entry.
    pub(crate) fn publish(&mut self, id: ExecutionId, event: ExecutionEvent) {
        let Some(execution) = self.execution_mut(id) else { return };
        execution.events += 1;
        let number = execution.events;
        let namespace = Arc::clone(&execution.workflow.namespace);
        // The last one is nearly always the same execution.
        if let Some(last) = self.pending.last_mut().filter(|last| last.execution == id) {
            last.events.push(event);
        } else if let Some(earlier) = self.pending.iter_mut().rev().take(64).find(|events| events.execution == id) {
            earlier.events.push(event);
        } else {
            let namespace = namespace.as_ref().into();
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
        for events in std::mem::take(&mut self.pending) {
            self.post(events.execution.shard(), MessageBody::Events(events));
        }
    }
}

/// About how much a message weighs, in bytes. Must give the same for the same message, whenever asked.
pub(crate) fn size_of_body(body: &MessageBody) -> u64 {
    let payload = match body {
        MessageBody::Assign(assignment) => size_of_payload(&assignment.with),
        MessageBody::Reply { answer: Answer::Finished { outcome: Outcome::Completed(output), .. }, .. } => {
            size_of_payload(output)
        }
        MessageBody::Events(events) => events
            .events
            .iter()
            .map(|event| match event {
                ExecutionEvent::Accepted { input, .. } => 64 + size_of_payload(input),
                ExecutionEvent::NodeCompleted { output, .. } => 32 + size_of_payload(output),
                ExecutionEvent::VarSet { value, .. } => 16 + size_of_payload(value),
                ExecutionEvent::Ended(Outcome::Completed(output)) => 8 + size_of_payload(output),
                _ => 32,
            })
            .sum(),
        _ => 0,
    };
    64 + payload
}

fn size_of_payload(payload: &Payload) -> u64 {
    match payload {
        Payload::Inline(bytes) => bytes.len() as u64,
        Payload::Stored { .. } => 96,
    }
}
