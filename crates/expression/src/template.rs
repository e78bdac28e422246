//! JSON values with `${ }` inside.

use std::sync::Arc;

use crate::Expression;
use crate::error::{CompileError, EvalError};
use crate::evaluate;
use crate::scope::Scope;
use crate::value::{Object, Text, Value};

/// A compiled value. A text that is exactly one `${ }` keeps the type of its expression; any other text with `${ }`
/// inside is joined to text; `$${` is a literal `${`.
#[derive(Clone, Debug)]
pub struct Template {
    part: Part,
}

#[derive(Clone, Debug)]
enum Part {
    Constant(Value),
    Whole(Box<Located>),
    Joined(Vec<Piece>),
    List(Vec<Part>),
    Object(Vec<(Text, Part)>),
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Text),
    Expression(Located),
}

/// An expression and where it begins in its text.
#[derive(Clone, Debug)]
struct Located {
    start: usize,
    expression: Expression,
}

/// An expression inside a value that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct TemplateError {
    /// Keys and indices from the outside to the text that holds it.
    pub path: Vec<Box<str>>,
    /// Byte offset of the expression in that text.
    pub offset: usize,
    /// What is wrong with it; its own offset counts from the start of the text.
    pub error: CompileError,
}

impl Template {
    /// Compiles all expressions inside `value`.
    ///
    /// # Errors
    /// With every expression that is not one.
    pub fn compile(value: &serde_json::Value) -> Result<Self, Vec<TemplateError>> {
        let mut errors = Vec::new();
        let part = compile(value, &mut Vec::new(), &mut errors);
        if errors.is_empty() { Ok(Self { part }) } else { Err(errors) }
    }

    /// A template without expressions.
    #[must_use]
    pub fn constant(value: Value) -> Self {
        Self { part: Part::Constant(value) }
    }

    /// Whether it reads nothing and calls nothing that varies.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        let mut constant = true;
        self.each_expression(|_, _, expression| constant &= expression.reads().is_constant());
        constant
    }

    /// Its value when it is constant.
    #[must_use]
    pub fn constant_value(&self) -> Option<Value> {
        if !self.is_constant() {
            return None;
        }
        self.evaluate(&Scope::new(0, 0)).ok()
    }

    /// Calls `visit` with each expression, the path to the text that holds it, and its offset in that text.
    pub fn each_expression(&self, mut visit: impl FnMut(&[Box<str>], usize, &Expression)) {
        each(&self.part, &mut Vec::new(), &mut visit);
    }

    /// Computes the value.
    ///
    /// # Errors
    /// Of the first expression that fails.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, EvalError> {
        evaluate_part(&self.part, scope)
    }

    /// Computes the value as JSON. A payload that is only handed on is copied, not parsed into a value.
    ///
    /// # Errors
    /// Of the first expression that fails, and when the JSON would be too large.
    pub fn evaluate_json(&self, scope: &Scope<'_>) -> Result<Vec<u8>, EvalError> {
        let mut json = Vec::new();
        write(&self.part, scope, &mut json)?;
        if json.len() > crate::limits::RESULT_BYTES {
            return Err(EvalError::limit(0, crate::value::TooLarge.to_string()));
        }
        Ok(json)
    }
}

fn compile(value: &serde_json::Value, path: &mut Vec<Box<str>>, errors: &mut Vec<TemplateError>) -> Part {
    match value {
        serde_json::Value::String(text) => compile_text(text, path, errors),
        serde_json::Value::Array(items) => {
            let parts: Vec<_> = items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    path.push(index.to_string().into());
                    let part = compile(item, path, errors);
                    path.pop();
                    part
                })
                .collect();
            if parts.iter().all(|part| matches!(part, Part::Constant(_))) {
                Part::Constant(value_of(Part::List(parts)))
            } else {
                Part::List(parts)
            }
        }
        serde_json::Value::Object(object) => {
            let parts: Vec<_> = object
                .iter()
                .map(|(key, item)| {
                    path.push(key.as_str().into());
                    let part = compile(item, path, errors);
                    path.pop();
                    (Text::from(key.as_str()), part)
                })
                .collect();
            if parts.iter().all(|(_, part)| matches!(part, Part::Constant(_))) {
                Part::Constant(value_of(Part::Object(parts)))
            } else {
                Part::Object(parts)
            }
        }
        scalar => Part::Constant(Value::from(scalar)),
    }
}

/// The value of a part whose parts are constants.
fn value_of(part: Part) -> Value {
    match part {
        Part::Constant(value) => value,
        Part::List(parts) => Value::list(parts.into_iter().map(value_of).collect()),
        Part::Object(parts) => Value::object(parts.into_iter().map(|(key, part)| (key, value_of(part))).collect()),
        Part::Whole(_) | Part::Joined(_) => Value::Null,
    }
}

