//! Parked executions, many in one piece of memory.

use crate::ids::ExecutionId;
use crate::pieces::{Piece, grow};

/// Parked executions side by side: each costs its bytes and 20 more, and a copy of a piece is three copies of memory.
#[derive(Clone, Default)]
pub(crate) struct Packs {
    ids: Vec<ExecutionId>,
    /// Where the bytes of each end.
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl Packs {
    const MOST: usize = 128;
    const MOST_BYTES: usize = 16 << 10;

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] as usize }
    }

    pub(crate) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExecutionId, &[u8])> {
        self.ids.iter().enumerate().map(|(at, id)| (*id, self.get(at)))
    }

    pub(crate) fn insert(&mut self, at: usize, id: ExecutionId, bytes: &[u8]) {
        let (start, len) = (self.start(at), self.bytes.len());
        grow(&mut self.bytes, bytes.len());
        grow(&mut self.ids, 1);
        grow(&mut self.ends, 1);
        self.bytes.extend_from_slice(bytes);
        if start < len {
            self.bytes.copy_within(start..len, start + bytes.len());
            self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        }
        self.ids.insert(at, id);
        self.ends.insert(at, start as u32);
        self.ends[at..].iter_mut().for_each(|end| *end += bytes.len() as u32);
    }

    pub(crate) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends[at] as usize);
        self.bytes.drain(start..end);
        self.ids.remove(at);
        self.ends.remove(at);
        self.ends[at..].iter_mut().for_each(|it| *it -= (end - start) as u32);
    }
}

impl Piece for Packs {
    type Key = ExecutionId;

    fn keys(&self) -> &[ExecutionId] {
        &self.ids
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= Self::MOST || (self.ids.len() > 1 && self.bytes.len() >= Self::MOST_BYTES)
    }

    fn is_sparse(&self) -> bool {
        self.ids.len() <= Self::MOST / 4
    }

    fn may_join(&self, other: &Self) -> bool {
        self.ids.len() + other.ids.len() <= Self::MOST / 2
            && self.bytes.len() + other.bytes.len() <= Self::MOST_BYTES / 2
    }

    fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let mut right =
            Self { ids: self.ids.split_off(at), ends: self.ends.split_off(at), bytes: self.bytes.split_off(start) };
        right.ends.iter_mut().for_each(|end| *end -= start as u32);
        self.close();
        right
    }

    fn append(&mut self, other: Self) {
        let len = self.bytes.len() as u32;
        self.ids.extend(other.ids);
        self.ends.extend(other.ends.iter().map(|end| end + len));
        self.bytes.extend(other.bytes);
    }

    fn close(&mut self) {
        self.ids.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }
}
