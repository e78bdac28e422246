//! Which commands of records belong to a trace.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::v1;

/// A command that carries the context of its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Traced {
    /// Where it hangs.
    pub trace: v1::TraceContext,
    /// 16 bytes.
    pub execution: Bytes,
    /// What it is.
    pub command: TracedCommand,
}

/// What a command that is traced is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TracedCommand {
    /// An execution begins.
    Submit {
        /// Its namespace.
        namespace: String,
        /// Name of its workflow.
        workflow: String,
    },
    /// An attempt ended.
    Result,
}

/// The traced commands of a record's body; none behind what cannot be read. Only these are decoded: the others are
/// stepped over, and nothing is allocated for them.
pub fn traced_commands(body: &[u8]) -> impl Iterator<Item = Traced> + '_ {
    let commands = fields(body).filter(|(number, _)| *number == COMMANDS).map(|(_, command)| command);
    commands.filter(|command| carries_trace(command)).filter_map(|command| traced(v1::Command::decode(command).ok()?))
}

// Numbers of fields in `bus.proto`, where a number never gets a new meaning. The test below holds them against the
// encoder.
const COMMANDS: u32 = 1;
const SUBMIT: u32 = 1;
const RESULT: u32 = 3;
const TRACE_OF_SUBMIT: u32 = 14;
const TRACE_OF_RESULT: u32 = 4;

fn carries_trace(command: &[u8]) -> bool {
    fields(command).any(|(kind, inner)| {
        let wanted = match kind {
            SUBMIT => TRACE_OF_SUBMIT,
            RESULT => TRACE_OF_RESULT,
            _ => return false,
        };
        fields(inner).any(|(number, _)| number == wanted)
    })
}

/// Numbers and contents of a message's fields that have a length; it ends at what cannot be read.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let (number, kind) = decode_key(&mut message).ok()?;
            if kind != WireType::LengthDelimited {
                skip_field(kind, number, &mut message, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
            let (content, rest) = message.split_at_checked(length)?;
            message = rest;
            return Some((number, content));
        }
        None
    })
}

fn traced(command: v1::Command) -> Option<Traced> {
    match command.kind? {
        v1::command::Kind::Submit(v1::Submit { trace: Some(trace), execution, namespace, workflow, .. }) => {
            Some(Traced { trace, execution, command: TracedCommand::Submit { namespace, workflow } })
        }
        v1::command::Kind::Result(v1::TaskResult { trace: Some(trace), lease: Some(lease), .. }) => {
            Some(Traced { trace, execution: lease.execution, command: TracedCommand::Result })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::{Traced, TracedCommand, traced_commands};
    use crate::v1;
    use crate::v1::command::Kind;

    #[test]
    fn only_commands_with_a_trace_are_named() {
        let trace = v1::TraceContext { trace_id: vec![1; 16].into(), span_id: vec![2; 8].into(), flags: 1 };
        let submit = v1::Submit { namespace: "n".into(), workflow: "w".into(), ..v1::Submit::default() };
        let execution = Bytes::from_static(&[7; 16]);
        let lease = v1::LeaseRef { execution: execution.clone(), ..v1::LeaseRef::default() };
        let result = v1::TaskResult { lease: Some(lease), ..v1::TaskResult::default() };
        let kinds = [
            Kind::Submit(submit.clone()),
            Kind::Submit(v1::Submit { trace: Some(trace.clone()), execution: execution.clone(), ..submit }),
            Kind::Result(result.clone()),
            Kind::Cancel(v1::Cancel::default()),
            Kind::Result(v1::TaskResult { trace: Some(trace.clone()), ..result }),
        ];
        let commands = kinds.into_iter().map(|kind| v1::Command { kind: Some(kind) }).collect();
        let body = v1::CommandBatch { commands }.encode_to_vec();
        let submit = TracedCommand::Submit { namespace: "n".into(), workflow: "w".into() };
        let named = |command| Traced { trace: trace.clone(), execution: execution.clone(), command };
        let all = [named(submit.clone()), named(TracedCommand::Result)];
        assert_eq!(traced_commands(&body).collect::<Vec<_>>(), all);
        // Cut short, it gives what is whole.
        assert_eq!(traced_commands(&body[..body.len() - 1]).collect::<Vec<_>>(), [named(submit)]);
        assert_eq!(traced_commands(b"no record").count(), 0);
        assert_eq!(traced_commands(&[0xff; 64]).count(), 0);
    }
}
