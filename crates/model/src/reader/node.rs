//! A node.

use nova_program::{Join, Timeouts};

use super::fields::Fields;
use super::value::{TimeoutForm, short};
use super::{Defaults, Position, Reader};
use crate::limits;
use crate::problem::codes;
use crate::report::did_you_mean;
use crate::syntax::{Body, Case, EdgeLine, Node, What, Word};
use crate::tree::{Kind, Spot, Tree};
use crate::words;

impl Reader<'_> {
    pub(super) fn node<'t>(&mut self, tree: &'t Tree, position: Position, defaults: &Defaults<'t>) -> Option<Node<'t>> {
        let later = self.report.later();
        let mut fields = self.fields(tree, "a node")?;
        let id = match fields.take("id") {
            Some(tree) => self.id(tree, "id"),
            None => {
                self.missing(tree.at, "'id' of a node is missing");
                None
            }
        };
        // Without a good id the rest is read all the same, for its own problems.
        let id = id.unwrap_or(Word { text: "", at: tree.at });
        let kind = self.kind(&mut fields, &id);
        let defaults_of = |kind: &str| defaults.iter().find(|(name, _)| *name == kind).map(|(_, fields)| *fields);
        let given = kind.and_then(defaults_of).unwrap_or_default();
        let get = |fields: &mut Fields<'t>, name: &str| {
            let own = fields.take(name);
            own.or_else(|| given.iter().find(|(key, _)| key.name == name).map(|(_, tree)| tree))
        };
        let mut node = Node {
            id,
            what: What::Broken,
            needs: Vec::new(),
            join: None,
            next: None,
            when: None,
            with: None,
            output: None,
            set: Vec::new(),
            fallback: None,
            retry: None,
            timeouts: Timeouts::default(),
            timeout_at: None,
            partial: false,
        };
        for name in ["name", "description"] {
            if let Some(tree) = fields.take(name) {
                self.word(tree, name);
            }
        }
        if let Some(tree) = get(&mut fields, "labels") {
            self.labels(tree, "labels");
        }
        self.links(&mut fields, &mut node, position);
        node.when = fields.take("when");
        node.fallback = get(&mut fields, "fallback");
        let Some(kind) = kind else { return Some(node) };
        let timeout = get(&mut fields, "timeout");
        let retry = get(&mut fields, "retry");
        let with = get(&mut fields, "with");
        let pool = get(&mut fields, "pool");
        if let Some(tree) = fields.take("set") {
            node.set = self.entries(tree, "set");
        }
        // The output of a group is its body's.
        if kind != "group" {
            node.output = get(&mut fields, "output");
        }
        self.some(&mut node, kind, [("with", with), ("retry", retry), ("pool", pool)]);
        if let Some(tree) = timeout {
            let form = if matches!(kind, "http" | "task") { TimeoutForm::Work } else { TimeoutForm::Total };
            node.timeouts = self.timeouts(tree, form);
            node.timeout_at = Some(tree.at);
        }
        if let Some(what) = self.what(kind, &mut fields, &node, pool, defaults, tree.at) {
            node.what = what;
        }
        self.unused(&fields, kind);
        node.partial = self.report.later() > later;
        Some(node)
    }

    /// Fields that only some types give a meaning.
    fn some<'t>(&mut self, node: &mut Node<'t>, kind: &str, fields: [(&str, Option<&'t Tree>); 3]) {
        for (name, tree) in fields {
            let Some(tree) = tree else { continue };
            if !words::fields_of(kind).contains(&name) {
                let message = match name {
                    "with" => format!("'with' is the argument of work; nodes of type '{kind}' do not read it"),
                    "retry" => format!("'retry' has no meaning for nodes of type '{kind}'"),
                    _ => format!("'{name}' is for nodes that a worker runs"),
                };
                self.misplaced(tree.at, message);
                continue;
            }
            match name {
                "with" => node.with = Some(tree),
                "retry" => node.retry = self.retry(tree),
                _ => {}
            }
        }
    }

    fn kind<'t>(&mut self, fields: &mut Fields<'t>, id: &Word<'_>) -> Option<&'t str> {
        let Some(tree) = fields.take("type") else {
            if fields.has("do") || fields.has("nodes") {
                return Some("group");
            }
            self.missing(fields.at, format!("'type' of node '{}' is missing", id.text));
            return None;
        };
        let word = self.word(tree, "type")?;
        if words::TYPES.contains(&word.text) || (self.low_code && word.text == words::ADAPTER) {
            return Some(word.text);
        }
        self.unknown_type(word.text, word.at);
        None
    }

    /// `needs`, `join` and `next`.
    fn links<'t>(&mut self, fields: &mut Fields<'t>, node: &mut Node<'t>, position: Position) {
        let (needs, join, next) = (fields.take("needs"), fields.take("join"), fields.take("next"));
        match position {
            Position::List => {
                for (name, tree) in [("needs", needs), ("join", join)] {
                    if let Some(tree) = tree {
                        self.misplaced(
                            tree.at,
                            format!("'{name}' belongs into a graph ('nodes'); a list runs in order"),
                        );
                    }
                }
                node.next = next.and_then(|tree| self.word(tree, "next"));
            }
            Position::Graph => {
                if let Some(tree) = next {
                    self.misplaced(tree.at, "'next' belongs into a list ('do'); a graph is drawn by 'needs'");
                }
                node.needs = needs.map(|tree| self.needs(tree)).unwrap_or_default();
                node.join = join.and_then(|tree| Some((self.join(tree)?, tree.at)));
            }
        }
    }

    fn needs<'t>(&mut self, tree: &'t Tree) -> Vec<EdgeLine<'t>> {
        let mut needs = Vec::new();
        for item in self.list(tree, "needs") {
            let Some(word) = self.word(item, "a need") else { continue };
            let (source, port) = match word.text.split_once('.') {
                Some((source, port)) => (source, Some(Word { text: port, at: word.at })),
                None => (word.text, None),
            };
            needs.push(EdgeLine { source: Word { text: source, at: word.at }, port, target: None });
        }
        needs
    }

    fn join(&mut self, tree: &Tree) -> Option<Join> {
        if !matches!(tree.kind, Kind::Map(_)) {
            return Some(match self.one_of(tree, "join", &["all", "every", "any"], &["each"])? {
                "every" => Join::Every,
                "any" => Join::Any,
                _ => Join::All,
            });
        }
        let mut fields = self.fields(tree, "join")?;
        let count = fields.take("count");
        self.finish(&fields, "join", &["count"], &["when"]);
        let Some(count) = count else {
            if fields.left().next().is_none() {
                self.missing(tree.at, "'count' of join is missing");
            }
            return None;
        };
        Some(Join::Count(self.whole(count, "join.count", 1, limits::PATHS as u64)? as u16))
    }

    fn what<'t>(
        &mut self,
        kind: &'t str,
        fields: &mut Fields<'t>,
        node: &Node<'t>,
        pool: Option<&'t Tree>,
        defaults: &Defaults<'t>,
        at: Spot,
    ) -> Option<What<'t>> {
        Some(match kind {
            "http" => {
                self.http(node.with, at);
                What::Work { kind: "http".to_owned(), pool: self.pool(pool) }
            }
            "task" => {
                let pool = self.pool(pool);
                match fields.take("kind") {
                    Some(tree) => {
                        let kind = self.name(tree, "kind of task", codes::UNKNOWN_KIND)?;
                        What::Work { kind: kind.text.to_owned(), pool }
                    }
                    None => {
                        self.missing(at, "'kind' of a task is missing");
                        return None;
                    }
                }
            }
            // Without `set` it is a step that does nothing, for instance to jump from.
            "set" => What::Set,
            "merge" => What::Merge,
            "transform" => {
                if node.with.is_none() {
                    self.missing(at, "'with' of a transform is missing: it is its output");
                }
                What::Transform
            }
            words::ADAPTER => What::Adapter,
            "if" => {
                let vars = fields.take("vars");
                let mut then = fields.take("then").and_then(|tree| self.steps(tree, defaults));
                let mut otherwise = fields.take("else").and_then(|tree| self.steps(tree, defaults));
                self.share_vars(vars, then.iter_mut().chain(otherwise.iter_mut()));
                let Some(test) = fields.take("test") else {
                    self.missing(at, "'test' of an if is missing");
                    return None;
                };
                What::If { test, then, otherwise }
            }
            "switch" => self.switch(fields, defaults, at)?,
            "wait" => self.wait(fields, at)?,
            _ => {
                let what = format!("node '{}'", node.id.text);
                What::Group(self.body(fields, defaults, &what)?)
            }
        })
    }

    fn pool(&mut self, tree: Option<&Tree>) -> String {
        let pool = tree.and_then(|tree| self.name(tree, "pool", codes::BAD_ID));
        pool.map_or_else(|| "default".to_owned(), |pool| pool.text.to_owned())
    }

    fn http(&mut self, with: Option<&Tree>, at: Spot) {
        let Some(with) = with else {
            return self.missing(at, "'with' of an http node is missing, at least with a 'url'");
        };
        match &with.kind {
            Kind::Map(entries) => {
                if with.get("url").is_none() {
                    self.missing(with.at, "'url' of an http node is missing");
                }
                for (key, _) in entries {
                    // Executors may know more than this; only what is clearly a slip is told.
                    if !words::HTTP_WITH.contains(&key.name.as_str())
                        && let Some(help) = did_you_mean(&key.name, words::HTTP_WITH)
                    {
                        let message = format!("unknown field '{}'", key.name);
                        self.report.error_with(codes::UNKNOWN_FIELD, key.at, message, Some(help));
                    }
                }
            }
            Kind::Text(text) if text.value.contains("${") => {}
            _ => self.wrong(with, "'with' of an http node", "a map of fields"),
        }
    }

    fn switch<'t>(&mut self, fields: &mut Fields<'t>, defaults: &Defaults<'t>, at: Spot) -> Option<What<'t>> {
        let mode = fields.take("mode").and_then(|tree| self.one_of(tree, "mode", &["first", "all"], &[]));
        let default = fields.take("default").and_then(|tree| self.id(tree, "name of a case"));
        let vars = fields.take("vars");
        let mut otherwise = fields.take("else").and_then(|tree| self.steps(tree, defaults));
        let Some(tree) = fields.take("cases") else {
            self.missing(at, "'cases' of a switch are missing");
            return None;
        };
        let items = self.list(tree, "cases");
        if items.is_empty() {
            self.missing(tree.at, "a switch needs at least one case");
            return None;
        }
        if items.len() >= limits::CASES {
            let message = format!("a switch has {} cases, at most {} are allowed", items.len(), limits::CASES - 1);
            self.report.error(codes::LIMIT, tree.at, message);
            return None;
        }
        let mut cases: Vec<Case<'t>> = Vec::new();
        for item in items {
            if let Some(case) = self.case(item, defaults) {
                let name = case.name.text;
                let first = cases.iter().map(|case| &case.name).chain(&default).find(|other| other.text == name);
                if let Some(first) = first {
                    let message = format!("the case '{name}' is there twice, first in line {}", first.at.line);
                    self.report.error(codes::DUPLICATE_ID, case.name.at, message);
                }
                cases.push(case);
            }
        }
        let bodies = cases.iter_mut().filter_map(|case| case.body.as_mut()).chain(otherwise.as_mut());
        self.share_vars(vars, bodies);
        // With a case missing the numbers of the others would be wrong.
        if cases.len() < items.len() {
            return None;
        }
        let default = default.map_or("default", |word| word.text);
        Some(What::Switch { all: mode == Some("all"), cases, default, otherwise })
    }

    fn case<'t>(&mut self, tree: &'t Tree, defaults: &Defaults<'t>) -> Option<Case<'t>> {
        let mut fields = self.fields(tree, "a case")?;
        let name = match fields.take("name") {
            Some(tree) => self.id(tree, "name of a case"),
            None => {
                self.missing(tree.at, "'name' of a case is missing");
                None
            }
        };
        let when = fields.take("when");
        if when.is_none() {
            self.missing(tree.at, "'when' of a case is missing");
        }
        let next = fields.take("next").and_then(|tree| self.word(tree, "next"));
        let body =
            if fields.has("do") || fields.has("nodes") { self.body(&mut fields, defaults, "a case") } else { None };
        self.finish(
            &fields,
            "a case",
            &["name", "when", "do", "nodes", "edges", "vars", "output", "parallel", "next"],
            &[],
        );
        Some(Case { name: name?, when: when?, body, next })
    }

    /// Variables of an `if` or `switch` live in whichever body runs.
    fn share_vars<'b, 't: 'b>(&mut self, tree: Option<&'t Tree>, bodies: impl Iterator<Item = &'b mut Body<'t>>) {
        let Some(tree) = tree else { return };
        let vars = self.entries(tree, "vars");
        let mut shared = false;
        for body in bodies {
            body.vars.extend(vars.iter().cloned());
            shared = true;
        }
        if !shared {
            self.misplaced(tree.at, "'vars' need a body to live in");
        }
    }

    fn wait<'t>(&mut self, fields: &mut Fields<'t>, at: Spot) -> Option<What<'t>> {
        let (span, moment, zone) = (fields.take("for"), fields.take("at"), fields.take("zone"));
        if fields.has("until") {
            // Told with the fields that are left over.
            return None;
        }
        match (span, moment) {
            (Some(span), None) => {
                if let Some(zone) = zone {
                    self.misplaced(zone.at, "'zone' belongs to 'at'");
                }
                if !span.as_text().is_some_and(|text| text.contains("${")) {
                    self.duration(span, "for", true, limits::TIMEOUT_MS)?;
                }
                Some(What::WaitFor(span))
            }
            (None, Some(moment)) => {
                if matches!(moment.kind, Kind::Map(_)) {
                    let message = "'at' with a cron expression is not yet supported here";
                    self.report.error(codes::NEEDS_FEATURE, moment.at, message);
                    return None;
                }
                self.moment(moment, zone)?;
                Some(What::WaitAt { at: moment, zone })
            }
            (Some(_), Some(moment)) => {
                self.misplaced(moment.at, "a wait has 'for' or 'at', not both");
                None
            }
            (None, None) => {
                self.missing(at, "a wait needs 'for' or 'at'");
                None
            }
        }
    }

    /// A moment that is fixed is checked now.
    fn moment(&mut self, at: &Tree, zone: Option<&Tree>) -> Option<()> {
        let text = self.word(at, "at")?;
        let zone = match zone {
            Some(tree) => Some(self.word(tree, "zone")?),
            None => None,
        };
        if text.text.contains("${") || zone.as_ref().is_some_and(|zone| zone.text.contains("${")) {
            return Some(());
        }
        if let Err(message) = nova_expression::moment_to_ms(text.text, zone.map(|zone| zone.text)) {
            self.report.error(codes::WRONG_TYPE, at.at, message);
            return None;
        }
        Some(())
    }

    fn unused(&mut self, fields: &Fields<'_>, kind: &str) {
        let own = words::fields_of(kind);
        let mut known: Vec<&str> = words::NODE.iter().chain(own).copied().collect();
        known.sort_unstable();
        for key in fields.left() {
            let name = key.name.as_str();
            if words::NODE_SOME.contains(&name) && !words::NODE_LATER.contains(&name) && !own.contains(&name) {
                self.misplaced(key.at, format!("nodes of type '{kind}' have no '{name}'"));
            } else if words::NODE_LATER.contains(&name) {
                let message = format!("'{name}' of a node is not yet supported here");
                self.report.error(codes::NEEDS_FEATURE, key.at, message);
            } else {
                let help = did_you_mean(name, known.iter().copied().chain(words::NODE_LATER));
                let message = format!("unknown field '{}'", short(name));
                self.report.error_with(codes::UNKNOWN_FIELD, key.at, message, help);
            }
        }
    }
}
