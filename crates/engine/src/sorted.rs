//! A sorted map whose copies share what does not change: for what there may be millions of.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::pieces::{Piece, Pieces, Place, grow};

/// A sorted map. A copy costs a pointer for each hundred entries or so; it and the original then share what neither has
/// changed. Equal maps are equal, and hash alike, however their entries came to be there.
#[derive(Clone)]
pub struct Sorted<K: Ord + Clone, V: Clone>(Pieces<Columns<K, V>>);

/// Keys and values apart, so that a search reads keys only.
#[derive(Clone)]
struct Columns<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

impl<K, V> Columns<K, V> {
    /// A copy of a piece, which the first change after a copy of the map costs, is about four kilobytes.
    const MOST: usize = {
        let size = size_of::<K>() + size_of::<V>();
        let most = 4096 / if size == 0 { 1 } else { size };
        if most >= 128 {
            128
        } else if most >= 64 {
            64
        } else {
            32
        }
    };
}

impl<K, V> Default for Columns<K, V> {
    fn default() -> Self {
        Self { keys: Vec::new(), values: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Piece for Columns<K, V> {
    type Key = K;

    fn keys(&self) -> &[K] {
        &self.keys
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= Self::MOST
    }

    fn is_sparse(&self) -> bool {
        self.keys.len() <= Self::MOST / 4
    }

    fn may_join(&self, other: &Self) -> bool {
        self.keys.len() + other.keys.len() <= Self::MOST / 2
    }

    fn split_off(&mut self, at: usize) -> Self {
        let right = Self { keys: self.keys.split_off(at), values: self.values.split_off(at) };
        self.close();
        right
    }

    fn append(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        self.values.append(&mut other.values);
    }

    fn close(&mut self) {
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

impl<K: Ord + Clone, V: Clone> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Pieces::default())
    }
}

impl<K: Ord + Clone, V: Clone> Sorted<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_by(|known| known.borrow().cmp(key))
    }

    /// The value of the key that compares as equal, for keys that are looked up by their parts. `compare` says how a key
    /// stands to the one that is looked for.
    #[must_use]
    pub fn get_by(&self, compare: impl Fn(&K) -> Ordering) -> Option<&V> {
        let place = self.0.find(compare)?;
        Some(&self.0.piece(place).values[place.at])
    }

    /// The same, to change it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let place = self.0.find(|known| known.borrow().cmp(key))?;
        Some(&mut self.0.piece_mut(place).values[place.at])
    }

    /// As [`Self::get_by`], to change the value.
    pub fn entry_mut_by(&mut self, compare: impl Fn(&K) -> Ordering) -> Option<(&K, &mut V)> {
        let place = self.0.find(compare)?;
        let Columns { keys, values } = self.0.piece_mut(place);
        Some((&keys[place.at], &mut values[place.at]))
    }

    /// Whether a key is there.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Puts a value in; gives the one that was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.put(key, value).1
    }

    /// The same, and where it stands now.
    pub(crate) fn put(&mut self, key: K, value: V) -> (Place, Option<V>) {
        match self.0.search(|known| known.cmp(&key)) {
            Ok(place) => {
                let old = std::mem::replace(&mut self.0.piece_mut(place).values[place.at], value);
                (place, Some(old))
            }
            Err(place) => {
                let (piece, place) = self.0.make_room(&key, place);
                grow(&mut piece.keys, 1);
                grow(&mut piece.values, 1);
                piece.keys.insert(place.at, key);
                piece.values.insert(place.at, value);
                (place, None)
            }
        }
    }

    /// Where a key stands. `hint` is where it stood, perhaps: whoever asks for the same thing again and again finds it
    /// there.
    pub(crate) fn place(&self, key: &K, hint: Place) -> Option<Place> {
        if self.0.stands_at(key, hint) { Some(hint) } else { self.0.find(|known| known.cmp(key)) }
    }

    /// The value there.
    pub(crate) fn at(&self, place: Place) -> &V {
        &self.0.piece(place).values[place.at]
    }

    /// The same, to change it.
    pub(crate) fn at_mut(&mut self, place: Place) -> &mut V {
        &mut self.0.piece_mut(place).values[place.at]
    }

    /// Takes a value out.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_by(|known| known.borrow().cmp(key)).map(|(_, value)| value)
    }

    /// Takes the entry out whose key compares as equal.
    pub fn remove_by(&mut self, compare: impl Fn(&K) -> Ordering) -> Option<(K, V)> {
        let place = self.0.find(compare)?;
        Some(self.take(place))
    }

    fn take(&mut self, place: Place) -> (K, V) {
        let own = self.0.piece_mut(place);
        let taken = (own.keys.remove(place.at), own.values.remove(place.at));
        self.0.shrunk(place);
        taken
    }

    /// The first entry.
    #[must_use]
    pub fn first_key_value(&self) -> Option<(&K, &V)> {
        let (_, first) = self.0.first()?;
        Some((&first.keys[0], &first.values[0]))
    }

    /// Takes the first entry out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        let (place, _) = self.0.first()?;
        Some(self.take(place))
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.pieces().flat_map(|piece| piece.keys.iter().zip(&piece.values))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// About how much memory the entries take themselves, without what they point to.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Pieces that are divided are three quarters full on average, and each has two allocations and a pointer.
        let entries = self.len() * (size_of::<K>() + size_of::<V>()) * 4 / 3;
        (entries + self.0.pieces_len() * (size_of::<K>() + 80)) as u64
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Sorted<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut own = Self::default();
        for (key, value) in entries {
            own.insert(key, value);
        }
        own
    }
}

