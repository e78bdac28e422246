//! Compiled workflows.

use nova_program::{
    Backoff, Body, BodyForm, BodyIx, Case, Edge, Jitter, Join, Jump, Node, NodeIx, NodeKind, Port, Program, Reads,
    Retry, ScopeOutput, Timeouts, VarIx, Variable, WaitTime, With,
};

use crate::error::{WireError, bad, missing};
use crate::v1;

/// Converts a compiled workflow.
#[must_use]
pub fn program_to_wire(program: &Program) -> v1::Program {
    v1::Program {
        nodes: program.nodes.iter().map(node_to_wire).collect(),
        bodies: program.bodies.iter().map(body_to_wire).collect(),
        edges: program
            .edges
            .iter()
            .map(|edge| v1::Edge { port: Some(port_to_wire(edge.port)), target: edge.target.0 })
            .collect(),
        variables: program
            .variables
            .iter()
            .map(|v| v1::Variable { name: v.name.to_string(), body: v.body.0, start: v.start.to_vec().into() })
            .collect(),
        timeouts: Some(timeouts_to_wire(&program.timeouts)),
        retry: program.retry.as_ref().map(retry_to_wire),
        priority: u32::from(program.priority),
        requires: program.requires.iter().map(ToString::to_string).collect(),
    }
}

fn range(range: &std::ops::Range<u32>) -> Option<v1::IndexRange> {
    Some(v1::IndexRange { start: range.start, end: range.end })
}

fn node_to_wire(node: &Node) -> v1::Node {
    let nothing = v1::Nothing {};
    let kind = match &node.kind {
        NodeKind::Work { kind, pool, with } => v1::node::Kind::Work(v1::Work {
            kind: kind.to_string(),
            pool: pool.to_string(),
            with: Some(match with {
                With::Absent => v1::work::With::Absent(nothing),
                With::Constant(bytes) => v1::work::With::Constant(bytes.to_vec().into()),
                With::Evaluated => v1::work::With::Evaluated(nothing),
            }),
        }),
        NodeKind::Think => v1::node::Kind::Think(nothing),
        NodeKind::Choose => v1::node::Kind::Choose(nothing),
        NodeKind::Wait(WaitTime::ForMs(ms)) => v1::node::Kind::Wait(v1::WaitTime { for_ms: Some(*ms) }),
        NodeKind::Wait(WaitTime::Evaluated) => v1::node::Kind::Wait(v1::WaitTime { for_ms: None }),
        NodeKind::Scope(body) => v1::node::Kind::Scope(body.0),
    };
    let (join, count) = match node.join {
        Join::All => (v1::join::Kind::All, 0),
        Join::Every => (v1::join::Kind::Every, 0),
        Join::Any => (v1::join::Kind::Any, 0),
        Join::Count(n) => (v1::join::Kind::Count, u32::from(n)),
    };
    v1::Node {
        id: node.id.to_string(),
        kind: Some(kind),
        body: node.body.0,
        in_degree: u32::from(node.in_degree),
        join: Some(v1::Join { kind: join as i32, count }),
        edges: range(&node.edges),
        cases: node
            .cases
            .iter()
            .map(|case| v1::Case {
                name: case.name.to_string(),
                body: case.body.map(|body| body.0),
                next: case.next.map(jump_to_wire),
            })
            .collect(),
        next: node.next.map(jump_to_wire),
        prepare: node.prepare,
        prepare_reads: Some(reads_to_wire(&node.prepare_reads)),
        finish: node.finish,
        finish_reads: Some(reads_to_wire(&node.finish_reads)),
        fallback: node.fallback,
        fallback_reads: Some(reads_to_wire(&node.fallback_reads)),
        retry: node.retry.as_ref().map(retry_to_wire),
        timeouts: Some(timeouts_to_wire(&node.timeouts)),
    }
}

fn jump_to_wire(jump: Jump) -> v1::Jump {
    match jump {
        Jump::To(node) => v1::Jump { to: Some(node.0) },
        Jump::End => v1::Jump { to: None },
    }
}

