//! Expressions: compiled, and every name in them resolved into what the scheduler must be shown.

use std::collections::BTreeSet;

use nova_expression::{CompileError, CompileErrorKind, Expression, Kind as ValueKind, Reference, References, Template};
use nova_program::{BodyIx, NodeIx, Port, Reads, VarIx};

use super::graph::Graph;
use super::layout::Layout;
use crate::problem::codes;
use crate::report::{Report, did_you_mean};
use crate::tree::{Kind, Spot, Tree};
use crate::words;

/// Where an expression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// `when`, `with`, a choice, a thought.
    Prepare(NodeIx),
    /// `output` and `set` after the work.
    Finish(NodeIx),
    /// `output` and `set` of a thought: they see what it came to, in the same evaluation.
    Thought(NodeIx),
    /// The value for a failed node.
    Fallback(NodeIx),
    /// The output of a scope.
    ScopeOutput(BodyIx),
}

/// What an evaluation reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadSet {
    pub input: bool,
    pub nodes: BTreeSet<NodeIx>,
    pub vars: BTreeSet<VarIx>,
    /// `error` is read, and it is that of a node before.
    pub error_before: bool,
}

impl ReadSet {
    pub(crate) fn into_reads(self) -> Reads {
        Reads { input: self.input, nodes: self.nodes.into_iter().collect(), vars: self.vars.into_iter().collect() }
    }
}

pub(crate) struct Names<'a, 'w, 't> {
    pub layout: &'a Layout<'w, 't>,
    pub graph: &'a Graph,
    pub report: &'a mut Report,
}

