//! Idempotency keys and sources of a shard, looked up by their parts: no name is copied to find it.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::ids::TimeMs;
use crate::state::{KeyRecord, Shard};

fn compare<N: std::ops::Deref<Target = str>>(known: &(Arc<str>, N), namespace: &str, name: &str) -> Ordering {
    (*known.0).cmp(namespace).then_with(|| (*known.1).cmp(name))
}

impl Shard {
    /// What a key started.
    #[must_use]
    pub fn key(&self, namespace: &str, key: &str) -> Option<&KeyRecord> {
        self.keys.get_by(|known| compare(known, namespace, key))
    }

    /// The highest number of a source.
    #[must_use]
    pub fn source(&self, namespace: &str, source: &str) -> Option<u64> {
        self.sources.get_by(|known| compare(known, namespace, source)).copied()
    }

    /// Says when a key is forgotten; gives its text, to be shared with the timer.
    pub(crate) fn keep_key_until(&mut self, namespace: &str, key: &str, until: TimeMs) -> Option<Arc<str>> {
        let (full, record) = self.keys.entry_mut_by(|known| compare(known, namespace, key))?;
        record.until = Some(until);
        Some(Arc::clone(&full.1))
    }

    pub(crate) fn forget_key(&mut self, namespace: &str, key: &str) {
        self.keys.remove_by(|known| compare(known, namespace, key));
    }
}
