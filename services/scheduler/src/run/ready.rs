//! Which shards may have something to propose, and whose turn it is.

use std::collections::BTreeSet;

/// Shards that may have something to propose. Where there is room for some of them only, the others come first next
/// time: under load a fixed order would let the last ones wait for as long as it lasts.
#[derive(Debug, Default)]
pub(super) struct Ready {
    shards: BTreeSet<u32>,
    turn: u32,
}

impl Ready {
    pub(super) fn insert(&mut self, shard: u32) {
        self.shards.insert(shard);
    }

    pub(super) fn extend(&mut self, shards: impl Iterator<Item = u32>) {
        self.shards.extend(shards);
    }

    /// Takes out the shard whose turn it is.
    pub(super) fn take(&mut self) -> Option<u32> {
        let next = self.shards.range(self.turn..).next().or_else(|| self.shards.first()).copied()?;
        self.shards.remove(&next);
        self.turn = next.wrapping_add(1);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_its_turn_where_there_is_room_for_one() {
        let mut ready = Ready::default();
        let mut served = Vec::new();
        for _ in 0..8 {
            // All of them always have more.
            ready.extend([1, 4, u32::MAX, 0].into_iter());
            served.extend(ready.take());
        }
        assert_eq!(served, [0, 1, 4, u32::MAX, 0, 1, 4, u32::MAX]);
    }

    #[test]
    fn who_has_nothing_is_passed_over() {
        let mut ready = Ready::default();
        assert_eq!(ready.take(), None);
        ready.insert(7);
        ready.insert(7);
        ready.insert(3);
        assert_eq!([ready.take(), ready.take(), ready.take()], [Some(3), Some(7), None]);
        ready.insert(3);
        assert_eq!([ready.take(), ready.take()], [Some(3), None]);
    }
}
