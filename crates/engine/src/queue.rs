//! The ready queue: nodes that wait for a slot, and whose turn it is.
//!
//! A free slot goes to the namespace that holds the fewest slots of the pool, and of those that hold as many to the one that
//! got its last slot the longest ago, so that nobody's flood keeps the others waiting: max-min fairness over what is *in
//! use*, not over what was asked, and in turn where there are fewer slots than namespaces. Within a namespace the highest priority
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

/// Whose turn it is: slots in use, then when it got its last one, then, of those who never got any, by name.
type Turn = (u32, u64, Arc<str>);

/// What a namespace has of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Share {
    /// Slots in use: follows from the leases.
    used: u32,
    /// When it got its last slot, as a number that only grows; 0: never.
    served: u64,
}

impl Share {
    fn turn(self, namespace: &Arc<str>) -> Turn {
        (self.used, self.served, Arc::clone(namespace))
    }
}

/// By pool and namespace. There are no more of them than namespaces times pools, so they stay.
type Shares = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Share>>;

/// Nodes that wait for a slot, by what they ask of a worker.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Queue {
    /// Emptied ones stay away, so that a queue which was put together anew is the same.
    classes: BTreeMap<Class, Waiting>,
    shares: Shares,
    /// The last number that was given.
    served: u64,
    len: u64,
}

/// Whose turn it is, and who gets it.
pub(crate) struct Next<'a, W> {
    pub class: &'a Class,
    pub key: QueueKey,
    pub queued: &'a Queued,
    pub worker: W,
}

/// Nodes of one namespace and priority, in order.
type Line = Sorted<(TimeMs, u64), Queued>;

/// Who waits for slots of one class.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Waiting {
    /// By namespace and rank. Emptied ones stay away.
    lines: BTreeMap<(Arc<str>, u8), Line>,
    /// Each namespace once; none while there is only one line, whose turn it always is.
    turns: BTreeSet<Turn>,
}

impl Waiting {
    /// The first of a namespace.
    fn head(&self, namespace: &Arc<str>) -> Option<(QueueKey, &Queued)> {
        let (of, line) = self.lines.range((Arc::clone(namespace), 0)..).next()?;
        first(of, line).filter(|_| of.0 == *namespace)
    }

    /// The one whose turn it is.
    fn first(&self) -> Option<&Arc<str>> {
        let alone = || self.lines.keys().next().map(|(namespace, _)| namespace);
        self.turns.first().map(|(_, _, namespace)| namespace).or_else(alone)
    }

    /// Orders the namespaces anew.
    fn order(&mut self, turn: impl Fn(&Arc<str>) -> Turn) {
        self.turns.clear();
        if self.lines.len() > 1 {
            self.turns = self.lines.keys().map(|(namespace, _)| turn(namespace)).collect();
        }
    }

    /// After lines have come or gone: those of one namespace.
    fn reorder(&mut self, namespace: &Arc<str>, turn: impl Fn(&Arc<str>) -> Turn) {
        if self.turns.is_empty() || self.lines.len() <= 1 {
            self.order(turn);
        } else if self.head(namespace).is_some() {
            self.turns.insert(turn(namespace));
        } else {
            self.turns.remove(&turn(namespace));
        }
    }
}

/// The first of a line.
fn first<'a>(of: &(Arc<str>, u8), line: &'a Line) -> Option<(QueueKey, &'a Queued)> {
    let ((place, number), queued) = line.first_key_value()?;
    Some((QueueKey { rank: of.1, place: *place, number: *number }, queued))
}

