//! The fields of a map: taken one by one; what is left over is a problem.

use super::Reader;
use crate::problem::codes;
use crate::report::did_you_mean;
use crate::tree::{Key, Kind, Spot, Tree};

/// A map whose fields are being taken.
pub(crate) struct Fields<'t> {
    pub at: Spot,
    entries: &'t [(Key, Tree)],
    taken: Vec<bool>,
}

impl<'t> Fields<'t> {
    pub(crate) fn new(at: Spot, entries: &'t [(Key, Tree)]) -> Self {
        Self { at, entries, taken: vec![false; entries.len()] }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<&'t Tree> {
        let index = self.entries.iter().position(|(key, _)| key.name == name)?;
        self.taken[index] = true;
        Some(&self.entries[index].1)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, _)| key.name == name)
    }

    pub(crate) fn left(&self) -> impl Iterator<Item = &'t Key> {
        self.entries.iter().zip(&self.taken).filter(|(_, taken)| !**taken).map(|((key, _), _)| key)
    }

    pub(crate) fn all(&self) -> &'t [(Key, Tree)] {
        self.entries
    }
}

impl Reader<'_> {
    /// The fields of a map; a problem when it is none.
    pub(crate) fn fields<'t>(&mut self, tree: &'t Tree, what: &str) -> Option<Fields<'t>> {
        match &tree.kind {
            Kind::Map(entries) => Some(Fields::new(tree.at, entries)),
            _ => {
                self.wrong(tree, what, "a map of fields");
                None
            }
        }
    }

    /// Fields that nobody took.
    pub(crate) fn finish(&mut self, fields: &Fields<'_>, what: &str, known: &[&str], later: &[&str]) {
        for key in fields.left() {
            if later.contains(&key.name.as_str()) {
                let message = format!("'{}' of {what} is not yet supported here", key.name);
                self.report.error(codes::NEEDS_FEATURE, key.at, message);
            } else {
                let candidates = known.iter().chain(later).copied();
                let help = did_you_mean(&key.name, candidates)
                    .or_else(|| (known.len() <= 8).then(|| format!("{what} has: {}", known.join(", "))));
                self.report.error_with(codes::UNKNOWN_FIELD, key.at, format!("unknown field '{}'", key.name), help);
            }
        }
    }

    pub(crate) fn wrong(&mut self, tree: &Tree, what: &str, wanted: &str) {
        let message = format!("{what} must be {wanted}, not {}", tree.kind_name());
        self.report.error(codes::WRONG_TYPE, tree.at, message);
    }

    pub(crate) fn missing(&mut self, at: Spot, message: impl Into<String>) {
        self.report.error(codes::MISSING_FIELD, at, message);
    }
}
