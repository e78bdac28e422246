//! The functions. `f(x, y)` and `x.f(y)` are the same.

mod calendar;
mod collections;
mod convert;
mod texts;

use std::ops::RangeInclusive;

use crate::error::EvalError;
use crate::node::Kind;
use crate::scope::Scope;
use crate::value::Value;

pub(crate) use texts::pattern;

/// Functions of the language that later versions bring.
pub(crate) const LATER: [&str; 2] = ["secret", "callbackUrl"];

macro_rules! functions {
    ($($name:ident $text:literal $least:literal ..= $most:literal $kind:ident;)*) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Function { $($name,)* }

        const ALL: &[Function] = &[$(Function::$name,)*];

        impl Function {
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// How many arguments it takes, the target of a method included.
            pub(crate) fn arity(self) -> RangeInclusive<usize> {
                match self { $(Self::$name => $least..=$most,)* }
            }

            /// What it gives.
            pub(crate) fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind,)* }
            }
        }
    };
}

functions! {
    Size "size" 1..=1 Number;
    ToText "string" 1..=1 Text;
    ToInt "int" 1..=1 Number;
    ToDouble "double" 1..=1 Number;
    ToBool "bool" 1..=1 Bool;
    TypeOf "type" 1..=1 Text;
    Dyn "dyn" 1..=1 Unknown;
    Contains "contains" 2..=2 Bool;
    StartsWith "startsWith" 2..=2 Bool;
    EndsWith "endsWith" 2..=2 Bool;
    Matches "matches" 2..=2 Bool;
    Timestamp "timestamp" 1..=1 Time;
    Duration "duration" 1..=1 Time;
    FullYear "getFullYear" 1..=2 Number;
    Month "getMonth" 1..=2 Number;
    Date "getDate" 1..=2 Number;
    DayOfMonth "getDayOfMonth" 1..=2 Number;
    DayOfWeek "getDayOfWeek" 1..=2 Number;
    DayOfYear "getDayOfYear" 1..=2 Number;
    Hours "getHours" 1..=2 Number;
    Minutes "getMinutes" 1..=2 Number;
    Seconds "getSeconds" 1..=2 Number;
    Milliseconds "getMilliseconds" 1..=2 Number;
    Now "now" 0..=0 Time;
    Random "random" 0..=0 Number;
    Uuid "uuid" 0..=0 Text;
    Default "default" 2..=2 Unknown;
    Range "range" 1..=2 List;
    Sum "sum" 1..=1 Number;
    Sort "sort" 1..=1 List;
    Join "join" 1..=2 Text;
    Split "split" 2..=2 List;
    Lower "lower" 1..=1 Text;
    Upper "upper" 1..=1 Text;
    Trim "trim" 1..=1 Text;
    Replace "replace" 3..=3 Text;
    Json "json" 1..=1 Text;
    ParseJson "parseJson" 1..=1 Unknown;
    Base64 "base64" 1..=1 Text;
    Hash "hash" 1..=1 Text;
    Merge "merge" 2..=2 Object;
    Get "get" 2..=3 Unknown;
}

impl Function {
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().copied().find(|function| function.name() == name)
    }
}

/// Names of all functions.
pub fn function_names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|function| function.name())
}

/// The function or macro whose name is close to `name`.
pub(crate) fn similar(name: &str) -> Option<&'static str> {
    let macros = ["has", "map", "filter", "all", "exists", "exists_one"];
    let candidates = function_names().chain(macros);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Calls `function`; the parser has counted the arguments.
pub(crate) fn call(function: Function, args: &[Value], scope: &Scope<'_>, at: u32) -> Result<Value, EvalError> {
    let call = Call { function, args, scope, at };
    match function {
        Function::Size
        | Function::Default
        | Function::Range
        | Function::Sum
        | Function::Sort
        | Function::Merge
        | Function::Get => collections::call(&call),
        Function::ToText
        | Function::ToInt
        | Function::ToDouble
        | Function::ToBool
        | Function::TypeOf
        | Function::Dyn
        | Function::Json
        | Function::ParseJson => convert::call(&call),
        Function::Contains
        | Function::StartsWith
        | Function::EndsWith
        | Function::Matches
        | Function::Join
        | Function::Split
        | Function::Lower
        | Function::Upper
        | Function::Trim
        | Function::Replace
        | Function::Base64
        | Function::Hash => texts::call(&call),
        _ => calendar::call(&call),
    }
}

/// A call under way.
pub(crate) struct Call<'c, 'a> {
    function: Function,
    args: &'c [Value],
    scope: &'c Scope<'a>,
    at: u32,
}

impl Call<'_, '_> {
    /// An argument; the parser has counted them, and an optional one that is left out is null.
    fn arg(&self, index: usize) -> &Value {
        self.args.get(index).unwrap_or(&Value::Null)
    }

    fn text(&self, index: usize) -> Result<&str, EvalError> {
        match self.arg(index) {
            Value::Text(text) => {
                self.scope.spend(text.len() / 64, self.at)?;
                Ok(text)
            }
            other => Err(self.misfit("text", other)),
        }
    }

    fn items(&self, index: usize) -> Result<&[Value], EvalError> {
        match self.arg(index) {
            Value::List(items) => {
                crate::operators::list_fits(items.len(), self.at)?;
                self.scope.spend(items.len(), self.at)?;
                Ok(items)
            }
            other => Err(self.misfit("a list", other)),
        }
    }

    fn misfit(&self, wanted: &str, found: &Value) -> EvalError {
        let message = format!("{}() takes {wanted}, not {}", self.function.name(), found.kind_name());
        if found.is_null() {
            return EvalError::new(crate::error::EvalErrorCode::Null, self.at, message);
        }
        EvalError::wrong_type(self.at, message)
    }

    fn made(&self, text: String) -> Result<Value, EvalError> {
        self.scope.spend(text.len() / 64, self.at)?;
        if text.len() > crate::limits::RESULT_BYTES {
            let message = format!("the text is longer than {} bytes", crate::limits::RESULT_BYTES);
            return Err(EvalError::limit(self.at, message));
        }
        Ok(Value::from(text))
    }

    fn too_large(&self, error: crate::value::TooLarge) -> EvalError {
        EvalError::limit(self.at, error.to_string())
    }
}
