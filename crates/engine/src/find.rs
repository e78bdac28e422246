//! Looking things up in the state.

use nova_program::{BodyIx, Node, NodeIx, NodeKind, Port, Program};

use crate::ids::{ExecutionId, ScopeId, ShardId};
use crate::output::{NodeState, Subject};
use crate::state::{Execution, NodeRecord, Phase, Scope, Shard, State};
use crate::work::At;

/// A node with all that is around it.
#[derive(Clone, Copy)]
pub(crate) struct Found<'a> {
    pub execution: &'a Execution,
    pub program: &'a Program,
    pub scope: &'a Scope,
    pub node: &'a Node,
    pub record: &'a NodeRecord,
}

impl State {
    /// The shard, if the cluster has it.
    #[must_use]
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(id.0)).map(AsRef::as_ref)
    }

    /// The open execution, if it is not parked: [`crate::park`] sees to it that what a step is about is not.
    pub(crate) fn open(&self, id: ExecutionId) -> Option<&Execution> {
        self.shard(id.shard())?.executions.live(id).map(AsRef::as_ref)
    }

    pub(crate) fn live_scope(&self, execution: ExecutionId, scope: ScopeId) -> Option<(&Execution, &Scope)> {
        let execution = self.open(execution)?;
        Some((execution, execution.scopes.get(&scope)?))
    }

    pub(crate) fn at(&self, at: At) -> Option<Found<'_>> {
        let (execution, scope) = self.live_scope(at.execution, at.scope)?;
        let program = &*execution.workflow.program;
        let position = position(program, scope.body, at.node)?;
        Some(Found { execution, program, scope, node: program.node(at.node), record: scope.nodes.get(position)? })
    }
}

/// Place of a node within its body; none when it stands in another one.
pub(crate) fn position(program: &Program, body: BodyIx, node: NodeIx) -> Option<usize> {
    let range = &program.body(body).nodes;
    range.contains(&node.0).then(|| (node.0 - range.start) as usize)
}

/// The scope instance, `from` or one around it, in which `body` runs.
pub(crate) fn scope_of_body(execution: &Execution, from: ScopeId, body: BodyIx) -> Option<(ScopeId, &Scope)> {
    let mut id = from;
    loop {
        let scope = execution.scopes.get(&id)?;
        if scope.body == body {
            return Some((id, scope));
        }
        id = scope.parent?.0;
    }
}

/// Whether the body of a scope instance runs and no scope around it is being stopped. A stop reaches the inner scopes in
/// steps of a cascade that may be cut; until it does, nothing may begin in them.
pub(crate) fn in_body(execution: &Execution, scope: &Scope) -> bool {
    let mut scope = scope;
    loop {
        if scope.phase != Phase::Body {
            return false;
        }
        let Some((parent, _)) = scope.parent else { return true };
        let Some(around) = execution.scopes.get(&parent) else { return false };
        scope = around;
    }
}

/// Whether a path that leaves `record` through `port` is alive.
pub(crate) fn port_alive(program: &Program, ix: NodeIx, record: &NodeRecord, port: Port) -> bool {
    match record.state {
        NodeState::Completed => match port {
            Port::Ok | Port::Ended => true,
            Port::Case(case) => record.cases & (1 << u32::from(case).min(63)) != 0,
            Port::Error | Port::Timeout => false,
        },
        NodeState::Failed => {
            let timeout = record.failure.as_ref().is_some_and(|f| nova_program::code_matches("timeout", &f.code));
            match port {
                Port::Ended => true,
                Port::Timeout => timeout,
                Port::Error => !(timeout && program.edges_of(ix).iter().any(|e| e.port == Port::Timeout)),
                Port::Ok | Port::Case(_) => false,
            }
        }
        _ => false,
    }
}

/// Whether a failure with this code is handled by a path out of the node.
pub(crate) fn is_handled(program: &Program, ix: NodeIx, code: &str) -> bool {
    let timeout = nova_program::code_matches("timeout", code);
    program.edges_of(ix).iter().any(|edge| match edge.port {
        Port::Error => !timeout || !program.edges_of(ix).iter().any(|e| e.port == Port::Timeout),
        Port::Timeout => timeout,
        Port::Ended => true,
        Port::Ok | Port::Case(_) => false,
    })
}

/// What an evaluation reads.
pub(crate) fn reads_of(program: &Program, subject: Subject) -> &nova_program::Reads {
    match subject {
        Subject::Prepare(node) => &program.node(node).prepare_reads,
        Subject::Finish(node) => &program.node(node).finish_reads,
        Subject::Fallback(node) => &program.node(node).fallback_reads,
        Subject::ScopeOutput(body) => &program.body(body).output_reads,
    }
}

/// The node that an evaluation is about; none for the output of a scope.
pub(crate) fn node_of(subject: Subject) -> Option<NodeIx> {
    match subject {
        Subject::Prepare(node) | Subject::Finish(node) | Subject::Fallback(node) => Some(node),
        Subject::ScopeOutput(_) => None,
    }
}

/// Pool and kind of a work node.
pub(crate) fn class_of(node: &Node) -> Option<(&str, &str)> {
    match &node.kind {
        NodeKind::Work { kind, pool, .. } => Some((pool, kind)),
        _ => None,
    }
}
