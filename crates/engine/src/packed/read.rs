//! From bytes to the execution. Everything is checked, so that the engine can rely on it.

use std::sync::Arc;

use bytes::Bytes;
use nova_program::{BodyIx, NodeIx};

use crate::ids::{ExecutionId, ScopeId, TimeMs, Token, WorkerId};
use crate::input::ReplyTo;
use crate::output::NodeState;
use crate::payload::{Failure, Payload, TraceContext};
use crate::state::{
    AfterStop, Ending, Execution, NodeRecord, Phase, QueueKey, Scope, TimerId, Variable, WorkflowVersion,
};

use super::{has, node, scope};

/// The bytes are no execution of a workflow that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPack {
    /// What is wrong with them.
    pub why: &'static str,
}

impl std::fmt::Display for BadPack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for BadPack {}

const CUT: BadPack = BadPack { why: "they are cut short" };
const RANGE: BadPack = BadPack { why: "a number is out of its range" };

/// The execution that [`super::pack`] made these bytes of; `versions` by their numbers.
///
/// # Errors
/// When the bytes are cut, have something behind them, or point outside of what there is.
pub fn unpack(id: ExecutionId, bytes: &[u8], versions: &[Arc<WorkflowVersion>]) -> Result<Execution, BadPack> {
    let mut from = Reader { bytes, start: 0 };
    let flags = from.flags(has::ALL)?;
    let workflow = versions.get(from.number()? as usize).ok_or(BadPack { why: "its workflow is not known" })?;
    from.start = from.number()?;
    let started_at = TimeMs(from.start);
    let input = from.payload()?;
    let started_by = from.text()?;
    let mut labels = Vec::new();
    if flags & has::LABELS != 0 {
        labels = from.list(|from| Ok((from.text()?, from.text()?)))?;
    }
    let key = from.when(flags & has::KEY, Reader::text)?;
    let reply_at_end = from.when(flags & has::REPLY, |from| {
        let inbox = from.small()?;
        Ok(ReplyTo { inbox, boot: u64::from_le_bytes(from.array()?), request: u64::from_le_bytes(from.array()?) })
    })?;
    let trace = from.when(flags & has::TRACE, |from| {
        let (trace_id, span_id, [flags]) = (from.array()?, from.array()?, from.array()?);
        Ok(TraceContext { trace_id, span_id, flags })
    })?;
    let events = from.number()?;
    let next_scope = from.small()?;
    let total = from.when(flags & has::TOTAL, Reader::timer)?;
    let scopes = from.list(|from| Ok((ScopeId(from.small()?), from.scope(workflow)?)))?;
    if !from.bytes.is_empty() {
        return Err(BadPack { why: "there is something behind them" });
    }
    if !scopes.windows(2).all(|pair| pair[0].0 < pair[1].0) {
        return Err(BadPack { why: "scope instances are out of order" });
    }
    Ok(Execution {
        id,
        workflow: Arc::clone(workflow),
        input,
        started_at,
        started_by,
        labels,
        key,
        reply_at_end,
        trace,
        events,
        scopes: scopes.into_iter().collect(),
        next_scope,
        total,
        offers: Default::default(),
        pending: Default::default(),
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    start: u64,
}

impl<'a> Reader<'a> {
    fn raw(&mut self, len: usize) -> Result<&'a [u8], BadPack> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadPack> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(CUT)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, BadPack> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(RANGE);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(RANGE)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Result<T, BadPack> {
        T::try_from(self.number()?).map_err(|_| RANGE)
    }

    /// Flags of which only these are known.
    fn flags(&mut self, known: u64) -> Result<u64, BadPack> {
        let flags = self.number()?;
        if flags & !known == 0 { Ok(flags) } else { Err(BadPack { why: "a flag is not known" }) }
    }

    fn when<T>(&mut self, flag: u64, read: impl FnOnce(&mut Self) -> Result<T, BadPack>) -> Result<Option<T>, BadPack> {
        if flag == 0 { Ok(None) } else { read(self).map(Some) }
    }

    /// As many as the number in front says; each takes a byte at least, so that a wrong number takes no memory.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, BadPack>) -> Result<Vec<T>, BadPack> {
        let count: usize = self.small()?;
        if count > self.bytes.len() {
            return Err(CUT);
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn bytes(&mut self) -> Result<&'a [u8], BadPack> {
        let len = self.small()?;
        self.raw(len)
    }

    fn text(&mut self) -> Result<Box<str>, BadPack> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| BadPack { why: "a text is not UTF-8" })?;
        Ok(text.into())
    }

    fn time(&mut self) -> Result<TimeMs, BadPack> {
        let number = self.number()?;
        let since = (number >> 1) as i64 ^ -((number & 1) as i64);
        Ok(TimeMs(self.start.wrapping_add(since as u64)))
    }

    fn timer(&mut self) -> Result<TimerId, BadPack> {
        Ok((self.time()?, self.number()?))
    }

    fn payload(&mut self) -> Result<Payload, BadPack> {
        let number = self.number()?;
        if number & 1 == 0 {
            return Ok(Payload::Inline(Bytes::copy_from_slice(self.raw((number >> 1) as usize)?)));
        }
        if number != 1 {
            return Err(BadPack { why: "a payload is neither inline nor stored" });
        }
        let size = self.number()?;
        Ok(Payload::Stored { store: self.text()?, key: self.text()?, size, hash: self.array()? })
    }

    fn failure(&mut self) -> Result<Failure, BadPack> {
        let flags = self.flags(7)?;
        Ok(Failure {
            code: self.text()?,
            message: self.text()?,
            retryable: flags & 1 != 0,
            retry_after_ms: self.when(flags & 2, Self::number)?,
            detail: self.when(flags & 4, Self::bytes)?.map(Bytes::copy_from_slice),
            node: self.text()?,
        })
    }

    fn scope(&mut self, workflow: &WorkflowVersion) -> Result<Scope, BadPack> {
        let program = &*workflow.program;
        let flags = self.flags(scope::ALL)?;
        let body = BodyIx(self.small()?);
        let shape = program.bodies.get(body.0 as usize).ok_or(BadPack { why: "a body is not in the program" })?;
        let outside = BadPack { why: "a node is not in its body" };
        let inside = |node: u32| if shape.nodes.contains(&node) { Ok(NodeIx(node)) } else { Err(outside) };
        let parent = self.when(flags & scope::PARENT, |from| {
            let (scope, node): (_, u32) = (ScopeId(from.small()?), from.small()?);
            if (node as usize) < program.nodes.len() { Ok((scope, NodeIx(node))) } else { Err(outside) }
        })?;
        let attempt = self.when(flags & scope::ATTEMPT, Self::small)?.unwrap_or(0);
        let phase = match flags & scope::PHASE {
            scope::BODY => Phase::Body,
            scope::OUTPUT => Phase::Output(Token(self.number()?)),
            scope::FAILED => Phase::Stopping(Ending::Failed(self.failure()?)),
            _ => Phase::Stopping(Ending::Cancelled(self.text()?)),
        };
        let vars = self.list(|from| Ok(Variable { value: from.payload()?, version: from.small()? }))?;
        if vars.len() != shape.vars.len() {
            return Err(BadPack { why: "variables are not those of the body" });
        }
        let (live, left) = (self.small()?, self.small()?);
        let last_completed = self.when(flags & scope::LAST, Self::small)?.map(inside).transpose()?;
        let held = self.when(flags & scope::HELD, |from| from.list(|from| inside(from.small()?)))?;
        let begun: usize = self.small()?;
        let mut nodes = Vec::with_capacity(shape.nodes.len());
        for _ in 0..begun {
            let skipped: usize = self.small()?;
            // Both are at most the length of the bytes and of the body: they cannot overflow when this holds.
            if skipped >= shape.nodes.len() - nodes.len() {
                return Err(outside);
            }
            nodes.extend(std::iter::repeat_with(NodeRecord::pending).take(skipped));
            nodes.push(self.node()?);
        }
        nodes.resize_with(shape.nodes.len(), NodeRecord::pending);
        Ok(Scope {
            body,
            parent,
            attempt,
            phase,
            nodes,
            vars,
            live,
            left,
            at_end: flags & scope::AT_END != 0,
            last_completed,
            held: held.unwrap_or_default().into(),
        })
    }

    fn node(&mut self) -> Result<NodeRecord, BadPack> {
        let [state] = self.array()?;
        let state = node_state(state)?;
        let has = self.flags(node::ALL)?;
        let mut record = NodeRecord { state, held: has & node::HELD != 0, ..NodeRecord::pending() };
        record.timer = self.when(has & node::TIMER, Self::timer)?;
        record.started_at = self.when(has & node::STARTED, Self::time)?;
        record.visit = self.when(has & node::VISIT, Self::small)?.unwrap_or(0);
        record.attempt = self.when(has & node::ATTEMPT, Self::small)?.unwrap_or(0);
        record.arrived = self.when(has & node::ARRIVED, Self::small)?.unwrap_or(0);
        record.dead = self.when(has & node::DEAD, Self::small)?.unwrap_or(0);
        record.token = Token(self.when(has & node::TOKEN, Self::number)?.unwrap_or(0));
        record.cases = self.when(has & node::CASES, Self::number)?.unwrap_or(0);
        record.children = self.when(has & node::CHILDREN, Self::small)?.unwrap_or(0);
        record.output = self.when(has & node::OUTPUT, Self::payload)?;
        record.ended_at = self.when(has & node::ENDED, Self::time)?;
        record.worker = self.when(has & node::WORKER, Self::small)?.map(WorkerId);
        record.after_stop = self.when(has & node::AFTER_STOP, Self::after_stop)?.map(Box::new);
        record.total = self.when(has & node::TOTAL, Self::timer)?;
        record.queued = self.when(has & node::QUEUED, |from| {
            let [rank] = from.array()?;
            Ok(QueueKey { rank, place: from.time()?, number: from.number()? })
        })?;
        record.with = self.when(has & node::WITH, Self::payload)?;
        record.failure = self.when(has & node::FAILURE, Self::failure)?.map(Box::new);
        if has & node::CASE_OUTPUTS != 0 {
            record.case_outputs = self.list(|from| {
                let [case] = from.array()?;
                Ok((case, from.payload()?))
            })?;
        }
        Ok(record)
    }

    fn after_stop(&mut self) -> Result<AfterStop, BadPack> {
        match self.array()? {
            [0] => Ok(AfterStop::Cancel),
            [1] => Ok(AfterStop::Fail(self.failure()?)),
            [2] => Ok(AfterStop::FailAttempt(self.failure()?)),
            _ => Err(BadPack { why: "what follows a stop is not known" }),
        }
    }
}

fn node_state(byte: u8) -> Result<NodeState, BadPack> {
    Ok(match byte {
        0 => NodeState::Pending,
        1 => NodeState::Evaluating,
        2 => NodeState::Waiting,
        3 => NodeState::Queued,
        4 => NodeState::Running,
        5 => NodeState::Retrying,
        6 => NodeState::Cancelling,
        7 => NodeState::Completed,
        8 => NodeState::Failed,
        9 => NodeState::Skipped,
        10 => NodeState::Cancelled,
        _ => return Err(BadPack { why: "a state is not known" }),
    })
}
