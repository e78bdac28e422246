//! How much messages weigh: for limits, never for a buffer.

use crate::output::{Answer, ExecutionEvent, MessageBody, Offer, Outcome};
use crate::payload::{Failure, Payload};

impl MessageBody {
    /// About how much it weighs, in bytes: payloads, and something for the rest. The same for the same message, whenever
    /// asked.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let payload = match self {
            Self::Assign(assignment) => payload(&assignment.with),
            Self::Reply { answer: Answer::Finished { outcome: Outcome::Completed(output), .. }, .. } => payload(output),
            Self::Events(events) => events.events.iter().map(ExecutionEvent::bytes).sum(),
            _ => 0,
        };
        64 + payload
    }
}

impl Offer {
    /// About how much it weighs, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let input = self.input.iter().map(payload);
        let nodes = self.nodes.iter().map(|node| 64 + node.output.as_ref().map_or(0, payload));
        let vars = self.vars.iter().map(|(_, value)| 16 + payload(value));
        let raw = self.raw_output.iter().map(payload);
        256 + input.chain(nodes).chain(vars).chain(raw).sum::<u64>()
    }
}

impl ExecutionEvent {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Accepted { input, .. } => 64 + payload(input),
            Self::NodeCompleted { output, .. } => 32 + payload(output),
            Self::VarSet { value, .. } => 16 + payload(value),
            Self::Ended(Outcome::Completed(output)) => 8 + payload(output),
            Self::AttemptFailed { failure: it, .. }
            | Self::NodeFailed { failure: it, .. }
            | Self::Ended(Outcome::Failed(it)) => 32 + failure(it),
            _ => 32,
        }
    }
}

fn failure(failure: &Failure) -> u64 {
    (failure.code.len() + failure.message.len() + failure.detail.as_ref().map_or(0, |detail| detail.len())) as u64
}

pub(crate) fn payload(payload: &Payload) -> u64 {
    match payload {
        Payload::Inline(bytes) => bytes.len() as u64,
        Payload::Stored { .. } => 96,
    }
}
