//! Sorted things in pieces, so that a copy of a million of them is a copy of some hundred pointers, and a change after it
//! copies one group of pointers and one piece.
//!
//! ```text
//!   groups:  (separator, ──▶ group)  (separator, ──▶ group)  …
//!   group:   (separator, ──▶ piece)  (separator, ──▶ piece)  …
//!   piece:   keys k1 k2 k3 …, values
//!            separator ≤ every key below it, > every key of the one before
//! ```
//! A search goes through the separators, which are side by side, and then through one piece. Taking the first thing off
//! is constant work, whatever is behind it.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

/// Some of the things, in order of their keys.
pub(crate) trait Piece: Clone + Default {
    /// What they are sorted by.
    type Key: Ord + Clone;

    /// The keys, in order.
    fn keys(&self) -> &[Self::Key];

    /// Whether one more is too many.
    fn is_full(&self) -> bool;

    /// Whether it is worth looking for another piece to join it with.
    fn is_sparse(&self) -> bool;

    /// Whether both together are still far from full.
    fn may_join(&self, other: &Self) -> bool;

    /// Takes off what stands at `at` and behind it. What is left, and what is taken, have no room to spare.
    fn split_off(&mut self, at: usize) -> Self;

    /// Puts the things of `other`, which come after those here, behind them.
    fn append(&mut self, other: Self);

    /// Gives back room that is not used: nothing is likely to be added.
    fn close(&mut self);
}

/// Makes room for more things in a piece. It grows by an eighth and not to twice its size: there may be many thousands of
/// them, and most are as full as they will ever be.
pub(crate) fn grow<T>(things: &mut Vec<T>, more: usize) {
    if things.capacity() - things.len() < more {
        things.reserve_exact(more.max(things.len() / 8).max(8));
    }
}

/// Where something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    group: usize,
    piece: usize,
    /// Within the piece.
    pub at: usize,
}

/// Pieces side by side, with their separators.
type Group<P> = Vec<(<P as Piece>::Key, Arc<P>)>;

/// Pieces in a group above which it is divided.
const GROUP: usize = 128;

#[derive(Clone, Debug)]
pub(crate) struct Pieces<P: Piece> {
    groups: VecDeque<(P::Key, Arc<Group<P>>)>,
    len: usize,
}

impl<P: Piece> Default for Pieces<P> {
    fn default() -> Self {
        Self { groups: VecDeque::new(), len: 0 }
    }
}

