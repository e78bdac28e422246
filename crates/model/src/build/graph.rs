//! Paths between nodes: edges, jumps, cycles, what comes before what.

use std::collections::BTreeMap;

use nova_program::{BodyIx, Join, Jump, NodeIx, Port};
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::DiGraph;

use super::layout::Layout;
use crate::limits;
use crate::problem::codes;
use crate::report::{Report, did_you_mean};
use crate::syntax::{EdgeLine, What, Word};
use crate::tree::Spot;
use crate::words;

/// A path with its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub source: NodeIx,
    pub port: Port,
    pub target: NodeIx,
    pub at: Spot,
}

pub(crate) struct Graph {
    /// In order of source, then of the document.
    pub paths: Vec<Path>,
    /// By node: which paths lead to it, in order of the document.
    pub into: Vec<Vec<Path>>,
    /// Jumps of steps.
    pub next: Vec<Option<Jump>>,
    /// Jumps of cases.
    pub case_next: Vec<Vec<Option<Jump>>>,
    /// By node: whether a path leaves it.
    pub needed: Vec<bool>,
    /// By node: bits of the siblings that come before it (graphs only).
    before: Vec<Vec<u64>>,
}

impl Graph {
    pub(crate) fn new(layout: &Layout<'_, '_>, report: &mut Report) -> Self {
        let count = layout.nodes.len();
        let mut graph = Self {
            paths: Vec::new(),
            into: vec![Vec::new(); count],
            next: vec![None; count],
            case_next: vec![Vec::new(); count],
            needed: vec![false; count],
            before: vec![Vec::new(); count],
        };
        for body in (0..layout.bodies.len() as u32).map(BodyIx) {
            graph.jumps(layout, body, report);
            if layout.is_list(body) {
                steps_reached(layout, &graph, body, report);
            } else {
                graph.edges(layout, body, report);
                graph.order(layout, body, report);
            }
        }
        graph.paths.sort_by_key(|path| path.source);
        graph.joins(layout, report);
        graph
    }

    /// Whether `first` comes before `second`, its sibling.
    pub(crate) fn is_before(&self, layout: &Layout<'_, '_>, first: NodeIx, second: NodeIx) -> bool {
        let body = layout.body_of(second);
        if layout.is_list(body) {
            return first < second;
        }
        let bit = (first.0 - layout.scope(body).nodes.start) as usize;
        self.before[second.0 as usize].get(bit / 64).is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }

