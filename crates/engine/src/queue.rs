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

/// Slots by pool and namespace.
type Used = BTreeMap<Arc<str>, BTreeMap<Arc<str>, u32>>;

/// Nodes that wait for a slot, by what they ask of a worker.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Queue {
    /// Emptied ones stay away, so that a queue which was put together anew is the same.
    classes: BTreeMap<Class, Waiting>,
    /// Slots in use by pool and namespace; zeros stay away.
    used: Used,
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
    turns: BTreeMap<Turn, Arc<str>>,
}

impl Waiting {
    /// The first of a namespace.
    fn head(&self, namespace: &Arc<str>) -> Option<(QueueKey, &Queued)> {
        let (of, line) = self.lines.range((Arc::clone(namespace), 0)..).next()?;
        first(of, line).filter(|_| of.0 == *namespace)
    }

    /// When its turn comes, if it waits and holds so many slots.
    fn turn(&self, namespace: &Arc<str>, used: u32) -> Option<Turn> {
        self.head(namespace).map(|(key, _)| (used, key.place, key.number))
    }

    /// The one whose turn it is, and, if there are several, when its turn comes.
    fn first(&self) -> Option<(Option<Turn>, &Arc<str>)> {
        match self.turns.first_key_value() {
            Some((turn, namespace)) => Some((Some(*turn), namespace)),
            None => self.lines.keys().next().map(|(namespace, _)| (None, namespace)),
        }
    }

    /// Keeps the turn of a namespace equal to its head and the slots it uses, after either was changed.
    fn moved(&mut self, namespace: &Arc<str>, before: Option<Turn>, after: Option<Turn>) {
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

    /// Orders the namespaces anew.
    fn order(&mut self, used: impl Fn(&str) -> u32) {
        self.turns.clear();
        if self.lines.len() > 1 {
            let namespaces: BTreeSet<_> = self.lines.keys().map(|(namespace, _)| namespace).collect();
            let turns = namespaces.into_iter().filter_map(|it| Some((self.turn(it, used(it))?, Arc::clone(it))));
            self.turns = turns.collect();
        }
    }

    /// Changes lines, and keeps the turns equal to them. `used` says how many slots a namespace uses.
    fn change<T>(
        &mut self,
        namespace: &Arc<str>,
        used: impl Fn(&str) -> u32,
        change: impl FnOnce(&mut Self) -> T,
    ) -> T {
        if self.turns.is_empty() {
            let changed = change(self);
            if self.lines.len() > 1 {
                self.order(used);
            }
            return changed;
        }
        let used = used(namespace);
        let before = self.turn(namespace, used);
        let changed = change(self);
        if self.lines.len() > 1 {
            let after = self.turn(namespace, used);
            self.moved(namespace, before, after);
        } else {
            self.turns.clear();
        }
        changed
    }
}

/// The first of a line.
fn first<'a>(of: &(Arc<str>, u8), line: &'a Line) -> Option<(QueueKey, &'a Queued)> {
    let ((place, number), queued) = line.first_key_value()?;
    Some((QueueKey { rank: of.1, place: *place, number: *number }, queued))
}

fn used_in(used: &Used, pool: &str, namespace: &str) -> u32 {
    used.get(pool).and_then(|all| all.get(namespace)).copied().unwrap_or(0)
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
        let Self { classes, used, len } = self;
        let added = classes.entry((pool.into(), kind.into())).or_default().change(
            namespace,
            |namespace| used_in(used, pool, namespace),
            |waiting| {
                let line = waiting.lines.entry((Arc::clone(namespace), key.rank)).or_default();
                line.insert((key.place, key.number), queued).is_none()
            },
        );
        *len += u64::from(added);
    }

    /// Takes a node out, if it is there.
    pub(crate) fn remove(&mut self, class: &Class, namespace: &Arc<str>, key: QueueKey) {
        let Self { classes, used, len } = self;
        let Some(waiting) = classes.get_mut(class) else { return };
        let removed = waiting.change(
            namespace,
            |namespace| used_in(used, &class.0, namespace),
            |waiting| {
                let of = (Arc::clone(namespace), key.rank);
                let Some(line) = waiting.lines.get_mut(&of) else { return false };
                let removed = line.remove(&(key.place, key.number)).is_some();
                if line.is_empty() {
                    waiting.lines.remove(&of);
                }
                removed
            },
        );
        *len -= u64::from(removed);
        if waiting.lines.is_empty() {
            classes.remove(class);
        }
    }

    /// Slots of a pool that a namespace uses.
    #[must_use]
    pub fn used(&self, pool: &str, namespace: &str) -> u32 {
        used_in(&self.used, pool, namespace)
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
            if all.is_empty() {
                self.used.remove(pool);
            }
        }
        for ((of, _), waiting) in &mut self.classes {
            if !waiting.turns.is_empty() && **of == **pool {
                let (before, after) = (waiting.turn(namespace, before), waiting.turn(namespace, after));
                waiting.moved(namespace, before, after);
            }
        }
    }

    /// Counts anew who uses what: pool and namespace of each slot in use.
    pub(crate) fn recount(&mut self, slots: impl Iterator<Item = (Arc<str>, Arc<str>)>) {
        let Self { classes, used, .. } = self;
        used.clear();
        for (pool, namespace) in slots {
            *used.entry(pool).or_default().entry(namespace).or_default() += 1;
        }
        for ((pool, _), waiting) in classes {
            waiting.order(|namespace| used_in(used, pool, namespace));
        }
    }

    /// The node whose turn it is among the classes for which `free` finds something, and what it found.
    pub(crate) fn next<W>(&self, free: impl Fn(&Class) -> Option<W>) -> Option<Next<'_, W>> {
        if self.classes.len() == 1 {
            let (class, waiting) = self.classes.first_key_value()?;
            let worker = free(class)?;
            let (key, queued) = match waiting.turns.first_key_value() {
                Some((_, namespace)) => waiting.head(namespace)?,
                None => waiting.lines.first_key_value().and_then(|(of, line)| first(of, line))?,
            };
            return Some(Next { class, key, queued, worker });
        }
        let mut turn: Option<(Turn, &Arc<str>)> = None;
        for (class, waiting) in &self.classes {
            let Some((own, namespace)) = waiting.first() else { continue };
            let own = own.or_else(|| waiting.turn(namespace, self.used(&class.0, namespace)));
            let Some(own) = own.filter(|own| turn.is_none_or(|(first, _)| *own < first)) else { continue };
            if free(class).is_some() {
                turn = Some((own, namespace));
            }
        }
        // Whose turn it is gets his most urgent node, of whatever class.
        let (_, namespace) = turn?;
        let mut next: Option<Next<'_, W>> = None;
        for (class, waiting) in &self.classes {
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
