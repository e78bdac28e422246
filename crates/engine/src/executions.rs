//! The open executions of a shard: those of which something runs, ready to be changed, and parked ones, packed.
//!
//! ```text
//!             nothing of it runs, at the end of an entry
//!     live ───────────────────────────────────────────────▶ parked
//!       ▲                                                      │
//!       └──────────────────────────────────────────────────────┘
//!             a timer, a cancel or a step of a cascade is about it
//! ```
//! Which of them are packed is nobody's business: maps of the same executions are equal and hash alike.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::ids::ExecutionId;
use crate::output::NodeState;
use crate::packed::{BadPack, pack, unpack};
use crate::packs::Packs;
use crate::pieces::{Pieces, Place};
use crate::sorted::Sorted;
use crate::state::{Execution, Phase, WorkflowVersion};

/// Nodes of all scope instances above which an execution stays live: unpacking makes a record of each, and each of its
/// timers would do so anew.
const MOST_NODES: usize = 256;

/// Scope instances above which it does, for the same reason.
const MOST_SCOPES: usize = 32;

/// Bytes above which it does: what is large is payloads, and packing does not make them smaller.
const MOST_BYTES: usize = 8 << 10;

/// Open executions by their ids.
#[derive(Clone, Default)]
pub struct Executions {
    live: Sorted<ExecutionId, Arc<Execution>>,
    /// Where the last live one that was changed stands: it is asked for again and again.
    hint: Place,
    parked: Pieces<Packs>,
    /// Bytes of those that are parked.
    packed_bytes: u64,
}

/// Some executions, packed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Their ids, in order.
    pub ids: Vec<ExecutionId>,
    /// How many bytes each takes.
    pub lengths: Vec<u32>,
    /// Their bytes, one after the other.
    pub bytes: Vec<u8>,
}

