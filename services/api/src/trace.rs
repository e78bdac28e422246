//! The span of a submission that is traced.

use axum::http::HeaderMap;
use nova_telemetry::trace::{Asked, Context, Side, Span, keys, names};
use nova_wire::v1;

use crate::handlers::submit::SubmittedBody;
use crate::problem::Problem;

/// A submission that is traced.
pub(crate) struct Traced {
    /// Where its execution hangs.
    context: Context,
    /// None when this process sends no spans: others may.
    span: Option<Span>,
}

impl Traced {
    /// When a request belongs to a sampled trace, and for a share of those that belong to none.
    pub(crate) fn new(headers: &HeaderMap, ratio: f64) -> Option<Self> {
        let header = headers.get("traceparent").and_then(|value| value.to_str().ok());
        match header.map_or(Asked::Nothing, Context::parse) {
            Asked::Traced(parent) => {
                let span = Span::begin(names::SUBMIT, Side::Server, parent);
                Some(Self { context: span.as_ref().map_or(parent, Span::context), span })
            }
            Asked::NotSampled => None,
            Asked::Nothing if ratio > 0.0 && rand::random::<f64>() < ratio => {
                let span = Span::root(names::SUBMIT, Side::Server);
                let made = || Context::from_bytes(&rand::random::<[u8; 16]>(), &rand::random::<[u8; 8]>(), 1);
                Some(Self { context: span.as_ref().map(Span::context).or_else(made)?, span })
            }
            Asked::Nothing => None,
        }
    }

    pub(crate) fn context(&self) -> v1::TraceContext {
        self.context.into()
    }

    /// Ends its span with what came of it.
    pub(crate) fn end(self, namespace: &str, workflow: String, result: &Result<SubmittedBody, Problem>) {
        let Some(mut span) = self.span else { return };
        span.set(keys::NAMESPACE, namespace.to_owned());
        span.set(keys::WORKFLOW, workflow);
        let execution = match result {
            Ok(body) => Some(&body.id),
            Err(problem) => {
                span.fail(problem.code.clone());
                problem.execution.as_ref()
            }
        };
        if let Some(execution) = execution {
            span.set(keys::EXECUTION, execution.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::Traced;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced(header: Option<&str>, ratio: f64) -> Option<Traced> {
        let headers = header.map(|it| ("traceparent".parse().unwrap(), it.parse().unwrap()));
        Traced::new(&headers.into_iter().collect::<HeaderMap>(), ratio)
    }

    #[test]
    fn who_asks_decides_and_a_share_of_the_others_is_traced() {
        // No spans are sent here, so the context goes on as it came.
        assert_eq!(traced(Some(SENT), 0.0).unwrap().context.traceparent(), SENT);
        assert!(traced(Some(&SENT.replace("-01", "-00")), 1.0).is_none());
        assert!(traced(None, 0.0).is_none() && traced(Some("nonsense"), 0.0).is_none());
        let (one, other) = (traced(None, 1.0).unwrap(), traced(Some("nonsense"), 1.0).unwrap());
        assert_ne!(one.context.trace_id(), other.context.trace_id());
    }
}
