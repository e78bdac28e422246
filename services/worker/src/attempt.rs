//! One attempt, from its assignment to what is said of it.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::FutureExt;
use nova_execution::{Executor, Failure, Task};
use nova_telemetry::trace::{self, Context, Side, Span, keys};
use nova_wire::v1;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::metrics::Attempts;
use crate::validity::Validity;

/// Largest output of an attempt, in bytes: what the replicated state takes inline.
const MAX_OUTPUT_BYTES: usize = 16 * 1024;
/// Largest detail of a failure, in bytes: what the engine keeps.
const MAX_DETAIL_BYTES: usize = 4 * 1024;
/// Longest message of a failure, in bytes; the rest is cut off.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Longest code of a failure, in bytes: as all ids.
const MAX_CODE_BYTES: usize = 256;
/// How long an executor may take to stop by itself.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What is said of an attempt.
pub(crate) struct Finished {
    pub token: u64,
    pub shard: u32,
    pub kind: v1::command::Kind,
}

/// An attempt that is to run.
pub(crate) struct Attempt {
    pub assignment: Box<v1::Assignment>,
    pub lease: v1::LeaseRef,
    pub stop: CancellationToken,
    pub validity: Arc<Validity>,
    pub ledger: Ledger,
}

impl Attempt {
    /// Without an executor its kind is not carried here.
    pub(crate) async fn run(self, executor: Option<(Arc<dyn Executor>, Attempts)>) -> Finished {
        let (token, shard) = (self.lease.token, shard_of(&self.lease));
        // What the attempt does hangs on its span; when this process sends none, on what its execution hangs on.
        let parent = Context::carried(self.assignment.trace.as_ref());
        let span = parent.and_then(|parent| span(&self.assignment, &self.lease, parent));
        let trace = span.as_ref().map(Span::context).or(parent);
        let kind = match executor {
            Some((executor, measured)) => self.carry_out(&*executor, &measured, span, trace).await,
            None => {
                fail(span, "declined");
                let reason = format!("kind '{}' is not carried here", self.assignment.kind);
                v1::command::Kind::Declined(v1::Declined { lease: Some(self.lease), reason })
            }
        };
        Finished { token, shard, kind }
    }

    async fn carry_out(
        self,
        executor: &dyn Executor,
        measured: &Attempts,
        span: Option<Span>,
        trace: Option<Context>,
    ) -> v1::command::Kind {
        // The clock is looked at before every outside effect (rule 24).
        if !self.validity.is_alive() || self.stop.is_cancelled() {
            fail(span, "stopped");
            measured.stopped.increment(1);
            return stopped(self.lease);
        }
        let task = task(&self.assignment, &self.lease, trace);
        self.ledger.write("begin", &self.assignment, &self.lease);
        let begun = Instant::now();
        let running = trace::within(trace, executor.run(&task, &self.stop));
        let result = watched(running, &self.stop, &self.validity).await;
        self.ledger.write("end", &self.assignment, &self.lease);
        measured.seconds.record(begun.elapsed().as_secs_f64());
        let outcome = match result {
            None => {
                fail(span, "stopped");
                measured.stopped.increment(1);
                return stopped(self.lease);
            }
            Some(Ok(output)) if output.len() > MAX_OUTPUT_BYTES => {
                let why = format!("the output has {} bytes; at most {MAX_OUTPUT_BYTES} are kept", output.len());
                Err(Failure::permanent("limit.payload", why))
            }
            Some(other) => other,
        };
        match &outcome {
            Ok(_) => measured.completed.increment(1),
            Err(_) if self.stop.is_cancelled() => measured.stopped.increment(1),
            Err(_) => measured.failed.increment(1),
        }
        if let Err(failure) = &outcome {
            fail(span, &failure.code);
        }
        result_command(self.lease, outcome, trace)
    }
}

fn span(assignment: &v1::Assignment, lease: &v1::LeaseRef, parent: Context) -> Option<Span> {
    let mut span = Span::begin(trace::names::ATTEMPT, Side::Consumer, parent)?;
    span.set(keys::EXECUTION, trace::execution_id(&lease.execution));
    span.set(keys::NAMESPACE, assignment.namespace.clone());
    span.set(keys::NODE, assignment.node_id.clone());
    span.set(keys::ATTEMPT, i64::from(assignment.attempt));
    span.set(keys::KIND, assignment.kind.clone());
    Some(span)
}

/// Ends a span with the code of a failure.
fn fail(span: Option<Span>, code: &str) {
    if let Some(mut span) = span {
        span.fail(code.to_owned());
    }
}

