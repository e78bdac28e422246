//! Walking the tree.

use std::sync::Arc;

use crate::error::{EvalError, EvalErrorCode};
use crate::functions;
use crate::node::{Loop, LoopKind, Node, Operator, What};
use crate::operators::{self, list_fits};
use crate::scope::{Lazy, Scope};
use crate::value::{Object, Value};

type Outcome = Result<Value, EvalError>;

pub(crate) fn run(root: &Node, scope: &Scope<'_>) -> Outcome {
    Evaluator { scope, locals: Vec::new() }.value(root)
}

/// The JSON behind an expression that only names it, so that it can be handed on unread.
pub(crate) fn raw<'a>(root: &Node, scope: &Scope<'a>) -> Option<&'a [u8]> {
    raw_lazy(root, scope)?.raw()
}

fn raw_lazy<'s, 'a>(node: &Node, scope: &'s Scope<'a>) -> Option<&'s Lazy<'a>> {
    match &node.what {
        What::Root(name) => scope.root(name),
        What::Field(of, name) => match raw_lazy(of, scope)? {
            Lazy::Object(fields) => fields.iter().find(|(field, _)| *field == &**name).map(|(_, value)| value),
            _ => None,
        },
        _ => None,
    }
}

struct Evaluator<'s, 'a> {
    scope: &'s Scope<'a>,
    locals: Vec<Value>,
}

/// What a name with its fields leads to: perhaps something that is not parsed yet.
enum Found<'s, 'a> {
    Lazy(&'s Lazy<'a>),
    Value(Value),
}

impl<'s, 'a> Evaluator<'s, 'a> {
    fn value(&mut self, node: &Node) -> Outcome {
        self.scope.spend(1, node.at)?;
        match &node.what {
            What::Constant(value) => Ok(value.clone()),
            What::Local(further_out) => Ok(self.local(*further_out)),
            What::Root(_) | What::Field(..) => self.named(node),
            What::Index(of, index) => self.index(of, index, node.at),
            What::Has(of, name) => self.has(of, name),
            What::Not(inner) => self.truth(inner, "'!'").map(|yes| Value::Bool(!yes)),
            What::Negate(inner) => {
                let value = self.value(inner)?;
                operators::negate(&value, node.at)
            }
            What::Binary(operator, left, right) => self.binary(*operator, left, right, node.at),
            What::And(parts) => self.chain(parts, false, "'&&'"),
            What::Or(parts) => self.chain(parts, true, "'||'"),
            What::Choice(test, yes, no) => {
                let chosen = if self.truth(test, "'?'")? { yes } else { no };
                self.value(chosen)
            }
            What::List(items) => self.list(items, node.at),
            What::Object(entries) => self.object(entries),
            What::Call(function, args) => {
                let args = args.iter().map(|arg| self.value(arg)).collect::<Result<Vec<_>, _>>()?;
                functions::call(*function, &args, self.scope, node.at)
            }
            What::Loop(it) => self.walk(it, node.at),
            What::Matches(text, pattern) => self.matches(text, pattern, node.at),
        }
    }

    fn matches(&mut self, text: &Node, pattern: &regex::Regex, at: u32) -> Outcome {
        let value = self.value(text)?;
        match &value {
            Value::Text(text) => {
                self.scope.spend(text.len() / 8, at)?;
                Ok(Value::Bool(pattern.is_match(text)))
            }
            Value::Null => Err(EvalError::new(EvalErrorCode::Null, at, "matches() takes text, not null")),
            other => Err(EvalError::wrong_type(at, format!("matches() takes text, not {}", other.kind_name()))),
        }
    }

    fn local(&self, further_out: u8) -> Value {
        // The parser resolves names to loops that are around, so the variable is always bound.
        self.locals.iter().rev().nth(usize::from(further_out)).cloned().unwrap_or_default()
    }

    fn named(&mut self, node: &Node) -> Outcome {
        match self.find(node)? {
            Found::Value(value) => Ok(value),
            Found::Lazy(lazy) => {
                if let Some(bytes) = lazy.raw() {
                    self.scope.spend(bytes.len() / 64, node.at)?;
                }
                lazy.load(self.scope, node.at)
            }
        }
    }

