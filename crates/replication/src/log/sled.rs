//! The log in sled: one value per group commit.
//!
//! `flush` of sled 0.34 hands data to the kernel and does not sync it on Linux; the sync is done here, on a handle of
//! our own.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use nova_wire::raft_v1 as v1;
use prost::Message;

use super::file::frame;
use super::{Change, LogStore, OldEntries, OpenLogError, Opened, Recovered};
use crate::codec::{entries_from_wire, id_from_wire, id_to_wire, invalid, vote_from_wire, vote_to_wire};
use crate::types::{Entry, LogId, Vote};

const FORMAT: u32 = 1;

struct SledLog {
    database: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    file: File,
    /// How many group commits there were, ever.
    commits: u64,
    dir: PathBuf,
    /// What was there when it was opened is written down.
    is_noted: bool,
}

struct SledReader(sled::Tree);

fn failed(error: sled::Error) -> io::Error {
    io::Error::other(error)
}

pub(super) fn open(dir: &Path, cluster: [u8; 16]) -> Result<Opened, OpenLogError> {
    let database = |error: sled::Error| {
        let (path, why) = (dir.to_owned(), error.to_string());
        match error {
            sled::Error::Corruption { .. } => OpenLogError::Damaged { path, why },
            _ => OpenLogError::Database { path, why },
        }
    };
    let damaged = |error: io::Error| OpenLogError::Damaged { path: dir.to_owned(), why: error.to_string() };
    let db = sled::Config::new().path(dir).flush_every_ms(None).open().map_err(database)?;
    let meta = db.open_tree("meta").map_err(database)?;
    let log = db.open_tree("log").map_err(database)?;
    let mut own = FORMAT.to_le_bytes().to_vec();
    own.extend_from_slice(&cluster);
    match meta.get("cluster").map_err(database)? {
        None => drop(meta.insert("cluster", own).map_err(database)?),
        Some(found) if found[..] == own[..] => {}
        Some(found) if found.len() == own.len() && found[..4] == own[..4] => {
            return Err(nova_journal::OpenError::ForeignCluster { path: dir.to_owned() }.into());
        }
        Some(found) => {
            let found = found.get(..4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            return Err(nova_journal::OpenError::NewerFormat { path: dir.to_owned(), found, known: FORMAT }.into());
        }
    }
    let mut recovered = Recovered::default();
    if let Some(vote) = meta.get("vote").map_err(database)? {
        let vote = open_value(&vote).and_then(|bytes| Ok(v1::Vote::decode(bytes)?)).map_err(damaged)?;
        recovered.vote = Some(vote_from_wire(Some(&vote)).map_err(damaged)?);
    }
    if let Some(purged) = meta.get("purged").map_err(database)? {
        let id = open_value(&purged).and_then(|bytes| Ok(v1::LogId::decode(bytes)?)).map_err(damaged)?;
        recovered.purged = Some(id_from_wire(&id));
    }
    let mut commits = 0;
    if let Some(count) = meta.get("commits").map_err(database)? {
        let count = open_value(&count).map_err(damaged)?;
        commits = u64::from_le_bytes(count[..].try_into().map_err(|_| damaged(invalid("a count has eight bytes")))?);
    }
    nova_journal::opened::is_no_older(dir, commits)?;
    let mut next = None;
    for item in &log {
        let (key, value) = item.map_err(database)?;
        for entry in entries(&value).map_err(damaged)? {
            let index = entry.log_id.index;
            if next.is_some_and(|next| next != index) {
                return Err(damaged(invalid(&format!("entry {index} does not follow in value {key:?}"))));
            }
            next = Some(index + 1);
            recovered.first.get_or_insert(index);
            recovered.last = Some(entry.log_id);
        }
    }
    // Whoever was killed between a write and its sync left values that only the kernel has, and they were just read.
    let unsynced = |error: io::Error| OpenLogError::Database { path: dir.to_owned(), why: error.to_string() };
    db.flush().map_err(database)?;
    let file = File::open(dir.join("db")).map_err(unsynced)?;
    file.sync_data().and_then(|()| nova_journal::sync_dir(dir)).map_err(unsynced)?;
    let reader = Arc::new(SledReader(log.clone()));
    Ok((
        Box::new(SledLog { database: db, log, meta, file, dir: dir.to_owned(), commits, is_noted: false }),
        reader,
        recovered,
    ))
}

fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = crc32c::crc32c(bytes).to_le_bytes().to_vec();
    sealed.extend_from_slice(bytes);
    sealed
}

