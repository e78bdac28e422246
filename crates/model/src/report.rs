//! Collects problems while a document is read.

use crate::limits;
use crate::problem::{Problem, Severity, codes};
use crate::tree::{Spot, Tree};

/// Problems found so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    found: Vec<Found>,
    errors: usize,
    later: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    code: &'static str,
    severity: Severity,
    at: Spot,
    message: String,
    help: Option<String>,
}

impl Report {
    pub(crate) fn error(&mut self, code: &'static str, at: Spot, message: impl Into<String>) {
        self.error_with(code, at, message, None);
    }

    pub(crate) fn error_with(
        &mut self,
        code: &'static str,
        at: Spot,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.errors += 1;
        self.later += usize::from(code == codes::NEEDS_FEATURE);
        self.push(Found { code, severity: Severity::Error, at, message: message.into(), help });
    }

    pub(crate) fn warning(&mut self, code: &'static str, at: Spot, message: impl Into<String>, help: Option<String>) {
        self.push(Found { code, severity: Severity::Warning, at, message: message.into(), help });
    }

    fn push(&mut self, found: Found) {
        // An alias or a default brings the same value to several places; it is told once.
        if self.found.len() < limits::PROBLEMS * 4 && !self.found.contains(&found) {
            self.found.push(found);
        }
    }

    /// How often something was not yet supported.
    pub(crate) fn later(&self) -> usize {
        self.later
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Errors and warnings in order of place.
    pub(crate) fn finish(mut self, file: &str, tree: Option<&Tree>) -> (Vec<Problem>, Vec<Problem>) {
        self.found.sort_by_key(|found| (found.at.line, found.at.column));
        let pointers = if self.found.is_empty() { None } else { tree.map(Tree::pointers) };
        let problems = self.found.into_iter().map(|found| Problem {
            code: found.code,
            severity: found.severity,
            message: found.message,
            help: found.help,
            file: file.to_owned(),
            line: found.at.line,
            column: found.at.column,
            path: pointers.as_ref().and_then(|all| all.get(&found.at.node)).cloned().unwrap_or_default(),
        });
        let (mut errors, mut warnings): (Vec<_>, Vec<_>) =
            problems.partition(|problem| problem.severity == Severity::Error);
        errors.truncate(limits::PROBLEMS);
        warnings.truncate(limits::PROBLEMS);
        (errors, warnings)
    }
}

/// `did you mean 'retry'?`, if one of the candidates is close.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let lower = word.to_lowercase();
    let candidates: Vec<&str> = candidates.into_iter().collect();
    // A slip of the finger first, then a word that begins alike.
    let slip = candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.chars().count().min(word.chars().count()) / 4)
        .min();
    let alike = || {
        candidates
            .iter()
            .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), *candidate))
            .filter(|(likeness, _)| *likeness >= 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, candidate)| candidate)
    };
    slip.map(|(_, candidate)| candidate).or_else(alike).map(|candidate| format!("did you mean '{candidate}'?"))
}
