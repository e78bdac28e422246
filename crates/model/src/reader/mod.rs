//! From a tree to a workflow: every field known, every problem told, names not resolved yet.

mod fields;
mod node;
mod value;

pub(crate) use value::short;

use nova_program::{BodyForm, Timeouts};

use crate::limits;
use crate::problem::codes;
use crate::report::{Report, did_you_mean};
use crate::syntax::{Body, EdgeLine, Node, Word, Workflow};
use crate::tree::{Key, Kind, Spot, Tree};
use crate::words;
use fields::Fields;
use value::TimeoutForm;

pub(crate) struct Reader<'r> {
    report: &'r mut Report,
    low_code: bool,
    nodes: usize,
    nesting: usize,
}

/// Default fields by node type.
pub(crate) type Defaults<'t> = Vec<(&'t str, &'t [(Key, Tree)])>;

/// Which body forms stand where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    List,
    Graph,
}

/// Reads a document. None when what is wrong leaves nothing to resolve.
pub(crate) fn read<'t>(tree: &'t Tree, low_code: bool, report: &mut Report) -> Option<Workflow<'t>> {
    let mut reader = Reader { report, low_code, nodes: 0, nesting: 0 };
    reader.document(tree)
}

impl<'r> Reader<'r> {
    fn document<'t>(&mut self, tree: &'t Tree) -> Option<Workflow<'t>> {
        let mut fields = self.fields(tree, "the document")?;
        match fields.take("apiVersion") {
            Some(tree) => {
                self.one_of(tree, "apiVersion", &["nova/v1"], &[]);
            }
            None => self.missing(fields.at, "'apiVersion: nova/v1' is missing"),
        }
        match fields.take("kind") {
            Some(tree) => {
                self.one_of(tree, "kind", &["Workflow"], &[]);
            }
            None => self.missing(fields.at, "'kind: Workflow' is missing"),
        }
        let metadata = fields.take("metadata");
        let spec = fields.take("spec");
        let known = ["apiVersion", "kind", "metadata", "spec"];
        self.finish(&fields, "a document", &known, &[]);
        let metadata = self.metadata(metadata, fields.at);
        let Some(spec) = spec else {
            self.missing(fields.at, "'spec' is missing");
            return None;
        };
        let (namespace, name, labels) = metadata;
        let mut fields = self.fields(spec, "spec")?;
        let defaults = fields.take("defaults").map(|tree| self.defaults(tree)).unwrap_or_default();
        let input = fields.take("input");
        let priority = fields.take("priority").and_then(|tree| self.whole(tree, "priority", 0, 9)).unwrap_or(5) as u8;
        let timeouts =
            fields.take("timeout").map_or_else(Timeouts::default, |tree| self.timeouts(tree, TimeoutForm::Total));
        if let Some(tree) = fields.take("requires") {
            self.requires(tree);
        }
        let root = self.body(&mut fields, &defaults, "spec");
        self.finish(&fields, "spec", &words::SPEC, &words::SPEC_LATER);
        // A missing name is told; the names inside are resolved all the same.
        let name = name.unwrap_or(Word { text: "", at: fields.at });
        Some(Workflow { namespace, name, labels, input, priority, timeouts, low_code: self.low_code, root: root? })
    }

    fn metadata<'t>(
        &mut self,
        tree: Option<&'t Tree>,
        around: Spot,
    ) -> (Option<Word<'t>>, Option<Word<'t>>, Vec<(String, String)>) {
        let Some(tree) = tree else {
            self.missing(around, "'metadata' with a 'name' is missing");
            return Default::default();
        };
        let Some(mut fields) = self.fields(tree, "metadata") else { return Default::default() };
        let namespace = fields.take("namespace").and_then(|tree| self.name(tree, "namespace", codes::BAD_ID));
        let name = match fields.take("name") {
            Some(tree) => self.name(tree, "name of a workflow", codes::BAD_ID),
            None => {
                self.missing(tree.at, "'name' of metadata is missing");
                None
            }
        };
        let labels = fields.take("labels").map(|tree| self.labels(tree, "labels")).unwrap_or_default();
        if let Some(tree) = fields.take("annotations") {
            self.labels(tree, "annotations");
        }
        let known = ["namespace", "name", "labels", "annotations"];
        self.finish(&fields, "metadata", &known, &[]);
        (namespace, name, labels)
    }

    fn requires(&mut self, tree: &Tree) {
        for item in self.list(tree, "requires") {
            if let Some(word) = self.word(item, "a feature") {
                let message = format!("the feature '{}' is not supported by this version", short(word.text));
                self.report.error(codes::NEEDS_FEATURE, word.at, message);
            }
        }
    }

    fn defaults<'t>(&mut self, tree: &'t Tree) -> Defaults<'t> {
        let Some(fields) = self.fields(tree, "defaults") else { return Vec::new() };
        let mut defaults = Vec::new();
        for (key, value) in fields.all() {
            if !words::TYPES.contains(&key.name.as_str()) {
                self.unknown_type(&key.name, key.at);
                continue;
            }
            let Some(of_type) = self.fields(value, "defaults of a type") else { continue };
            let allowed = ["retry", "timeout", "fallback", "pool", "with", "output", "labels"];
            for (field, _) in of_type.all() {
                if allowed.contains(&field.name.as_str()) {
                    continue;
                }
                let help = did_you_mean(&field.name, allowed).or(Some(format!("possible: {}", allowed.join(", "))));
                let known =
                    words::NODE.contains(&field.name.as_str()) || words::NODE_SOME.contains(&field.name.as_str());
                let (code, message) = if known {
                    (codes::WRONG_PLACE, format!("'{}' cannot be a default", field.name))
                } else {
                    (codes::UNKNOWN_FIELD, format!("unknown field '{}'", field.name))
                };
                self.report.error_with(code, field.at, message, help);
            }
            if let Kind::Map(entries) = &value.kind {
                defaults.push((key.name.as_str(), entries.as_slice()));
            }
        }
        defaults
    }

    pub(crate) fn unknown_type(&mut self, name: &str, at: Spot) {
        if words::TYPES_LATER.contains(&name) || name == "vm" {
            self.report.error(codes::NEEDS_FEATURE, at, format!("nodes of type '{name}' are not yet supported here"));
        } else {
            let help = did_you_mean(name, words::TYPES.into_iter().chain(words::TYPES_LATER))
                .or_else(|| Some(format!("one of: {}", words::TYPES.join(", "))));
            self.report.error_with(codes::UNKNOWN_TYPE, at, format!("unknown node type '{}'", short(name)), help);
        }
    }

    /// `do:` or `nodes:` with what belongs to the scope.
    pub(crate) fn body<'t>(
        &mut self,
        fields: &mut Fields<'t>,
        defaults: &Defaults<'t>,
        what: &str,
    ) -> Option<Body<'t>> {
        let list = fields.take("do");
        let graph = fields.take("nodes");
        let edges = fields.take("edges");
        let vars = fields.take("vars").map(|tree| self.vars(tree)).unwrap_or_default();
        let output = fields.take("output");
        let parallel = fields.take("parallel");
        let (form, tree) = match (list, graph) {
            (Some(list), None) => (BodyForm::List, list),
            (None, Some(graph)) => (BodyForm::Graph, graph),
            (Some(_), Some(graph)) => {
                self.misplaced(graph.at, format!("{what} has 'do' and 'nodes'; a body is a list or a graph"));
                return None;
            }
            (None, None) => {
                self.missing(fields.at, format!("{what} has no body: 'do' with a list, or 'nodes' with a graph"));
                return None;
            }
        };
        if let (BodyForm::List, Some(edges)) = (form, edges) {
            self.misplaced(edges.at, "'edges' belong beside 'nodes'; a list runs in order");
        }
        if let (BodyForm::List, Some(parallel)) = (form, parallel) {
            self.misplaced(parallel.at, "'parallel' belongs beside 'nodes'; a list runs one step at a time");
        }
        let parallel = parallel.and_then(|tree| self.whole(tree, "parallel", 1, limits::PARALLEL)).unwrap_or(0) as u32;
        let edges = match (form, edges) {
            (BodyForm::Graph, Some(tree)) => self.edges(tree),
            _ => Vec::new(),
        };
        let nodes = self.nodes(tree, form, defaults)?;
        Some(Body { form, nodes, edges, vars, output, parallel })
    }

    /// A list in order, without anything beside it.
    pub(crate) fn steps<'t>(&mut self, tree: &'t Tree, defaults: &Defaults<'t>) -> Option<Body<'t>> {
        let nodes = self.nodes(tree, BodyForm::List, defaults)?;
        let (edges, vars) = (Vec::new(), Vec::new());
        Some(Body { form: BodyForm::List, nodes, edges, vars, output: None, parallel: 0 })
    }

    fn vars<'t>(&mut self, tree: &'t Tree) -> Vec<(Word<'t>, &'t Tree)> {
        let vars = self.entries(tree, "vars");
        if vars.len() > limits::VARS {
            let message = format!("a scope declares {} variables, at most {} are allowed", vars.len(), limits::VARS);
            self.report.error(codes::LIMIT, tree.at, message);
        }
        vars
    }

    fn nodes<'t>(&mut self, tree: &'t Tree, form: BodyForm, defaults: &Defaults<'t>) -> Option<Vec<Node<'t>>> {
        let Kind::List(items) = &tree.kind else {
            self.wrong(tree, "a body", "a list of nodes");
            return None;
        };
        if items.is_empty() {
            self.missing(tree.at, "a body needs at least one node");
            return None;
        }
        if self.nesting >= limits::BODY_NESTING {
            let message = format!("bodies are nested deeper than {}", limits::BODY_NESTING);
            self.report.error(codes::DEPTH, tree.at, message);
            return None;
        }
        let before = self.nodes;
        self.nodes += items.len();
        if self.nodes > limits::NODES {
            // Told once, at the first body that is too much.
            if before <= limits::NODES {
                let message = format!("the document has more than {} nodes", limits::NODES);
                self.report.error(codes::LIMIT, tree.at, message);
            }
            return None;
        }
        self.nesting += 1;
        let position = if form == BodyForm::List { Position::List } else { Position::Graph };
        let nodes = items.iter().filter_map(|item| self.node(item, position, defaults)).collect();
        self.nesting -= 1;
        Some(nodes)
    }

    fn edges<'t>(&mut self, tree: &'t Tree) -> Vec<EdgeLine<'t>> {
        let mut edges = Vec::new();
        for item in self.list(tree, "edges") {
            let Some(mut fields) = self.fields(item, "an edge") else { continue };
            let mut end = |reader: &mut Self, name: &str| match fields.take(name) {
                Some(tree) => reader.word(tree, name),
                None => {
                    reader.missing(item.at, format!("'{name}' of an edge is missing"));
                    None
                }
            };
            let (source, target) = (end(self, "source"), end(self, "target"));
            let port = fields.take("port").and_then(|tree| self.port(tree));
            self.finish(&fields, "an edge", &["source", "port", "target"], &[]);
            if let (Some(source), Some(target)) = (source, target) {
                edges.push(EdgeLine { source, port, target: Some(target) });
            }
        }
        edges
    }

    /// A port may be written as a bool: `true` is a port.
    fn port<'t>(&mut self, tree: &'t Tree) -> Option<Word<'t>> {
        match tree.kind {
            Kind::Bool(yes) => Some(Word { text: if yes { "true" } else { "false" }, at: tree.at }),
            _ => self.word(tree, "port"),
        }
    }
}
