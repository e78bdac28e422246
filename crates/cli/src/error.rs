//! What can go wrong, and its exit code.

use std::error::Error;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// A flag, file or value is wrong.
    #[error("{0}")]
    Usage(String),
    /// The cluster refused.
    #[error("{0}")]
    Refused(String),
    /// The cluster cannot be reached, or nobody knows what became of the request.
    #[error("{0}")]
    Unreachable(String),
}

impl Failed {
    /// 2 usage, 3 refused, 4 not reachable or unknown; 1 is for executions that failed.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }

    /// An error with all its causes.
    pub fn unreachable(error: &(dyn Error + 'static)) -> Self {
        Self::Unreachable(chain(error))
    }
}

/// An error with all its causes, each said once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}
