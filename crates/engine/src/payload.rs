//! Data that the engine carries and never looks into.

use bytes::Bytes;

/// Largest payload that stands in the state itself, in bytes.
pub const MAX_INLINE_BYTES: usize = 16 * 1024;

/// JSON of a user: the bytes themselves, or where they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// At most [`MAX_INLINE_BYTES`].
    Inline(Bytes),
    /// Kept outside.
    Stored {
        /// Which store.
        store: Box<str>,
        /// Its key there.
        key: Box<str>,
        /// Length in bytes.
        size: u64,
        /// blake3 of the bytes.
        hash: [u8; 32],
    },
}

impl Payload {
    /// JSON `null`.
    #[must_use]
    pub fn null() -> Self {
        Self::Inline(Bytes::from_static(b"null"))
    }
}

/// Why a node or an execution failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Failure {
    /// Lower-case segments: `http.5xx.503`, `timeout.attempt`.
    pub code: Box<str>,
    /// For people.
    pub message: Box<str>,
    /// Whether a retry policy without `only` repeats it.
    pub retryable: bool,
    /// At least this long before the next attempt (`Retry-After`), in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// JSON, at most 4 KiB.
    pub detail: Option<Bytes>,
    /// Id of the node where it began; empty for the execution itself.
    pub node: Box<str>,
}

/// W3C trace context of a sampled execution; absent when it is not traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id of the parent.
    pub span_id: [u8; 8],
    /// Trace flags; bit 0 is *sampled*.
    pub flags: u8,
}
