//! What is wrong with the document of a trigger.

use std::fmt;

/// A problem of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// JSON pointer to what it is about; empty for the whole.
    pub path: String,
    /// Stable code, one of [`codes`].
    pub code: &'static str,
    /// What is wrong and what would be right, for people.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "/" } else { &self.path };
        write!(f, "{path}  {}  {}", self.code, self.message)
    }
}

/// The codes of problems; each has a heading in `docs/reference/errors.md`.
pub mod codes {
    /// The bytes are not JSON, or more than a document may have.
    pub const UNREADABLE: &str = "trigger.unreadable";
    /// A field has a value of another type than it must.
    pub const WRONG_TYPE: &str = "trigger.wrongType";
    /// A field is missing.
    pub const MISSING: &str = "trigger.missing";
    /// A field that no trigger of this type has.
    pub const UNKNOWN_FIELD: &str = "trigger.unknownField";
    /// A value is too short, too long, or has characters that it must not have.
    pub const BAD_VALUE: &str = "trigger.badValue";
    /// The type is none that exists.
    pub const UNKNOWN_TYPE: &str = "trigger.unknownType";
    /// The schedule is no cron pattern.
    pub const BAD_SCHEDULE: &str = "trigger.badSchedule";
    /// The schedule is a cron pattern that is never due.
    pub const NEVER_DUE: &str = "trigger.neverDue";
    /// No time zone has this name.
    pub const UNKNOWN_TIMEZONE: &str = "trigger.unknownTimezone";
    /// The input is larger than an execution may begin with.
    pub const INPUT_TOO_LARGE: &str = "trigger.inputTooLarge";
    /// The topic belongs to the cluster.
    pub const RESERVED_TOPIC: &str = "trigger.reservedTopic";
}
