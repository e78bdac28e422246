//! A document after its fields are known and before its names are resolved.

use nova_program::{BodyForm, Retry, Timeouts};

use crate::tree::{Spot, Tree};

/// A word with its place.
#[derive(Clone, Debug)]
pub(crate) struct Word<'t> {
    pub text: &'t str,
    pub at: Spot,
}

#[derive(Debug)]
pub(crate) struct Workflow<'t> {
    pub namespace: Option<Word<'t>>,
    pub name: Word<'t>,
    pub labels: Vec<(String, String)>,
    pub input: Option<&'t Tree>,
    pub priority: u8,
    pub timeouts: Timeouts,
    /// It was written in a form that has no words for some things.
    pub low_code: bool,
    pub root: Body<'t>,
}

#[derive(Debug)]
pub(crate) struct Body<'t> {
    pub form: BodyForm,
    pub nodes: Vec<Node<'t>>,
    pub edges: Vec<EdgeLine<'t>>,
    pub vars: Vec<(Word<'t>, &'t Tree)>,
    pub output: Option<&'t Tree>,
    pub parallel: u32,
}

/// An entry of `edges` or of `needs`.
#[derive(Clone, Debug)]
pub(crate) struct EdgeLine<'t> {
    pub source: Word<'t>,
    pub port: Option<Word<'t>>,
    /// For an entry of `needs`: the node that has it.
    pub target: Option<Word<'t>>,
}

#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub id: Word<'t>,
    pub what: What<'t>,
    pub needs: Vec<EdgeLine<'t>>,
    pub join: Option<(nova_program::Join, Spot)>,
    pub next: Option<Word<'t>>,
    pub when: Option<&'t Tree>,
    pub with: Option<&'t Tree>,
    /// On a group it belongs to the body.
    pub output: Option<&'t Tree>,
    pub set: Vec<(Word<'t>, &'t Tree)>,
    pub fallback: Option<&'t Tree>,
    pub retry: Option<Retry>,
    pub timeouts: Timeouts,
    pub timeout_at: Option<Spot>,
    /// It has parts that are not supported yet: ways that lead on from it may be missing.
    pub partial: bool,
}

#[derive(Debug)]
pub(crate) enum What<'t> {
    Work {
        kind: String,
        pool: String,
    },
    Set,
    Merge,
    Transform,
    Adapter,
    If {
        test: &'t Tree,
        then: Option<Body<'t>>,
        otherwise: Option<Body<'t>>,
    },
    Switch {
        all: bool,
        cases: Vec<Case<'t>>,
        default: &'t str,
        otherwise: Option<Body<'t>>,
    },
    WaitFor(&'t Tree),
    WaitAt {
        at: &'t Tree,
        zone: Option<&'t Tree>,
    },
    Group(Body<'t>),
    /// Told already; it stands for what it might have been, so that nothing more is told because of it.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Case<'t> {
    pub name: Word<'t>,
    pub when: &'t Tree,
    pub body: Option<Body<'t>>,
    pub next: Option<Word<'t>>,
}

impl<'t> Node<'t> {
    /// Bodies with the number of their case.
    pub(crate) fn bodies(&self) -> Vec<(u8, &Body<'t>)> {
        match &self.what {
            What::Group(body) => vec![(0, body)],
            What::If { then, otherwise, .. } => {
                let bodies = [(0, then.as_ref()), (1, otherwise.as_ref())];
                bodies.into_iter().filter_map(|(case, body)| Some((case, body?))).collect()
            }
            What::Switch { cases, otherwise, .. } => {
                let bodies = cases.iter().map(|case| case.body.as_ref()).chain([otherwise.as_ref()]);
                bodies.enumerate().filter_map(|(case, body)| Some((case as u8, body?))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Names of the cases; the last is the one taken when no other is.
    pub(crate) fn cases(&self) -> Vec<&'t str> {
        match &self.what {
            What::If { .. } => vec!["true", "false"],
            What::Switch { cases, default, .. } => cases.iter().map(|case| case.name.text).chain([*default]).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether at most one case is chosen.
    pub(crate) fn chooses_one(&self) -> bool {
        matches!(self.what, What::If { .. } | What::Switch { all: false, .. })
    }

    pub(crate) fn is_broken(&self) -> bool {
        matches!(self.what, What::Broken)
    }
}