fn share_in(shares: &Shares, pool: &str, namespace: &str) -> Share {
    shares.get(pool).and_then(|all| all.get(namespace)).copied().unwrap_or_default()
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
    pub fn insert(&mut self, (pool, kind): (&str, &str), namespace: &Arc<str>, key: QueueKey, queued: Queued) {
        let Self { classes, shares, len, .. } = self;
        let waiting = classes.entry((pool.into(), kind.into())).or_default();
        let lines = waiting.lines.len();
        let line = waiting.lines.entry((Arc::clone(namespace), key.rank)).or_default();
        *len += u64::from(line.insert((key.place, key.number), queued).is_none());
        if waiting.lines.len() > lines {
            waiting.reorder(namespace, |namespace| share_in(shares, pool, namespace).turn(namespace));
        }
    }

    /// Takes a node out, if it is there.
    pub(crate) fn remove(&mut self, class: &Class, namespace: &Arc<str>, key: QueueKey) {
        let Self { classes, shares, len, .. } = self;
        let Some(waiting) = classes.get_mut(class) else { return };
        let of = (Arc::clone(namespace), key.rank);
        let Some(line) = waiting.lines.get_mut(&of) else { return };
        *len -= u64::from(line.remove(&(key.place, key.number)).is_some());
        if !line.is_empty() {
            return;
        }
        waiting.lines.remove(&of);
        if waiting.lines.is_empty() {
            classes.remove(class);
        } else {
            waiting.reorder(namespace, |namespace| share_in(shares, &class.0, namespace).turn(namespace));
        }
    }

    /// Slots of a pool that a namespace uses.
    #[must_use]
    pub fn used(&self, pool: &str, namespace: &str) -> u32 {
        share_in(&self.shares, pool, namespace).used
    }

    /// A namespace got a slot of a pool.
    pub(crate) fn slot_begun(&mut self, pool: &Arc<str>, namespace: &Arc<str>) {
        self.served += 1;
        let served = self.served;
        self.change_share(pool, namespace, |share| Share { used: share.used + 1, served });
    }

    /// It uses one less.
    pub(crate) fn slot_ended(&mut self, pool: &Arc<str>, namespace: &Arc<str>) {
        self.change_share(pool, namespace, |share| Share { used: share.used.saturating_sub(1), ..share });
    }

    fn change_share(&mut self, pool: &Arc<str>, namespace: &Arc<str>, change: impl Fn(Share) -> Share) {
        if !self.shares.contains_key(pool) {
            self.shares.insert(Arc::clone(pool), BTreeMap::new());
        }
        let Some(all) = self.shares.get_mut(pool) else { return };
        let before = match all.get_mut(namespace) {
            Some(share) => std::mem::replace(share, change(*share)),
            None => {
                all.insert(Arc::clone(namespace), change(Share::default()));
                Share::default()
            }
        };
        let after = all.get(namespace).copied().unwrap_or_default();
        for ((of, _), waiting) in &mut self.classes {
            if **of == **pool && !waiting.turns.is_empty() && waiting.turns.remove(&before.turn(namespace)) {
                waiting.turns.insert(after.turn(namespace));
            }
        }
    }

    /// Who was served when, by pool and namespace, and the last number: what does not follow from leases and nodes.
    pub fn served(&self) -> (impl Iterator<Item = (&Arc<str>, &Arc<str>, u64)>, u64) {
        let all = self.shares.iter();
        let all = all.flat_map(|(pool, all)| all.iter().map(move |(name, share)| (pool, name, share.served)));
        (all, self.served)
    }

    /// A queue in which nobody waits, to be filled: the opposite of [`Self::served`].
    #[must_use]
    pub fn restored(all: impl Iterator<Item = (Arc<str>, Arc<str>, u64)>, served: u64) -> Self {
        let mut own = Self { served, ..Self::default() };
        for (pool, namespace, served) in all {
            own.shares.entry(pool).or_default().insert(namespace, Share { used: 0, served });
        }
        own
    }

    /// Counts anew who uses what: pool and namespace of each slot in use.
    pub(crate) fn recount(&mut self, slots: impl Iterator<Item = (Arc<str>, Arc<str>)>) {
        let Self { classes, shares, .. } = self;
        shares.values_mut().flat_map(BTreeMap::values_mut).for_each(|share| share.used = 0);
        for (pool, namespace) in slots {
            shares.entry(pool).or_default().entry(namespace).or_default().used += 1;
        }
        for ((pool, _), waiting) in classes {
            waiting.order(|namespace| share_in(shares, pool, namespace).turn(namespace));
        }
    }

    /// The node whose turn it is among the classes for which `free` finds something, and what it found.
    pub(crate) fn next<W>(&self, free: impl Fn(&Class) -> Option<W>) -> Option<Next<'_, W>> {
        if self.classes.len() == 1 {
            let (class, waiting) = self.classes.first_key_value()?;
            let worker = free(class)?;
            let (key, queued) = match waiting.turns.first() {
                Some((_, _, namespace)) => waiting.head(namespace)?,
                None => waiting.lines.first_key_value().and_then(|(of, line)| first(of, line))?,
            };
            return Some(Next { class, key, queued, worker });
        }
        let mut turn: Option<(Turn, &str)> = None;
        for (class, waiting) in &self.classes {
            let Some(namespace) = waiting.first() else { continue };
            let own = share_in(&self.shares, &class.0, namespace).turn(namespace);
            if turn.as_ref().is_none_or(|(first, _)| own < *first) && free(class).is_some() {
                turn = Some((own, &class.0));
            }
        }
        // Whose turn it is in a pool gets his most urgent node there, of whatever kind.
        let ((_, _, namespace), pool) = &turn?;
        let mut next: Option<Next<'_, W>> = None;
        for (class, waiting) in self.classes.iter().filter(|(class, _)| *class.0 == **pool) {
            if let Some((key, queued)) = waiting.head(namespace)
                && next.as_ref().is_none_or(|next| key < next.key)
                && let Some(worker) = free(class)
            {
                next = Some(Next { class, key, queued, worker });
            }
        }
        next
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
        let mut oldest: Option<TimeMs> = None;
        for line in self.classes.values().flat_map(|waiting| waiting.lines.values()) {
            for ((place, _), queued) in line.iter() {
                // Nobody has waited from before his place.
                if oldest.is_some_and(|oldest| *place >= oldest) {
                    break;
                }
                oldest = Some(oldest.map_or(queued.since, |oldest| oldest.min(queued.since)));
            }
        }
        oldest
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.classes.values().flat_map(|waiting| waiting.lines.values()).map(Sorted::bytes).sum()
    }
}
