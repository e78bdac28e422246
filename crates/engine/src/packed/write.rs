//! From an execution to its bytes.

use crate::ids::TimeMs;
use crate::input::ReplyTo;
use crate::output::NodeState;
use crate::payload::{Failure, Payload, TraceContext};
use crate::state::{AfterStop, Ending, Execution, NodeRecord, Phase, QueueKey, Scope, TimerId};

use super::{has, node, scope};

/// Appends the bytes of an execution.
pub fn pack(execution: &Execution, out: &mut Vec<u8>) {
    // Every field by name: one that is added is not forgotten here.
    let Execution {
        id: _,
        workflow,
        input,
        started_at,
        started_by,
        labels,
        key,
        reply_at_end,
        trace,
        events,
        scopes,
        next_scope,
        total,
        offers: _,
        pending: _,
    } = execution;
    let mut out = Writer { out, start: started_at.0 };
    let flags = [
        (has::LABELS, !labels.is_empty()),
        (has::KEY, key.is_some()),
        (has::REPLY, reply_at_end.is_some()),
        (has::TRACE, trace.is_some()),
        (has::TOTAL, total.is_some()),
    ];
    out.number(mask(&flags));
    out.number(u64::from(workflow.number));
    out.number(started_at.0);
    out.payload(input);
    out.text(started_by);
    if !labels.is_empty() {
        out.number(labels.len() as u64);
        for (name, value) in labels {
            out.text(name);
            out.text(value);
        }
    }
    if let Some(key) = key {
        out.text(key);
    }
    if let Some(ReplyTo { inbox, boot, request }) = reply_at_end {
        out.number(u64::from(*inbox));
        out.raw(&boot.to_le_bytes());
        out.raw(&request.to_le_bytes());
    }
    if let Some(TraceContext { trace_id, span_id, flags }) = trace {
        out.raw(trace_id);
        out.raw(span_id);
        out.raw(&[*flags]);
    }
    out.number(*events);
    out.number(u64::from(*next_scope));
    if let Some(total) = total {
        out.timer(*total);
    }
    out.number(scopes.len() as u64);
    for (id, it) in scopes {
        out.number(u64::from(id.0));
        out.scope(it);
    }
}

