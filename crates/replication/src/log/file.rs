//! The log in segmented files: one frame per group commit.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nova_journal::{FrameReader, Journal, Options, Position, WriteError};
use nova_plants::Plant;
use nova_wire::raft_v1 as v1;
use parking_lot::Mutex;
use prost::Message;

use super::{Change, LogStore, OldEntries, OpenLogError, Opened, Recovered};
use crate::codec::{entry_from_wire, entry_to_wire, id_from_wire, id_to_wire, invalid, vote_from_wire, vote_to_wire};
use crate::types::{Entry, LogId, Vote};

const MAGIC: [u8; 8] = *b"NOVALOG1";
const SEGMENT_BYTES: u64 = 64 << 20;

/// Where each entry is: one place per entry that was not purged.
#[derive(Default)]
struct Index {
    first: u64,
    places: VecDeque<Place>,
}

#[derive(Clone, Copy)]
struct Place {
    at: Position,
    frame: u64,
    id: (u64, u64),
}

impl Index {
    fn push(&mut self, id: &LogId, at: Position, frame: u64) {
        if self.places.is_empty() {
            self.first = id.index;
        }
        // An entry that is written again replaces the tail: its frame says so by standing later in the log.
        self.places.truncate(id.index.saturating_sub(self.first) as usize);
        self.places.push_back(Place { at, frame, id: (id.leader_id.term, id.leader_id.node_id) });
    }

    fn truncate_from(&mut self, from: u64) {
        self.places.truncate(from.saturating_sub(self.first) as usize);
    }

    fn purge_to(&mut self, to: u64) {
        while !self.places.is_empty() && self.first <= to {
            self.places.pop_front();
            self.first += 1;
        }
    }
}

struct FileLog {
    journal: Journal,
    index: Arc<Mutex<Index>>,
    vote: Option<Vote>,
    purged: Option<LogId>,
}

struct FileReader {
    dir: PathBuf,
    index: Arc<Mutex<Index>>,
}

pub(super) fn open(dir: &Path, cluster: [u8; 16]) -> Result<Opened, OpenLogError> {
    let mut index = Index::default();
    let mut found = Recovered::default();
    let mut broken = None;
    let options = Options { magic: MAGIC, cluster, segment_bytes: SEGMENT_BYTES };
    let journal = Journal::open(dir, options, |at, number, frame| {
        if let Err(error) = replay(&mut index, &mut found, at, number, frame) {
            broken.get_or_insert(format!("frame {number}: {error}"));
        }
    })?;
    if let Some(what) = broken {
        return Err(OpenLogError::Damaged { path: dir.to_owned(), why: what });
    }
    found.last = index.places.back().map(|place| {
        let last = index.first + index.places.len() as u64 - 1;
        crate::types::log_id(place.id.0, place.id.1, last)
    });
    found.first = found.last.map(|_| index.first);
    let index = Arc::new(Mutex::new(index));
    let log = FileLog { journal, index: Arc::clone(&index), vote: found.vote, purged: found.purged };
    Ok((Box::new(log), Arc::new(FileReader { dir: dir.to_owned(), index }), found))
}

fn replay(index: &mut Index, found: &mut Recovered, at: Position, number: u64, frame: Bytes) -> io::Result<()> {
    use v1::log_operation::Kind;
    for operation in v1::LogFrame::decode(frame)?.operations {
        match operation.kind.ok_or_else(|| invalid("an operation of no kind"))? {
            Kind::Vote(vote) => found.vote = Some(vote_from_wire(Some(&vote))?),
            Kind::Append(entries) => {
                for entry in entries.entries {
                    let id = entry.id.as_ref().ok_or_else(|| invalid("an entry without id"))?;
                    index.push(&id_from_wire(id), at, number);
                }
            }
            Kind::TruncateFrom(from) => index.truncate_from(from),
            Kind::PurgeTo(to) => {
                index.purge_to(to.index);
                found.purged = Some(id_from_wire(&to));
            }
        }
    }
    Ok(())
}

