//! What a workflow version is after compilation.
//!
//! Owns: the flat form of a graph – nodes, bodies, edges, joins, policies, read sets – that the engine walks without
//! ever looking at an expression, and that the scheduler pairs with the expressions of the document.
//! Must not know: the text of the language, expressions, payloads, time, how it is stored or sent.
//!
//! The nodes of one body stand next to each other, in the order of the document, so that a live scope keeps its node
//! states in one array. Body 0 is the root. Everything is an index; nothing is looked up by name while applying.

mod node;
mod policy;

pub use node::{
    Body, BodyForm, BodyIx, Case, Edge, Join, Jump, Node, NodeIx, NodeKind, Port, Reads, ScopeOutput, VarIx, Variable,
    WaitTime, With,
};
pub use policy::{Backoff, Jitter, Retry, Timeouts, code_matches};

/// The compiled form of one workflow version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Program {
    /// All nodes; those of one body are contiguous and in document order.
    pub nodes: Vec<Node>,
    /// All bodies; index 0 is the root.
    pub bodies: Vec<Body>,
    /// All edges, grouped by source (see [`Node::edges`]).
    pub edges: Vec<Edge>,
    /// All declared variables, grouped by the body that declares them (see [`Body::vars`]).
    pub variables: Vec<Variable>,
    /// Limits in time of the whole execution; only `total_ms` is used.
    pub timeouts: Timeouts,
    /// What is kept when an attempt of the whole execution fails; absent: no retry.
    pub retry: Option<Retry>,
    /// 0 (last) to 9 (first); the default is 5.
    pub priority: u8,
    /// Names of the features a cluster must have to run this version.
    pub requires: Vec<Box<str>>,
}

impl Program {
    /// The node at `ix`. Indices come from the same program, so they are always in range.
    #[must_use]
    pub fn node(&self, ix: NodeIx) -> &Node {
        &self.nodes[ix.0 as usize]
    }

    /// The body at `ix`.
    #[must_use]
    pub fn body(&self, ix: BodyIx) -> &Body {
        &self.bodies[ix.0 as usize]
    }

    /// The edges that leave `ix`, in document order.
    #[must_use]
    pub fn edges_of(&self, ix: NodeIx) -> &[Edge] {
        let range = self.node(ix).edges.clone();
        &self.edges[range.start as usize..range.end as usize]
    }
}
