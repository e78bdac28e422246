//! The low-code document: `{"workflow": {"nodes": […], "edges": […]}}`, taken as it is.
//!
//! It is turned into the document that says the same in the language, with the places of the original, and goes the
//! way of every document from there.

use std::collections::BTreeMap;

use crate::problem::codes;
use crate::reader::short;
use crate::report::{Report, did_you_mean};
use crate::tree::{Key, Kind, Spot, Tree};
use crate::words;

const TYPES: [&str; 5] = ["HTTP", "DATA_ADAPTER", "CONDITIONAL", "MERGE", "LLM"];

/// Whether the tree is a low-code document.
pub(crate) fn is_low_code(tree: &Tree) -> bool {
    tree.get("workflow").is_some() && tree.get("apiVersion").is_none()
}

/// The same in the language. None when nothing can be made of it.
pub(crate) fn convert(tree: &Tree, report: &mut Report) -> Option<Tree> {
    let workflow = tree.get("workflow")?;
    let mut converter = Converter { report, nodes: BTreeMap::new(), edges: Vec::new(), extra: Vec::new() };
    converter.unknown(tree, "the document", &["workflow"]);
    converter.workflow(workflow)
}

struct Converter<'r, 't> {
    report: &'r mut Report,
    /// Type by id.
    nodes: BTreeMap<&'t str, &'t str>,
    /// Source, port, target.
    edges: Vec<(&'t Tree, Option<String>, &'t Tree)>,
    /// Edges and nodes that the original does not have.
    extra: Vec<(Tree, [Tree; 2])>,
}

