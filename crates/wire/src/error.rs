//! What can be wrong with a message.

/// A message does not say what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are no message of that type.
    #[error("cannot decode {what}")]
    Decode {
        /// The message.
        what: &'static str,
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// A field is missing or out of its range.
    #[error("field {field}: {why}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// Written by a newer version; a member that meets it stops (protocol rule 7).
    #[error("version {found} of {what} is newer than {known}")]
    Newer {
        /// The message.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// Written by a version before the first release, which is read no more.
    #[error("version {found} of {what} is older than {known}, and is read no more: start the build that wrote it")]
    Older {
        /// The message.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The oldest that is read here.
        known: u32,
    },
}

pub(crate) fn missing(field: &'static str) -> WireError {
    WireError::Field { field, why: "is missing" }
}

pub(crate) fn bad(field: &'static str, why: &'static str) -> WireError {
    WireError::Field { field, why }
}
