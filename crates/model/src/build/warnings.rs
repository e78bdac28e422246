//! What is allowed, but worth a look.

use std::collections::BTreeMap;

use nova_program::{BodyIx, Join, NodeIx, NodeKind, Port, Program, VarIx};

use super::graph::Graph;
use super::layout::Layout;
use crate::plan::Plan;
use crate::problem::codes;
use crate::report::Report;
use crate::syntax::Workflow;
use crate::tree::Spot;

pub(super) fn tell(
    workflow: &Workflow<'_>,
    layout: &Layout<'_, '_>,
    graph: &Graph,
    program: &Program,
    plan: &Plan,
    report: &mut Report,
) {
    let unsure = may_be_dead(layout, graph);
    for ix in (0..program.nodes.len() as u32).map(NodeIx) {
        may_run_without(ix, layout, graph, program, &unsure, report);
        timeouts(ix, workflow, layout, program, report);
    }
    concurrent_writes(layout, graph, plan, report);
}

/// Whether a node may end without an output although nobody failed the scope: skipped, or failed and handled.
fn may_be_dead(layout: &Layout<'_, '_>, graph: &Graph) -> Vec<bool> {
    let mut dead = vec![false; layout.nodes.len()];
    for body in (0..layout.bodies.len() as u32).map(BodyIx) {
        if layout.is_list(body) {
            continue;
        }
        // Needs may point forward in the document: repeat until nothing changes, at most once per level.
        let mut changed = true;
        while changed {
            changed = false;
            for ix in layout.siblings(body) {
                let into = &graph.into[ix.0 as usize];
                let uncertain = |path: &super::graph::Path| path.port != Port::Ok || dead[path.source.0 as usize];
                let by_paths = !into.is_empty()
                    && match layout.node(ix).join.map_or(Join::All, |(join, _)| join) {
                        Join::Every | Join::Count(_) => into.iter().any(uncertain),
                        Join::All | Join::Any => into.iter().all(uncertain),
                    };
                let now = layout.node(ix).when.is_some() || by_paths;
                if now && !dead[ix.0 as usize] {
                    dead[ix.0 as usize] = true;
                    changed = true;
                }
            }
        }
    }
    dead
}

fn may_run_without(
    ix: NodeIx,
    layout: &Layout<'_, '_>,
    graph: &Graph,
    program: &Program,
    unsure: &[bool],
    report: &mut Report,
) {
    let node = program.node(ix);
    let into = &graph.into[ix.0 as usize];
    let merges = matches!(layout.node(ix).what, crate::syntax::What::Merge | crate::syntax::What::Adapter);
    if into.len() < 2 || merges || node.join == Join::Every {
        return;
    }
    for path in into {
        let reads = node.prepare_reads.nodes.contains(&path.source) || node.finish_reads.nodes.contains(&path.source);
        let open = node.join != Join::All || unsure[path.source.0 as usize] || matches!(path.port, Port::Case(_));
        if reads && open {
            let source = layout.node(path.source).id.text;
            let message = format!("'{}' reads '{source}' but may run without it", node.id);
            let help = Some("say 'join: every', or read it with get(…)".to_owned());
            report.warning(codes::MAY_RUN_WITHOUT, path.at, message, help);
        }
    }
}

fn timeouts(ix: NodeIx, workflow: &Workflow<'_>, layout: &Layout<'_, '_>, program: &Program, report: &mut Report) {
    let node = program.node(ix);
    let mut around = layout.outwards(node.body).filter_map(|body| layout.scope(body).owner);
    let tightest = around
        .by_ref()
        .filter_map(|owner| layout.node(owner).timeouts.total_ms)
        .chain(workflow.timeouts.total_ms)
        .min();
    let own = node.timeouts.total_ms;
    let source = layout.node(ix);
    if let (Some(own), Some(around), Some(at)) = (own, tightest, source.timeout_at)
        && own > around
    {
        let message = format!("'{}' may take longer than the scope around it", node.id);
        report.warning(codes::TIMEOUT_EXCEEDS_SCOPE, at, message, None);
    }
    let limited = own.is_some() || node.timeouts.attempt_ms.is_some() || tightest.is_some();
    // The low-code form has no word for it.
    if matches!(node.kind, NodeKind::Work { .. }) && !limited && !workflow.low_code {
        let message = format!("'{}' may run for ever: neither it nor a scope around it has a timeout", node.id);
        report.warning(codes::MISSING_TIMEOUT, source.id.at, message, None);
    }
}

