//! Spans of sampled executions.
//!
//! An execution carries the context of the span that accepted it, through the bus, the log and the state of the
//! cluster, so its spans come from many processes and long after one another. No span here is ever entered: each is made
//! with the context it hangs on and ends when it is dropped. Code that knows nothing of executions makes spans with
//! `tracing` and target [`TARGET`]; run [`within`] a context, they hang on it. What is not traced costs the look at an `Option` or at
//! [`enabled`].

mod messages;

use std::sync::OnceLock;

use opentelemetry::trace::{
    FutureExt, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};

pub use messages::{execution_id, of_commands};

/// Target of spans made in `tracing` that belong to an execution.
pub const TARGET: &str = "nova_trace";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Names of spans: the service that makes them, and what it does.
pub mod names {
    /// The api takes a submission: from its request to its answer.
    pub const SUBMIT: &str = "api.submit";
    /// A trigger starts an execution: until its submission is durable.
    pub const FIRE: &str = "trigger.fire";
    /// The scheduler hands a record with a command of the execution to the coordinator: until the verdict.
    pub const PROPOSE: &str = "scheduler.propose";
    /// The leader hands an entry with a command of the execution to the log: until it is applied.
    pub const COMMIT: &str = "coordinator.commit";
    /// The scheduler evaluates what a node's expressions come to.
    pub const EVALUATE: &str = "scheduler.evaluate";
    /// A worker runs an attempt.
    pub const ATTEMPT: &str = "worker.attempt";
}

/// Names of attributes.
pub mod keys {
    /// 32 hexadecimal digits.
    pub const EXECUTION: &str = "execution_id";
    /// Namespace of the execution.
    pub const NAMESPACE: &str = "namespace";
    /// Name of its workflow.
    pub const WORKFLOW: &str = "workflow";
    /// Id of a node.
    pub const NODE: &str = "node";
    /// Number of an attempt, from 1.
    pub const ATTEMPT: &str = "attempt";
    /// Kind of a task.
    pub const KIND: &str = "kind";
    /// What of a node is evaluated: `prepare`, `finish`, `fallback`, `scope_output`.
    pub const PHASE: &str = "phase";
    /// What is proposed and committed: `submit` or `result`.
    pub const COMMAND: &str = "command";
}

/// Which side of a request a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It answers a request from outside.
    Server,
    /// It takes work from a queue.
    Consumer,
    /// A step inside.
    Internal,
}

/// Whether this process sends spans.
#[inline]
#[must_use]
pub fn enabled() -> bool {
    TRACER.get().is_some()
}

pub(crate) fn send_with(tracer: SdkTracer) {
    // A second one cannot be: telemetry starts once per process, and fails before it comes here.
    let _ = TRACER.set(tracer);
}

/// Where a span of a sampled execution hangs: W3C trace context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

/// What a `traceparent` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To be part of this trace.
    Traced(Context),
    /// Not to be traced: who asks has decided that.
    NotSampled,
    /// Nothing that can be read.
    Nothing,
}

impl Context {
    /// From 16 bytes, 8 bytes and flags; none when it is not valid or not sampled.
    #[must_use]
    pub fn from_bytes(trace: &[u8], span: &[u8], flags: u32) -> Option<Self> {
        let trace = TraceId::from_bytes(trace.try_into().ok()?);
        let span = SpanId::from_bytes(span.try_into().ok()?);
        let flags = TraceFlags::new(flags.to_le_bytes()[0]);
        let valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        (valid && flags.is_sampled()).then_some(Self { trace, span, flags })
    }

    /// The trace's id.
    #[must_use]
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace.to_bytes()
    }

    /// The span's id.
    #[must_use]
    pub fn span_id(&self) -> [u8; 8] {
        self.span.to_bytes()
    }

    /// W3C trace flags; bit 0, *sampled*, is set.
    #[must_use]
    pub fn flags(&self) -> u32 {
        u32::from(self.flags.to_u8())
    }

    fn remote(&self) -> opentelemetry::Context {
        let span = SpanContext::new(self.trace, self.span, self.flags, true, TraceState::NONE);
        opentelemetry::Context::new().with_remote_span_context(span)
    }

    /// As a `traceparent` header.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }

    /// What a `traceparent` header asks for.
    #[must_use]
    pub fn parse(header: &str) -> Asked {
        let mut parts = header.trim().split('-');
        let mut part = |digits: usize| {
            let text = parts.next()?;
            // Upper case is not allowed, and a sign, which parsing would take, neither.
            let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            (hex && text.len() == digits).then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        let (Some(version), Some(trace), Some(span), Some(flags)) = (part(2), part(32), part(16), part(2)) else {
            return Asked::Nothing;
        };
        // Later versions may add parts; version 0 has none, and 255 is not one.
        let more = parts.next().is_some();
        if version == 255 || (version == 0 && more) || trace == 0 || span == 0 {
            return Asked::Nothing;
        }
        // Only *sampled* is passed on: other flags may mean something else in the version that is sent.
        let sampled = flags & 1 == 1;
        let (trace, span) = (TraceId::from(trace), SpanId::from(span as u64));
        if sampled { Asked::Traced(Self { trace, span, flags: TraceFlags::SAMPLED }) } else { Asked::NotSampled }
    }
}