fn port_to_wire(port: Port) -> v1::Port {
    let (kind, case) = match port {
        Port::Ok => (v1::port::Kind::Ok, 0),
        Port::Error => (v1::port::Kind::Error, 0),
        Port::Timeout => (v1::port::Kind::Timeout, 0),
        Port::Ended => (v1::port::Kind::Ended, 0),
        Port::Case(case) => (v1::port::Kind::Case, u32::from(case)),
    };
    v1::Port { kind: kind as i32, case }
}

fn body_to_wire(body: &Body) -> v1::Body {
    let form = match body.form {
        BodyForm::List => v1::body::Form::List,
        BodyForm::Graph => v1::body::Form::Graph,
    };
    let output = match body.output {
        ScopeOutput::LastStep => v1::body::Output::LastStep,
        ScopeOutput::Evaluated => v1::body::Output::Evaluated,
    };
    v1::Body {
        form: form as i32,
        nodes: range(&body.nodes),
        owner: body.owner.map(|owner| owner.0),
        case: u32::from(body.case),
        vars: range(&body.vars),
        output: output as i32,
        output_reads: Some(reads_to_wire(&body.output_reads)),
        parallel: body.parallel,
    }
}

fn reads_to_wire(reads: &Reads) -> v1::Reads {
    v1::Reads {
        input: reads.input,
        nodes: reads.nodes.iter().map(|node| node.0).collect(),
        vars: reads.vars.iter().map(|var| var.0).collect(),
    }
}

fn timeouts_to_wire(timeouts: &Timeouts) -> v1::Timeouts {
    v1::Timeouts {
        queue_ms: timeouts.queue_ms,
        attempt_ms: timeouts.attempt_ms,
        heartbeat_ms: timeouts.heartbeat_ms,
        total_ms: timeouts.total_ms,
    }
}

fn retry_to_wire(retry: &Retry) -> v1::Retry {
    let jitter = match retry.backoff.jitter {
        Jitter::None => v1::retry::Jitter::None,
        Jitter::Full => v1::retry::Jitter::Full,
        Jitter::Equal => v1::retry::Jitter::Equal,
    };
    v1::Retry {
        max_attempts: retry.max_attempts,
        initial_ms: retry.backoff.initial_ms,
        factor_milli: retry.backoff.factor_milli,
        max_delay_ms: retry.backoff.max_delay_ms,
        jitter: jitter as i32,
        only: retry.only.iter().map(ToString::to_string).collect(),
        never: retry.never.iter().map(ToString::to_string).collect(),
    }
}

/// Converts a compiled workflow back, and checks every index, so that the engine can rely on them.
///
/// # Errors
/// Which field is missing or points outside.
pub fn program_from_wire(wire: &v1::Program) -> Result<Program, WireError> {
    let program = Program {
        nodes: wire.nodes.iter().map(node_from_wire).collect::<Result<_, _>>()?,
        bodies: wire.bodies.iter().map(body_from_wire).collect::<Result<_, _>>()?,
        edges: wire.edges.iter().map(edge_from_wire).collect::<Result<_, _>>()?,
        variables: wire
            .variables
            .iter()
            .map(|v| Variable { name: v.name.as_str().into(), body: BodyIx(v.body), start: v.start.as_ref().into() })
            .collect(),
        timeouts: wire.timeouts.as_ref().map_or_else(Timeouts::default, timeouts_from_wire),
        retry: wire.retry.as_ref().map(retry_from_wire).transpose()?,
        priority: u8::try_from(wire.priority).map_err(|_| bad("priority", "is above 9"))?,
        requires: wire.requires.iter().map(|name| name.as_str().into()).collect(),
    };
    check_indices(&program)?;
    Ok(program)
}