    fn find(&mut self, node: &Node) -> Result<Found<'s, 'a>, EvalError> {
        match &node.what {
            What::Root(name) => {
                self.scope.root(name).map(Found::Lazy).ok_or_else(|| {
                    EvalError::new(EvalErrorCode::NoField, node.at, format!("there is no '{name}' here"))
                })
            }
            What::Field(of, name) => match self.find(of)? {
                Found::Lazy(Lazy::Object(fields)) => {
                    let found = fields.iter().find(|(field, _)| *field == &**name);
                    found.map(|(_, value)| Found::Lazy(value)).ok_or_else(|| no_field(name, node.at))
                }
                Found::Lazy(lazy) => {
                    let value = lazy.load(self.scope, node.at)?;
                    field(&value, name, node.at).map(Found::Value)
                }
                Found::Value(value) => field(&value, name, node.at).map(Found::Value),
            },
            _ => self.value(node).map(Found::Value),
        }
    }

    fn index(&mut self, of: &Node, index: &Node, at: u32) -> Outcome {
        let index = self.value(index)?;
        let value = match self.find(of)? {
            Found::Value(value) => value,
            // A computed key may still lead past what is not parsed.
            Found::Lazy(Lazy::Object(fields)) => {
                if let Value::Text(name) = &index {
                    let found = fields.iter().find(|(field, _)| *field == &**name);
                    return found.ok_or_else(|| no_field(name, at))?.1.load(self.scope, at);
                }
                Value::object(Object::new())
            }
            Found::Lazy(lazy) => lazy.load(self.scope, at)?,
        };
        match (&value, &index) {
            (Value::List(items), Value::Int(number)) => {
                usize::try_from(*number).ok().and_then(|i| items.get(i)).cloned().ok_or_else(|| {
                    let message = format!("there is no item {number} in a list of {}", items.len());
                    EvalError::new(EvalErrorCode::NoField, at, message)
                })
            }
            (Value::Object(_), Value::Text(name)) => field(&value, name, at),
            (Value::Null, _) => Err(EvalError::new(EvalErrorCode::Null, at, "an item is read of null")),
            _ => {
                let message = format!("{} cannot be read with {} as key", value.kind_name(), index.kind_name());
                Err(EvalError::wrong_type(at, message))
            }
        }
    }

    fn has(&mut self, of: &Node, name: &str) -> Outcome {
        let found = match self.find(of)? {
            Found::Lazy(Lazy::Object(fields)) => {
                return Ok(Value::Bool(fields.iter().any(|(field, _)| *field == name)));
            }
            Found::Lazy(lazy) => lazy.load(self.scope, of.at)?,
            Found::Value(value) => value,
        };
        match found {
            Value::Object(object) => Ok(Value::Bool(object.contains_key(name))),
            Value::Null => Err(EvalError::new(EvalErrorCode::Null, of.at, format!("'{name}' is asked of null"))),
            other => Err(EvalError::wrong_type(of.at, format!("{} has no fields", other.kind_name()))),
        }
    }

    fn truth(&mut self, node: &Node, of: &str) -> Result<bool, EvalError> {
        match self.value(node)? {
            Value::Bool(yes) => Ok(yes),
            other => {
                Err(EvalError::wrong_type(node.at, format!("{of} takes true or false, not {}", other.kind_name())))
            }
        }
    }

