//! Reads the log of a member from its files, as a copy: opening a log mends it.

use std::path::Path;

use anyhow::{Context, Result};
use nova_checker::{Entry, Log};
use nova_journal::{Journal, Options};
use nova_wire::raft_v1::{LogFrame, log_operation::Kind};
use nova_wire::{ClusterId, raft_v1::entry::Payload};
use prost::Message;

const MAGIC: [u8; 8] = *b"NOVALOG1";
const SEGMENT_BYTES: u64 = 64 << 20;

/// The entries of a log up to one that was applied, those too that were purged and whose files are still there.
///
/// # Errors
/// When it cannot be read.
pub fn read(dir: &Path, member: &str, cluster: &str, applied: u64) -> Result<Log> {
    let copy = tempfile::tempdir()?;
    for file in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let file = file?;
        std::fs::copy(file.path(), copy.path().join(file.file_name()))?;
    }
    let ClusterId(cluster) = ClusterId::of_name(cluster);
    let options = Options { magic: MAGIC, cluster, segment_bytes: SEGMENT_BYTES };
    let mut entries: Vec<Entry> = Vec::new();
    let mut broken = None;
    Journal::open(copy.path(), options, |_, _, frame| match LogFrame::decode(frame) {
        Ok(frame) => frame.operations.into_iter().filter_map(|it| it.kind).for_each(|kind| take(&mut entries, kind)),
        Err(error) => drop(broken.get_or_insert(error)),
    })?;
    if let Some(error) = broken {
        return Err(error).with_context(|| format!("a frame of {}", dir.display()));
    }
    entries.retain(|entry| entry.index <= applied);
    Ok(Log { member: member.to_owned(), entries })
}

fn take(entries: &mut Vec<Entry>, kind: Kind) {
    match kind {
        Kind::Append(appended) => {
            for entry in appended.entries {
                let id = entry.id.unwrap_or_default();
                let said = match &entry.payload {
                    None => &[][..],
                    Some(Payload::Command(said) | Payload::Membership(said)) => said,
                };
                truncate(entries, id.index);
                entries.push(Entry { index: id.index, term: id.term, leader: id.node, crc: crc32c::crc32c(said) });
            }
        }
        Kind::TruncateFrom(from) => truncate(entries, from),
        // What lies before a snapshot that was sent is not there. Any other gap is one.
        Kind::PurgeTo(purged) => {
            if entries.last().is_some_and(|last| last.index < purged.index) {
                entries.clear();
            }
        }
        Kind::Vote(_) => {}
    }
}

fn truncate(entries: &mut Vec<Entry>, from: u64) {
    while entries.last().is_some_and(|last| last.index >= from) {
        entries.pop();
    }
}
