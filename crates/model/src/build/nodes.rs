//! One node: what the engine walks and what the scheduler evaluates.

use nova_expression::{Template, parse_duration_ms};
use nova_program::{Case, Join, Jump, Node, NodeIx, NodeKind, Reads, VarIx, WaitTime, With};

use super::Builder;
use super::names::{ReadSet, Seat, errors_before};
use crate::plan::{Action, Adapter, Choice, NodePlan, Thought};
use crate::problem::codes;
use crate::report::did_you_mean;
use crate::syntax::{self, What};
use crate::tree::{Kind, Tree};

/// Why a list of parents is empty where it must not be.
const NO_PARENTS: &str = "there is nothing to merge: no path leads here; it belongs into a graph, with 'needs'";

impl Builder<'_, '_, '_> {
    pub(super) fn node(&mut self, ix: NodeIx) -> (Node, NodePlan) {
        let layout = self.names.layout;
        let placed = &layout.nodes[ix.0 as usize];
        let node = placed.node;
        let mut prepare = ReadSet::default();
        let when = node.when.and_then(|tree| self.names.condition(tree, Seat::Prepare(ix), "'when'", &mut prepare));
        let (kind, action) = self.what(ix, node, &mut prepare);
        let thinks = matches!(kind, NodeKind::Think);
        // A thought is done in one evaluation, with its output and its set.
        let mut finish = ReadSet::default();
        let (seat, after) = if thinks { (Seat::Thought(ix), &mut prepare) } else { (Seat::Finish(ix), &mut finish) };
        let output = node.output.and_then(|tree| self.names.template(tree, seat, after));
        let set = self.set(ix, node, seat, after);
        let mut fallback_reads = ReadSet::default();
        let fallback =
            node.fallback.and_then(|tree| self.names.template(tree, Seat::Fallback(ix), &mut fallback_reads));
        let reads_error = prepare.error_before || finish.error_before;
        let plan = NodePlan {
            errors_before: if reads_error { errors_before(self.names.graph, ix) } else { Vec::new() },
            when,
            action,
            output,
            set,
            fallback,
        };
        let evaluated = !matches!(plan.action, Action::Pass);
        let program_node = Node {
            id: node.id.text.into(),
            body: placed.body,
            in_degree: self.names.graph.into[ix.0 as usize].len() as u16,
            join: node.join.map_or(Join::All, |(join, _)| join),
            edges: self.edges(ix),
            cases: self.cases(ix, node),
            next: self.names.graph.next[ix.0 as usize],
            prepare: plan.when.is_some() || evaluated,
            prepare_reads: prepare.into_reads(),
            finish: !thinks && (plan.output.is_some() || !plan.set.is_empty()),
            finish_reads: if thinks { Reads::default() } else { finish.into_reads() },
            fallback: plan.fallback.is_some(),
            fallback_reads: fallback_reads.into_reads(),
            retry: node.retry.clone(),
            timeouts: node.timeouts,
            kind,
        };
        (program_node, plan)
    }

    fn edges(&self, ix: NodeIx) -> std::ops::Range<u32> {
        let paths = &self.names.graph.paths;
        let start = paths.partition_point(|path| path.source < ix);
        let end = paths.partition_point(|path| path.source <= ix);
        start as u32..end as u32
    }

    fn cases(&self, ix: NodeIx, node: &syntax::Node<'_>) -> Vec<Case> {
        let bodies = &self.names.layout.nodes[ix.0 as usize].bodies;
        let jumps: &[Option<Jump>] = &self.names.graph.case_next[ix.0 as usize];
        let cases = node.cases().into_iter().enumerate().map(|(number, name)| Case {
            name: name.into(),
            body: bodies.iter().find(|(case, _)| usize::from(*case) == number).map(|(_, body)| *body),
            next: jumps.get(number).copied().flatten(),
        });
        cases.collect()
    }

    fn set(&mut self, ix: NodeIx, node: &syntax::Node<'_>, seat: Seat, reads: &mut ReadSet) -> Vec<(VarIx, Template)> {
        let layout = self.names.layout;
        let body = layout.body_of(ix);
        let mut set = Vec::new();
        for (name, tree) in &node.set {
            let template = self.names.template(tree, seat, reads);
            match (layout.var(body, name.text), template) {
                (Some(var), Some(template)) => set.push((var, template)),
                (Some(_), None) => {}
                (None, _) => {
                    let seen = layout.vars_from(body);
                    let names = seen.iter().map(|var| layout.vars[var.0 as usize].name.text);
                    let help = did_you_mean(name.text, names)
                        .or_else(|| Some("declare it with 'vars' on a scope around".to_owned()));
                    let message = format!("no scope around declares '{}'", name.text);
                    self.names.report.error_with(codes::UNDECLARED_VAR, name.at, message, help);
                }
            }
        }
        set
    }

    fn what(&mut self, ix: NodeIx, node: &syntax::Node<'_>, reads: &mut ReadSet) -> (NodeKind, Action) {
        let seat = Seat::Prepare(ix);
        let think = |thought| (NodeKind::Think, Action::Think(thought));
        match &node.what {
            What::Work { kind, pool } => {
                let (with, action) = self.work(node.with, seat, reads);
                (NodeKind::Work { kind: kind.as_str().into(), pool: pool.as_str().into(), with }, action)
            }
            What::Group(_) => {
                let body = self.names.layout.nodes[ix.0 as usize].bodies.first();
                (body.map_or(NodeKind::Think, |(_, body)| NodeKind::Scope(*body)), Action::Pass)
            }
            What::WaitFor(span) => self.wait_for(span, seat, reads),
            What::WaitAt { at, zone } => {
                let at = self.names.template(at, seat, reads);
                let zone = zone.map(|zone| self.names.template(zone, seat, reads));
                let action = match (at, zone) {
                    (Some(at), None) => Action::WaitAt { at, zone: None },
                    (Some(at), Some(Some(zone))) => Action::WaitAt { at, zone: Some(zone) },
                    _ => Action::Pass,
                };
                (NodeKind::Wait(WaitTime::Evaluated), action)
            }
            What::If { test, then, otherwise } => {
                let test = self.names.condition(test, seat, "'test'", reads);
                let choice = Choice { cases: test.into_iter().collect(), all: false };
                choose(choice, then.is_some() || otherwise.is_some())
            }
            What::Switch { all, cases, otherwise, .. } => {
                let bodies = otherwise.is_some() || cases.iter().any(|case| case.body.is_some());
                let conditions: Vec<_> = cases
                    .iter()
                    .filter_map(|case| {
                        let what = format!("'when' of the case '{}'", case.name.text);
                        self.names.condition(case.when, seat, &what, reads)
                    })
                    .collect();
                choose(Choice { cases: conditions, all: *all }, bodies)
            }
            What::Set => think(Thought::Set),
            What::Merge => {
                let parents = self.parents(ix);
                if parents.is_empty() {
                    self.names.report.error(codes::MISSING_FIELD, node.id.at, NO_PARENTS);
                }
                reads.nodes.extend(parents.iter().copied());
                think(Thought::Merge(parents))
            }
            What::Transform => match node.with.and_then(|tree| self.names.template(tree, seat, reads)) {
                Some(template) => think(Thought::Transform(template)),
                None => think(Thought::Set),
            },
            What::Adapter => think(Thought::Adapt(self.adapter(ix, node, reads))),
            What::Broken => think(Thought::Set),
        }
    }

    fn work(&mut self, with: Option<&Tree>, seat: Seat, reads: &mut ReadSet) -> (With, Action) {
        let Some(tree) = with else { return (With::Absent, Action::Pass) };
        match self.names.template(tree, seat, reads) {
            Some(template) if template.is_constant() => {
                let json = self.constant(tree, &template, "'with'").unwrap_or_default();
                (With::Constant(json.into()), Action::Pass)
            }
            Some(template) => (With::Evaluated, Action::With(template)),
            None => (With::Absent, Action::Pass),
        }
    }

    fn wait_for(&mut self, span: &Tree, seat: Seat, reads: &mut ReadSet) -> (NodeKind, Action) {
        let fixed = span.as_text().filter(|text| !text.contains("${")).and_then(|text| parse_duration_ms(text).ok());
        if let Some(ms) = fixed {
            return (NodeKind::Wait(WaitTime::ForMs(ms)), Action::Pass);
        }
        let template = self.names.template(span, seat, reads);
        (NodeKind::Wait(WaitTime::Evaluated), template.map_or(Action::Pass, Action::WaitFor))
    }

    /// The nodes before, each once, in order of the needs.
    fn parents(&self, ix: NodeIx) -> Vec<NodeIx> {
        let mut parents = Vec::new();
        for path in &self.names.graph.into[ix.0 as usize] {
            if !parents.contains(&path.source) {
                parents.push(path.source);
            }
        }
        parents
    }

    fn adapter(&mut self, ix: NodeIx, node: &syntax::Node<'_>, reads: &mut ReadSet) -> Adapter {
        let layout = self.names.layout;
        let parents = self.parents(ix);
        reads.nodes.extend(parents.iter().copied());
        // A node without parents takes the input of the execution.
        reads.input |= parents.is_empty();
        let answers = |parent: &NodeIx| matches!(&layout.node(*parent).what, What::Work { kind, .. } if kind == "http");
        let parents = parents.into_iter().map(|parent| (parent, answers(&parent))).collect();
        let mapping = node.with.and_then(|with| with.get("mapping"));
        let entries = match mapping.map(|mapping| &mapping.kind) {
            Some(Kind::Map(entries)) => entries.as_slice(),
            _ => &[],
        };
        let mapping = entries
            .iter()
            .filter_map(|(new, old)| Some((Box::from(new.name.as_str()), Box::from(old.as_text()?))))
            .collect();
        Adapter { parents, mapping }
    }
}

fn choose(choice: Choice, bodies: bool) -> (NodeKind, Action) {
    if bodies {
        (NodeKind::Choose, Action::Choose(choice))
    } else {
        (NodeKind::Think, Action::Think(Thought::Choose(choice)))
    }
}
