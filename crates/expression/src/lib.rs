//! Expressions of the workflow language: CEL in syntax, JSON in values, bounded in size and time.
//!
//! Owns: the value type, the grammar, the functions, the limits of an expression, what an expression reads, and
//! templates – JSON values with `${ }` inside.
//! Must not know: nodes, workflows, where the values come from, what time it is (a [`Scope`] says so).
//!
//! Differences from plain CEL, each on purpose: numbers are int or double and mix freely; there are no unsigned
//! integers, bytes, messages or optionals; a division by zero is an error for doubles too, since JSON has no infinity.
//!
//! The parser is our own. The one of the `cel` crate needs some 40 KB of stack per level of brackets and overflows a
//! thread's stack below 4 KiB of hostile source; it serves as the oracle in the tests.

mod error;
mod evaluate;
mod functions;
mod lexer;
pub mod limits;
mod node;
mod operators;
mod parser;
mod path;
mod references;
mod scope;
mod template;
mod time;
mod value;

pub use error::{CompileError, CompileErrorKind, EvalError, EvalErrorCode};
pub use functions::function_names;
pub use node::Kind;
pub use references::{Reference, References};
pub use scope::{Lazy, Scope};
pub use template::{Template, TemplateError};
pub use time::{TimeError, duration_to_text, moment_to_ms, moment_to_text, parse_duration_ms};
pub use value::{Object, Value};

use node::Node;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Box<str>,
    root: Node,
    references: References,
}

impl Expression {
    /// Compiles the source of one expression, without `${ }`.
    ///
    /// # Errors
    /// When it is not an expression, calls what does not exist, or is over one of the [`limits`].
    pub fn compile(source: &str) -> Result<Self, CompileError> {
        let root = parser::parse(source)?;
        let references = References::of(&root);
        let expression = Self { source: source.into(), root, references };
        expression.check_constant()?;
        Ok(expression)
    }

    /// Compiles a condition: an expression that may stand in one `${ }`.
    ///
    /// # Errors
    /// As [`Expression::compile`]; offsets count from the start of `text`.
    pub fn compile_condition(text: &str) -> Result<Self, CompileError> {
        let (source, start) = template::unwrap_condition(text);
        Self::compile(source).map_err(|error| error.shifted(start))
    }

    /// Its source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it reads.
    #[must_use]
    pub fn reads(&self) -> &References {
        &self.references
    }

    /// What kind of value it gives, where that can be told from its form.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.root.kind()
    }

    /// Its value when it reads nothing and calls nothing that varies.
    #[must_use]
    pub fn constant(&self) -> Option<Value> {
        if !self.references.is_constant() {
            return None;
        }
        evaluate::run(&self.root, &Scope::new(0, 0)).ok()
    }

    /// Computes it.
    ///
    /// # Errors
    /// With the place inside the expression where it failed, and why.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        evaluate::run(&self.root, scope)
    }

    /// Computes a condition.
    ///
    /// # Errors
    /// As [`Expression::evaluate`], and `expression.type` when the value is neither true nor false.
    pub fn test(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        match evaluate::run(&self.root, scope)? {
            Value::Bool(yes) => Ok(yes),
            other => {
                Err(EvalError::wrong_type(0, format!("a condition must be true or false, not {}", other.kind_name())))
            }
        }
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }

    /// An expression without references that fails will always fail: it is refused when it is saved.
    fn check_constant(&self) -> Result<(), CompileError> {
        if !self.references.is_constant() {
            return Ok(());
        }
        match evaluate::run(&self.root, &Scope::new(0, 0)) {
            Ok(_) => Ok(()),
            Err(error) => Err(CompileError::new(CompileErrorKind::AlwaysFails, error.offset(), error.message())),
        }
    }
}
