//! What can be wrong with an expression, when it is saved and when it runs.

use std::fmt;

/// Why a source is not an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    kind: CompileErrorKind,
    offset: usize,
    message: String,
    help: Option<String>,
}

/// What a [`CompileError`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileErrorKind {
    /// It does not follow the grammar.
    Syntax,
    /// No function has that name, or not with so many arguments.
    Function,
    /// Over one of the [`crate::limits`].
    Bounds,
    /// It reads nothing and fails, so it would fail each time.
    AlwaysFails,
    /// Part of the language, but not supported yet.
    NotYet,
}

impl CompileError {
    pub(crate) fn new(kind: CompileErrorKind, offset: usize, message: impl Into<String>) -> Self {
        Self { kind, offset, message: message.into(), help: None }
    }

    pub(crate) fn syntax(offset: usize, message: impl Into<String>) -> Self {
        Self::new(CompileErrorKind::Syntax, offset, message)
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.offset += by;
        self
    }

    /// What it is about.
    #[must_use]
    pub fn kind(&self) -> CompileErrorKind {
        self.kind
    }

    /// Byte offset in the source.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do, if that is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    code: EvalErrorCode,
    offset: usize,
    message: String,
}

/// The stable code of an [`EvalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvalErrorCode {
    /// A value of another type was needed.
    Type,
    /// A field, key or list item is not there.
    NoField,
    /// Something was read of null.
    Null,
    /// A number out of range, or a division by zero.
    Overflow,
    /// Over one of the [`crate::limits`].
    Limit,
    /// A payload that is too large or is not JSON.
    Payload,
}

impl EvalErrorCode {
    /// As it stands in an error of a node.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Type => "expression.type",
            Self::NoField => "expression.no_field",
            Self::Null => "expression.null",
            Self::Overflow => "expression.overflow",
            Self::Limit => "expression.limit",
            Self::Payload => "expression.payload",
        }
    }
}

impl fmt::Display for EvalErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl EvalError {
    pub(crate) fn new(code: EvalErrorCode, offset: u32, message: impl Into<String>) -> Self {
        Self { code, offset: offset as usize, message: message.into() }
    }

    pub(crate) fn wrong_type(offset: u32, message: impl Into<String>) -> Self {
        Self::new(EvalErrorCode::Type, offset, message)
    }

    pub(crate) fn limit(offset: u32, message: impl Into<String>) -> Self {
        Self::new(EvalErrorCode::Limit, offset, message)
    }

    pub(crate) fn overflow(offset: u32, message: impl Into<String>) -> Self {
        Self::new(EvalErrorCode::Overflow, offset, message)
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> EvalErrorCode {
        self.code
    }

    /// Byte offset in the source of the expression.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// For people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for EvalError {}
