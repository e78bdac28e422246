//! What is allowed, but worth a look.

use nova_program::{BodyIx, Join, NodeIx, NodeKind, Port, Program};

use super::graph::Graph;
use super::layout::Layout;
use crate::problem::codes;
use crate::report::Report;
use crate::syntax::Workflow;

pub(super) fn tell(
    workflow: &Workflow<'_>,
    layout: &Layout<'_, '_>,
    graph: &Graph,
    program: &Program,
    report: &mut Report,
) {
    let unsure = may_be_dead(layout, graph);
    for ix in (0..program.nodes.len() as u32).map(NodeIx) {
        may_run_without(ix, layout, graph, program, &unsure, report);
        timeouts(ix, workflow, layout, program, report);
    }
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
    if matches!(node.kind, NodeKind::Work { .. }) && !limited {
        let message = format!("'{}' may run for ever: neither it nor a scope around it has a timeout", node.id);
        report.warning(codes::MISSING_TIMEOUT, source.id.at, message, None);
    }
}