fn check_indices(program: &Program) -> Result<(), WireError> {
    let within = |range: &std::ops::Range<u32>, len: usize| range.start <= range.end && range.end as usize <= len;
    let node_known = |ix: NodeIx| (ix.0 as usize) < program.nodes.len();
    let body_known = |ix: BodyIx| (ix.0 as usize) < program.bodies.len();
    let outside = |field| Err(bad(field, "points outside of the program"));
    if program.bodies.is_empty() {
        return Err(missing("bodies"));
    }
    let reads_fit = |reads: &Reads| {
        reads.nodes.iter().all(|ix| node_known(*ix))
            && reads.vars.iter().all(|ix| (ix.0 as usize) < program.variables.len())
    };
    let jump_fits = |jump: &Option<Jump>| !matches!(jump, Some(Jump::To(ix)) if !node_known(*ix));
    for body in &program.bodies {
        let fits = within(&body.nodes, program.nodes.len())
            && within(&body.vars, program.variables.len())
            && body.owner.is_none_or(node_known)
            && reads_fit(&body.output_reads);
        if !fits {
            return outside("bodies");
        }
    }
    for node in &program.nodes {
        let scope_fits = !matches!(node.kind, NodeKind::Scope(body) if !body_known(body));
        let cases_fit = node.cases.len() <= 64
            && node.cases.iter().all(|case| case.body.is_none_or(body_known) && jump_fits(&case.next));
        let reads = [&node.prepare_reads, &node.finish_reads, &node.fallback_reads];
        let fits = body_known(node.body)
            && within(&node.edges, program.edges.len())
            && scope_fits
            && cases_fit
            && jump_fits(&node.next)
            && reads.into_iter().all(reads_fit);
        if !fits {
            return outside("nodes");
        }
    }
    if !program.edges.iter().all(|edge| node_known(edge.target)) {
        return outside("edges");
    }
    if !program.variables.iter().all(|variable| body_known(variable.body)) {
        return outside("variables");
    }
    Ok(())
}

fn range_from_wire(range: Option<&v1::IndexRange>) -> std::ops::Range<u32> {
    range.map_or(0..0, |range| range.start..range.end)
}

fn node_from_wire(wire: &v1::Node) -> Result<Node, WireError> {
    let kind = match wire.kind.as_ref().ok_or_else(|| missing("node.kind"))? {
        v1::node::Kind::Work(work) => NodeKind::Work {
            kind: work.kind.as_str().into(),
            pool: work.pool.as_str().into(),
            with: match work.with.as_ref().ok_or_else(|| missing("work.with"))? {
                v1::work::With::Absent(_) => With::Absent,
                v1::work::With::Constant(bytes) => With::Constant(bytes.as_ref().into()),
                v1::work::With::Evaluated(_) => With::Evaluated,
            },
        },
        v1::node::Kind::Think(_) => NodeKind::Think,
        v1::node::Kind::Choose(_) => NodeKind::Choose,
        v1::node::Kind::Wait(wait) => NodeKind::Wait(wait.for_ms.map_or(WaitTime::Evaluated, WaitTime::ForMs)),
        v1::node::Kind::Scope(body) => NodeKind::Scope(BodyIx(*body)),
    };
    let join = wire.join.as_ref().ok_or_else(|| missing("node.join"))?;
    let join = match v1::join::Kind::try_from(join.kind).map_err(|_| bad("join.kind", "is not known here"))? {
        v1::join::Kind::All => Join::All,
        v1::join::Kind::Every => Join::Every,
        v1::join::Kind::Any => Join::Any,
        v1::join::Kind::Count => Join::Count(small(join.count, "join.count")?),
    };
    Ok(Node {
        id: wire.id.as_str().into(),
        kind,
        body: BodyIx(wire.body),
        in_degree: small(wire.in_degree, "node.in_degree")?,
        join,
        edges: range_from_wire(wire.edges.as_ref()),
        cases: wire
            .cases
            .iter()
            .map(|case| Case {
                name: case.name.as_str().into(),
                body: case.body.map(BodyIx),
                next: case.next.as_ref().map(jump_from_wire),
            })
            .collect(),
        next: wire.next.as_ref().map(jump_from_wire),
        prepare: wire.prepare,
        prepare_reads: reads_from_wire(wire.prepare_reads.as_ref()),
        finish: wire.finish,
        finish_reads: reads_from_wire(wire.finish_reads.as_ref()),
        fallback: wire.fallback,
        fallback_reads: reads_from_wire(wire.fallback_reads.as_ref()),
        retry: wire.retry.as_ref().map(retry_from_wire).transpose()?,
        timeouts: wire.timeouts.as_ref().map_or_else(Timeouts::default, timeouts_from_wire),
    })
}