/// Does work whose own spans, made in `tracing`, hang on this context.
pub async fn within<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context.filter(|_| enabled()) {
        Some(context) => work.with_context(context.remote()).await,
        None => work.await,
    }
}

/// A span that runs until it is dropped.
#[derive(Debug)]
pub struct Span(SdkSpan);

impl Span {
    /// Begins a span; none when this process sends none.
    #[must_use]
    pub fn begin(name: &'static str, side: Side, parent: Context) -> Option<Self> {
        TRACER.get().and_then(|tracer| Self::with(tracer, name, side, Some(parent)))
    }

    /// Begins a trace; none when this process sends no spans.
    #[must_use]
    pub fn root(name: &'static str, side: Side) -> Option<Self> {
        TRACER.get().and_then(|tracer| Self::with(tracer, name, side, None))
    }

    fn with(tracer: &SdkTracer, name: &'static str, side: Side, parent: Option<Context>) -> Option<Self> {
        let kind = match side {
            Side::Server => SpanKind::Server,
            Side::Consumer => SpanKind::Consumer,
            Side::Internal => SpanKind::Internal,
        };
        let around = parent.map_or_else(opentelemetry::Context::new, |parent| parent.remote());
        let span = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &around);
        // After telemetry was shut down spans have no ids.
        span.span_context().is_valid().then_some(Self(span))
    }

    /// Where what comes of it hangs.
    #[must_use]
    pub fn context(&self) -> Context {
        let own = self.0.span_context();
        Context { trace: own.trace_id(), span: own.span_id(), flags: own.trace_flags() }
    }

    /// Says more about it.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.set_attribute(KeyValue::new(key, value));
    }

    /// It came to nothing.
    pub fn fail(&mut self, why: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_status(Status::error(why));
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Status, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::{Asked, Context, Side, Span, keys, names};

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sent() -> Context {
        match Context::parse(SENT) {
            Asked::Traced(context) => context,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_header_is_read_and_written_as_it_was() {
        let context = sent();
        assert_eq!(context.traceparent(), SENT);
        assert_eq!(Context::from_bytes(&context.trace_id(), &context.span_id(), context.flags()), Some(context));
        let later = SENT.replace("00-0a", "cc-0a") + "-more";
        assert_eq!(Context::parse(&later), Asked::Traced(context));
        assert_eq!(Context::parse(&SENT.replace("-01", "-00")), Asked::NotSampled);
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let (upper, version) = (SENT.to_uppercase(), SENT.replace("00-0a", "ff-0a"));
        let (longer, sign) = (format!("{SENT}-01"), SENT.replace("00-0a", "+0-0a"));
        for header in
            ["", "00", "00-12-34-01", "ü-ü-ü-ü", &SENT[..54], &zero_trace, &zero_span, &upper, &version, &longer, &sign]
        {
            assert_eq!(Context::parse(header), Asked::Nothing, "{header}");
        }
        assert_eq!(Context::from_bytes(&[1; 15], &[1; 8], 1), None);
        assert_eq!(Context::from_bytes(&[1; 16], &[0; 8], 1), None);
        assert_eq!(Context::from_bytes(&[1; 16], &[1; 8], 0), None);
    }

    #[test]
    fn there_are_no_spans_when_tracing_is_off() {
        assert!(!super::enabled());
        assert!(Span::begin(names::SUBMIT, Side::Server, sent()).is_none());
        assert!(Span::root(names::SUBMIT, Side::Server).is_none());
    }

    #[test]
    fn a_span_hangs_on_its_parent_and_says_what_it_is_told() {
        let provider = SdkTracerProvider::builder().with_sampler(crate::export::sampler()).build();
        let tracer = provider.tracer("test");
        let mut submit = Span::with(&tracer, names::SUBMIT, Side::Server, Some(sent())).unwrap();
        let mut attempt = Span::with(&tracer, names::ATTEMPT, Side::Consumer, Some(submit.context())).unwrap();
        submit.set(keys::WORKFLOW, "order");
        attempt.fail("timeout");
        let (submit, attempt) = (submit.0.exported_data().unwrap(), attempt.0.exported_data().unwrap());
        assert_eq!(submit.span_context.trace_id().to_bytes(), sent().trace_id());
        assert_eq!(submit.parent_span_id.to_bytes(), sent().span_id());
        assert_eq!(
            (submit.name.as_ref(), &submit.attributes[..]),
            ("api.submit", &[KeyValue::new("workflow", "order")][..])
        );
        assert_eq!(attempt.span_context.trace_id(), submit.span_context.trace_id());
        assert_eq!(attempt.parent_span_id, submit.span_context.span_id());
        assert_eq!(attempt.status, Status::error("timeout"));
        let root = Span::with(&tracer, names::SUBMIT, Side::Server, None).unwrap().context();
        assert!(root.flags() == 1 && root.trace_id() != sent().trace_id());
        // Whoever begins one after the end goes on with the context it has.
        provider.shutdown().unwrap();
        assert!(Span::with(&tracer, names::SUBMIT, Side::Server, Some(sent())).is_none());
    }
}