fn compile_text(text: &str, path: &[Box<str>], errors: &mut Vec<TemplateError>) -> Part {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let open = at + found;
        if open > at && text.as_bytes()[open - 1] == b'$' {
            // `$${` is a literal `${`: one of the two signs stands already.
            literal.push_str(&text[at..open - 1]);
            literal.push_str("${");
            at = open + 2;
            continue;
        }
        literal.push_str(&text[at..open]);
        let start = open + 2;
        let len = closing(&text[start..]);
        let source = &text[start..start + len.unwrap_or(text.len() - start)];
        let blank = source.len() - source.trim_start().len();
        let compiled = match len {
            None => {
                Err(CompileError::syntax(0, "'${' without a closing '}'").with_help("a literal '${' is written '$${'"))
            }
            Some(_) => Expression::compile(source.trim()).map_err(|error| error.shifted(blank)),
        };
        match compiled {
            Ok(expression) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Expression(Located { start: start + blank, expression }));
            }
            Err(error) => {
                errors.push(TemplateError { path: path.to_vec(), offset: start, error: error.shifted(start) });
            }
        }
        at = match len {
            Some(len) => start + len + 1,
            None => text.len(),
        };
    }
    literal.push_str(&text[at..]);
    if pieces.is_empty() {
        return Part::Constant(Value::from(literal));
    }
    if pieces.len() == 1
        && literal.is_empty()
        && let Some(Piece::Expression(expression)) = pieces.pop_if(|piece| matches!(piece, Piece::Expression(_)))
    {
        return Part::Whole(Box::new(expression));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Part::Joined(pieces)
}

/// Length up to the `}` that closes an expression: not one inside its texts or its own braces.
fn closing(source: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in source.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' => quote = Some(c),
                '{' => depth += 1,
                '}' if depth == 0 => return Some(at),
                '}' => depth -= 1,
                _ => {}
            },
        }
    }
    None
}

/// The expression of a condition, which may stand in one `${ }`, and where it begins.
pub(crate) fn unwrap_condition(text: &str) -> (&str, usize) {
    let trimmed = text.trim();
    let lead = text.len() - text.trim_start().len();
    if let Some(inside) = trimmed.strip_prefix("${")
        && closing(inside).is_some_and(|len| len + 1 == inside.len())
    {
        let source = &inside[..inside.len() - 1];
        let blank = source.len() - source.trim_start().len();
        return (source.trim(), lead + 2 + blank);
    }
    (trimmed, lead)
}

type Visit<'v> = dyn FnMut(&[Box<str>], usize, &Expression) + 'v;

fn each(part: &Part, path: &mut Vec<Box<str>>, visit: &mut Visit<'_>) {
    match part {
        Part::Constant(_) => {}
        Part::Whole(it) => visit(path, it.start, &it.expression),
        Part::Joined(pieces) => {
            for piece in pieces {
                if let Piece::Expression(it) = piece {
                    visit(path, it.start, &it.expression);
                }
            }
        }
        Part::List(parts) => {
            for (index, part) in parts.iter().enumerate() {
                path.push(index.to_string().into());
                each(part, path, visit);
                path.pop();
            }
        }
        Part::Object(parts) => {
            for (key, part) in parts {
                path.push(key.as_ref().into());
                each(part, path, visit);
                path.pop();
            }
        }
    }
}

fn evaluate_part(part: &Part, scope: &Scope<'_>) -> Result<Value, EvalError> {
    Ok(match part {
        Part::Constant(value) => value.clone(),
        Part::Whole(it) => it.expression.evaluate(scope)?,
        Part::Joined(pieces) => Value::from(joined(pieces, scope)?),
        Part::List(parts) => {
            Value::list(parts.iter().map(|part| evaluate_part(part, scope)).collect::<Result<Vec<_>, _>>()?)
        }
        Part::Object(parts) => {
            let mut object = Object::new();
            for (key, part) in parts {
                object.insert(Arc::clone(key), evaluate_part(part, scope)?);
            }
            Value::object(object)
        }
    })
}

fn joined(pieces: &[Piece], scope: &Scope<'_>) -> Result<String, EvalError> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(piece) => text.push_str(piece),
            Piece::Expression(it) => {
                let value = it.expression.evaluate(scope)?;
                value.write_into_text(&mut text).map_err(|error| EvalError::limit(0, error.to_string()))?;
            }
        }
    }
    Ok(text)
}

fn write(part: &Part, scope: &Scope<'_>, json: &mut Vec<u8>) -> Result<(), EvalError> {
    match part {
        Part::Whole(it) => {
            if let Some(raw) = evaluate::raw(it.expression.root(), scope)
                && serde_json::from_slice::<serde::de::IgnoredAny>(raw).is_ok()
            {
                if json.len() + raw.len() > crate::limits::RESULT_BYTES {
                    return Err(EvalError::limit(0, crate::value::TooLarge.to_string()));
                }
                json.extend_from_slice(raw);
                return Ok(());
            }
            put(&it.expression.evaluate(scope)?, json)
        }
        Part::List(parts) => {
            json.push(b'[');
            for (index, part) in parts.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write(part, scope, json)?;
            }
            json.push(b']');
            Ok(())
        }
        Part::Object(parts) => {
            json.push(b'{');
            for (index, (key, part)) in parts.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                put(&Value::Text(Arc::clone(key)), json)?;
                json.push(b':');
                write(part, scope, json)?;
            }
            json.push(b'}');
            Ok(())
        }
        Part::Joined(pieces) => put(&Value::from(joined(pieces, scope)?), json),
        Part::Constant(value) => put(value, json),
    }
}

fn put(value: &Value, json: &mut Vec<u8>) -> Result<(), EvalError> {
    value.write_json(json, 0).map_err(|error| EvalError::limit(0, error.to_string()))
}
