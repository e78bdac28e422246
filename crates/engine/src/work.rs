//! What is decided one at a time: commands of the log, and the steps of a cascade that wait in the state.

use nova_program::NodeIx;

use crate::ids::{ExecutionId, ScopeId};

/// A node of a live scope instance of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct At {
    /// Whose.
    pub execution: ExecutionId,
    /// Scope instance.
    pub scope: ScopeId,
    /// Node.
    pub node: NodeIx,
}

/// A step of a cascade. Each touches a bounded number of nodes, so a cascade of any size is cut into slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Begin the first nodes of a scope instance, from this position of its body.
    Enter(ExecutionId, ScopeId, u32),
    /// A node's turn has come.
    Begin(At),
    /// A path into a node was decided.
    Join(At),
    /// A node ended: decide its paths, from this edge, or go on in its list.
    Ended(At, u32),
    /// Look whether a scope instance ends.
    Settle(ExecutionId, ScopeId),
    /// Cancel what lives in a scope instance, from this position of its body.
    Stop(ExecutionId, ScopeId, u32),
}
