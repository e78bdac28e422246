//! Arithmetic: int with int stays int, anything with a double becomes double, nothing wraps around.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::error::EvalError;
use crate::limits;
use crate::node::Operator;
use crate::scope::Scope;
use crate::value::Value;

type Outcome = Result<Value, EvalError>;

pub(crate) fn binary(operator: Operator, left: &Value, right: &Value, scope: &Scope<'_>, at: u32) -> Outcome {
    match operator {
        Operator::Equal => Ok(Value::Bool(scope.equal(left, right, at)?)),
        Operator::Unequal => Ok(Value::Bool(!scope.equal(left, right, at)?)),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            scope.spend(left.compared_bytes().min(right.compared_bytes()) / 64, at)?;
            compare(operator, left, right, at)
        }
        Operator::In => contains(left, right, scope, at),
        Operator::Add => add(left, right, scope, at),
        Operator::Subtract => subtract(left, right, at),
        Operator::Multiply | Operator::Divide | Operator::Remainder => numbers(operator, left, right, at),
    }
}

fn mismatch(operator: Operator, left: &Value, right: &Value, at: u32) -> EvalError {
    let message = format!("'{}' does not fit {} and {}", operator.sign(), left.kind_name(), right.kind_name());
    EvalError::wrong_type(at, message)
}

fn compare(operator: Operator, left: &Value, right: &Value, at: u32) -> Outcome {
    let order = left.order(right).ok_or_else(|| mismatch(operator, left, right, at))?;
    Ok(Value::Bool(match operator {
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn contains(item: &Value, all: &Value, scope: &Scope<'_>, at: u32) -> Outcome {
    match (item, all) {
        (_, Value::List(items)) => {
            for other in items.iter() {
                if scope.equal(item, other, at)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        (Value::Text(key), Value::Object(object)) => Ok(Value::Bool(object.contains_key(key))),
        _ => Err(mismatch(Operator::In, item, all, at)),
    }
}

fn add(left: &Value, right: &Value, scope: &Scope<'_>, at: u32) -> Outcome {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => {
            scope.spend((a.len() + b.len()) / 64, at)?;
            if a.len() + b.len() > limits::RESULT_BYTES {
                return Err(EvalError::limit(at, format!("the text is longer than {} bytes", limits::RESULT_BYTES)));
            }
            Ok(Value::Text(format!("{a}{b}").into()))
        }
        (Value::List(a), Value::List(b)) => {
            scope.spend((a.len() + b.len()) / 8, at)?;
            list_fits(a.len() + b.len(), at)?;
            Ok(Value::List(Arc::new(a.iter().chain(b.iter()).cloned().collect())))
        }
        (Value::Timestamp(moment), Value::Duration(span)) | (Value::Duration(span), Value::Timestamp(moment)) => {
            shift(*moment, *span, at)
        }
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_add(*b), at),
        _ => numbers(Operator::Add, left, right, at),
    }
}

fn subtract(left: &Value, right: &Value, at: u32) -> Outcome {
    match (left, right) {
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Value::Duration(a.duration_since(*b))),
        (Value::Timestamp(moment), Value::Duration(span)) => match span.checked_neg() {
            Some(span) => shift(*moment, span, at),
            None => Err(EvalError::overflow(at, "the duration is out of range")),
        },
        (Value::Duration(a), Value::Duration(b)) => span(a.checked_sub(*b), at),
        _ => numbers(Operator::Subtract, left, right, at),
    }
}

fn shift(moment: Timestamp, span: SignedDuration, at: u32) -> Outcome {
    let moved = moment.checked_add(span).map_err(|_| EvalError::overflow(at, "the timestamp is out of range"))?;
    Ok(Value::Timestamp(moved))
}

fn span(sum: Option<SignedDuration>, at: u32) -> Outcome {
    sum.map(Value::Duration).ok_or_else(|| EvalError::overflow(at, "the duration is out of range"))
}

fn numbers(operator: Operator, left: &Value, right: &Value, at: u32) -> Outcome {
    let (a, b) = match (left, right) {
        (Value::Int(a), Value::Int(b)) => return ints(operator, *a, *b, at),
        (Value::Int(a), Value::Double(b)) => (*a as f64, *b),
        (Value::Double(a), Value::Int(b)) => (*a, *b as f64),
        (Value::Double(a), Value::Double(b)) => (*a, *b),
        _ => return Err(mismatch(operator, left, right, at)),
    };
    let result = match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide if b == 0.0 => return Err(EvalError::overflow(at, "division by zero")),
        Operator::Divide => a / b,
        _ => return Err(EvalError::wrong_type(at, "'%' takes two ints")),
    };
    double(result, at)
}

/// A double that JSON can hold.
pub(crate) fn double(number: f64, at: u32) -> Outcome {
    if number.is_finite() {
        Ok(Value::Double(number))
    } else {
        Err(EvalError::overflow(at, "the number is out of range"))
    }
}

fn ints(operator: Operator, a: i64, b: i64, at: u32) -> Outcome {
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err(EvalError::overflow(at, "division by zero")),
        Operator::Divide => a.checked_div(b),
        // The smallest int has no remainder by -1 in hardware; it is 0.
        _ => Some(a.checked_rem(b).unwrap_or(0)),
    };
    result
        .map(Value::Int)
        .ok_or_else(|| EvalError::overflow(at, format!("{a} {} {b} does not fit an int of 64 bits", operator.sign())))
}

pub(crate) fn negate(value: &Value, at: u32) -> Outcome {
    match value {
        Value::Int(number) => number
            .checked_neg()
            .map(Value::Int)
            .ok_or_else(|| EvalError::overflow(at, format!("-({number}) does not fit an int of 64 bits"))),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Duration(span) => self::span(span.checked_neg(), at),
        other => Err(EvalError::wrong_type(at, format!("'-' does not fit {}", other.kind_name()))),
    }
}

pub(crate) fn list_fits(len: usize, at: u32) -> Result<(), EvalError> {
    if len <= limits::LIST_ITEMS {
        return Ok(());
    }
    Err(EvalError::limit(at, format!("a list of {len} items; an expression takes at most {}", limits::LIST_ITEMS)))
}
