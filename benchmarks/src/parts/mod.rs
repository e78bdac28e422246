//! The parts of the hot path, each as work that can be repeated.

mod engine;
mod expression;
mod journal;
mod snapshot;
mod wire;

/// Work that is done again and again: made ready, which is not measured, then run, which is.
pub trait Work {
    /// Makes the next run possible.
    fn ready(&mut self) {}

    /// One run.
    fn run(&mut self);
}

/// Work that needs nothing made ready.
struct Plain<F>(F);

impl<F: FnMut()> Work for Plain<F> {
    fn run(&mut self) {
        (self.0)();
    }
}

fn plain(run: impl FnMut() + 'static) -> Box<dyn Work> {
    Box::new(Plain(run))
}

/// A part of the hot path.
pub struct Part {
    /// Its name in the baseline.
    pub name: &'static str,
    /// What one operation is.
    pub per: &'static str,
    /// Operations of one run.
    pub operations: u64,
    /// Begins it.
    pub prepare: fn() -> Box<dyn Work>,
}

/// All of them, in the order of an execution's way.
#[must_use]
pub fn all() -> Vec<Part> {
    let mut all = Vec::new();
    all.extend(wire::PARTS);
    all.extend(engine::PARTS);
    all.extend(expression::PARTS);
    all.extend(journal::PARTS);
    all.extend(snapshot::PARTS);
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    /// Each part checks its own outcome: three runs in a row show that it can go on.
    #[test]
    fn every_part_runs_again_and_again() {
        for part in all() {
            let mut work = (part.prepare)();
            for _ in 0..3 {
                work.ready();
                work.run();
            }
        }
    }

    #[test]
    fn names_are_keys_and_told_once() {
        let parts = all();
        let names: BTreeSet<_> = parts.iter().map(|part| part.name).collect();
        assert_eq!(names.len(), parts.len());
        assert!(names.iter().all(|name| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'-')), "{names:?}");
        assert!(parts.iter().all(|part| part.operations > 0));
    }
}
