//! When something goes wrong.

use std::fmt;
use std::time::Duration;

/// A fault with its time, from the first one on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned<F> {
    /// Its place in the plan, from 0.
    pub number: usize,
    /// From.
    pub at: Duration,
    /// Until.
    pub until: Duration,
    /// What.
    pub fault: F,
}

impl<F: fmt::Display> fmt::Display for Planned<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, until, fault } = self;
        write!(f, "{number}: {:.3} to {:.3} s: {fault}", at.as_secs_f64(), until.as_secs_f64())
    }
}
