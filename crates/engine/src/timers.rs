//! What happens at a moment, in order of moments and, within one, of numbers.
//!
//! Firing takes the first one off, which is constant work however many there are; so are a copy and the first change after
//! it, but for a pointer per hundred timers. A wheel would do no better, and would sort what falls due together.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use nova_program::NodeIx;

use crate::ids::{ExecutionId, ScopeId, ShardId};
use crate::sorted::Sorted;
use crate::state::{Timer, TimerId};

/// All timers of a group.
#[derive(Clone, Default, PartialEq)]
pub struct Timers {
    executions: Sorted<TimerId, Place>,
    keys: Sorted<TimerId, Key>,
}

/// The timer of an execution or of a node: 24 bytes, since there may be millions.
#[derive(Clone, Copy, PartialEq)]
struct Place {
    execution: [u64; 2],
    scope: u32,
    /// The two highest bits are its kind.
    node: u32,
}

/// The timer of a key: shard, namespace, key.
type Key = (ShardId, Arc<str>, Arc<str>);

const KINDS: u32 = 3 << 30;
const NODE: u32 = 0;
const NODE_TOTAL: u32 = 1 << 30;
const EXECUTION: u32 = 2 << 30;

impl Place {
    fn new(execution: ExecutionId, scope: ScopeId, node: NodeIx, kind: u32) -> Self {
        assert!(node.0 & KINDS == 0, "a program has far less than 2^30 nodes");
        let execution = [(execution.0 >> 64) as u64, execution.0 as u64];
        Self { execution, scope: scope.0, node: node.0 | kind }
    }

    fn timer(self) -> Timer {
        let execution = ExecutionId(u128::from(self.execution[0]) << 64 | u128::from(self.execution[1]));
        let (scope, node) = (ScopeId(self.scope), NodeIx(self.node & !KINDS));
        match self.node & KINDS {
            NODE => Timer::Node(execution, scope, node),
            NODE_TOTAL => Timer::NodeTotal(execution, scope, node),
            _ => Timer::Execution(execution),
        }
    }
}

impl Timers {
    /// How many are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.executions.len() + self.keys.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this one is set.
    #[must_use]
    pub fn contains_key(&self, id: &TimerId) -> bool {
        self.executions.contains_key(id) || self.keys.contains_key(id)
    }

    /// Sets one. Numbers are never used twice.
    pub fn insert(&mut self, id: TimerId, timer: Timer) {
        match timer {
            Timer::Node(execution, scope, node) => {
                self.executions.insert(id, Place::new(execution, scope, node, NODE));
            }
            Timer::NodeTotal(execution, scope, node) => {
                self.executions.insert(id, Place::new(execution, scope, node, NODE_TOTAL));
            }
            Timer::Execution(execution) => {
                self.executions.insert(id, Place::new(execution, ScopeId(0), NodeIx(0), EXECUTION));
            }
            Timer::Key(shard, namespace, key) => {
                self.keys.insert(id, (shard, namespace, key));
            }
        }
    }

    /// Takes back one of an execution or of a node; those of keys are never taken back.
    pub(crate) fn clear(&mut self, id: &TimerId) {
        self.executions.remove(id);
    }

    /// The one that comes first.
    #[must_use]
    pub fn first(&self) -> Option<TimerId> {
        let execution = self.executions.first_key_value().map(|(id, _)| *id);
        let key = self.keys.first_key_value().map(|(id, _)| *id);
        match (execution, key) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Takes out the one that comes first.
    pub(crate) fn pop_first(&mut self) -> Option<(TimerId, Timer)> {
        let first = self.first()?;
        if self.keys.first_key_value().is_some_and(|(id, _)| *id == first) {
            let (id, (shard, namespace, key)) = self.keys.pop_first()?;
            return Some((id, Timer::Key(shard, namespace, key)));
        }
        let (id, place) = self.executions.pop_first()?;
        Some((id, place.timer()))
    }

    /// All of them: first those of executions and nodes in their order, then those of keys in theirs.
    pub fn iter(&self) -> impl Iterator<Item = (TimerId, Timer)> {
        let executions = self.executions.iter().map(|(id, place)| (*id, place.timer()));
        let keys = self
            .keys
            .iter()
            .map(|(id, (shard, namespace, key))| (*id, Timer::Key(*shard, Arc::clone(namespace), Arc::clone(key))));
        executions.chain(keys)
    }

    /// About how much memory they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.executions.bytes() + self.keys.bytes()
    }
}

impl Hash for Timers {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_usize(self.len());
        self.iter().for_each(|timer| timer.hash(hasher));
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::TimeMs;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is set and taken back: each fires once, in order of moments and numbers, and as what it was.
        #[test]
        fn they_fire_in_order_and_once(
            due in proptest::collection::vec((0..500_u64, 0..4_u8, any::<u128>(), any::<bool>()), 0..800),
            until in 0..500_u64,
        ) {
            let (mut own, mut model) = (Timers::default(), BTreeMap::new());
            for ((due, kind, execution, cleared), number) in due.into_iter().zip(1_u64..) {
                let (id, execution) = ((TimeMs(due), number), ExecutionId(execution));
                let timer = match kind {
                    0 => Timer::Node(execution, ScopeId(number as u32), NodeIx(due as u32)),
                    1 => Timer::NodeTotal(execution, ScopeId(due as u32), NodeIx((1 << 30) - 1)),
                    2 => Timer::Execution(execution),
                    _ => Timer::Key(ShardId(due as u16), "default".into(), format!("{execution}").into()),
                };
                own.insert(id, timer.clone());
                model.insert(id, timer);
                if cleared && kind < 3 {
                    own.clear(&id);
                    model.remove(&id);
                }
            }
            let copy = own.clone();
            prop_assert_eq!(copy.iter().collect::<BTreeMap<_, _>>(), model.clone());
            while own.first().is_some_and(|id| id.0.0 <= until) {
                prop_assert!(own.first().is_some_and(|id| own.contains_key(&id)));
                prop_assert_eq!(own.pop_first(), model.pop_first());
            }
            prop_assert!(model.first_key_value().is_none_or(|(id, _)| id.0.0 > until));
            prop_assert_eq!(own.iter().collect::<BTreeMap<_, _>>(), model);
            // What was copied before has all of them still.
            prop_assert!(copy.len() >= own.len() && (copy == own) == (copy.len() == own.len()));
        }
    }
}