    /// `&&` and `||`: one part that decides makes up for parts that fail, whatever their order.
    fn chain(&mut self, parts: &[Node], decides: bool, of: &str) -> Outcome {
        let mut failed = None;
        for part in parts {
            match self.truth(part, of) {
                Ok(yes) if yes == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                // A spent budget is not made up for.
                Err(error) if error.code() == EvalErrorCode::Limit => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn binary(&mut self, operator: Operator, left: &Node, right: &Node, at: u32) -> Outcome {
        let left = self.value(left)?;
        let right = self.value(right)?;
        operators::binary(operator, &left, &right, self.scope, at)
    }

    fn list(&mut self, items: &[Node], at: u32) -> Outcome {
        list_fits(items.len(), at)?;
        let items = items.iter().map(|item| self.value(item)).collect::<Result<Vec<_>, _>>()?;
        Ok(Value::list(items))
    }

    fn object(&mut self, entries: &[(Node, Node)]) -> Outcome {
        let mut object = Object::new();
        for (key, value) in entries {
            let key_value = self.value(key)?;
            let Value::Text(name) = key_value else {
                let message = format!("the key of an object is text, not {}", key_value.kind_name());
                return Err(EvalError::wrong_type(key.at, message));
            };
            let value = self.value(value)?;
            if object.insert(Arc::clone(&name), value).is_some() {
                return Err(EvalError::wrong_type(key.at, format!("the key '{name}' is there twice")));
            }
        }
        Ok(Value::object(object))
    }

    fn walk(&mut self, it: &Loop, at: u32) -> Outcome {
        let over = self.value(&it.over)?;
        match &over {
            Value::List(items) => {
                list_fits(items.len(), at)?;
                self.each(it, items.iter().cloned(), at)
            }
            Value::Object(object) => {
                list_fits(object.len(), at)?;
                self.each(it, object.keys().cloned().map(Value::Text), at)
            }
            Value::Null => Err(EvalError::new(EvalErrorCode::Null, at, "a loop over null")),
            other => Err(EvalError::wrong_type(
                at,
                format!("a loop goes over a list or an object, not {}", other.kind_name()),
            )),
        }
    }

    fn each(&mut self, it: &Loop, items: impl Iterator<Item = Value>, at: u32) -> Outcome {
        let mut kept = Vec::new();
        let mut count = 0u32;
        let mut failed = None;
        for item in items {
            self.scope.spend(1, at)?;
            self.locals.push(item.clone());
            let result = self.step(it);
            self.locals.pop();
            match (it.kind, result) {
                (LoopKind::Map, Ok(Some(value))) => kept.push(value),
                (LoopKind::Map, Ok(None)) => {}
                (LoopKind::Filter, Ok(Some(Value::Bool(true)))) => kept.push(item),
                (LoopKind::ExistsOne, Ok(Some(Value::Bool(true)))) => count += 1,
                (LoopKind::Exists, Ok(Some(Value::Bool(true)))) => return Ok(Value::Bool(true)),
                (LoopKind::All, Ok(Some(Value::Bool(false)))) => return Ok(Value::Bool(false)),
                (_, Ok(Some(Value::Bool(_)))) => {}
                (_, Ok(other)) => {
                    let kind = other.as_ref().map_or("nothing", Value::kind_name);
                    let message = format!("the test of a loop must be true or false, not {kind}");
                    failed = failed.or(Some(EvalError::wrong_type(it.body.at, message)));
                }
                (_, Err(error)) => failed = failed.or(Some(error)),
            }
            // As in CEL, a later item may still decide `all` and `exists`; nothing else survives a failure.
            let fatal = failed.as_ref().is_some_and(|error| error.code() == EvalErrorCode::Limit);
            if failed.is_some() && (fatal || !matches!(it.kind, LoopKind::All | LoopKind::Exists)) {
                break;
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(match it.kind {
            LoopKind::Map | LoopKind::Filter => Value::list(kept),
            LoopKind::All => Value::Bool(true),
            LoopKind::Exists => Value::Bool(false),
            LoopKind::ExistsOne => Value::Bool(count == 1),
        })
    }

    fn step(&mut self, it: &Loop) -> Result<Option<Value>, EvalError> {
        if let Some(filter) = &it.filter
            && !self.truth(filter, "the filter of map()")?
        {
            return Ok(None);
        }
        self.value(&it.body).map(Some)
    }
}

fn field(value: &Value, name: &str, at: u32) -> Outcome {
    match value {
        Value::Object(object) => object.get(name).cloned().ok_or_else(|| no_field(name, at)),
        Value::Null => Err(EvalError::new(EvalErrorCode::Null, at, format!("'{name}' is read of null"))),
        other => Err(EvalError::wrong_type(at, format!("'{name}' is read of {}", other.kind_name()))),
    }
}

fn no_field(name: &str, at: u32) -> EvalError {
    EvalError::new(EvalErrorCode::NoField, at, format!("there is no field '{name}'"))
}