/// An open execution as it is kept.
#[derive(Clone, Copy)]
enum Kept<'a> {
    Live(&'a Arc<Execution>),
    Parked(&'a [u8]),
}

impl Executions {
    /// How many are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len() + self.parked.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are packed.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// About how much memory those that are packed take.
    #[must_use]
    pub fn parked_bytes(&self) -> u64 {
        // Pieces grow at their end and keep some room there.
        let entries = self.packed_bytes + self.parked.len() as u64 * 20;
        entries * 5 / 4 + self.parked.pieces_len() as u64 * 128
    }

    /// Whether it is open.
    #[must_use]
    pub fn contains(&self, id: ExecutionId) -> bool {
        self.live(id).is_some() || self.find(id).is_some()
    }

    /// Whether it is open and packed.
    #[must_use]
    pub fn is_parked(&self, id: ExecutionId) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: ExecutionId) -> Option<Place> {
        self.parked.find(|known| known.cmp(&id))
    }

    /// The execution, if it is not packed.
    #[must_use]
    pub fn live(&self, id: ExecutionId) -> Option<&Arc<Execution>> {
        Some(self.live.at(self.live.place(&id, self.hint)?))
    }

    /// The same, to change it.
    pub(crate) fn live_mut(&mut self, id: ExecutionId) -> Option<&mut Execution> {
        let place = self.live.place(&id, self.hint)?;
        self.hint = place;
        Some(Arc::make_mut(self.live.at_mut(place)))
    }

    /// The execution, packed or not; `versions` are those of the catalogue.
    #[must_use]
    pub fn get(&self, id: ExecutionId, versions: &[Arc<WorkflowVersion>]) -> Option<Arc<Execution>> {
        if let Some(live) = self.live.get(&id) {
            return Some(Arc::clone(live));
        }
        let place = self.find(id)?;
        Some(Arc::new(open(id, self.parked.piece(place).get(place.at), versions)))
    }

    /// All of them, in order; `versions` are those of the catalogue.
    pub fn iter(&self, versions: &[Arc<WorkflowVersion>]) -> impl Iterator<Item = (ExecutionId, Arc<Execution>)> {
        self.kept().map(|(id, kept)| match kept {
            Kept::Live(live) => (id, Arc::clone(live)),
            Kept::Parked(bytes) => (id, Arc::new(open(id, bytes, versions))),
        })
    }

    /// The bytes of all of them, in order, in runs of at least so many bytes.
    pub fn runs(&self, bytes: usize) -> impl Iterator<Item = Run> {
        let mut kept = self.kept();
        std::iter::from_fn(move || {
            let mut run = Run::default();
            while run.bytes.len() < bytes
                && let Some((id, kept)) = kept.next()
            {
                let start = run.bytes.len();
                match kept {
                    Kept::Parked(packed) => run.bytes.extend_from_slice(packed),
                    Kept::Live(execution) => pack(execution, &mut run.bytes),
                }
                run.ids.push(id);
                run.lengths.push((run.bytes.len() - start) as u32);
            }
            (!run.ids.is_empty()).then_some(run)
        })
    }

    fn kept(&self) -> impl Iterator<Item = (ExecutionId, Kept<'_>)> {
        let mut live = self.live.iter().map(|(id, it)| (*id, Kept::Live(it))).peekable();
        let parked = self.parked.pieces().flat_map(Packs::iter).map(|(id, bytes)| (id, Kept::Parked(bytes)));
        let mut parked = parked.peekable();
        std::iter::from_fn(move || match (live.peek(), parked.peek()) {
            (Some((one, _)), Some((other, _))) if one > other => parked.next(),
            (None, _) => parked.next(),
            _ => live.next(),
        })
    }

    /// Ids of those that are packed, in order.
    pub fn parked_ids(&self) -> impl Iterator<Item = ExecutionId> {
        self.parked.pieces().flat_map(Packs::iter).map(|(id, _)| id)
    }

    /// The first few that are not packed.
    pub(crate) fn some_live(&self, most: usize) -> impl Iterator<Item = &Execution> {
        self.live.values().take(most).map(AsRef::as_ref)
    }

    /// Puts one in.
    pub fn insert(&mut self, execution: Arc<Execution>) {
        self.hint = self.live.put(execution.id, execution).0;
    }

    /// Puts one in as [`Self::runs`] gave it; it stays packed if it rests.
    ///
    /// # Errors
    /// When the bytes make no sense.
    pub fn insert_packed(
        &mut self,
        id: ExecutionId,
        bytes: &[u8],
        versions: &[Arc<WorkflowVersion>],
    ) -> Result<(), BadPack> {
        let execution = unpack(id, bytes, versions)?;
        if self.contains(id) {
            return Err(BadPack { why: "the execution comes twice" });
        }
        if rests(&execution) && bytes.len() <= MOST_BYTES {
            self.keep(id, bytes);
        } else {
            self.live.insert(id, Arc::new(execution));
        }
        Ok(())
    }

    fn keep(&mut self, id: ExecutionId, bytes: &[u8]) {
        let Err(place) = self.parked.search(|known| known.cmp(&id)) else { return };
        let (piece, place) = self.parked.make_room(&id, place);
        piece.insert(place.at, id, bytes);
        self.packed_bytes += bytes.len() as u64;
    }

    /// Takes one out that is not packed.
    pub(crate) fn remove(&mut self, id: ExecutionId) -> Option<Arc<Execution>> {
        self.live.remove(&id)
    }

    /// Whether a look at it would find it packed. Quick where nothing is parked.
    pub(crate) fn sleeps(&self, id: ExecutionId) -> bool {
        self.parked.len() > 0 && self.live(id).is_none() && self.find(id).is_some()
    }

    /// Unpacks it, if it is packed.
    pub(crate) fn wake(&mut self, id: ExecutionId, versions: &[Arc<WorkflowVersion>]) {
        let Some(place) = self.find(id) else { return };
        let bytes = self.parked.piece(place).get(place.at);
        self.packed_bytes -= bytes.len() as u64;
        self.live.insert(id, Arc::new(open(id, bytes, versions)));
        self.parked.piece_mut(place).remove(place.at);
        self.parked.shrunk(place);
    }

    /// Whether it is live and nothing of it runs.
    pub(crate) fn may_park(&self, id: ExecutionId) -> bool {
        self.live.get(&id).is_some_and(|execution| rests(execution))
    }

    /// Packs it; `room` is for its bytes, and used again and again.
    pub(crate) fn park(&mut self, id: ExecutionId, room: &mut Vec<u8>) {
        let Some(execution) = self.live.get(&id) else { return };
        room.clear();
        pack(execution, room);
        if room.len() <= MOST_BYTES {
            self.live.remove(&id);
            self.keep(id, room);
        }
    }

    /// Notes an evaluation that it waits for.
    pub(crate) fn note_offer(&mut self, id: ExecutionId, token: crate::ids::Token) {
        if let Some(execution) = self.live_mut(id) {
            execution.offers.insert(token);
        }
    }
}

