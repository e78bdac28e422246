//! Contexts that messages carry.

use bytes::Bytes;
use nova_wire::{TracedCommand, v1};

use super::{Context, Side, Span, keys};

impl Context {
    /// What a message carries; none when it carries nothing, or nothing that is sampled.
    #[must_use]
    pub fn carried(by: Option<&v1::TraceContext>) -> Option<Self> {
        by.and_then(|it| Self::from_bytes(&it.trace_id, &it.span_id, it.flags))
    }
}

impl From<Context> for v1::TraceContext {
    fn from(context: Context) -> Self {
        Self {
            trace_id: Bytes::copy_from_slice(&context.trace_id()),
            span_id: Bytes::copy_from_slice(&context.span_id()),
            flags: context.flags(),
        }
    }
}

/// An id of an execution as people see it.
#[must_use]
pub fn execution_id(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Begins a span for each traced command of records, given their bodies. None, and nothing is looked at, when this
/// process sends no spans; an empty `Vec` costs nothing, and neither does a command that is not traced.
pub fn of_commands<'a>(name: &'static str, bodies: impl IntoIterator<Item = &'a Bytes>) -> Vec<Span> {
    if !super::enabled() {
        return Vec::new();
    }
    let traced = bodies.into_iter().flat_map(|body| nova_wire::traced_commands(body));
    let spans = traced.filter_map(|it| {
        let mut span = Span::begin(name, Side::Internal, Context::carried(Some(&it.trace))?)?;
        span.set(keys::EXECUTION, execution_id(&it.execution));
        match it.command {
            TracedCommand::Submit { namespace, workflow } => {
                span.set(keys::COMMAND, "submit");
                span.set(keys::NAMESPACE, namespace);
                span.set(keys::WORKFLOW, workflow);
            }
            TracedCommand::Result => span.set(keys::COMMAND, "result"),
        }
        Some(span)
    });
    spans.collect()
}

#[cfg(test)]
mod tests {
    use nova_wire::v1;

    use super::{Context, execution_id, of_commands};

    #[test]
    fn a_context_comes_back_from_a_message() {
        let carried = v1::TraceContext { trace_id: vec![1; 16].into(), span_id: vec![2; 8].into(), flags: 1 };
        let context = Context::carried(Some(&carried)).unwrap();
        assert_eq!(v1::TraceContext::from(context), carried);
        assert_eq!(Context::carried(Some(&v1::TraceContext { flags: 0, ..carried })), None);
        assert_eq!(Context::carried(None), None);
        assert_eq!(execution_id(&[0, 171]), "00ab");
    }

    #[test]
    fn nothing_is_looked_at_when_tracing_is_off() {
        let asked = std::iter::from_fn(|| panic!("a record is looked at"));
        assert!(of_commands("propose", asked).is_empty());
    }
}
