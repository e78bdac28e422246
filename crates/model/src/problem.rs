//! What is wrong with a document, and where.

use std::fmt;

/// A problem of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable code; each has a heading in `docs/reference/errors.md`.
    pub code: &'static str,
    /// Whether it refuses the document.
    pub severity: Severity,
    /// What is wrong, for people.
    pub message: String,
    /// What to do, if that is known.
    pub help: Option<String>,
    /// Name of the document.
    pub file: String,
    /// Line, from 1; 0 when it concerns no place in particular.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// JSON pointer to what holds it.
    pub path: String,
}

/// Whether a problem refuses the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should look.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}  {}  {}", self.file, self.line, self.column, self.code, self.message)?;
        match &self.help {
            // A guess belongs to the sentence; advice is one of its own.
            Some(help) if help.starts_with("did you mean") => write!(f, ", {help}"),
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// All problems of a document, in order of place; at least one, at most [`crate::limits::PROBLEMS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn new(problems: Vec<Problem>) -> Self {
        Self(problems)
    }

    /// In order of place.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never true: a document without problems gives none of these.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems themselves.
    #[must_use]
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The codes of problems. Never renamed: people look them up.
pub mod codes {
    /// Not YAML, not JSON, or not UTF-8.
    pub const YAML: &str = "yaml";
    /// A field that the language does not have here.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// A node type that the language does not have.
    pub const UNKNOWN_TYPE: &str = "unknown_type";
    /// A value of another type, or out of its form.
    pub const WRONG_TYPE: &str = "wrong_type";
    /// A field that must be there.
    pub const MISSING_FIELD: &str = "missing_field";
    /// A name that is no id.
    pub const BAD_ID: &str = "bad_id";
    /// An id, key or name that is there twice.
    pub const DUPLICATE_ID: &str = "duplicate_id";
    /// A need or jump to nowhere.
    pub const UNKNOWN_NEED: &str = "unknown_need";
    /// A port that the node does not have.
    pub const UNKNOWN_PORT: &str = "unknown_port";
    /// The same path twice.
    pub const DUPLICATE_EDGE: &str = "duplicate_edge";
    /// Nodes that wait for each other.
    pub const CYCLE: &str = "cycle";
    /// A node that can never run.
    pub const UNREACHABLE: &str = "unreachable";
    /// A field that has no meaning here.
    pub const WRONG_PLACE: &str = "wrong_place";
    /// A node that cannot be read from here.
    pub const NOT_VISIBLE: &str = "not_visible";
    /// An expression that names what is not there.
    pub const UNKNOWN_REFERENCE: &str = "unknown_reference";
    /// A variable that no scope around declares.
    pub const UNDECLARED_VAR: &str = "undeclared_var";
    /// Not an expression.
    pub const BAD_EXPRESSION: &str = "bad_expression";
    /// An expression over the bounds.
    pub const EXPRESSION_BOUNDS: &str = "expression_bounds";
    /// A kind of task that is none.
    pub const UNKNOWN_KIND: &str = "unknown_kind";
    /// Over one of the limits.
    pub const LIMIT: &str = "limit";
    /// Nested too deeply.
    pub const DEPTH: &str = "depth";
    /// A part of the language that is not supported yet.
    pub const NEEDS_FEATURE: &str = "needs_feature";

    /// A text written without quotes that other readers take for something else.
    pub const IMPLICIT_TEXT: &str = "implicit_text";
    /// A port that was told from the order of the edges.
    pub const IMPLICIT_PORT: &str = "implicit_port";
    /// A node that may begin without a value that it reads.
    pub const MAY_RUN_WITHOUT: &str = "may_run_without";
    /// A condition that is always false.
    pub const NEVER_TRUE: &str = "never_true";
    /// Work without any limit in time.
    pub const MISSING_TIMEOUT: &str = "missing_timeout";
    /// A limit in time that the scope around cuts short.
    pub const TIMEOUT_EXCEEDS_SCOPE: &str = "timeout_exceeds_scope";
    /// Two parallel branches that overwrite one variable.
    pub const CONCURRENT_WRITE: &str = "concurrent_write";

    /// All of them, the warnings behind.
    #[rustfmt::skip]
    pub const ALL: &[&str] = &[
        YAML, UNKNOWN_FIELD, UNKNOWN_TYPE, WRONG_TYPE, MISSING_FIELD, BAD_ID, DUPLICATE_ID, UNKNOWN_NEED,
        UNKNOWN_PORT, DUPLICATE_EDGE, CYCLE, UNREACHABLE, WRONG_PLACE, NOT_VISIBLE, UNKNOWN_REFERENCE, UNDECLARED_VAR,
        BAD_EXPRESSION, EXPRESSION_BOUNDS, UNKNOWN_KIND, LIMIT, DEPTH, NEEDS_FEATURE, IMPLICIT_TEXT, IMPLICIT_PORT,
        MAY_RUN_WITHOUT, NEVER_TRUE, MISSING_TIMEOUT, TIMEOUT_EXCEEDS_SCOPE, CONCURRENT_WRITE,
    ];
}