impl Names<'_, '_, '_> {
    /// A condition: bare, or in one `${ }`.
    pub(crate) fn condition(&mut self, tree: &Tree, seat: Seat, what: &str, reads: &mut ReadSet) -> Option<Expression> {
        let source = match &tree.kind {
            Kind::Text(text) => text.value.as_str(),
            Kind::Bool(true) => "true",
            Kind::Bool(false) => "false",
            _ => {
                let message = format!("{what} must be a condition, not {}", tree.kind_name());
                self.report.error(codes::WRONG_TYPE, tree.at, message);
                return None;
            }
        };
        let expression = match Expression::compile_condition(source) {
            Ok(expression) => expression,
            Err(error) => {
                self.refused(&error, tree, error.offset());
                return None;
            }
        };
        let given = match expression.kind() {
            ValueKind::Bool | ValueKind::Unknown => None,
            ValueKind::Number => Some("a number"),
            ValueKind::Text => Some("text"),
            ValueKind::List => Some("a list"),
            ValueKind::Object => Some("an object"),
            ValueKind::Null => Some("null"),
            ValueKind::Time => Some("a time"),
        };
        if let Some(given) = given {
            let message = format!("{what} must be true or false; this gives {given}");
            self.report.error(codes::BAD_EXPRESSION, tree.at, message);
            return None;
        }
        if expression.constant() == Some(false.into()) {
            self.report.warning(codes::NEVER_TRUE, tree.at, format!("{what} is always false"), None);
        }
        let start = source.find(expression.source()).unwrap_or(0);
        self.resolve(expression.reads(), &expression, tree, start, seat, reads);
        Some(expression)
    }

    /// A value with `${ }` inside.
    pub(crate) fn template(&mut self, tree: &Tree, seat: Seat, reads: &mut ReadSet) -> Option<Template> {
        let template = match Template::compile(&tree.to_json()) {
            Ok(template) => template,
            Err(errors) => {
                for error in errors {
                    let inner = inside(tree, &error.path);
                    self.refused(&error.error, inner, error.error.offset());
                }
                return None;
            }
        };
        template.each_expression(|path, start, expression| {
            self.resolve(expression.reads(), expression, inside(tree, path), start, seat, reads);
        });
        Some(template)
    }

    fn refused(&mut self, error: &CompileError, tree: &Tree, offset: usize) {
        let code = match error.kind() {
            CompileErrorKind::Syntax | CompileErrorKind::Function | CompileErrorKind::AlwaysFails => {
                codes::BAD_EXPRESSION
            }
            CompileErrorKind::Bounds => codes::EXPRESSION_BOUNDS,
            CompileErrorKind::NotYet => codes::NEEDS_FEATURE,
        };
        self.report.error_with(code, tree.spot_at(offset), error.message(), error.help().map(str::to_owned));
    }

    fn resolve(
        &mut self,
        references: &References,
        expression: &Expression,
        tree: &Tree,
        start: usize,
        seat: Seat,
        reads: &mut ReadSet,
    ) {
        for reference in references.iter() {
            let at = tree.spot_at(start + reference.offset);
            if let Some(id) = self.hyphenated(reference, expression) {
                let help = Some(format!("write nodes['{id}']"));
                let message = format!("'nodes.{id}' is a subtraction");
                self.report.error_with(codes::UNKNOWN_REFERENCE, at, message, help);
                return;
            }
            match &*reference.root {
                "input" => reads.input = true,
                "nodes" => self.node(reference, at, seat, reads),
                "vars" => self.var(reference, at, seat, reads),
                "execution" => self.one_of(reference, at, "execution", &words::EXECUTION, &words::EXECUTION_LATER),
                "output" => {
                    if !matches!(seat, Seat::Finish(_) | Seat::Thought(_)) {
                        let help = Some("it is there in 'output' and 'set' of a node, after its work".to_owned());
                        self.report.error_with(codes::UNKNOWN_REFERENCE, at, "there is no 'output' here", help);
                    }
                }
                "error" => self.error(at, seat, reads),
                other => self.unknown(other, at),
            }
        }
    }

    /// `nodes.a-b` is a subtraction to CEL; the author means a node.
    fn hyphenated(&self, reference: &Reference, expression: &Expression) -> Option<String> {
        let (name, offset) = (reference.path.first()?, reference.offsets.first()?);
        if &*reference.root != "nodes" || self.layout.find(name).is_some() {
            return None;
        }
        let rest = expression.source().get(offset + name.len()..)?.strip_prefix('-')?;
        let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let id = format!("{name}-{}", &rest[..len]);
        self.layout.find(&id).is_some().then_some(id)
    }

    fn node(&mut self, reference: &Reference, at: Spot, seat: Seat, reads: &mut ReadSet) {
        let Some(id) = reference.path.first() else {
            let help = Some("write nodes.<id>, so that it is known what is read".to_owned());
            self.report.error_with(codes::UNKNOWN_REFERENCE, at, "'nodes' alone cannot be read", help);
            return;
        };
        let Some(ix) = self.layout.find(id) else {
            let help = did_you_mean(id, self.layout.ids());
            self.report.error_with(codes::UNKNOWN_REFERENCE, at, format!("there is no node '{id}'"), help);
            return;
        };
        if !self.sees(seat, ix) {
            let own = matches!(seat, Seat::Prepare(own) | Seat::Finish(own) | Seat::Thought(own) | Seat::Fallback(own) if own == ix);
            let help =
                if own { "its own output is 'output', in 'output' and 'set'" } else { self.why_hidden(seat, ix) };
            let message = format!("'{id}' cannot be read here");
            self.report.error_with(codes::NOT_VISIBLE, at, message, Some(help.to_owned()));
            return;
        }
        if let Some(field) = reference.path.get(1) {
            if words::VIEW_LATER.contains(&&**field) {
                let message = format!("'{field}' of a node is not yet supported here");
                self.report.error(codes::NEEDS_FEATURE, at, message);
            } else if !words::VIEW.contains(&&**field) {
                let help = did_you_mean(field, words::VIEW)
                    .unwrap_or_else(|| format!("did you mean 'nodes.{id}.output.{field}'?"));
                let message = format!("a node has no '{field}'; it has {}", words::VIEW.join(", "));
                self.report.error_with(codes::UNKNOWN_REFERENCE, at, message, Some(help));
            }
        }
        reads.nodes.insert(ix);
    }

    fn sees(&self, seat: Seat, target: NodeIx) -> bool {
        let (mut body, mut node) = match seat {
            Seat::ScopeOutput(body) => (body, None),
            Seat::Prepare(ix) | Seat::Finish(ix) | Seat::Thought(ix) | Seat::Fallback(ix) => {
                (self.layout.body_of(ix), Some(ix))
            }
        };
        loop {
            if self.layout.body_of(target) == body {
                return node.is_none_or(|node| self.graph.is_before(self.layout, target, node));
            }
            let Some(owner) = self.layout.scope(body).owner else { return false };
            node = Some(owner);
            body = self.layout.body_of(owner);
        }
    }

    fn why_hidden(&self, seat: Seat, hidden: NodeIx) -> &'static str {
        let own = match seat {
            Seat::ScopeOutput(body) => body,
            Seat::Prepare(ix) | Seat::Finish(ix) | Seat::Thought(ix) | Seat::Fallback(ix) => self.layout.body_of(ix),
        };
        let target = self.layout.body_of(hidden);
        if self.layout.outwards(own).any(|body| self.layout.scope(body).owner == Some(hidden)) {
            "it is a scope around this place and has no output yet"
        } else if !self.layout.outwards(own).any(|body| body == target) {
            "it stands inside another scope; read the output of that scope"
        } else if self.layout.is_list(target) {
            "it comes later in its list"
        } else {
            "it does not come before; add it to 'needs'"
        }
    }

    fn var(&mut self, reference: &Reference, at: Spot, seat: Seat, reads: &mut ReadSet) {
        let body = match seat {
            Seat::ScopeOutput(body) => body,
            Seat::Prepare(ix) | Seat::Finish(ix) | Seat::Thought(ix) | Seat::Fallback(ix) => self.layout.body_of(ix),
        };
        let seen = self.layout.vars_from(body);
        let Some(name) = reference.path.first() else {
            reads.vars.extend(seen);
            return;
        };
        match self.layout.var(body, name) {
            Some(var) => {
                reads.vars.insert(var);
            }
            None => {
                let help = did_you_mean(name, seen.iter().map(|var| self.layout.vars[var.0 as usize].name.text));
                self.report.error_with(codes::UNDECLARED_VAR, at, format!("no scope around declares '{name}'"), help);
            }
        }
    }

    fn error(&mut self, at: Spot, seat: Seat, reads: &mut ReadSet) {
        if let Seat::Fallback(_) = seat {
            return;
        }
        if let Seat::Prepare(ix) | Seat::Finish(ix) | Seat::Thought(ix) = seat {
            let failed = errors_before(self.graph, ix);
            if !failed.is_empty() {
                reads.nodes.extend(failed);
                reads.error_before = true;
                return;
            }
        }
        let help = Some(
            "it is there in 'fallback', and in a node that needs an 'error', 'timeout' or 'ended' port".to_owned(),
        );
        self.report.error_with(codes::UNKNOWN_REFERENCE, at, "there is no 'error' here", help);
    }

    fn one_of(&mut self, reference: &Reference, at: Spot, root: &str, known: &[&str], later: &[&str]) {
        let Some(field) = reference.path.first() else { return };
        if later.contains(&&**field) {
            self.report.error(codes::NEEDS_FEATURE, at, format!("'{root}.{field}' is not yet supported here"));
        } else if !known.contains(&&**field) {
            let help = did_you_mean(field, known.iter().copied());
            let message = format!("'{root}' has no '{field}'; it has {}", known.join(", "));
            self.report.error_with(codes::UNKNOWN_REFERENCE, at, message, help);
        }
    }

    fn unknown(&mut self, name: &str, at: Spot) {
        if words::ROOTS_LATER.contains(&name) {
            self.report.error(codes::NEEDS_FEATURE, at, format!("'{name}' is not yet supported here"));
            return;
        }
        let help = if self.layout.find(name).is_some() {
            Some(format!("did you mean 'nodes.{name}.output'?"))
        } else if self.layout.vars.iter().any(|var| var.name.text == name) {
            Some(format!("did you mean 'vars.{name}'?"))
        } else {
            did_you_mean(name, words::ROOTS)
                .or_else(|| Some(format!("there are: {}; text stands in single quotes", words::ROOTS.join(", "))))
        };
        self.report.error_with(codes::UNKNOWN_REFERENCE, at, format!("there is no '{name}'"), help);
    }
}

/// The nodes before `ix` whose failure leads to it, in order of its needs.
pub(crate) fn errors_before(graph: &Graph, ix: NodeIx) -> Vec<NodeIx> {
    let mut nodes = Vec::new();
    for path in &graph.into[ix.0 as usize] {
        if matches!(path.port, Port::Error | Port::Timeout | Port::Ended) && !nodes.contains(&path.source) {
            nodes.push(path.source);
        }
    }
    nodes
}

/// The text inside of a value, by the path that the template told.
fn inside<'t>(tree: &'t Tree, path: &[Box<str>]) -> &'t Tree {
    let mut tree = tree;
    for step in path {
        let inner = match &tree.kind {
            Kind::List(items) => step.parse::<usize>().ok().and_then(|index| items.get(index)),
            Kind::Map(_) => tree.get(step),
            _ => None,
        };
        match inner {
            Some(inner) => tree = inner,
            None => break,
        }
    }
    tree
}