pub(super) fn frame(changes: &[Change]) -> io::Result<v1::LogFrame> {
    use v1::log_operation::Kind;
    let operation = |change: &Change| {
        let kind = match change {
            Change::Vote(vote) => Kind::Vote(vote_to_wire(vote)),
            Change::Append(entries) => {
                let entries = entries.iter().map(entry_to_wire).collect::<io::Result<_>>()?;
                Kind::Append(v1::log_operation::Entries { entries })
            }
            Change::TruncateFrom(from) => Kind::TruncateFrom(*from),
            Change::PurgeTo(to) => Kind::PurgeTo(id_to_wire(to)),
        };
        Ok(v1::LogOperation { kind: Some(kind) })
    };
    Ok(v1::LogFrame { operations: changes.iter().map(operation).collect::<io::Result<_>>()? })
}

fn failed(error: WriteError) -> io::Error {
    let full = matches!(error, WriteError::Full { .. });
    io::Error::new(if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other }, error)
}

impl LogStore for FileLog {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if let (true, [Change::Vote(vote)]) = (nova_plants::is(Plant::VoteNotSynced), changes) {
            self.vote = Some(*vote);
            return Ok(());
        }
        let number = self.journal.next_number();
        let at = self.journal.commit(&[frame(changes)?.encode_to_vec().into()]).map_err(failed)?;
        let mut index = self.index.lock();
        let mut purged = false;
        for change in changes {
            match change {
                Change::Vote(vote) => self.vote = Some(*vote),
                Change::Append(entries) => entries.iter().for_each(|entry| index.push(&entry.log_id, at, number)),
                Change::TruncateFrom(from) => index.truncate_from(*from),
                Change::PurgeTo(to) => {
                    index.purge_to(to.index);
                    self.purged = Some(*to);
                    purged = true;
                }
            }
        }
        let oldest = index.places.front().map(|place| place.frame);
        drop(index);
        if purged {
            self.drop_segments(oldest.unwrap_or(number))?;
        }
        Ok(())
    }
}

impl FileLog {
    /// Removes segments that hold only purged entries. Vote and purge mark are written once more before.
    fn drop_segments(&mut self, oldest: u64) -> io::Result<()> {
        if self.journal.segments().nth(1).is_none_or(|second| second > oldest) {
            return Ok(());
        }
        let marks: Vec<_> = self.vote.map(Change::Vote).into_iter().chain(self.purged.map(Change::PurgeTo)).collect();
        self.journal.commit(&[frame(&marks)?.encode_to_vec().into()]).map_err(failed)?;
        self.journal.drop_below(oldest).map(drop)
    }
}

impl OldEntries for FileReader {
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let mut wanted = Vec::new();
        {
            let index = self.index.lock();
            for at in from..to {
                let place = at.checked_sub(index.first).and_then(|n| index.places.get(n as usize));
                let place = place.ok_or_else(|| invalid(&format!("entry {at} is not in the log")))?;
                if wanted.last().is_none_or(|(last, ..): &(Position, u64, u64)| *last != place.at) {
                    wanted.push((place.at, at, at));
                }
                if let Some(last) = wanted.last_mut() {
                    last.2 = at;
                }
            }
        }
        let mut entries = Vec::with_capacity((to - from) as usize);
        let mut frames = FrameReader::new(&self.dir);
        for (at, first, last) in wanted {
            let frame = v1::LogFrame::decode(frames.read(at)?)?;
            let mut found = std::collections::BTreeMap::new();
            for operation in frame.operations {
                if let Some(v1::log_operation::Kind::Append(appended)) = operation.kind {
                    for entry in appended.entries {
                        let entry = entry_from_wire(entry)?;
                        found.insert(entry.log_id.index, entry);
                    }
                }
            }
            entries.extend(found.range(first..=last).map(|(_, entry)| entry.clone()));
        }
        if entries.len() as u64 == to - from { Ok(entries) } else { Err(invalid("entries are missing in the log")) }
    }
}