fn task(assignment: &v1::Assignment, lease: &v1::LeaseRef, trace: Option<Context>) -> Task {
    let execution: String = lease.execution.iter().map(|byte| format!("{byte:02x}")).collect();
    let node = &assignment.node_id;
    let key = format!("{execution}/{}/{node}/{}", assignment.scope, assignment.visit);
    let with = match assignment.with.as_ref().and_then(|payload| payload.kind.as_ref()) {
        Some(v1::payload::Kind::Inline(bytes)) => bytes.clone(),
        _ => bytes::Bytes::from_static(b"null"),
    };
    Task {
        kind: assignment.kind.as_str().into(),
        namespace: assignment.namespace.as_str().into(),
        idempotency_key: key.into(),
        execution: execution.into(),
        node: node.as_str().into(),
        attempt: assignment.attempt,
        token: lease.token,
        with,
        timeout: assignment.attempt_timeout_ms.map(Duration::from_millis),
        traceparent: trace.map(|it| it.traceparent()),
    }
}

/// None when it did not stop by itself, or the session ended first. The clock is looked at before every step, so not even a process that was paused takes
/// one that comes too late.
async fn watched(
    work: impl Future<Output = Result<bytes::Bytes, Failure>>,
    stop: &CancellationToken,
    validity: &Validity,
) -> Option<Result<bytes::Bytes, Failure>> {
    // A panic in an executor is a failure of its attempt and of nothing else.
    let work = AssertUnwindSafe(work).catch_unwind();
    let mut work = pin!(async {
        tokio::select! {
            biased;
            result = work => Some(result.unwrap_or_else(|_| Err(Failure::permanent("task.panic", "the executor panicked")))),
            // Cancelled by the end of the session too, which is noticed below at once.
            () = async { stop.cancelled().await; tokio::time::sleep(GRACE).await } => None,
        }
    });
    poll_fn(|cx| if validity.is_alive() { work.as_mut().poll(cx) } else { Poll::Ready(None) }).await
}

/// The shard of an execution stands in the first two bytes of its id.
pub(crate) fn shard_of(lease: &v1::LeaseRef) -> u32 {
    match lease.execution.get(..2) {
        Some(bytes) => u32::from(bytes[0]) << 8 | u32::from(bytes[1]),
        None => 0,
    }
}

/// What is said of an attempt that was taken back.
pub(crate) fn stopped(lease: v1::LeaseRef) -> v1::command::Kind {
    v1::command::Kind::Stopped(v1::Stopped { lease: Some(lease) })
}

fn result_command(
    lease: v1::LeaseRef,
    outcome: Result<bytes::Bytes, Failure>,
    trace: Option<Context>,
) -> v1::command::Kind {
    use v1::task_result::Outcome;
    let outcome = match outcome {
        Ok(output) => Outcome::Completed(v1::Payload { kind: Some(v1::payload::Kind::Inline(output)) }),
        Err(failure) => Outcome::Failed(fitting(failure)),
    };
    v1::command::Kind::Result(v1::TaskResult {
        lease: Some(lease),
        outcome: Some(outcome),
        trace: trace.map(Into::into),
    })
}

/// A failure that fits into the record of a result, whatever its executor made of it. A detail that is too large is left out,
/// as the engine would: half of a JSON document is none.
fn fitting(mut failure: Failure) -> v1::Failure {
    if failure.code.len() > MAX_CODE_BYTES {
        let why =
            format!("the code of the failure has {} bytes; at most {MAX_CODE_BYTES} are kept", failure.code.len());
        failure = Failure::permanent("limit.payload", why);
    }
    failure.message.truncate(failure.message.floor_char_boundary(MAX_MESSAGE_BYTES));
    v1::Failure {
        code: failure.code,
        message: failure.message,
        retryable: failure.retryable,
        retry_after_ms: failure.retry_after.map(|after| after.as_millis() as u64),
        detail: failure.detail.filter(|detail| detail.len() <= MAX_DETAIL_BYTES),
        node: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_cut_to_what_fits() {
        let mut failure = Failure::retryable("a.b", "ä".repeat(MAX_MESSAGE_BYTES));
        failure.detail = Some(vec![b' '; MAX_DETAIL_BYTES + 1].into());
        let fitted = fitting(failure);
        assert!(fitted.retryable && fitted.code == "a.b" && fitted.detail.is_none());
        assert_eq!(fitted.message.len(), MAX_MESSAGE_BYTES);
        let mut failure = Failure::retryable("a.b", "short");
        failure.detail = Some(vec![b' '; MAX_DETAIL_BYTES].into());
        let fitted = fitting(failure);
        assert!(fitted.message == "short" && fitted.detail.is_some());
    }

    #[test]
    fn a_failure_without_a_usable_code_is_permanent() {
        let fitted = fitting(Failure::retryable("a".repeat(MAX_CODE_BYTES + 1), "why"));
        assert!(!fitted.retryable && fitted.code == "limit.payload");
    }
}
