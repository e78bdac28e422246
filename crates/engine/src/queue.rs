//! The ready queue: nodes that wait for a slot, and whose turn it is.
//!
//! A free slot goes to the namespace that holds the fewest slots of the pool, so that nobody's flood keeps the others
//! waiting: max-min fairness over what is *in use*, not over what was asked. Within a namespace the highest priority
//! goes first, then the execution that began first: what was begun is finished before more is begun, or an overload
//! would begin everything and finish nothing. That head start has an end ([`limits::HEAD_START_MS`]), so that an
//! execution which never stops making work cannot keep younger ones out for longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nova_program::NodeIx;

use crate::ids::{ExecutionId, ScopeId, TimeMs};
use crate::limits;
use crate::sorted::Sorted;

/// What a node asks of a worker: pool and kind.
pub type Class = (Box<str>, Box<str>);

/// Place in the queue within a class and a namespace: first things first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueKey {
    /// 9 − priority.
    pub rank: u8,
    /// When the execution began, or a head start before it was queued: what is later.
    pub place: TimeMs,
    /// Order of arrival; no two are equal.
    pub number: u64,
}

/// A node that waits for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Queued {
    /// Whose.
    pub execution: ExecutionId,
    /// Scope instance.
    pub scope: ScopeId,
    /// Node.
    pub node: NodeIx,
    /// Since when.
    pub since: TimeMs,
}

/// Whose turn it is: slots in use, then who waits at the better place.
type Turn = (u32, TimeMs, u64);

/// Nodes that wait for a slot, by what they ask of a worker.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Queue {
    /// Emptied ones stay away, so that a queue which was put together anew is the same.
    classes: BTreeMap<Class, Waiting>,
    /// Slots in use by pool and namespace; zeros stay away.
    used: BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>,
    len: u64,
}

/// Whose turn it is, and who gets it.
pub(crate) struct Next<'a, W> {
    pub class: &'a Class,
    pub key: QueueKey,
    pub queued: &'a Queued,
    pub worker: W,
}

/// Who waits for slots of one class.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Waiting {
    /// By namespace and rank. Emptied ones stay away.
    lines: BTreeMap<(Arc<str>, u8), Sorted<(TimeMs, u64), Queued>>,
    /// Each namespace once.
    turns: BTreeMap<Turn, Arc<str>>,
}

impl Waiting {
    /// The first of a namespace.
    fn head(&self, namespace: &Arc<str>) -> Option<QueueKey> {
        let ((owner, rank), line) = self.lines.range((Arc::clone(namespace), 0)..).next()?;
        let ((place, number), _) = line.first_key_value().filter(|_| owner == namespace)?;
        Some(QueueKey { rank: *rank, place: *place, number: *number })
    }

    /// Keeps the turn of a namespace equal to its head and the slots it uses, after either was changed.
    fn turn(&mut self, namespace: &Arc<str>, before: Option<Turn>, after: Option<Turn>) {
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.turns.remove(&before);
        }
        if let Some(after) = after {
            self.turns.insert(after, Arc::clone(namespace));
        }
    }
}

fn turn(used: u32, head: Option<QueueKey>) -> Option<Turn> {
    head.map(|head| (used, head.place, head.number))
}

impl QueueKey {
    /// The place of a node of that priority which is queued now.
    pub(crate) fn new(priority: u8, started_at: TimeMs, now: TimeMs, number: u64) -> Self {
        let place = started_at.max(TimeMs(now.0.saturating_sub(limits::HEAD_START_MS)));
        Self { rank: 9 - priority.min(9), place, number }
    }
}

impl Queue {
    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a node in.
    pub fn insert(&mut self, class: Class, namespace: &Arc<str>, key: QueueKey, queued: Queued) {
        let used = self.used(&class.0, namespace);
        let waiting = self.classes.entry(class).or_default();
        let before = turn(used, waiting.head(namespace));
        let line = waiting.lines.entry((Arc::clone(namespace), key.rank)).or_default();
        if line.insert((key.place, key.number), queued).is_none() {
            self.len += 1;
        }
        let after = turn(used, waiting.head(namespace));
        waiting.turn(namespace, before, after);
    }

    /// Takes a node out, if it is there.
    pub(crate) fn remove(&mut self, class: &Class, namespace: &Arc<str>, key: QueueKey) {
        let used = self.used(&class.0, namespace);
        let Some(waiting) = self.classes.get_mut(class) else { return };
        let before = turn(used, waiting.head(namespace));
        let at = (Arc::clone(namespace), key.rank);
        let Some(line) = waiting.lines.get_mut(&at) else { return };
        if line.remove(&(key.place, key.number)).is_none() {
            return;
        }
        self.len -= 1;
        if line.is_empty() {
            waiting.lines.remove(&at);
        }
        let after = turn(used, waiting.head(namespace));
        waiting.turn(namespace, before, after);
        if waiting.lines.is_empty() {
            self.classes.remove(class);
        }
    }

