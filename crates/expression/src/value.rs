//! JSON values with whole numbers kept apart from others, and two kinds that JSON writes as text: moments and spans.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::limits;
use crate::node::Kind;
use crate::time::duration_to_text;

/// Text that is cheap to hand on.
pub(crate) type Text = Arc<str>;

/// An object: sorted by key, so that the same value has the same JSON everywhere.
pub type Object = BTreeMap<Arc<str>, Value>;

/// A value of an expression. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// JSON `null`.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number; always finite.
    Double(f64),
    /// Text.
    Text(Arc<str>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// An object.
    Object(Arc<Object>),
    /// A moment; RFC 3339 text in JSON.
    Timestamp(Timestamp),
    /// A span of time; text such as `90s` in JSON.
    Duration(SignedDuration),
}

/// The JSON of a value would be too large or too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the value is too large: over {} bytes of JSON, or nested deeper than {}",
    limits::RESULT_BYTES,
    limits::VALUE_DEPTH
)]
pub struct TooLarge;

impl Value {
    /// Reads JSON. Whole numbers that do not fit an int become doubles.
    ///
    /// # Errors
    /// When it is not JSON, or nested too deeply.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Writes JSON.
    ///
    /// # Errors
    /// When it would be larger than [`limits::RESULT_BYTES`] or deeper than [`limits::VALUE_DEPTH`].
    pub fn to_json(&self) -> Result<Vec<u8>, TooLarge> {
        let mut json = Vec::new();
        self.write_json(&mut json, 0)?;
        Ok(json)
    }

    pub(crate) fn write_json(&self, json: &mut Vec<u8>, depth: usize) -> Result<(), TooLarge> {
        if depth > limits::VALUE_DEPTH || json.len() > limits::RESULT_BYTES {
            return Err(TooLarge);
        }
        match self {
            Self::Null => json.extend_from_slice(b"null"),
            Self::Bool(true) => json.extend_from_slice(b"true"),
            Self::Bool(false) => json.extend_from_slice(b"false"),
            Self::Int(number) => json.extend_from_slice(number.to_string().as_bytes()),
            Self::Double(number) => write_scalar(json, number),
            Self::Text(text) => write_text(json, text)?,
            Self::Timestamp(at) => write_text(json, &at.to_string())?,
            Self::Duration(span) => write_text(json, &duration_to_text(*span))?,
            Self::List(items) => {
                json.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        json.push(b',');
                    }
                    item.write_json(json, depth + 1)?;
                }
                json.push(b']');
            }
            Self::Object(object) => {
                json.push(b'{');
                for (index, (key, value)) in object.iter().enumerate() {
                    if index > 0 {
                        json.push(b',');
                    }
                    write_text(json, key)?;
                    json.push(b':');
                    value.write_json(json, depth + 1)?;
                }
                json.push(b'}');
            }
        }
        Ok(())
    }

    /// What kind it is, in a word for people.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Double(_) => "a double",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
            Self::Timestamp(_) => "a timestamp",
            Self::Duration(_) => "a duration",
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) | Self::Double(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
            Self::List(_) => Kind::List,
            Self::Object(_) => Kind::Object,
            Self::Timestamp(_) | Self::Duration(_) => Kind::Time,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Its text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its field, if it is an object that has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Object(object) => object.get(name),
            _ => None,
        }
    }

    /// A list.
    #[must_use]
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items))
    }

    /// An object.
    #[must_use]
    pub fn object(object: Object) -> Self {
        Self::Object(Arc::new(object))
    }

    /// Order of two values that can be compared: numbers, texts, bools, moments, spans.
    pub(crate) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Double(b)) => order_mixed(*a, *b),
            (Self::Double(a), Self::Int(b)) => order_mixed(*b, *a).map(Ordering::reverse),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// Whether two values are equal; values of different kinds never are. `steps` bounds the work: none left is `None`.
    pub(crate) fn equals(&self, other: &Self, steps: &mut u32) -> Option<bool> {
        *steps = steps.checked_sub(1)?;
        match (self, other) {
            (Self::Null, Self::Null) => Some(true),
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b, steps)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            (Self::Object(a), Self::Object(b)) => {
                if a.len() != b.len() {
                    return Some(false);
                }
                for ((ka, a), (kb, b)) in a.iter().zip(b.iter()) {
                    if ka != kb || !a.equals(b, steps)? {
                        return Some(false);
                    }
                }
                Some(true)
            }
            (Self::Text(a), Self::Text(b)) => {
                // Texts of different length are told apart at once; equal ones are read to their end.
                if a.len() == b.len() {
                    *steps = steps.checked_sub(u32::try_from(a.len() / 64).ok()?)?;
                }
                Some(a == b)
            }
            _ => Some(self.order(other) == Some(Ordering::Equal)),
        }
    }

    /// Bytes that are read to compare it with another.
    pub(crate) fn compared_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 0,
        }
    }

    /// As it stands inside a text: text as it is, anything else as JSON.
    pub(crate) fn write_into_text(&self, text: &mut String) -> Result<(), TooLarge> {
        use fmt::Write;
        let written = match self {
            Self::Text(it) => text.write_str(it),
            Self::Int(it) => write!(text, "{it}"),
            Self::Double(it) => write!(text, "{it}"),
            Self::Timestamp(it) => write!(text, "{it}"),
            Self::Duration(it) => text.write_str(&duration_to_text(*it)),
            other => {
                let json = other.to_json()?;
                text.write_str(&String::from_utf8_lossy(&json))
            }
        };
        // A string takes whatever is written to it.
        written.map_err(|_| TooLarge)?;
        if text.len() > limits::RESULT_BYTES { Err(TooLarge) } else { Ok(()) }
    }
}

