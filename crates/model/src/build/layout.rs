//! Every node and body gets its index.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use nova_program::{BodyForm, BodyIx, NodeIx, VarIx};

use crate::problem::codes;
use crate::report::Report;
use crate::syntax::{Body, Node, Word, Workflow};
use crate::tree::Tree;

/// Nodes and bodies in the order in which the program holds them.
pub(crate) struct Layout<'w, 't> {
    pub nodes: Vec<Placed<'w, 't>>,
    pub bodies: Vec<Scope<'w, 't>>,
    pub vars: Vec<Var<'w, 't>>,
    ids: BTreeMap<&'t str, NodeIx>,
}

pub(crate) struct Placed<'w, 't> {
    pub node: &'w Node<'t>,
    pub body: BodyIx,
    /// Bodies with the number of their case.
    pub bodies: Vec<(u8, BodyIx)>,
}

pub(crate) struct Scope<'w, 't> {
    pub body: &'w Body<'t>,
    pub owner: Option<NodeIx>,
    pub case: u8,
    pub nodes: Range<u32>,
    pub vars: Range<u32>,
}

pub(crate) struct Var<'w, 't> {
    pub name: &'w Word<'t>,
    pub body: BodyIx,
    pub start: &'t Tree,
}

impl<'w, 't> Layout<'w, 't> {
    /// Level by level, so that the nodes of one body stand side by side.
    pub(crate) fn new(workflow: &'w Workflow<'t>, report: &mut Report) -> Self {
        let mut layout = Self { nodes: Vec::new(), bodies: Vec::new(), vars: Vec::new(), ids: BTreeMap::new() };
        let mut waiting = VecDeque::from([(&workflow.root, None, 0u8)]);
        let mut next_body = 1u32;
        while let Some((body, owner, case)) = waiting.pop_front() {
            let ix = BodyIx(layout.bodies.len() as u32);
            let start = layout.nodes.len() as u32;
            for node in &body.nodes {
                let mut bodies = Vec::new();
                for (case, inner) in node.bodies() {
                    bodies.push((case, BodyIx(next_body)));
                    next_body += 1;
                    waiting.push_back((inner, Some(NodeIx(layout.nodes.len() as u32)), case));
                }
                layout.nodes.push(Placed { node, body: ix, bodies });
            }
            let first_var = layout.vars.len() as u32;
            layout.vars.extend(body.vars.iter().map(|(name, start)| Var { name, body: ix, start }));
            let (end, last_var) = (layout.nodes.len() as u32, layout.vars.len() as u32);
            layout.bodies.push(Scope { body, owner, case, nodes: start..end, vars: first_var..last_var });
        }
        layout.name(report);
        layout
    }

    /// Ids are unique in the document, whatever their case.
    fn name(&mut self, report: &mut Report) {
        let mut words: Vec<(&'w Word<'t>, NodeIx)> =
            self.nodes.iter().enumerate().map(|(ix, placed)| (&placed.node.id, NodeIx(ix as u32))).collect();
        // The first in the document keeps the id.
        words.sort_by_key(|(word, _)| (word.at.line, word.at.column));
        let mut folded: BTreeMap<String, &Word<'t>> = BTreeMap::new();
        for (word, ix) in words.into_iter().filter(|(word, _)| !word.text.is_empty()) {
            let lower = word.text.to_ascii_lowercase();
            if let Some(first) = folded.get(&lower) {
                let twin = if first.text == word.text { "" } else { " (ids differ in more than case)" };
                let message = format!("the id '{}' is taken by the node in line {}{twin}", word.text, first.at.line);
                report.error(codes::DUPLICATE_ID, word.at, message);
                continue;
            }
            folded.insert(lower, word);
            self.ids.insert(word.text, ix);
        }
    }

    pub(crate) fn find(&self, id: &str) -> Option<NodeIx> {
        self.ids.get(id).copied()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &'t str> {
        self.ids.keys().copied()
    }

    pub(crate) fn node(&self, ix: NodeIx) -> &'w Node<'t> {
        self.nodes[ix.0 as usize].node
    }

    pub(crate) fn body_of(&self, ix: NodeIx) -> BodyIx {
        self.nodes[ix.0 as usize].body
    }

    pub(crate) fn scope(&self, ix: BodyIx) -> &Scope<'w, 't> {
        &self.bodies[ix.0 as usize]
    }

    pub(crate) fn is_list(&self, ix: BodyIx) -> bool {
        self.scope(ix).body.form == BodyForm::List
    }

    pub(crate) fn siblings(&self, body: BodyIx) -> impl Iterator<Item = NodeIx> + use<> {
        self.scope(body).nodes.clone().map(NodeIx)
    }

    /// The bodies from `body` outwards.
    pub(crate) fn outwards(&self, body: BodyIx) -> impl Iterator<Item = BodyIx> + '_ {
        std::iter::successors(Some(body), |body| Some(self.body_of(self.scope(*body).owner?)))
    }

    /// The nearest declaration of a variable, seen from inside of `body`.
    pub(crate) fn var(&self, body: BodyIx, name: &str) -> Option<VarIx> {
        self.outwards(body).find_map(|body| {
            let range = self.scope(body).vars.clone();
            range.map(VarIx).find(|var| self.vars[var.0 as usize].name.text == name)
        })
    }

    /// All variables that can be seen from inside of `body`.
    pub(crate) fn vars_from(&self, body: BodyIx) -> Vec<VarIx> {
        let mut seen: Vec<VarIx> = Vec::new();
        for var in self.outwards(body).flat_map(|body| self.scope(body).vars.clone()).map(VarIx) {
            let name = self.vars[var.0 as usize].name.text;
            if !seen.iter().any(|other| self.vars[other.0 as usize].name.text == name) {
                seen.push(var);
            }
        }
        seen
    }
}