    fn edges(&mut self, layout: &Layout<'_, '_>, body: BodyIx, report: &mut Report) {
        let scope = layout.scope(body);
        let mut lines: Vec<(&EdgeLine<'_>, Option<NodeIx>)> = Vec::new();
        for target in layout.siblings(body) {
            lines.extend(layout.node(target).needs.iter().map(|line| (line, Some(target))));
        }
        lines.extend(scope.body.edges.iter().map(|line| (line, None)));
        let mut known: BTreeMap<(NodeIx, Port, NodeIx), Spot> = BTreeMap::new();
        let mut out: BTreeMap<NodeIx, usize> = BTreeMap::new();
        for (line, target) in lines {
            let target = match (&line.target, target) {
                (Some(word), _) => sibling(layout, body, word, report),
                (None, target) => target,
            };
            let Some(source) = sibling(layout, body, &line.source, report) else { continue };
            let (Some(port), Some(target)) = (port(layout, source, line.port.as_ref(), report), target) else {
                continue;
            };
            let at = line.source.at;
            let known = known.insert((source, port, target), at);
            if let Some(first) = known.filter(|_| !layout.node(source).is_broken()) {
                let message =
                    format!("the path from '{}' is there twice, first in line {}", line.source.text, first.line);
                report.error(codes::DUPLICATE_EDGE, at, message);
                continue;
            }
            let path = Path { source, port, target, at };
            let out = out.entry(source).or_default();
            *out += 1;
            let into = &mut self.into[target.0 as usize];
            into.push(path);
            for (count, what) in [(*out, "leave"), (into.len(), "lead to")] {
                if count == limits::PATHS + 1 {
                    let message = format!("more than {} paths {what} one node", limits::PATHS);
                    report.error(codes::LIMIT, at, message);
                }
            }
            self.needed[source.0 as usize] = true;
            self.paths.push(path);
        }
    }

    /// Cycles are told; without one, who comes before whom is worked out.
    fn order(&mut self, layout: &Layout<'_, '_>, body: BodyIx, report: &mut Report) {
        let range = layout.scope(body).nodes.clone();
        let mut graph: DiGraph<NodeIx, ()> = DiGraph::new();
        let places: Vec<_> = range.clone().map(|ix| graph.add_node(NodeIx(ix))).collect();
        let place = |ix: NodeIx| places[(ix.0 - range.start) as usize];
        for target in range.clone().map(NodeIx) {
            for path in &self.into[target.0 as usize] {
                graph.update_edge(place(path.source), place(path.target), ());
            }
        }
        let Ok(sorted) = toposort(&graph, None) else {
            for ring in tarjan_scc(&graph) {
                let ring: Vec<NodeIx> = ring.into_iter().map(|place| graph[place]).collect();
                self.tell_cycle(layout, &ring, report);
            }
            return;
        };
        let words = (range.len()).div_ceil(64);
        for place in sorted {
            let ix = graph[place];
            let mut bits = vec![0u64; words];
            for path in &self.into[ix.0 as usize] {
                let bit = (path.source.0 - range.start) as usize;
                bits[bit / 64] |= 1 << (bit % 64);
                for (word, more) in bits.iter_mut().zip(&self.before[path.source.0 as usize]) {
                    *word |= more;
                }
            }
            self.before[ix.0 as usize] = bits;
        }
    }

    fn tell_cycle(&self, layout: &Layout<'_, '_>, ring: &[NodeIx], report: &mut Report) {
        let inside = |path: &&Path| ring.contains(&path.source);
        let own = ring.iter().flat_map(|ix| self.into[ix.0 as usize].iter().filter(inside));
        let Some(first) = own.min_by_key(|path| (path.target, path.at)) else { return };
        if ring.len() == 1 {
            report.error(codes::CYCLE, first.at, format!("'{}' needs itself", layout.node(first.target).id.text));
            return;
        }
        // Walk backwards along the needs until a node comes again: that is a cycle, in reading order when turned.
        let mut walked = vec![first.target];
        let mut at = first.source;
        while !walked.contains(&at) && walked.len() <= ring.len() {
            walked.push(at);
            let Some(path) = self.into[at.0 as usize].iter().find(inside) else { break };
            at = path.source;
        }
        let start = walked.iter().position(|ix| *ix == at).unwrap_or(0);
        let mut names: Vec<&str> = walked[start..].iter().map(|ix| layout.node(*ix).id.text).collect();
        names.reverse();
        names.push(names[0]);
        let shown =
            if names.len() > 12 { format!("{} → …", names[..12].join(" → ")) } else { names.join(" → ") };
        let help = Some("a graph has no way back; loops over steps come with 'repeat'".to_owned());
        report.error_with(codes::CYCLE, first.at, format!("nodes wait for each other: {shown}"), help);
    }

    /// Joins that can never be met.
    fn joins(&self, layout: &Layout<'_, '_>, report: &mut Report) {
        for (placed, into) in layout.nodes.iter().zip(&self.into) {
            let Some((join, at)) = placed.node.join else { continue };
            let id = placed.node.id.text;
            match join {
                _ if into.is_empty() && placed.node.needs.is_empty() => {
                    let message = format!("'join' of '{id}' has nothing to join: no path leads to it");
                    report.error(codes::WRONG_PLACE, at, message);
                }
                Join::Count(count) if usize::from(count) > into.len() => {
                    let message = format!("'{id}' waits for {count} of {} paths and can never run", into.len());
                    report.error(codes::UNREACHABLE, at, message);
                }
                Join::Every => {
                    let clash = into.iter().enumerate().find(|(index, a)| {
                        into[index + 1..]
                            .iter()
                            .any(|b| a.source == b.source && exclude(layout, a.source, a.port, b.port))
                    });
                    if let Some((_, path)) = clash {
                        let source = layout.node(path.source).id.text;
                        let message = format!("'{id}' wants every path, but two of '{source}' exclude each other");
                        report.error(codes::UNREACHABLE, at, message);
                    }
                }
                _ => {}
            }
        }
    }

    fn jumps(&mut self, layout: &Layout<'_, '_>, body: BodyIx, report: &mut Report) {
        for ix in layout.siblings(body) {
            let node = layout.node(ix);
            self.next[ix.0 as usize] = node.next.as_ref().and_then(|word| jump(layout, ix, word, report));
            let What::Switch { cases, .. } = &node.what else { continue };
            let jumps = cases.iter().map(|case| {
                let word = case.next.as_ref()?;
                if !layout.is_list(body) {
                    let message = "'next' belongs into a list ('do'); a graph is drawn by 'needs'";
                    report.error(codes::WRONG_PLACE, word.at, message);
                    return None;
                }
                jump(layout, ix, word, report)
            });
            self.case_next[ix.0 as usize] = jumps.collect();
        }
    }
}

fn jump(layout: &Layout<'_, '_>, from: NodeIx, word: &Word<'_>, report: &mut Report) -> Option<Jump> {
    if word.text == "end" {
        return Some(Jump::End);
    }
    let body = layout.body_of(from);
    match layout.find(word.text) {
        Some(to) if layout.body_of(to) != body => {
            let message = format!("'{}' is no step of this list: 'next' stays in its own list", word.text);
            report.error(codes::UNKNOWN_NEED, word.at, message);
            None
        }
        Some(to) if to <= from => {
            let message = format!("a jump back to '{}' is not yet supported here", word.text);
            report.error(codes::NEEDS_FEATURE, word.at, message);
            None
        }
        Some(to) => Some(Jump::To(to)),
        None => {
            let steps = layout.siblings(body).map(|ix| layout.node(ix).id.text);
            let help = did_you_mean(word.text, steps.chain(["end"]));
            report.error_with(codes::UNKNOWN_NEED, word.at, format!("there is no step '{}'", word.text), help);
            None
        }
    }
}

fn sibling(layout: &Layout<'_, '_>, body: BodyIx, word: &Word<'_>, report: &mut Report) -> Option<NodeIx> {
    match layout.find(word.text) {
        Some(ix) if layout.body_of(ix) == body => Some(ix),
        Some(_) => {
            let message = format!("'{}' stands in another body; paths join nodes of one body", word.text);
            report.error(codes::NOT_VISIBLE, word.at, message);
            None
        }
        None => {
            let help = did_you_mean(word.text, layout.siblings(body).map(|ix| layout.node(ix).id.text));
            report.error_with(codes::UNKNOWN_NEED, word.at, format!("there is no node '{}'", word.text), help);
            None
        }
    }
}

fn port(layout: &Layout<'_, '_>, source: NodeIx, word: Option<&Word<'_>>, report: &mut Report) -> Option<Port> {
    let Some(word) = word else { return Some(Port::Ok) };
    match word.text {
        "ok" => return Some(Port::Ok),
        "error" => return Some(Port::Error),
        "timeout" => return Some(Port::Timeout),
        "ended" => return Some(Port::Ended),
        _ => {}
    }
    let node = layout.node(source);
    let cases = node.cases();
    if let Some(case) = cases.iter().position(|name| *name == word.text) {
        return Some(Port::Case(case as u8));
    }
    if node.is_broken() {
        // Its ports are not known; the path itself is meant.
        return Some(Port::Ended);
    }
    let ports = words::PORTS.into_iter().chain(cases);
    let help = did_you_mean(word.text, ports.clone());
    let help = help.or_else(|| Some(format!("its ports: {}", ports.collect::<Vec<_>>().join(", "))));
    let message = format!("'{}' has no port '{}'", node.id.text, word.text);
    report.error_with(codes::UNKNOWN_PORT, word.at, message, help);
    None
}

/// Whether at most one of two ports of a node is alive.
fn exclude(layout: &Layout<'_, '_>, source: NodeIx, a: Port, b: Port) -> bool {
    let failed = |port| matches!(port, Port::Error | Port::Timeout);
    let completed = |port| matches!(port, Port::Ok | Port::Case(_));
    match (a, b) {
        (Port::Case(a), Port::Case(b)) => a != b && layout.node(source).chooses_one(),
        (Port::Error, Port::Timeout) | (Port::Timeout, Port::Error) => true,
        _ => (failed(a) && completed(b)) || (completed(a) && failed(b)),
    }
}

/// Steps that every way through a list jumps over.
fn steps_reached(layout: &Layout<'_, '_>, graph: &Graph, body: BodyIx, report: &mut Report) {
    let range = layout.scope(body).nodes.clone();
    // Ways that are not supported yet may lead anywhere.
    if layout.siblings(body).any(|ix| layout.node(ix).partial || layout.node(ix).is_broken()) {
        return;
    }
    let mut reached = vec![false; range.len()];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    // Jumps go forward only, so one pass is enough.
    for ix in range.clone() {
        let position = (ix - range.start) as usize;
        let node = layout.node(NodeIx(ix));
        if !reached[position] {
            let message = format!("no way leads to '{}': the step before always jumps", node.id.text);
            report.error(codes::UNREACHABLE, node.id.at, message);
            // Told once per gap: what follows is reached from here.
            reached[position] = true;
        }
        let next = graph.next[ix as usize];
        let jumps = graph.case_next[ix as usize].iter().flatten().chain(&next);
        for jump in jumps {
            if let Jump::To(to) = jump {
                reached[(to.0 - range.start) as usize] = true;
            }
        }
        // A skipped step goes on with the following one. A jump that was refused counts as none.
        if (next.is_none() || node.when.is_some())
            && let Some(following) = reached.get_mut(position + 1)
        {
            *following = true;
        }
    }
}
