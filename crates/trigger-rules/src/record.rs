//! What of a record becomes the input of an execution.

use nova_engine::payload::MAX_INLINE_BYTES;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::spec::RecordInput;

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct IncomingRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its position.
    pub offset: u64,
    /// Its time.
    pub timestamp_ms: u64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its value.
    pub value: &'a [u8],
}

/// Why a record starts nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Its value is not JSON.
    NotJson(String),
    /// The input would be larger than an execution may begin with.
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl Unreadable {
    /// Stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "trigger.record.notJson",
            Self::TooLarge { .. } => "trigger.input.tooLarge",
        }
    }
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotJson(why) => write!(f, "the value is not JSON: {why}"),
            Self::TooLarge { bytes } => {
                write!(f, "the input has {bytes} bytes, an execution begins with at most {MAX_INLINE_BYTES}")
            }
        }
    }
}

/// The input of the execution that a record starts, as JSON.
///
/// `value` gives the value's own bytes. `record` gives an object of `topic`, `partition`, `offset`, `timestampMs`, `key`,
/// `headers` (name → value, the last of several with one name) and `value`. There a record without value, as those that
/// delete a key, has `null`; keys and headers that are not text are `{"base64": "…"}`.
///
/// # Errors
/// Why there is none.
pub fn input_of_record(form: RecordInput, record: &IncomingRecord<'_>) -> Result<Vec<u8>, Unreadable> {
    let input = match form {
        RecordInput::Value => {
            // Large numbers and the order of keys stay as they were written.
            let raw: &RawValue = serde_json::from_slice(record.value).map_err(not_json)?;
            // It was only skimmed; what reads the input later must be able to build it too.
            serde_json::from_slice::<Value>(record.value).map_err(not_json)?;
            raw.get().as_bytes().to_vec()
        }
        RecordInput::Record => {
            let value: Value = match record.value {
                [] => Value::Null,
                bytes => serde_json::from_slice(bytes).map_err(not_json)?,
            };
            let headers: Map<String, Value> =
                record.headers.iter().map(|(name, value)| ((*name).to_owned(), text_or_base64(value))).collect();
            let object = json!({
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestampMs": record.timestamp_ms,
                "key": record.key.map(text_or_base64),
                "headers": headers,
                "value": value,
            });
            object.to_string().into_bytes()
        }
    };
    if input.len() > MAX_INLINE_BYTES { Err(Unreadable::TooLarge { bytes: input.len() }) } else { Ok(input) }
}

fn not_json(error: serde_json::Error) -> Unreadable {
    Unreadable::NotJson(error.to_string())
}

fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

/// RFC 4648, with padding; twenty lines against another dependency of the core.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(chunk.get(at).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            // A chunk of n bytes fills n + 1 letters.
            let letter = LETTERS[(bits >> shift & 63) as usize] as char;
            text.push(if at <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_has_the_vectors_of_its_standard() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
