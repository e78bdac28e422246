//! What an expression sees. Payloads are parsed when they are read, and only then.

use std::cell::{Cell, OnceCell};

use crate::error::{EvalError, EvalErrorCode};
use crate::limits;
use crate::value::{Object, Value};

/// The names that an expression may use, the time, the seed, and what is left of the evaluation's budget.
///
/// One scope serves one evaluation, with all the expressions in it.
#[derive(Debug)]
pub struct Scope<'a> {
    roots: Vec<(&'a str, Lazy<'a>)>,
    now_ms: u64,
    seed: u64,
    drawn: Cell<u64>,
    steps: Cell<u32>,
    loaded: Cell<usize>,
}

/// A value that may not be there yet.
#[derive(Debug)]
pub enum Lazy<'a> {
    /// It is there.
    Value(Value),
    /// JSON that is parsed when it is read.
    Json(Json<'a>),
    /// An object whose fields are lazy themselves.
    Object(Vec<(&'a str, Lazy<'a>)>),
}

/// JSON that is parsed once, when it is read.
#[derive(Debug)]
pub struct Json<'a> {
    bytes: &'a [u8],
    parsed: OnceCell<Value>,
}

impl<'a> Lazy<'a> {
    /// JSON that is parsed when it is read.
    #[must_use]
    pub fn json(bytes: &'a [u8]) -> Self {
        Self::Json(Json { bytes, parsed: OnceCell::new() })
    }

    /// JSON if there is some, else null.
    #[must_use]
    pub fn json_or_null(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Self::Value(Value::Null), Self::json)
    }

    pub(crate) fn load(&self, scope: &Scope<'_>, at: u32) -> Result<Value, EvalError> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Json(json) => json.load(scope, at),
            Self::Object(fields) => {
                let mut object = Object::new();
                for (name, field) in fields {
                    object.insert((*name).into(), field.load(scope, at)?);
                }
                Ok(Value::object(object))
            }
        }
    }

    /// The JSON itself, if it need not be parsed to be handed on.
    pub(crate) fn raw(&self) -> Option<&'a [u8]> {
        match self {
            Self::Json(json) => Some(json.bytes),
            _ => None,
        }
    }
}

impl Json<'_> {
    fn load(&self, scope: &Scope<'_>, at: u32) -> Result<Value, EvalError> {
        if let Some(value) = self.parsed.get() {
            return Ok(value.clone());
        }
        let payload = |message: String| EvalError::new(EvalErrorCode::Payload, at, message);
        if self.bytes.len() > limits::PAYLOAD_BYTES {
            let (size, most) = (self.bytes.len(), limits::PAYLOAD_BYTES);
            return Err(payload(format!("the payload has {size} bytes; an expression reads at most {most}")));
        }
        let loaded = scope.loaded.get() + self.bytes.len();
        if loaded > limits::PAYLOADS_BYTES {
            let most = limits::PAYLOADS_BYTES;
            return Err(payload(format!("one evaluation reads at most {most} bytes of payloads")));
        }
        scope.loaded.set(loaded);
        let value =
            Value::from_json(self.bytes).map_err(|error| payload(format!("the payload is not JSON: {error}")))?;
        Ok(self.parsed.get_or_init(|| value).clone())
    }
}

impl<'a> Scope<'a> {
    /// An empty scope. `now_ms` is what `now()` says, in milliseconds since 1970; `seed` feeds `random()` and `uuid()`.
    #[must_use]
    pub fn new(now_ms: u64, seed: u64) -> Self {
        Self {
            roots: Vec::new(),
            now_ms,
            seed,
            drawn: Cell::new(0),
            steps: Cell::new(limits::STEPS),
            loaded: Cell::new(0),
        }
    }

    /// Adds a name.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: Lazy<'a>) -> Self {
        self.roots.push((name, value));
        self
    }

    /// Steps that were taken of the budget.
    #[must_use]
    pub fn steps(&self) -> u32 {
        limits::STEPS - self.steps.get()
    }

    pub(crate) fn root(&self, name: &str) -> Option<&Lazy<'a>> {
        self.roots.iter().find(|(root, _)| *root == name).map(|(_, value)| value)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The next number of the evaluation's own sequence (SplitMix64).
    pub(crate) fn draw(&self) -> u64 {
        let drawn = self.drawn.get().wrapping_add(1);
        self.drawn.set(drawn);
        let mut z = self.seed.wrapping_add(drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Takes steps from the budget.
    pub(crate) fn spend(&self, steps: usize, at: u32) -> Result<(), EvalError> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.steps.get().checked_sub(steps));
        match left {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => Err(EvalError::limit(at, format!("the evaluation takes more than {} steps", limits::STEPS))),
        }
    }

    pub(crate) fn equal(&self, a: &Value, b: &Value, at: u32) -> Result<bool, EvalError> {
        let mut steps = self.steps.get();
        match a.equals(b, &mut steps) {
            Some(equal) => {
                self.steps.set(steps);
                Ok(equal)
            }
            None => Err(EvalError::limit(at, format!("the evaluation takes more than {} steps", limits::STEPS))),
        }
    }
}