fn mask(bits: &[(u64, bool)]) -> u64 {
    bits.iter().filter(|(_, is)| *is).map(|(bit, _)| bit).sum()
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// When the execution began: other moments are near.
    start: u64,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn time(&mut self, time: TimeMs) {
        let since = time.0.wrapping_sub(self.start) as i64;
        self.number(((since << 1) ^ (since >> 63)) as u64);
    }

    fn timer(&mut self, id: TimerId) {
        self.time(id.0);
        self.number(id.1);
    }

    fn payload(&mut self, payload: &Payload) {
        match payload {
            Payload::Inline(bytes) => {
                self.number((bytes.len() as u64) << 1);
                self.raw(bytes);
            }
            Payload::Stored { store, key, size, hash } => {
                self.number(1);
                self.number(*size);
                self.text(store);
                self.text(key);
                self.raw(hash);
            }
        }
    }

    fn failure(&mut self, failure: &Failure) {
        let Failure { code, message, retryable, retry_after_ms, detail, node } = failure;
        let flags = [(1, *retryable), (2, retry_after_ms.is_some()), (4, detail.is_some())];
        self.number(mask(&flags));
        self.text(code);
        self.text(message);
        if let Some(ms) = retry_after_ms {
            self.number(*ms);
        }
        if let Some(detail) = detail {
            self.bytes(detail);
        }
        self.text(node);
    }

    fn scope(&mut self, it: &Scope) {
        let Scope { body, parent, attempt, phase, nodes, vars, live, left, at_end, last_completed, held } = it;
        let phase_bits = match phase {
            Phase::Body => scope::BODY,
            Phase::Output(_) => scope::OUTPUT,
            Phase::Stopping(Ending::Failed(_)) => scope::FAILED,
            Phase::Stopping(Ending::Cancelled(_)) => scope::CANCELLED,
        };
        let flags = [
            (scope::PARENT, parent.is_some()),
            (scope::ATTEMPT, *attempt > 0),
            (scope::AT_END, *at_end),
            (scope::LAST, last_completed.is_some()),
            (scope::HELD, !held.is_empty()),
        ];
        self.number(phase_bits | mask(&flags));
        self.number(u64::from(body.0));
        if let Some((scope, node)) = parent {
            self.number(u64::from(scope.0));
            self.number(u64::from(node.0));
        }
        if *attempt > 0 {
            self.number(u64::from(*attempt));
        }
        match phase {
            Phase::Body => {}
            Phase::Output(token) => self.number(token.0),
            Phase::Stopping(Ending::Failed(failure)) => self.failure(failure),
            Phase::Stopping(Ending::Cancelled(reason)) => self.text(reason),
        }
        self.number(vars.len() as u64);
        for var in vars {
            self.payload(&var.value);
            self.number(u64::from(var.version));
        }
        self.number(u64::from(*live));
        self.number(u64::from(*left));
        if let Some(node) = last_completed {
            self.number(u64::from(node.0));
        }
        if !held.is_empty() {
            self.number(held.len() as u64);
            held.iter().for_each(|node| self.number(u64::from(node.0)));
        }
        let begun = || nodes.iter().enumerate().filter(|(_, record)| !is_pending(record));
        self.number(begun().count() as u64);
        let mut after = 0;
        for (position, record) in begun() {
            self.number((position - after) as u64);
            after = position + 1;
            self.node(record);
        }
    }

    fn node(&mut self, record: &NodeRecord) {
        let NodeRecord {
            state,
            arrived,
            dead,
            held,
            visit,
            attempt,
            token,
            worker,
            after_stop,
            timer,
            total,
            queued,
            cases,
            children,
            with,
            output,
            failure,
            case_outputs,
            started_at,
            ended_at,
        } = record;
        self.raw(&[state_byte(*state)]);
        let flags = [
            (node::TIMER, timer.is_some()),
            (node::STARTED, started_at.is_some()),
            (node::VISIT, *visit > 0),
            (node::ATTEMPT, *attempt > 0),
            (node::OUTPUT, output.is_some()),
            (node::ENDED, ended_at.is_some()),
            (node::ARRIVED, *arrived > 0),
            (node::DEAD, *dead > 0),
            (node::HELD, *held),
            (node::TOKEN, token.0 > 0),
            (node::WORKER, worker.is_some()),
            (node::AFTER_STOP, after_stop.is_some()),
            (node::TOTAL, total.is_some()),
            (node::QUEUED, queued.is_some()),
            (node::CASES, *cases > 0),
            (node::CHILDREN, *children > 0),
            (node::WITH, with.is_some()),
            (node::FAILURE, failure.is_some()),
            (node::CASE_OUTPUTS, !case_outputs.is_empty()),
        ];
        let mask = mask(&flags);
        self.number(mask);
        timer.iter().for_each(|it| self.timer(*it));
        started_at.iter().for_each(|it| self.time(*it));
        let numbers = [
            (node::VISIT, u64::from(*visit)),
            (node::ATTEMPT, u64::from(*attempt)),
            (node::ARRIVED, u64::from(*arrived)),
            (node::DEAD, u64::from(*dead)),
            (node::TOKEN, token.0),
            (node::CASES, *cases),
            (node::CHILDREN, u64::from(*children)),
        ];
        for (_, number) in numbers.iter().filter(|(bit, _)| mask & bit != 0) {
            self.number(*number);
        }
        output.iter().for_each(|it| self.payload(it));
        ended_at.iter().for_each(|it| self.time(*it));
        worker.iter().for_each(|it| self.number(u64::from(it.0)));
        match after_stop.as_deref() {
            None => {}
            Some(AfterStop::Cancel) => self.raw(&[0]),
            Some(AfterStop::Fail(failure)) => {
                self.raw(&[1]);
                self.failure(failure);
            }
            Some(AfterStop::FailAttempt(failure)) => {
                self.raw(&[2]);
                self.failure(failure);
            }
        }
        total.iter().for_each(|it| self.timer(*it));
        if let Some(QueueKey { rank, place, number }) = queued {
            self.raw(&[*rank]);
            self.time(*place);
            self.number(*number);
        }
        with.iter().for_each(|it| self.payload(it));
        failure.iter().for_each(|it| self.failure(it));
        if !case_outputs.is_empty() {
            self.number(case_outputs.len() as u64);
            for (case, output) in case_outputs {
                self.raw(&[*case]);
                self.payload(output);
            }
        }
    }
}

/// Whether a node is as at the beginning: nothing is written of it. Cheaper than comparing it with one that is.
fn is_pending(record: &NodeRecord) -> bool {
    record.state == NodeState::Pending && *record == NodeRecord::pending()
}

fn state_byte(state: NodeState) -> u8 {
    match state {
        NodeState::Pending => 0,
        NodeState::Evaluating => 1,
        NodeState::Waiting => 2,
        NodeState::Queued => 3,
        NodeState::Running => 4,
        NodeState::Retrying => 5,
        NodeState::Cancelling => 6,
        NodeState::Completed => 7,
        NodeState::Failed => 8,
        NodeState::Skipped => 9,
        NodeState::Cancelled => 10,
    }
}