fn packed<'a>(kept: Kept<'a>, own: &'a mut Vec<u8>) -> &'a [u8] {
    match kept {
        Kept::Parked(bytes) => bytes,
        Kept::Live(execution) => {
            own.clear();
            pack(execution, own);
            own
        }
    }
}

fn open(id: ExecutionId, bytes: &[u8], versions: &[Arc<WorkflowVersion>]) -> Execution {
    unpack(id, bytes, versions).expect("the bytes were packed here, or checked when they were put in")
}

/// Whether nothing of an execution runs, is queued or evaluated, so that only time or a cancel can move it, and it is small
/// enough to be packed.
fn rests(execution: &Execution) -> bool {
    if !execution.offers.is_empty() || execution.scopes.len() > MOST_SCOPES {
        return false;
    }
    let mut nodes = 0;
    for scope in execution.scopes.values() {
        nodes += scope.nodes.len();
        if nodes > MOST_NODES || scope.phase != Phase::Body {
            return false;
        }
    }
    let mut timed = false;
    for record in execution.scopes.values().flat_map(|scope| &scope.nodes) {
        match record.state {
            NodeState::Evaluating | NodeState::Queued | NodeState::Running | NodeState::Cancelling => return false,
            NodeState::Waiting | NodeState::Retrying => timed |= record.timer.is_some(),
            NodeState::Pending
            | NodeState::Completed
            | NodeState::Failed
            | NodeState::Skipped
            | NodeState::Cancelled => {}
        }
    }
    timed
}

impl PartialEq for Executions {
    fn eq(&self, other: &Self) -> bool {
        let mut rooms = (Vec::new(), Vec::new());
        self.len() == other.len()
            && self.kept().zip(other.kept()).all(|((id, one), (other_id, other))| {
                id.cmp(&other_id) == Ordering::Equal
                    && match (one, other) {
                        (Kept::Live(one), Kept::Live(other)) => Arc::ptr_eq(one, other) || one == other,
                        // What is packed waits for no evaluation.
                        (Kept::Live(live), Kept::Parked(_)) | (Kept::Parked(_), Kept::Live(live))
                            if !live.offers.is_empty() =>
                        {
                            false
                        }
                        _ => packed(one, &mut rooms.0) == packed(other, &mut rooms.1),
                    }
            })
    }
}

/// Evaluations are hashed with their shard.
impl Hash for Executions {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_usize(self.len());
        let mut room = Vec::new();
        self.kept().for_each(|(id, kept)| (id, packed(kept, &mut room)).hash(hasher));
    }
}

impl fmt::Debug for Executions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (id, kept) in self.kept() {
            match kept {
                Kept::Live(execution) => map.entry(&id, execution),
                Kept::Parked(bytes) => map.entry(&id, &format_args!("parked, {} bytes", bytes.len())),
            };
        }
        map.finish()
    }
}
