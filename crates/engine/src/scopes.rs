//! The live scope instances of an execution.

use std::collections::BTreeMap;
use std::collections::btree_map;

use crate::ids::ScopeId;
use crate::state::Scope;

/// Scope instances by number. Each is boxed: a node of the map has room for eleven, most executions have one, and a
/// group keeps a million of them open.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct Scopes(BTreeMap<ScopeId, Box<Scope>>);

impl Scopes {
    /// The scope instance of that number.
    #[must_use]
    pub fn get(&self, id: &ScopeId) -> Option<&Scope> {
        self.0.get(id).map(AsRef::as_ref)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: &ScopeId) -> Option<&mut Scope> {
        self.0.get_mut(id).map(AsMut::as_mut)
    }

    /// Puts one in; gives the one that was there.
    pub fn insert(&mut self, id: ScopeId, scope: Scope) -> Option<Box<Scope>> {
        self.0.insert(id, Box::new(scope))
    }

    /// Takes one out.
    pub fn remove(&mut self, id: &ScopeId) -> Option<Box<Scope>> {
        self.0.remove(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&ScopeId, &Scope)> {
        self.into_iter()
    }

    /// All of them, without their numbers.
    pub fn values(&self) -> impl Iterator<Item = &Scope> {
        self.0.values().map(AsRef::as_ref)
    }
}

impl FromIterator<(ScopeId, Scope)> for Scopes {
    fn from_iter<I: IntoIterator<Item = (ScopeId, Scope)>>(scopes: I) -> Self {
        Self(scopes.into_iter().map(|(id, scope)| (id, Box::new(scope))).collect())
    }
}

impl<'a> IntoIterator for &'a Scopes {
    type Item = (&'a ScopeId, &'a Scope);
    type IntoIter = std::iter::Map<
        btree_map::Iter<'a, ScopeId, Box<Scope>>,
        fn((&'a ScopeId, &'a Box<Scope>)) -> (&'a ScopeId, &'a Scope),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(id, scope)| (id, &**scope))
    }
}

impl std::ops::Index<&ScopeId> for Scopes {
    type Output = Scope;

    fn index(&self, id: &ScopeId) -> &Scope {
        &self.0[id]
    }
}
