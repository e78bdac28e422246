//! Which segments hold commands that nobody may lose yet.

use std::collections::BTreeMap;

use nova_bus::{Topic, TopicSpec};

/// Commands by the segments they are in. A segment goes only with every command in it applied or past its time.
#[derive(Default)]
pub(crate) struct Retention {
    keep_ms: u64,
    segments: BTreeMap<u64, Commands>,
    /// Offset after the last applied command, by partition.
    applied: BTreeMap<u32, u64>,
}

#[derive(Default)]
struct Commands {
    newest_ms: u64,
    /// Offset after the last command, by partition.
    ends: BTreeMap<u32, u64>,
}

impl Retention {
    pub(crate) fn topic(&mut self, spec: &TopicSpec) {
        if spec.topic == Topic::Commands {
            self.keep_ms = spec.retention_ms;
        }
    }

    /// Records of a topic were written to a segment; those of this partition now end at `end`.
    pub(crate) fn note(&mut self, segment: u64, topic: &Topic, partition: u32, end: u64, timestamp_ms: u64) {
        if *topic == Topic::Commands {
            let commands = self.segments.entry(segment).or_default();
            commands.newest_ms = commands.newest_ms.max(timestamp_ms);
            commands.ends.insert(partition, end);
        }
    }

    /// Commands of this partition below `next` are applied.
    pub(crate) fn applied(&mut self, partition: u32, next: u64) {
        let known = self.applied.entry(partition).or_default();
        *known = next.max(*known);
    }

    pub(crate) fn may_drop_below(&self, segment: u64, now_ms: u64) -> bool {
        let applied = |(partition, end): (&u32, &u64)| self.applied.get(partition).is_some_and(|next| next >= end);
        self.segments.range(..segment).all(|(_, commands)| {
            now_ms >= commands.newest_ms.saturating_add(self.keep_ms) || commands.ends.iter().all(applied)
        })
    }

    pub(crate) fn forget_below(&mut self, segment: u64) {
        self.segments = self.segments.split_off(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_goes_when_each_command_in_it_is_applied_or_all_are_old() {
        let mut retention = Retention::default();
        retention.topic(&TopicSpec { topic: Topic::Commands, partitions: 2, retention_ms: 100 });
        retention.topic(&TopicSpec { topic: Topic::Events, partitions: 2, retention_ms: 1_000_000 });
        retention.note(1, &Topic::Events, 0, 50, 1_000);
        assert!(retention.may_drop_below(2, 1_000), "events do not hold it");
        retention.note(1, &Topic::Commands, 0, 5, 1_000);
        retention.note(1, &Topic::Commands, 1, 3, 1_010);
        retention.note(2, &Topic::Commands, 1, 9, 2_000);
        assert!(!retention.may_drop_below(2, 1_109), "the younger one has a millisecond left");
        assert!(retention.may_drop_below(2, 1_110), "all are old");
        retention.applied(0, 5);
        retention.applied(1, 2);
        assert!(!retention.may_drop_below(2, 1_050), "one is not applied");
        retention.applied(1, 3);
        retention.applied(1, 1);
        assert!(retention.may_drop_below(2, 1_050), "all are applied, and what was applied stays so");
        assert!(!retention.may_drop_below(3, 1_050), "the next one is not");
        retention.forget_below(2);
        assert!(!retention.may_drop_below(3, 1_050));
    }
}
