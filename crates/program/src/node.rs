//! Nodes, bodies, edges and what joins them.

use std::ops::Range;

use crate::policy::{Retry, Timeouts};

/// Index of a node in [`crate::Program::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// Index of a body in [`crate::Program::bodies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyIx(pub u32);

impl BodyIx {
    /// The body of the document itself.
    pub const ROOT: Self = Self(0);
}

/// Index of a variable in [`crate::Program::variables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VarIx(pub u32);

/// A variable declared by a scope.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Its name in the document.
    pub name: Box<str>,
    /// The body whose instances hold it.
    pub body: BodyIx,
    /// Its start value as JSON. A start value with expressions is evaluated with the scope's `enter` phase.
    pub start: Box<[u8]>,
}

/// How a body runs its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyForm {
    /// `do:` – one after the other.
    List,
    /// `nodes:` – as the edges allow.
    Graph,
}

/// How the output of a scope comes about when it ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeOutput {
    /// The output of the last step that completed (a list without `output:`); the engine hands it on unread.
    LastStep,
    /// The scheduler evaluates it: `output:` was given, or it is the object of a graph's final nodes.
    Evaluated,
}

/// A list of nodes or a graph of nodes; each run of it is a scope instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Body {
    /// List or graph.
    pub form: BodyForm,
    /// Its nodes, contiguous in [`crate::Program::nodes`].
    pub nodes: Range<u32>,
    /// The node that owns it; none for the root.
    pub owner: Option<NodeIx>,
    /// Which case of an `if` or `switch` it is; 0 for a group.
    pub case: u8,
    /// Variables that each instance holds, contiguous in [`crate::Program::variables`].
    pub vars: Range<u32>,
    /// How its output comes about.
    pub output: ScopeOutput,
    /// What the evaluation of its output reads (empty for [`ScopeOutput::LastStep`]).
    pub output_reads: Reads,
    /// How many children may run at once; 0: no limit.
    pub parallel: u32,
}

/// A way out of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// Alive when the node completed.
    Ok,
    /// Alive when it failed; not for a timeout when somebody needs [`Port::Timeout`].
    Error,
    /// Alive when it failed with `timeout.*`.
    Timeout,
    /// Alive when it completed or failed.
    Ended,
    /// Alive when it completed and chose this case (index into [`Node::cases`]).
    Case(u8),
}

/// A path from one node to another of the same body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Where it starts.
    pub port: Port,
    /// Where it leads.
    pub target: NodeIx,
}

/// When a node with incoming paths begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Join {
    /// All paths decided and at least one arrived.
    All,
    /// All arrived; skipped as soon as one is dead.
    Every,
    /// At the first arrival.
    Any,
    /// At the n-th arrival; skipped when that can no longer be reached.
    Count(u16),
}

/// Where a list goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Jump {
    /// At this step of the same list.
    To(NodeIx),
    /// Nowhere: the list ends.
    End,
}

/// One way out of an `if` or `switch`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Case {
    /// Its name, which is its port.
    pub name: Box<str>,
    /// The body that runs when it is chosen.
    pub body: Option<BodyIx>,
    /// Where the list goes on when it is chosen; goes before the `next` of the node.
    pub next: Option<Jump>,
}

/// Where the argument of a work node comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum With {
    /// There is none: the worker gets JSON `null`.
    Absent,
    /// The same for every execution: JSON bytes.
    Constant(Box<[u8]>),
    /// The scheduler evaluates it before the first attempt.
    Evaluated,
}

/// When a `wait` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitTime {
    /// This long after it began.
    ForMs(u64),
    /// The scheduler evaluates the moment.
    Evaluated,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A worker runs it: `http`, `task`.
    Work {
        /// The executor that runs it: `http`, or the `kind` of a `task`.
        kind: Box<str>,
        /// The pool of workers it may run on.
        pool: Box<str>,
        /// Its argument.
        with: With,
    },
    /// The scheduler evaluates it: `set`, `merge`, `transform`, and `if`/`switch` without bodies.
    Think,
    /// `if`/`switch` with bodies: the scheduler chooses, then the chosen bodies run.
    Choose,
    /// A timer.
    Wait(WaitTime),
    /// A `group`.
    Scope(BodyIx),
}

/// What the scheduler must be shown to evaluate something. Everything else stays in the replicated state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Reads {
    /// The input of the execution.
    pub input: bool,
    /// Nodes whose state, output or error is read: of this scope or of one around it.
    pub nodes: Vec<NodeIx>,
    /// Variables that are read.
    pub vars: Vec<VarIx>,
}

/// A node of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its id in the document.
    pub id: Box<str>,
    /// What it does.
    pub kind: NodeKind,
    /// The body it stands in.
    pub body: BodyIx,
    /// How many edges lead to it.
    pub in_degree: u16,
    /// When it begins, if edges lead to it.
    pub join: Join,
    /// The edges that leave it, in [`crate::Program::edges`].
    pub edges: Range<u32>,
    /// Cases of an `if` (`true`, `false`) or `switch` (names, then `default`); else empty. At most 64.
    pub cases: Vec<Case>,
    /// In a list: where it goes on after this node completed.
    pub next: Option<Jump>,
    /// The scheduler evaluates `when`, `with`, a choice or a `set` before the node may go on.
    pub prepare: bool,
    /// What that reads.
    pub prepare_reads: Reads,
    /// The scheduler evaluates `output` or `set` after the work succeeded.
    pub finish: bool,
    /// What that reads, beside the raw output.
    pub finish_reads: Reads,
    /// The scheduler evaluates a value that stands in for the output when the node failed for good.
    pub fallback: bool,
    /// What that reads, beside the error.
    pub fallback_reads: Reads,
    /// Repeats of failed attempts; absent: none.
    pub retry: Option<Retry>,
    /// Limits in time.
    pub timeouts: Timeouts,
}

impl Node {
    /// Whether a worker runs it.
    #[must_use]
    pub fn is_work(&self) -> bool {
        matches!(self.kind, NodeKind::Work { .. })
    }
}
