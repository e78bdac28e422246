//! The expressions of a workflow, by the indices of its program.

use nova_expression::{Expression, Template};
use nova_program::{NodeIx, VarIx};

/// What the scheduler evaluates, next to what the engine walks.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) bodies: Vec<ScopeValue>,
}

#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    pub when: Option<Expression>,
    pub action: Action,
    pub output: Option<Template>,
    pub set: Vec<(VarIx, Template)>,
    pub fallback: Option<Template>,
    /// `error` is that of the first of these that failed.
    pub errors_before: Vec<NodeIx>,
}

/// What a node's own matter is to the scheduler.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Nothing: a group, work with a fixed argument, a wait of fixed length.
    Pass,
    /// Work with an argument.
    With(Template),
    WaitFor(Template),
    WaitAt {
        at: Template,
        zone: Option<Template>,
    },
    /// Bodies are chosen.
    Choose(Choice),
    Think(Thought),
}

/// What is done where it is evaluated.
#[derive(Clone, Debug)]
pub(crate) enum Thought {
    Set,
    Merge(Vec<NodeIx>),
    Transform(Template),
    Choose(Choice),
    Adapt(Adapter),
}

#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// One condition per case but the last, which stands for none of them.
    pub cases: Vec<Expression>,
    pub all: bool,
}

/// The `DATA_ADAPTER` of a low-code document: its parents' output, merged; fields renamed.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    /// Whether a parent's data is the body of an HTTP answer.
    pub parents: Vec<(NodeIx, bool)>,
    /// New name, old name.
    pub mapping: Vec<(Box<str>, Box<str>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum ScopeValue {
    /// The engine hands on the output of the last step.
    LastStep,
    Template(Template),
    /// An object of the completed ones among these.
    Finals(Vec<NodeIx>),
}