impl<'t> Converter<'_, 't> {
    fn workflow(&mut self, workflow: &'t Tree) -> Option<Tree> {
        let at = workflow.at;
        self.unknown(workflow, "workflow", &["id", "name", "description", "nodes", "edges"]);
        let id = workflow.get("id").or_else(|| workflow.get("name"));
        let Some(id) = id else {
            self.report.error(codes::MISSING_FIELD, at, "'id' of the workflow is missing");
            return None;
        };
        let name = self.text(id, "id of the workflow")?;
        let name = slug(name);
        let Some(nodes) = workflow.get("nodes") else {
            self.report.error(codes::MISSING_FIELD, at, "'nodes' of the workflow are missing");
            return None;
        };
        let Kind::List(nodes_list) = &nodes.kind else {
            self.report.error(codes::WRONG_TYPE, nodes.at, format!("nodes must be a list, not {}", nodes.kind_name()));
            return None;
        };
        for node in nodes_list {
            if let (Some(id), Some(kind)) =
                (node.get("id").and_then(Tree::as_text), node.get("type").and_then(Tree::as_text))
            {
                self.nodes.insert(id, kind);
            }
        }
        if let Some(edges) = workflow.get("edges") {
            self.edges(edges);
        }
        let mut standard: Vec<Tree> = nodes_list.iter().filter_map(|node| self.node(node)).collect();
        let mut paths: Vec<Tree> = self
            .edges
            .iter()
            .map(|(source, port, target)| {
                let mut entries = vec![("source", (*source).clone()), ("target", (*target).clone())];
                entries.extend(port.as_ref().map(|port| ("port", Tree::text(port.as_str(), source.at))));
                Tree::map(entries, source.at)
            })
            .collect();
        for (node, edges) in std::mem::take(&mut self.extra) {
            standard.push(node);
            paths.extend(edges);
        }
        let mut spec = vec![("nodes", Tree::list(standard, nodes.at))];
        if !paths.is_empty() {
            spec.push(("edges", Tree::list(paths, at)));
        }
        let mut metadata = vec![("name", Tree::text(name, id.at))];
        if let Some(title) = workflow.get("name").filter(|title| title.as_text().is_some_and(|text| text.len() <= 256))
        {
            metadata.push(("annotations", Tree::map(vec![("title", title.clone())], title.at)));
        }
        Some(Tree::map(
            vec![
                ("apiVersion", Tree::text("nova/v1", at)),
                ("kind", Tree::text("Workflow", at)),
                ("metadata", Tree::map(metadata, at)),
                ("spec", Tree::map(spec, at)),
            ],
            at,
        ))
    }

    fn text(&mut self, tree: &'t Tree, what: &str) -> Option<&'t str> {
        let text = tree.as_text();
        if text.is_none() {
            self.report.error(codes::WRONG_TYPE, tree.at, format!("{what} must be text, not {}", tree.kind_name()));
        }
        text
    }

    fn unknown(&mut self, tree: &Tree, what: &str, known: &[&str]) {
        let Kind::Map(entries) = &tree.kind else {
            self.report.error(codes::WRONG_TYPE, tree.at, format!("{what} must be a map, not {}", tree.kind_name()));
            return;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.name.as_str())) {
            let help =
                did_you_mean(&key.name, known.iter().copied()).or(Some(format!("{what} has: {}", known.join(", "))));
            self.report.error_with(codes::UNKNOWN_FIELD, key.at, format!("unknown field '{}'", short(&key.name)), help);
        }
    }

    fn edges(&mut self, edges: &'t Tree) {
        let Kind::List(items) = &edges.kind else {
            self.report.error(codes::WRONG_TYPE, edges.at, format!("edges must be a list, not {}", edges.kind_name()));
            return;
        };
        for edge in items {
            self.unknown(
                edge,
                "an edge",
                &["id", "source", "target", "type", "port", "label", "condition", "sourceHandle"],
            );
            let (Some(source), Some(target)) = (edge.get("source"), edge.get("target")) else {
                self.report.error(codes::MISSING_FIELD, edge.at, "an edge needs 'source' and 'target'");
                continue;
            };
            let Some(from) = source.as_text() else {
                self.text(source, "source");
                continue;
            };
            let kind = edge.get("type").and_then(Tree::as_text).unwrap_or("DIRECT");
            let conditional = match kind {
                "DIRECT" => self.nodes.get(from) == Some(&"CONDITIONAL"),
                "CONDITIONAL" => true,
                other => {
                    let help = Some("one of: DIRECT, CONDITIONAL".to_owned());
                    let at = edge.get("type").map_or(edge.at, |tree| tree.at);
                    self.report.error_with(
                        codes::WRONG_TYPE,
                        at,
                        format!("unknown type of edge '{}'", short(other)),
                        help,
                    );
                    continue;
                }
            };
            if !conditional {
                self.edges.push((source, None, target));
            } else if self.nodes.get(from) == Some(&"CONDITIONAL") {
                let port = self.branch(edge, from);
                self.edges.push((source, Some(port), target));
            } else {
                self.test_on_edge(edge, source, target);
            }
        }
    }

    /// The port of an edge that leaves a `CONDITIONAL`.
    fn branch(&mut self, edge: &Tree, from: &str) -> String {
        for name in ["port", "label", "condition", "sourceHandle"] {
            let given = edge.get(name).map(|tree| match &tree.kind {
                Kind::Bool(yes) => yes.to_string(),
                _ => tree.as_text().unwrap_or_default().to_lowercase(),
            });
            match given.as_deref() {
                Some("true" | "yes") => return "true".to_owned(),
                Some("false" | "no") => return "false".to_owned(),
                _ => {}
            }
        }
        let earlier = self.edges.iter().filter(|(source, ..)| source.as_text() == Some(from)).count();
        let port = if earlier == 0 { "true" } else { "false" };
        let message = format!("the edge does not say which branch of '{from}' it is; taken as '{port}' by its order");
        self.report.warning(
            codes::IMPLICIT_PORT,
            edge.at,
            message,
            Some("add \"label\": \"true\" or \"false\"".to_owned()),
        );
        port.to_owned()
    }

    /// A condition on an edge becomes an `if` in its middle.
    fn test_on_edge(&mut self, edge: &'t Tree, source: &'t Tree, target: &'t Tree) {
        let Some(condition) = edge.get("condition").filter(|tree| tree.as_text().is_some()) else {
            self.report.error(codes::MISSING_FIELD, edge.at, "'condition' of a conditional edge is missing");
            return;
        };
        let (from, to) = (source.as_text().unwrap_or_default(), target.as_text().unwrap_or_default());
        let id: String = format!("if-{from}-{to}").chars().take(63).collect();
        let at = condition.at;
        let test = Tree::text(self.paths(condition.as_text().unwrap_or_default()), at);
        let node =
            Tree::map(vec![("id", Tree::text(id.as_str(), at)), ("type", Tree::text("if", at)), ("test", test)], at);
        let join = |from: Tree, port: Option<&str>, to: Tree| {
            let mut entries = vec![("source", from), ("target", to)];
            entries.extend(port.map(|port| ("port", Tree::text(port, at))));
            Tree::map(entries, at)
        };
        let paths = [
            join(source.clone(), None, Tree::text(id.as_str(), at)),
            join(Tree::text(id.as_str(), at), Some("true"), target.clone()),
        ];
        self.extra.push((node, paths));
    }

    fn node(&mut self, node: &'t Tree) -> Option<Tree> {
        self.unknown(node, "a node", &["id", "name", "type", "config"]);
        let Kind::Map(_) = node.kind else { return None };
        let Some(id) = node.get("id") else {
            self.report.error(codes::MISSING_FIELD, node.at, "'id' of a node is missing");
            return None;
        };
        let Some(kind) = node.get("type") else {
            self.report.error(codes::MISSING_FIELD, node.at, "'type' of a node is missing");
            return None;
        };
        let name = self.text(kind, "type")?;
        let config = node.get("config");
        if let Some(config) = config.filter(|config| !matches!(config.kind, Kind::Map(_))) {
            self.report.error(
                codes::WRONG_TYPE,
                config.at,
                format!("config must be a map, not {}", config.kind_name()),
            );
            return None;
        }
        let mut entries = vec![("id", id.clone())];
        if let Some(title) = node.get("name") {
            entries.push(("name", title.clone()));
        }
        let mut add = |kind_name: &str, fields: Vec<(&'static str, Tree)>| {
            entries.push(("type", Tree::text(kind_name, kind.at)));
            entries.extend(fields);
        };
        match name {
            "HTTP" => {
                let with = self.http(id.as_text().unwrap_or_default(), config, node.at);
                add("http", vec![("with", with)]);
            }
            "LLM" => add("llm", Vec::new()),
            "MERGE" => add("merge", Vec::new()),
            "CONDITIONAL" => {
                let test = self.test(config, node.at)?;
                add("if", vec![("test", test)]);
            }
            "DATA_ADAPTER" => {
                let (kind_name, with) = self.adapter(config, node.at)?;
                add(kind_name, vec![("with", with)]);
            }
            other => {
                let help = did_you_mean(other, TYPES).or(Some(format!("one of: {}", TYPES.join(", "))));
                self.report.error_with(
                    codes::UNKNOWN_TYPE,
                    kind.at,
                    format!("unknown node type '{}'", short(other)),
                    help,
                );
                return None;
            }
        }
        Some(Tree::map(entries, node.at))
    }

    fn test(&mut self, config: Option<&'t Tree>, at: Spot) -> Option<Tree> {
        let condition = config.and_then(|config| config.get("condition"));
        let Some(condition) = condition else {
            self.report.error(codes::MISSING_FIELD, at, "'condition' of a CONDITIONAL is missing");
            return None;
        };
        if let Some(config) = config {
            self.unknown(config, "config of a CONDITIONAL", &["condition"]);
        }
        let text = self.text(condition, "condition")?;
        Some(Tree::text(self.paths(text), condition.at))
    }

    /// The config as it is; what is sent is the parents' output where the config names nothing to send.
    fn http(&mut self, id: &str, config: Option<&'t Tree>, at: Spot) -> Tree {
        let Some(config) = config else { return Tree::map(Vec::new(), at) };
        let mut with = self.replace(config);
        let method = config.get("method").and_then(Tree::as_text).unwrap_or("GET").to_ascii_uppercase();
        let sends = matches!(method.as_str(), "POST" | "PUT" | "PATCH");
        let given = ["json", "body", "form"].iter().any(|name| config.get(name).is_some());
        if sends
            && !given
            && let Some(input) = self.input_of(id)
            && let Kind::Map(entries) = &mut with.kind
        {
            let json = Tree::text(format!("${{ {input} }}"), config.at);
            entries.push((Key { name: "json".to_owned(), at: config.at }, json));
        }
        with
    }

    /// The parents' output, merged, as an expression.
    fn input_of(&self, id: &str) -> Option<String> {
        let parents = self.edges.iter().filter(|(_, _, target)| target.as_text() == Some(id));
        let data = parents.filter_map(|(source, ..)| {
            let source = source.as_text()?;
            Some(match *self.nodes.get(source)? {
                "HTTP" => format!("nodes['{source}'].output.body"),
                "CONDITIONAL" => return None,
                _ => format!("nodes['{source}'].output"),
            })
        });
        data.reduce(|all, one| format!("merge({all}, {one})"))
    }

    fn adapter(&mut self, config: Option<&'t Tree>, at: Spot) -> Option<(&'static str, Tree)> {
        let Some(config) = config else {
            self.report.error(codes::MISSING_FIELD, at, "'config' of a DATA_ADAPTER is missing");
            return None;
        };
        self.unknown(config, "config of a DATA_ADAPTER", &["operation", "mapping"]);
        let operation = config.get("operation");
        let name = match operation {
            Some(tree) => self.text(tree, "operation")?,
            None => "map",
        };
        match name {
            "map" | "rename" | "merge" => {}
            "filter" | "sort" | "aggregate" | "group" | "reduce" => {
                let at = operation.map_or(at, |tree| tree.at);
                self.report.error(
                    codes::NEEDS_FEATURE,
                    at,
                    format!("the operation '{name}' is not yet supported here"),
                );
                return None;
            }
            other => {
                let at = operation.map_or(at, |tree| tree.at);
                let help =
                    did_you_mean(other, ["map", "rename", "merge"]).or(Some("one of: map, rename, merge".to_owned()));
                self.report.error_with(codes::WRONG_TYPE, at, format!("unknown operation '{}'", short(other)), help);
                return None;
            }
        }
        let Some(mapping) = config.get("mapping") else {
            if name != "merge" {
                self.report.error(codes::MISSING_FIELD, config.at, "'mapping' of a DATA_ADAPTER is missing");
                return None;
            }
            return Some((words::ADAPTER, Tree::map(Vec::new(), config.at)));
        };
        let Kind::Map(entries) = &mapping.kind else {
            let message = format!("mapping must be a map of new name and old name, not {}", mapping.kind_name());
            self.report.error(codes::WRONG_TYPE, mapping.at, message);
            return None;
        };
        let mut paths = 0;
        for (_, old) in entries {
            let text = self.text(old, "an old name")?;
            paths += usize::from(self.nodes.contains_key(text.split('.').next().unwrap_or_default()));
        }
        // Without an operation, paths that begin at a node make a new object.
        if operation.is_none() && paths == entries.len() && paths > 0 {
            let fields = entries.iter().map(|(key, old)| {
                let path = self.path(old.as_text().unwrap_or_default());
                (key.clone(), Tree::text(format!("${{ {path} }}"), old.at))
            });
            return Some(("transform", Tree { at: mapping.at, kind: Kind::Map(fields.collect()) }));
        }
        Some((words::ADAPTER, Tree::map(vec![("mapping", mapping.clone())], config.at)))
    }

    /// `{{ n1.body.x }}` becomes `${ nodes['n1'].output.body.x }`, in every text of a value.
    fn replace(&self, tree: &Tree) -> Tree {
        let kind = match &tree.kind {
            Kind::Text(text) if text.value.contains("{{") => return Tree::text(self.braces(&text.value), tree.at),
            // What looks like an expression of ours is text to its author.
            Kind::Text(text) if text.value.contains("${") => {
                return Tree::text(text.value.replace("${", "$${"), tree.at);
            }
            Kind::List(items) => Kind::List(items.iter().map(|item| self.replace(item)).collect()),
            Kind::Map(entries) => {
                Kind::Map(entries.iter().map(|(key, value)| (key.clone(), self.replace(value))).collect())
            }
            other => other.clone(),
        };
        Tree { at: tree.at, kind }
    }

    fn braces(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(open) = rest.find("{{") {
            let Some(len) = rest[open..].find("}}") else { break };
            out.push_str(&rest[..open].replace("${", "$${"));
            let path = self.path(rest[open + 2..open + len].trim());
            out.push_str(&format!("${{ {path} }}"));
            rest = &rest[open + len + 2..];
        }
        out.push_str(&rest.replace("${", "$${"));
        out
    }

    /// `n1.body.x` becomes `nodes['n1'].output.body.x` when there is a node `n1`.
    fn path(&self, path: &str) -> String {
        let (first, rest) = path.split_once('.').map_or((path, ""), |(first, rest)| (first, rest));
        if !self.nodes.contains_key(first) {
            return path.to_owned();
        }
        if rest.is_empty() { format!("nodes['{first}'].output") } else { format!("nodes['{first}'].output.{rest}") }
    }

    /// Every name of a node that begins a path in an expression, outside of its texts.
    fn paths(&self, expression: &str) -> String {
        let expression = expression.replace("{{", "").replace("}}", "");
        let mut out = String::new();
        let mut chars = expression.char_indices().peekable();
        let mut quote = None;
        let mut before = ' ';
        while let Some((at, c)) = chars.next() {
            let starts = (c.is_ascii_alphanumeric() || c == '_')
                && !(before.is_ascii_alphanumeric() || matches!(before, '_' | '.' | '-'));
            if quote.is_none() && starts {
                let rest = &expression[at..];
                let len =
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))).unwrap_or(rest.len());
                // The longest id wins: `n-1` is a node before it is a subtraction.
                let id = (1..=len).rev().map(|len| &rest[..len]).find(|id| self.nodes.contains_key(id));
                let own = id.filter(|id| id.len() == len || rest[id.len()..].starts_with('-'));
                if let Some(id) = own {
                    out.push_str(&format!("nodes['{id}'].output"));
                    for _ in 1..id.len() {
                        chars.next();
                    }
                    before = 'x';
                    continue;
                }
            }
            match quote {
                Some(open) if c == open && before != '\\' => quote = None,
                None if matches!(c, '\'' | '"') => quote = Some(c),
                _ => {}
            }
            out.push(c);
            before = c;
        }
        out
    }
}

/// A name of a workflow from any text.
fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.to_lowercase().chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(63);
    slug.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn names_become_names_of_workflows() {
        assert_eq!(slug("Score Lead (v2)"), "score-lead-v2");
        assert_eq!(slug("wf_1"), "wf-1");
        assert_eq!(slug("--Ä--"), "");
    }
}