impl<P: Piece> Pieces<P> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// All pieces, in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &P> {
        self.groups.iter().flat_map(|(_, group)| group.iter().map(|(_, piece)| &**piece))
    }

    pub(crate) fn pieces_len(&self) -> usize {
        self.groups.iter().map(|(_, group)| group.len()).sum()
    }

    /// The place of the first thing, and its piece.
    pub(crate) fn first(&self) -> Option<(Place, &P)> {
        let (_, group) = self.groups.front()?;
        Some((Place { group: 0, piece: 0, at: 0 }, &group[0].1))
    }

    pub(crate) fn piece(&self, place: Place) -> &P {
        &self.groups[place.group].1[place.piece].1
    }

    /// To change what stands in a piece. Its keys stay as they are, unless [`Self::shrunk`] is told.
    pub(crate) fn piece_mut(&mut self, place: Place) -> &mut P {
        Arc::make_mut(&mut Arc::make_mut(&mut self.groups[place.group].1)[place.piece].1)
    }

    /// Whether this key stands there: quicker than looking for it.
    pub(crate) fn stands_at(&self, key: &P::Key, place: Place) -> bool {
        let piece = self.groups.get(place.group).and_then(|(_, group)| group.get(place.piece));
        piece.and_then(|(_, piece)| piece.keys().get(place.at)) == Some(key)
    }

    /// Finds what compares as equal; `compare` says how a key stands to what is looked for.
    pub(crate) fn find(&self, compare: impl Fn(&P::Key) -> Ordering) -> Option<Place> {
        self.search(compare).ok()
    }

    /// The same; where there is nothing, the place where it would stand.
    pub(crate) fn search(&self, compare: impl Fn(&P::Key) -> Ordering) -> Result<Place, Place> {
        let reached = |least: &P::Key| compare(least) != Ordering::Greater;
        let group = match self.groups.len() {
            0 => return Err(Place::default()),
            1 => 0,
            _ => self.groups.partition_point(|(least, _)| reached(least)).saturating_sub(1),
        };
        let pieces = &*self.groups[group].1;
        let piece = match pieces.len() {
            1 => 0,
            _ => pieces.partition_point(|(least, _)| reached(least)).saturating_sub(1),
        };
        match pieces[piece].1.keys().binary_search_by(compare) {
            Ok(at) => Ok(Place { group, piece, at }),
            Err(at) => Err(Place { group, piece, at }),
        }
    }

    /// The piece into which a new key belongs, and its place; the caller puts it in. `place` is what a search gave.
    pub(crate) fn make_room(&mut self, key: &P::Key, mut place: Place) -> (&mut P, Place) {
        if self.groups.is_empty() {
            self.groups.push_back((key.clone(), Arc::new(vec![(key.clone(), Arc::default())])));
        }
        if self.groups[place.group].1[place.piece].1.is_full() {
            place = self.divide(place, key);
        }
        self.len += 1;
        let (least, pieces) = &mut self.groups[place.group];
        if key < least {
            *least = key.clone();
        }
        let (least, piece) = &mut Arc::make_mut(pieces)[place.piece];
        if key < least {
            *least = key.clone();
        }
        (Arc::make_mut(piece), place)
    }

    /// Makes two of a full piece, and of its group if that is full; gives the place where `key` belongs then.
    fn divide(&mut self, mut place: Place, key: &P::Key) -> Place {
        if self.groups[place.group].1.len() >= GROUP {
            place.group = self.divide_group(place.group, key);
            let pieces = &self.groups[place.group].1;
            place.piece = pieces.partition_point(|(least, _)| least <= key).saturating_sub(1);
        }
        let is_last = place.group + 1 == self.groups.len();
        let pieces = Arc::make_mut(&mut self.groups[place.group].1);
        place.piece = divide(pieces, place.piece, key, is_last);
        place.at = pieces[place.piece].1.keys().partition_point(|known| known < key);
        place
    }

    /// Makes two of a full group; gives the one where `key` belongs.
    fn divide_group(&mut self, at: usize, key: &P::Key) -> usize {
        let is_last = at + 1 == self.groups.len();
        let group = Arc::make_mut(&mut self.groups[at].1);
        let right = group.split_off(cut(group.len(), is_last));
        let least = right[0].0.clone();
        let belongs = at + usize::from(*key >= least);
        self.groups.insert(at + 1, (least, Arc::new(right)));
        belongs
    }

    /// To be called when one thing was taken out of a piece.
    pub(crate) fn shrunk(&mut self, place: Place) {
        self.len -= 1;
        let Place { group, piece, .. } = place;
        let pieces = &*self.groups[group].1;
        let own = &pieces[piece].1;
        if own.keys().is_empty() {
            Arc::make_mut(&mut self.groups[group].1).remove(piece);
        } else if !own.is_sparse() {
            return;
        } else if pieces.get(piece + 1).is_some_and(|(_, next)| own.may_join(next)) {
            join(Arc::make_mut(&mut self.groups[group].1), piece);
        } else if piece > 0 && pieces[piece - 1].1.may_join(own) {
            join(Arc::make_mut(&mut self.groups[group].1), piece - 1);
        } else {
            return;
        }
        self.group_shrunk(group);
    }

    fn group_shrunk(&mut self, group: usize) {
        let fit = |one: &Group<P>, other: &Group<P>| one.len() + other.len() <= GROUP / 2;
        let own = &*self.groups[group].1;
        if own.is_empty() {
            self.groups.remove(group);
        } else if own.len() > GROUP / 4 {
        } else if self.groups.get(group + 1).is_some_and(|(_, next)| fit(own, next)) {
            self.join_groups(group);
        } else if group > 0 && fit(&self.groups[group - 1].1, own) {
            self.join_groups(group - 1);
        }
    }

    fn join_groups(&mut self, left: usize) {
        if let Some((_, right)) = self.groups.remove(left + 1) {
            Arc::make_mut(&mut self.groups[left].1).extend(Arc::unwrap_or_clone(right));
        }
    }

    /// Whether pieces and separators are as they must be; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let mut before: Option<&P::Key> = None;
        let mut len = 0;
        for (separator, group) in &self.groups {
            assert!(!group.is_empty() && group.len() <= GROUP, "an empty group goes, a full one is divided");
            assert!(before.is_none_or(|before| before < separator), "separators keep groups apart");
            for (least, piece) in &**group {
                let keys = piece.keys();
                assert!(!keys.is_empty(), "an empty piece goes");
                assert!(before.is_none_or(|before| before < least), "separators keep pieces apart");
                assert!(*separator <= keys[0] && *least <= keys[0], "separators are below");
                assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "keys are in order");
                before = keys.last();
                len += keys.len();
            }
        }
        assert_eq!(len, self.len);
    }
}

/// Where something full is cut in two. Most keys grow with time: what stands before the end seldom gets more.
fn cut(len: usize, is_last: bool) -> usize {
    let cut = if is_last { len - len / 8 } else { len / 2 };
    cut.clamp(1, len - 1)
}

/// Makes two of a full piece; gives the one where `key` belongs.
fn divide<P: Piece>(pieces: &mut Group<P>, at: usize, key: &P::Key, in_last: bool) -> usize {
    let is_last = in_last && at + 1 == pieces.len();
    let piece = &mut pieces[at].1;
    if is_last && piece.keys().last().is_some_and(|last| last < key) {
        Arc::make_mut(piece).close();
        pieces.push((key.clone(), Arc::default()));
        return at + 1;
    }
    let at_key = cut(piece.keys().len(), is_last);
    let right = Arc::make_mut(piece).split_off(at_key);
    let least = right.keys()[0].clone();
    let belongs = at + usize::from(*key >= least);
    pieces.insert(at + 1, (least, Arc::new(right)));
    belongs
}

/// Puts the piece behind `left` into it.
fn join<P: Piece>(pieces: &mut Group<P>, left: usize) {
    let (_, right) = pieces.remove(left + 1);
    Arc::make_mut(&mut pieces[left].1).append(Arc::unwrap_or_clone(right));
}
