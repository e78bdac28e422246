//! Retry and timeout policies as the engine keeps them.

/// Limits in time, in milliseconds; absent: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Timeouts {
    /// From queued to leased, for one attempt.
    pub queue_ms: Option<u64>,
    /// From leased to its result, for one attempt.
    pub attempt_ms: Option<u64>,
    /// Between two signs of life of an attempt.
    pub heartbeat_ms: Option<u64>,
    /// From the moment `when` was true, over queue, attempts and delays.
    pub total_ms: Option<u64>,
}

/// How delays between attempts are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Jitter {
    /// Exactly the computed delay.
    None,
    /// Anywhere between nothing and the computed delay.
    Full,
    /// Anywhere between half of the computed delay and all of it.
    Equal,
}

/// Exponential backoff: `initial × factor^(n-1)`, at most `max_delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// Delay before the second attempt, in milliseconds.
    pub initial_ms: u64,
    /// Growth per attempt, in thousandths (2000 doubles), so that every member computes the same.
    pub factor_milli: u32,
    /// Upper bound of a delay, in milliseconds.
    pub max_delay_ms: u64,
    /// How it is spread.
    pub jitter: Jitter,
}

/// When a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Attempts in all, the first included.
    pub max_attempts: u32,
    /// Delays between them.
    pub backoff: Backoff,
    /// Error codes that are repeated; empty: those marked retryable. Codes match whole segments from the left.
    pub only: Vec<Box<str>>,
    /// Error codes that are never repeated.
    pub never: Vec<Box<str>>,
}

impl Retry {
    /// Whether an error with this code is repeated (attempts left is the caller's question).
    #[must_use]
    pub fn covers(&self, code: &str, retryable: bool) -> bool {
        if self.never.iter().any(|pattern| code_matches(pattern, code)) {
            return false;
        }
        if self.only.is_empty() { retryable } else { self.only.iter().any(|pattern| code_matches(pattern, code)) }
    }
}

/// Whether `pattern` names `code`, by whole segments from the left: `http.5xx` fits `http.5xx.503`.
#[must_use]
pub fn code_matches(pattern: &str, code: &str) -> bool {
    code.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::{Backoff, Jitter, Retry, code_matches};

    #[test]
    fn codes_match_whole_segments() {
        assert!(code_matches("http.5xx", "http.5xx.503"));
        assert!(code_matches("http", "http"));
        assert!(!code_matches("http.5", "http.5xx.503"));
        assert!(!code_matches("http.5xx.503", "http.5xx"));
    }

    #[test]
    fn never_wins_over_only_and_retryable() {
        let backoff = Backoff { initial_ms: 1, factor_milli: 2000, max_delay_ms: 10, jitter: Jitter::None };
        let retry = Retry { max_attempts: 3, backoff, only: vec!["http".into()], never: vec!["http.4xx".into()] };
        assert!(retry.covers("http.connect", false));
        assert!(!retry.covers("http.4xx.404", true));
        assert!(!retry.covers("task.panic", true));
        let default = Retry { only: vec![], ..retry };
        assert!(default.covers("task.panic", true));
        assert!(!default.covers("task.panic", false));
    }
}
