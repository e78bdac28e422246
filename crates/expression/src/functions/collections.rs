//! Lists, objects and what may be missing.

use std::sync::Arc;

use super::{Call, Function};
use crate::error::EvalError;
use crate::node::Operator;
use crate::operators::{binary, list_fits};
use crate::path::{Step, steps};
use crate::value::Value;

pub(super) fn call(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.function {
        Function::Size => size(call),
        Function::Default => Ok(if call.arg(0).is_null() { call.arg(1).clone() } else { call.arg(0).clone() }),
        Function::Range => range(call),
        Function::Sum => sum(call),
        Function::Sort => sort(call),
        Function::Merge => merge(call),
        _ => get(call),
    }
}

fn size(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let size = match call.arg(0) {
        Value::Text(text) => {
            call.scope.spend(text.len() / 64, call.at)?;
            text.chars().count()
        }
        Value::List(items) => items.len(),
        Value::Object(object) => object.len(),
        other => return Err(call.misfit("text, a list or an object", other)),
    };
    Ok(Value::Int(size as i64))
}

fn range(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let int = |index| match call.arg(index) {
        Value::Int(number) => Ok(*number),
        other => Err(call.misfit("ints", other)),
    };
    let (from, to) = if call.args.len() == 1 { (0, int(0)?) } else { (int(0)?, int(1)?) };
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
    list_fits(len, call.at)?;
    call.scope.spend(len, call.at)?;
    Ok(Value::list((from..to).map(Value::Int).collect()))
}

fn sum(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let mut total = Value::Int(0);
    let items = call.items(0)?;
    for item in items {
        total = match (item, &total) {
            (Value::Int(_) | Value::Double(_), _) => binary(Operator::Add, &total, item, call.scope, call.at)?,
            (Value::Duration(_), Value::Int(0)) => item.clone(),
            (Value::Duration(_), Value::Duration(_)) => binary(Operator::Add, &total, item, call.scope, call.at)?,
            _ => return Err(call.misfit("a list of numbers", item)),
        };
    }
    Ok(total)
}

fn sort(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let mut items = call.items(0)?.to_vec();
    // What all items have to be read for, once per level of the sort.
    let bytes: usize = items.iter().map(Value::compared_bytes).fold(0, usize::saturating_add);
    let levels = items.len().max(1).ilog2() as usize + 1;
    call.scope.spend((items.len() / 4).saturating_add(bytes / 64).saturating_mul(levels), call.at)?;
    // One kind throughout, so that the order is total.
    if let Some(first) = items.first()
        && let Some(other) = items.iter().find(|item| first.order(item).is_none())
    {
        let message = format!("sort() cannot order {} and {}", first.kind_name(), other.kind_name());
        return Err(EvalError::wrong_type(call.at, message));
    }
    items.sort_by(|a, b| a.order(b).unwrap_or(std::cmp::Ordering::Equal));
    Ok(Value::list(items))
}

fn merge(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match (call.arg(0), call.arg(1)) {
        (Value::Object(a), Value::Object(b)) => {
            call.scope.spend(a.len() + b.len(), call.at)?;
            let mut merged = a.as_ref().clone();
            merged.extend(b.iter().map(|(key, value)| (Arc::clone(key), value.clone())));
            Ok(Value::object(merged))
        }
        (Value::Object(_), other) | (other, _) => Err(call.misfit("two objects", other)),
    }
}

/// `other` for whatever is missing or null on the way; null when there is no `other`.
fn get(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let path = match call.arg(1) {
        Value::Int(index) => match (call.arg(0), usize::try_from(*index)) {
            (Value::List(items), Ok(index)) => return Ok(items.get(index).unwrap_or(call.arg(2)).clone()),
            _ => return Ok(call.arg(2).clone()),
        },
        _ => call.text(1)?,
    };
    let steps = steps(path)
        .ok_or_else(|| EvalError::wrong_type(call.at, format!("'{path}' is not a path such as 'a.b[0].c'")))?;
    let mut value = call.arg(0);
    for step in steps {
        let next = match (value, step) {
            (Value::Object(object), Step::Field(name)) => object.get(name),
            (Value::List(items), Step::Item(index)) => items.get(index),
            _ => None,
        };
        value = match next {
            Some(next) => next,
            None => return Ok(call.arg(2).clone()),
        };
    }
    Ok(if value.is_null() { call.arg(2).clone() } else { value.clone() })
}
