//! From one type to another; never done unasked.

use super::{Call, Function};
use crate::error::EvalError;
use crate::limits;
use crate::operators::double;
use crate::value::Value;

pub(super) fn call(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.function {
        Function::ToText => to_text(call),
        Function::ToInt => to_int(call),
        Function::ToDouble => match call.arg(0) {
            Value::Int(number) => Ok(Value::Double(*number as f64)),
            Value::Double(number) => Ok(Value::Double(*number)),
            Value::Text(text) => {
                let number = text.trim().parse().map_err(|_| unreadable(call, text, "a number"))?;
                double(number, call.at)
            }
            other => Err(call.misfit("a number or text", other)),
        },
        Function::ToBool => match call.arg(0) {
            Value::Bool(yes) => Ok(Value::Bool(*yes)),
            Value::Text(text) => match &**text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(unreadable(call, text, "'true' or 'false'")),
            },
            other => Err(call.misfit("a bool or text", other)),
        },
        Function::TypeOf => Ok(Value::from(match call.arg(0) {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Double(_) => "double",
            Value::Text(_) => "string",
            Value::List(_) => "list",
            Value::Object(_) => "map",
            Value::Timestamp(_) => "timestamp",
            Value::Duration(_) => "duration",
        })),
        Function::Dyn => Ok(call.arg(0).clone()),
        Function::Json => {
            let json = call.arg(0).to_json().map_err(|error| call.too_large(error))?;
            // JSON is written as UTF-8.
            call.made(String::from_utf8_lossy(&json).into_owned())
        }
        _ => parse_json(call),
    }
}

fn unreadable(call: &Call<'_, '_>, text: &str, wanted: &str) -> EvalError {
    let shown: String = text.chars().take(40).collect();
    EvalError::wrong_type(call.at, format!("{}(): '{shown}' is not {wanted}", call.function.name()))
}

fn to_text(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.arg(0) {
        text @ Value::Text(_) => Ok(text.clone()),
        Value::Bool(yes) => Ok(Value::from(if *yes { "true" } else { "false" })),
        value @ (Value::Int(_) | Value::Double(_) | Value::Timestamp(_) | Value::Duration(_)) => {
            let mut text = String::new();
            value.write_into_text(&mut text).map_err(|error| call.too_large(error))?;
            call.made(text)
        }
        other => Err(call.misfit("a scalar; for JSON use json()", other)),
    }
}

fn to_int(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.arg(0) {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Double(number) => {
            // Towards zero, as CEL does. 2^63 itself no longer fits.
            if *number >= -9_223_372_036_854_775_808.0 && *number < 9_223_372_036_854_775_808.0 {
                Ok(Value::Int(*number as i64))
            } else {
                Err(EvalError::overflow(call.at, format!("{number} does not fit an int of 64 bits")))
            }
        }
        Value::Text(text) => {
            let number = text.trim().parse().map_err(|_| unreadable(call, text, "a whole number of 64 bits"))?;
            Ok(Value::Int(number))
        }
        Value::Timestamp(at) => Ok(Value::Int(at.as_second())),
        other => Err(call.misfit("a number, text or a timestamp", other)),
    }
}

fn parse_json(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let text = call.text(0)?;
    if text.len() > limits::PAYLOAD_BYTES {
        let message = format!("parseJson() takes at most {} bytes", limits::PAYLOAD_BYTES);
        return Err(EvalError::limit(call.at, message));
    }
    Value::from_json(text.as_bytes())
        .map_err(|error| EvalError::wrong_type(call.at, format!("parseJson(): not JSON: {error}")))
}