impl<K: Ord + Clone + Borrow<Q>, Q: Ord + ?Sized, V: Clone> std::ops::Index<&Q> for Sorted<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key is in the map")
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Sorted<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone + Hash, V: Clone + Hash> Hash for Sorted<K, V> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_usize(self.len());
        self.iter().for_each(|entry| entry.hash(hasher));
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u16, u32),
        Append(u32),
        Remove(u16),
        RemoveNth(u16),
        PopFirst,
        Set(u16, u32),
        Copy,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (any::<u16>(), any::<u32>()).prop_map(|(key, value)| Change::Insert(key, value)),
            4 => any::<u32>().prop_map(Change::Append),
            1 => any::<u16>().prop_map(Change::Remove),
            4 => any::<u16>().prop_map(Change::RemoveNth),
            1 => Just(Change::PopFirst),
            1 => (any::<u16>(), any::<u32>()).prop_map(|(key, value)| Change::Set(key, value)),
            1 => Just(Change::Copy),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// It does as the standard map, and a copy stays what it was.
        #[test]
        fn it_is_a_sorted_map(changes in proptest::collection::vec(change(), 0..3_000)) {
            let (mut own, mut model) = (Sorted::<u64, u32>::default(), BTreeMap::new());
            let mut copy = (own.clone(), model.clone());
            let nth = |model: &BTreeMap<u64, u32>, n: u16| {
                (!model.is_empty()).then(|| *model.keys().nth(usize::from(n) % model.len()).expect("it is there"))
            };
            for change in changes {
                match change {
                    Change::Insert(key, value) => {
                        prop_assert_eq!(own.insert(u64::from(key), value), model.insert(u64::from(key), value));
                    }
                    Change::Append(value) => {
                        let key = model.keys().next_back().map_or(0, |last| last + 1);
                        prop_assert_eq!(own.insert(key, value), model.insert(key, value));
                    }
                    Change::Remove(key) => {
                        prop_assert_eq!(own.remove(&u64::from(key)), model.remove(&u64::from(key)));
                    }
                    Change::RemoveNth(n) => {
                        let Some(key) = nth(&model, n) else { continue };
                        prop_assert_eq!(own.remove(&key), model.remove(&key));
                    }
                    Change::PopFirst => prop_assert_eq!(own.pop_first(), model.pop_first()),
                    Change::Set(n, value) => {
                        let Some(key) = nth(&model, n) else { continue };
                        *own.get_mut(&key).expect("it is there") = value;
                        model.insert(key, value);
                    }
                    Change::Copy => copy = (own.clone(), model.clone()),
                }
                prop_assert_eq!(own.first_key_value(), model.first_key_value());
            }
            for (own, model) in [(own, model), copy] {
                own.0.check();
                prop_assert_eq!(own.len(), model.len());
                prop_assert!(own.iter().eq(model.iter()));
                prop_assert!(model.keys().all(|key| own.get(key) == model.get(key)));
                let anew: Sorted<u64, u32> = model.into_iter().collect();
                prop_assert!(anew == own);
                let hash = |map: &Sorted<u64, u32>| {
                    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
                    map.hash(&mut hasher);
                    hasher.digest()
                };
                prop_assert_eq!(hash(&anew), hash(&own));
            }
        }
    }

    /// Enough for many groups of pieces, which come and go.
    #[test]
    fn groups_are_divided_and_joined() {
        let key = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut map: Sorted<u64, u64> = (0..100_000).map(|n| (key(n), n)).collect();
        map.0.check();
        assert!(map.0.pieces_len() > 1_000 && map.0.pieces_len() < 2_000, "{} pieces", map.0.pieces_len());
        let copy = map.clone();
        for n in (0..100_000).filter(|n| n % 50 != 0) {
            assert_eq!(map.remove(&key(n)), Some(n));
        }
        map.0.check();
        assert!(map.len() == 2_000 && (0..2_000).all(|n| map.get(&key(n * 50)) == Some(&(n * 50))));
        assert!(map.0.pieces_len() < 100, "{} pieces", map.0.pieces_len());
        assert!(copy.len() == 100_000 && (0..100_000).all(|n| copy.get(&key(n)) == Some(&n)));
        let mut before = None;
        while let Some((key, _)) = map.pop_first() {
            assert!(before < Some(key));
            before = Some(key);
        }
    }

    #[test]
    fn what_grows_at_the_end_leaves_full_pieces_and_what_empties_leaves_few() {
        let mut map: Sorted<u64, u64> = (0..10_000).map(|n| (n, n)).collect();
        assert_eq!(map.0.pieces_len(), 10_000_usize.div_ceil(Columns::<u64, u64>::MOST));
        for n in (0..10_000).filter(|n| n % 100 != 0) {
            map.remove(&n);
        }
        map.0.check();
        assert!(map.0.pieces_len() <= 8, "{} pieces for {} entries", map.0.pieces_len(), map.len());
        while map.pop_first().is_some() {}
        assert_eq!(map.0.pieces_len(), 0);
    }
}
