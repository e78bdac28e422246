//! What happens next: events by their time, and by the order in which they were made where times are equal.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Simulated nanoseconds.
pub(crate) type Ns = u64;

/// Events to come. The same calls give the same order, always.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Ns,
    made: u64,
    heap: BinaryHeap<Reverse<(Ns, u64, E)>>,
}

impl<E: Ord> Agenda<E> {
    pub(crate) fn new() -> Self {
        Self { now: 0, made: 0, heap: BinaryHeap::new() }
    }

    pub(crate) fn now(&self) -> Ns {
        self.now
    }

    /// Puts down an event after `wait`.
    pub(crate) fn after(&mut self, wait: Ns, event: E) {
        self.made += 1;
        self.heap.push(Reverse((self.now + wait, self.made, event)));
    }

    /// The next event up to `until`, with the clock moved to it; none: the clock stands at `until`.
    pub(crate) fn next(&mut self, until: Ns) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse((at, ..))| *at > until) {
            self.now = until;
            return None;
        }
        let Reverse((at, _, event)) = self.heap.pop()?;
        self.now = at;
        Some(event)
    }
}