fn small(number: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(number).map_err(|_| bad(field, "is above 65,535"))
}

fn jump_from_wire(jump: &v1::Jump) -> Jump {
    jump.to.map_or(Jump::End, |node| Jump::To(NodeIx(node)))
}

fn edge_from_wire(edge: &v1::Edge) -> Result<Edge, WireError> {
    let port = edge.port.as_ref().ok_or_else(|| missing("edge.port"))?;
    let case = u8::try_from(port.case).map_err(|_| bad("port.case", "is above 255"))?;
    let port = match v1::port::Kind::try_from(port.kind).map_err(|_| bad("port.kind", "is not known here"))? {
        v1::port::Kind::Ok => Port::Ok,
        v1::port::Kind::Error => Port::Error,
        v1::port::Kind::Timeout => Port::Timeout,
        v1::port::Kind::Ended => Port::Ended,
        v1::port::Kind::Case => Port::Case(case),
    };
    Ok(Edge { port, target: NodeIx(edge.target) })
}

fn body_from_wire(wire: &v1::Body) -> Result<Body, WireError> {
    let form = match v1::body::Form::try_from(wire.form).map_err(|_| bad("body.form", "is not known here"))? {
        v1::body::Form::List => BodyForm::List,
        v1::body::Form::Graph => BodyForm::Graph,
    };
    let output = match v1::body::Output::try_from(wire.output).map_err(|_| bad("body.output", "is not known here"))? {
        v1::body::Output::LastStep => ScopeOutput::LastStep,
        v1::body::Output::Evaluated => ScopeOutput::Evaluated,
    };
    Ok(Body {
        form,
        nodes: range_from_wire(wire.nodes.as_ref()),
        owner: wire.owner.map(NodeIx),
        case: u8::try_from(wire.case).map_err(|_| bad("body.case", "is above 255"))?,
        vars: range_from_wire(wire.vars.as_ref()),
        output,
        output_reads: reads_from_wire(wire.output_reads.as_ref()),
        parallel: wire.parallel,
    })
}

fn reads_from_wire(reads: Option<&v1::Reads>) -> Reads {
    reads.map_or_else(Reads::default, |reads| Reads {
        input: reads.input,
        nodes: reads.nodes.iter().copied().map(NodeIx).collect(),
        vars: reads.vars.iter().copied().map(VarIx).collect(),
    })
}

fn timeouts_from_wire(timeouts: &v1::Timeouts) -> Timeouts {
    Timeouts {
        queue_ms: timeouts.queue_ms,
        attempt_ms: timeouts.attempt_ms,
        heartbeat_ms: timeouts.heartbeat_ms,
        total_ms: timeouts.total_ms,
    }
}

fn retry_from_wire(retry: &v1::Retry) -> Result<Retry, WireError> {
    let jitter =
        match v1::retry::Jitter::try_from(retry.jitter).map_err(|_| bad("retry.jitter", "is not known here"))? {
            v1::retry::Jitter::None => Jitter::None,
            v1::retry::Jitter::Full => Jitter::Full,
            v1::retry::Jitter::Equal => Jitter::Equal,
        };
    let texts = |all: &[String]| all.iter().map(|text| text.as_str().into()).collect();
    Ok(Retry {
        max_attempts: retry.max_attempts,
        backoff: Backoff {
            initial_ms: retry.initial_ms,
            factor_milli: retry.factor_milli,
            max_delay_ms: retry.max_delay_ms,
            jitter,
        },
        only: texts(&retry.only),
        never: texts(&retry.never),
    })
}