fn open_value(value: &[u8]) -> io::Result<Bytes> {
    let (crc, bytes) = value.split_at_checked(4).ok_or_else(|| invalid("a value is too short"))?;
    if crc32c::crc32c(bytes).to_le_bytes() != crc {
        return Err(invalid("a value has a wrong checksum"));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

fn entries(value: &[u8]) -> io::Result<Vec<Entry>> {
    let frame = v1::LogFrame::decode(open_value(value)?)?;
    let mut all = Vec::new();
    for operation in frame.operations {
        if let Some(v1::log_operation::Kind::Append(appended)) = operation.kind {
            all.extend(entries_from_wire(appended.entries)?);
        }
    }
    Ok(all)
}

impl SledLog {
    fn put(&self, entries: &[Entry]) -> io::Result<()> {
        let Some(first) = entries.first() else { return Ok(()) };
        let frame = frame(&[Change::Append(entries.to_vec())])?;
        let key = first.log_id.index.to_be_bytes();
        self.log.insert(key, seal(&frame.encode_to_vec())).map(drop).map_err(failed)
    }

    fn truncate_from(&self, from: u64) -> io::Result<()> {
        // The value that holds `from` begins at or before it.
        if let Some((key, value)) = self.log.get_lt(from.to_be_bytes()).map_err(failed)? {
            let mut kept = entries(&value)?;
            let before = kept.len();
            kept.retain(|entry| entry.log_id.index < from);
            if kept.len() < before {
                self.log.remove(key).map_err(failed)?;
                self.put(&kept)?;
            }
        }
        for item in self.log.range(from.to_be_bytes()..) {
            self.log.remove(item.map_err(failed)?.0).map_err(failed)?;
        }
        Ok(())
    }

    fn purge_to(&self, to: &LogId) -> io::Result<()> {
        self.meta.insert("purged", seal(&id_to_wire(to).encode_to_vec())).map_err(failed)?;
        let keys: Vec<_> = self.log.range(..=to.index.to_be_bytes()).collect::<Result<_, _>>().map_err(failed)?;
        for (key, value) in keys {
            let mut kept = entries(&value)?;
            kept.retain(|entry| entry.log_id.index > to.index);
            self.log.remove(key).map_err(failed)?;
            self.put(&kept)?;
        }
        Ok(())
    }

    fn vote(&self, vote: &Vote) -> io::Result<()> {
        self.meta.insert("vote", seal(&vote_to_wire(vote).encode_to_vec())).map(drop).map_err(failed)
    }
}

impl LogStore for SledLog {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if !self.is_noted {
            nova_journal::opened::write_down(&self.dir, self.commits)?;
            self.is_noted = true;
        }
        self.commits += 1;
        self.meta.insert("commits", seal(&self.commits.to_le_bytes())).map_err(failed)?;
        let mut waiting: Vec<Entry> = Vec::new();
        for change in changes {
            if let Change::Append(entries) = change {
                waiting.extend_from_slice(entries);
                continue;
            }
            self.put(&std::mem::take(&mut waiting))?;
            match change {
                Change::Vote(vote) => self.vote(vote)?,
                Change::TruncateFrom(from) => self.truncate_from(*from)?,
                Change::PurgeTo(to) => self.purge_to(to)?,
                Change::Append(_) => {}
            }
        }
        self.put(&waiting)?;
        self.database.flush().map_err(failed)?;
        self.file.sync_data()
    }
}

impl OldEntries for SledReader {
    fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let start = self.0.get_lt((from + 1).to_be_bytes()).map_err(failed)?.map(|(key, _)| key);
        let start = start.map_or(Bound::Unbounded, Bound::Included);
        let mut found = Vec::with_capacity((to - from) as usize);
        for item in self.0.range::<sled::IVec, _>((start, Bound::Excluded(to.to_be_bytes().to_vec().into()))) {
            let (_, value) = item.map_err(failed)?;
            found.extend(entries(&value)?.into_iter().filter(|entry| (from..to).contains(&entry.log_id.index)));
        }
        if found.len() as u64 == to - from { Ok(found) } else { Err(invalid("entries are missing in the log")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let newer = [9_u32.to_le_bytes().as_slice(), &[1; 16]].concat();
        let db = sled::open(folder.path()).expect("it opens");
        db.open_tree("meta").and_then(|meta| meta.insert("cluster", newer)).expect("it is written");
        drop(db);
        let begun = std::time::Instant::now();
        loop {
            match open(folder.path(), [1; 16]).map(drop) {
                Err(OpenLogError::Journal(nova_journal::OpenError::NewerFormat { path, found: 9, known: FORMAT })) => {
                    return assert_eq!(path, folder.path());
                }
                // Threads of a database let go of it a moment after it was dropped.
                Err(OpenLogError::Database { why, .. }) if begun.elapsed().as_secs() < 30 => {
                    assert!(why.contains("could not acquire lock"), "{why}");
                    std::thread::yield_now();
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