/// Exact beyond 2^53, where the int has no double of its own.
fn order_mixed(int: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // 2^63 is a double; everything from there on is above all ints.
    if double >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if double < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let whole = double.trunc();
    let order = int.cmp(&(whole as i64));
    Some(order.then_with(|| 0.0_f64.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal)))
}

fn write_scalar(json: &mut Vec<u8>, number: &f64) {
    // Doubles are finite, and writing to memory does not fail.
    let _ = serde_json::to_writer(json, number);
}

fn write_text(json: &mut Vec<u8>, text: &str) -> Result<(), TooLarge> {
    if json.len() + text.len() > limits::RESULT_BYTES {
        return Err(TooLarge);
    }
    serde_json::to_writer(json, text).map_err(|_| TooLarge)
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other, &mut u32::MAX.clone()).unwrap_or(false)
    }
}

impl From<bool> for Value {
    fn from(it: bool) -> Self {
        Self::Bool(it)
    }
}

impl From<i64> for Value {
    fn from(it: i64) -> Self {
        Self::Int(it)
    }
}

impl From<&str> for Value {
    fn from(it: &str) -> Self {
        Self::Text(it.into())
    }
}

impl From<String> for Value {
    fn from(it: String) -> Self {
        Self::Text(it.into())
    }
}

impl From<&serde_json::Value> for Value {
    fn from(it: &serde_json::Value) -> Self {
        match it {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(it) => Self::Bool(*it),
            serde_json::Value::Number(it) => {
                it.as_i64().map_or_else(|| Self::Double(it.as_f64().unwrap_or_default()), Self::Int)
            }
            serde_json::Value::String(it) => Self::from(it.as_str()),
            serde_json::Value::Array(items) => Self::list(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(object) => {
                Self::object(object.iter().map(|(key, value)| (Arc::from(key.as_str()), Self::from(value))).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FromJson)
    }
}

struct FromJson;

impl<'de> Visitor<'de> for FromJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, it: bool) -> Result<Value, E> {
        Ok(Value::Bool(it))
    }

    fn visit_i64<E>(self, it: i64) -> Result<Value, E> {
        Ok(Value::Int(it))
    }

    fn visit_u64<E>(self, it: u64) -> Result<Value, E> {
        Ok(i64::try_from(it).map_or(Value::Double(it as f64), Value::Int))
    }

    fn visit_f64<E>(self, it: f64) -> Result<Value, E> {
        Ok(Value::Double(it))
    }

    fn visit_str<E>(self, it: &str) -> Result<Value, E> {
        Ok(Value::from(it))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::list(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Object::new();
        while let Some((key, value)) = map.next_entry::<std::borrow::Cow<'de, str>, Value>()? {
            object.insert(Arc::from(key.as_ref()), value);
        }
        Ok(Value::object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn numbers_keep_their_kind() {
        let value = Value::from_json(b"[1, 1.0, 18446744073709551615, -9223372036854775808, 1e3]").expect("JSON");
        assert_eq!(value.to_json().expect("small"), b"[1,1.0,1.8446744073709552e+19,-9223372036854775808,1000.0]");
    }

    #[test]
    fn mixed_order_is_exact() {
        let big = Value::Int(9_007_199_254_740_993);
        assert_eq!(big.order(&Value::Double(9_007_199_254_740_992.0)), Some(std::cmp::Ordering::Greater));
        assert_eq!(Value::Double(1.5).order(&Value::Int(1)), Some(std::cmp::Ordering::Greater));
        assert_eq!(Value::Double(-1.5).order(&Value::Int(-1)), Some(std::cmp::Ordering::Less));
        assert_eq!(Value::Int(1), Value::Double(1.0));
        assert_eq!(Value::Int(i64::MAX).order(&Value::Double(1e300)), Some(std::cmp::Ordering::Less));
    }

    #[test]
    fn deep_and_hostile_json_is_refused() {
        let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
        assert!(Value::from_json(&deep).is_err());
        assert!(Value::from_json(b"{\"a\":\xff}").is_err());
    }
}
