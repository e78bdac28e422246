//! Texts.

use super::{Call, Function};
use crate::error::EvalError;
use crate::limits;
use crate::operators::list_fits;
use crate::value::Value;

/// Compiles a pattern; its automaton stays small whatever the pattern.
pub(crate) fn pattern(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern)
        .size_limit(256 * 1024)
        .dfa_size_limit(256 * 1024)
        .nest_limit(50)
        .build()
        .map_err(|_| "not a pattern, or too large a one".to_owned())
}

pub(super) fn call(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    match call.function {
        Function::Contains => Ok(Value::Bool(call.text(0)?.contains(call.text(1)?))),
        Function::StartsWith => Ok(Value::Bool(call.text(0)?.starts_with(call.text(1)?))),
        Function::EndsWith => Ok(Value::Bool(call.text(0)?.ends_with(call.text(1)?))),
        Function::Matches => {
            let text = call.text(0)?;
            // A computed pattern is compiled each time; that is the dear part.
            call.scope.spend(2_000 + text.len() / 8, call.at)?;
            let pattern = pattern(call.text(1)?).map_err(|error| EvalError::wrong_type(call.at, error))?;
            Ok(Value::Bool(pattern.is_match(text)))
        }
        Function::Join => join(call),
        Function::Split => split(call),
        Function::Lower => call.made(call.text(0)?.to_lowercase()),
        Function::Upper => call.made(call.text(0)?.to_uppercase()),
        Function::Trim => call.made(call.text(0)?.trim().to_owned()),
        Function::Replace => replace(call),
        Function::Base64 => call.made(base64(call.text(0)?.as_bytes())),
        _ => {
            let json;
            let bytes = match call.arg(0) {
                Value::Text(text) => text.as_bytes(),
                other => {
                    json = other.to_json().map_err(|error| call.too_large(error))?;
                    &json
                }
            };
            call.scope.spend(bytes.len() / 64, call.at)?;
            call.made(blake3::hash(bytes).to_hex().to_string())
        }
    }
}

fn join(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let between = if call.args.len() == 2 { call.text(1)? } else { "" };
    let mut text = String::new();
    for (index, item) in call.items(0)?.iter().enumerate() {
        if index > 0 {
            text.push_str(between);
        }
        match item {
            Value::Text(item) => text.push_str(item),
            other => return Err(call.misfit("a list of texts", other)),
        }
        if text.len() > limits::RESULT_BYTES {
            break;
        }
    }
    call.made(text)
}

fn split(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let (text, between) = (call.text(0)?, call.text(1)?);
    let parts: Vec<Value> = if between.is_empty() {
        text.chars().take(limits::LIST_ITEMS + 1).map(|c| Value::from(c.to_string())).collect()
    } else {
        text.split(between).take(limits::LIST_ITEMS + 1).map(Value::from).collect()
    };
    list_fits(parts.len(), call.at)?;
    call.scope.spend(parts.len(), call.at)?;
    Ok(Value::list(parts))
}

fn replace(call: &Call<'_, '_>) -> Result<Value, EvalError> {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    // Counted first: a small text with many hits may become a huge one.
    let hits = text.matches(from).count();
    let grown = text.len().saturating_add(hits.saturating_mul(to.len()));
    if grown > limits::RESULT_BYTES {
        let message = format!("the text is longer than {} bytes", limits::RESULT_BYTES);
        return Err(EvalError::limit(call.at, message));
    }
    call.made(text.replace(from, to))
}

/// Standard alphabet, padded (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = u32::from(chunk[0]) << 16
            | u32::from(*chunk.get(1).unwrap_or(&0)) << 8
            | u32::from(*chunk.get(2).unwrap_or(&0));
        for place in 0..4 {
            let six = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_padded() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