    /// Slots of a pool that a namespace uses.
    #[must_use]
    pub fn used(&self, pool: &str, namespace: &str) -> u32 {
        self.used.get(pool).and_then(|all| all.get(namespace)).copied().unwrap_or(0)
    }

    /// A namespace uses more or fewer slots of a pool.
    pub(crate) fn use_slots(&mut self, pool: &Arc<str>, namespace: &Arc<str>, more: i32) {
        let all = self.used.entry(Arc::clone(pool)).or_default();
        let used = all.entry(Arc::clone(namespace)).or_default();
        let before = *used;
        let after = before.saturating_add_signed(more);
        *used = after;
        if after == 0 {
            all.remove(namespace);
        }
        if all.is_empty() {
            self.used.remove(pool);
        }
        let of_pool = self.classes.iter_mut().filter(|((of, _), _)| **of == **pool);
        for (_, waiting) in of_pool {
            let head = waiting.head(namespace);
            waiting.turn(namespace, turn(before, head), turn(after, head));
        }
    }

    /// Counts anew who uses what: pool and namespace of each slot in use.
    pub(crate) fn recount(&mut self, slots: impl Iterator<Item = (Arc<str>, Arc<str>)>) {
        self.used.clear();
        for (pool, namespace) in slots {
            *self.used.entry(pool).or_default().entry(namespace).or_default() += 1;
        }
        for (class, waiting) in &mut self.classes {
            let of_pool = self.used.get(&*class.0);
            waiting.turns.clear();
            let namespaces: BTreeSet<_> = waiting.lines.keys().map(|(namespace, _)| Arc::clone(namespace)).collect();
            for namespace in namespaces {
                let used = of_pool.and_then(|all| all.get(&namespace)).copied().unwrap_or(0);
                let after = turn(used, waiting.head(&namespace));
                waiting.turn(&namespace, None, after);
            }
        }
    }

    /// The node whose turn it is among the classes for which `free` finds something, and what it found.
    pub(crate) fn next<W>(&self, free: impl Fn(&Class) -> Option<W>) -> Option<Next<'_, W>> {
        let mut first: Option<(&Turn, &Arc<str>, &Class, W)> = None;
        for (class, waiting) in &self.classes {
            let Some((turn, namespace)) = waiting.turns.first_key_value() else { continue };
            if first.as_ref().is_some_and(|(before, ..)| *before < turn) {
                continue;
            }
            if let Some(found) = free(class) {
                first = Some((turn, namespace, class, found));
            }
        }
        let (_, namespace, class, worker) = first?;
        let mut next = (class, self.classes[class].head(namespace)?, worker);
        // It is the turn of the namespace: its most urgent node may be of another class.
        if self.classes.len() > 1 {
            for (class, waiting) in &self.classes {
                if let Some(key) = waiting.head(namespace).filter(|key| *key < next.1)
                    && let Some(worker) = free(class)
                {
                    next = (class, key, worker);
                }
            }
        }
        let (class, key, worker) = next;
        let (_, queued) = self.classes[class].lines.get(&(Arc::clone(namespace), key.rank))?.first_key_value()?;
        Some(Next { class, key, queued, worker })
    }

    /// All nodes: what they ask for, namespace, place.
    pub fn iter(&self) -> impl Iterator<Item = (&Class, &Arc<str>, QueueKey, &Queued)> {
        self.classes.iter().flat_map(|(class, waiting)| {
            waiting.lines.iter().flat_map(move |((namespace, rank), line)| {
                let key = |(place, number): &(TimeMs, u64)| QueueKey { rank: *rank, place: *place, number: *number };
                line.iter().map(move |(at, queued)| (class, namespace, key(at), queued))
            })
        })
    }

    /// Since when the node waits that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<TimeMs> {
        let lines = self.classes.values().flat_map(|waiting| waiting.lines.values());
        lines.fold(None, |oldest: Option<TimeMs>, line| {
            // Nobody has waited from before his place.
            let earlier = line.iter().take_while(|((place, _), _)| oldest.is_none_or(|oldest| *place < oldest));
            earlier.fold(oldest, |oldest, (_, queued)| Some(oldest.map_or(queued.since, |it| it.min(queued.since))))
        })
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.classes.values().flat_map(|waiting| waiting.lines.values()).map(Sorted::bytes).sum()
    }
}