/// Writers of one variable that are compared with each other; more of them tell nothing new.
const WRITERS: usize = 64;

/// Two branches that overwrite a variable at the same time: the later one wins, and nobody knows which that is.
fn concurrent_writes(layout: &Layout<'_, '_>, graph: &Graph, plan: &Plan, report: &mut Report) {
    let mut writers: BTreeMap<VarIx, Vec<(NodeIx, Spot)>> = BTreeMap::new();
    for ix in (0..layout.nodes.len() as u32).map(NodeIx) {
        let spots = &layout.node(ix).set;
        for (var, template) in &plan.nodes[ix.0 as usize].set {
            let name = layout.vars[var.0 as usize].name.text;
            let mut reads_itself = false;
            template.each_expression(|_, _, expression| {
                reads_itself |= expression
                    .reads()
                    .iter()
                    .any(|read| &*read.root == "vars" && read.path.first().is_none_or(|field| &**field == name));
            });
            let spot = spots.iter().find(|(word, _)| word.text == name).map(|(word, _)| word.at);
            if let (false, Some(spot)) = (reads_itself, spot) {
                writers.entry(*var).or_default().push((ix, spot));
            }
        }
    }
    for (var, writers) in writers {
        let writers = &writers[..writers.len().min(WRITERS)];
        let clash = writers.iter().enumerate().find_map(|(index, (a, _))| {
            let later = writers[index + 1..].iter().find(|(b, _)| at_the_same_time(layout, graph, *a, *b))?;
            Some((*a, *later))
        });
        if let Some((first, (_, at))) = clash {
            let name = layout.vars[var.0 as usize].name.text;
            let message =
                format!("'{name}' is overwritten here and in '{}' at the same time", layout.node(first).id.text);
            let help = Some("put one after the other, or let each add to what is there".to_owned());
            report.warning(codes::CONCURRENT_WRITE, at, message, help);
        }
    }
}

/// Whether two nodes may run beside each other: in the innermost body around both, neither comes before the other.
fn at_the_same_time(layout: &Layout<'_, '_>, graph: &Graph, a: NodeIx, b: NodeIx) -> bool {
    // Each node with the nodes around it, by the body they stand in.
    let seats = |ix: NodeIx| {
        let around = layout.outwards(layout.body_of(ix)).filter_map(|body| layout.scope(body).owner);
        std::iter::once(ix).chain(around).map(|node| (layout.body_of(node), node)).collect::<BTreeMap<_, _>>()
    };
    let (of_a, of_b) = (seats(a), seats(b));
    let common = of_a.iter().filter_map(|(body, a)| Some((*body, *a, *of_b.get(body)?)));
    // Bodies are numbered from the outside, so the highest is the innermost.
    let Some((body, a, b)) = common.max_by_key(|(body, ..)| *body) else { return false };
    if a == b || layout.is_list(body) || graph.is_before(layout, a, b) || graph.is_before(layout, b, a) {
        return false;
    }
    !exclusive(layout, graph, a, b)
}

/// Whether some choice before them lets only one of two nodes run.
fn exclusive(layout: &Layout<'_, '_>, graph: &Graph, a: NodeIx, b: NodeIx) -> bool {
    let cases = |node: NodeIx| {
        let siblings = layout.siblings(layout.body_of(node));
        let before = siblings.filter(move |other| *other == node || graph.is_before(layout, *other, node));
        before.flat_map(|node| &graph.into[node.0 as usize]).filter(|path| matches!(path.port, Port::Case(_)))
    };
    cases(a).any(|a| cases(b).any(|b| a.source == b.source && a.port != b.port && layout.node(a.source).chooses_one()))
}
