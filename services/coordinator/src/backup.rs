//! Backups: their files, and putting one back; and going on with what is left of a group.
//!
//! ```text
//! file = magic(8) version(4) header_len(4) header(JSON) crc32c(4) state crc32c(4)
//! ```
//! The first checksum covers all before it, the second one the state, whose length the header tells. A file gets its name
//! only once it is whole and synced. All of this blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nova_replication::{Founding, Survivor};
pub use nova_replication::{Remains, RepairError};
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::LogChoice;
use crate::level;

const MAGIC: [u8; 8] = *b"NOVABKP1";
const FORMAT: u32 = 1;
const FIXED: usize = 16;
/// A header is some hundred bytes; more is damage.
const MAX_HEADER: usize = 1 << 20;
const PIECE: usize = 256 << 10;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the cluster.
    pub cluster: String,
    /// Its shards.
    pub shards: u32,
    /// The last entry of the log that is in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// The member that made it.
    pub member: u64,
    /// All members then, by number.
    pub members: BTreeMap<u64, String>,
    /// Numbers that members ever had.
    pub used_members: BTreeSet<u64>,
    /// The feature level that was in force.
    pub level: u32,
    /// The build that made it.
    pub version: String,
    /// When, in milliseconds since the Unix epoch, by the clock of who wrote the file.
    pub made_at_ms: u64,
    /// Bytes of the state.
    pub bytes: u64,
}

impl Header {
    /// What a member said of the backup that it sends.
    #[must_use]
    pub fn of(head: v1::BackupHead) -> Self {
        Self {
            cluster: head.cluster_name,
            shards: head.shards,
            index: head.index,
            term: head.term,
            member: head.member,
            members: head.members.into_iter().map(|it| (it.id, it.address)).collect(),
            used_members: head.used_members.into_iter().collect(),
            level: head.level,
            version: head.version,
            made_at_ms: now_ms(),
            bytes: head.bytes,
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Why a backup was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is a file of this name.
    #[error("{path} is there already: name another file")]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{path} is no backup")]
    NoBackup {
        /// Which.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error("{path} has format {found}, newer than {known}: use the version that wrote it")]
    NewerFormat {
        /// Which.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// It was made at a level that this build does not know.
    #[error("{path} was made at feature level {found}, and {known} is the highest here: use version {version}")]
    NewerLevel {
        /// Which.
        path: PathBuf,
        /// Its level.
        found: u32,
        /// The newest known here.
        known: u32,
        /// The build that made it.
        version: String,
    },
    /// It is not what was written.
    #[error("{path} is damaged at byte {at}: {why}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where.
        at: u64,
        /// How.
        why: &'static str,
    },
    /// The member sent more or less than it had said.
    #[error("the member sent {found} bytes of {announced}")]
    Cut {
        /// Bytes that came.
        found: u64,
        /// Bytes that it had said.
        announced: u64,
    },
    /// The first number is the one that the directory is for.
    #[error("no member is named")]
    NoMembers,
    /// The bus that goes on knows them, and so may members that come back.
    #[error("member number {member} was used in cluster {cluster}, which goes on under its name; take a new one")]
    NumberUsed {
        /// The number.
        member: u64,
        /// The cluster.
        cluster: String,
    },
    /// The directory cannot be made or changed.
    #[error(transparent)]
    Repair(#[from] RepairError),
}

/// A backup that is being written. What is not finished is removed.
pub struct Writer {
    path: PathBuf,
    unfinished: PathBuf,
    out: Option<BufWriter<File>>,
    crc: u32,
    written: u64,
    bytes: u64,
}

impl Writer {
    /// Begins a file beside the one that is wanted.
    ///
    /// # Errors
    /// When there is such a file, or it cannot be written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, BackupError> {
        if path.exists() {
            return Err(BackupError::Exists { path: path.to_owned() });
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        // Nobody else's: two may be asked for at once, of which one gets the name.
        name.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = path.with_file_name(name);
        let failed = |source| BackupError::Io { path: unfinished.clone(), source };
        let file = File::create_new(&unfinished).map_err(failed)?;
        let mut writer = Self {
            path: path.to_owned(),
            unfinished: unfinished.clone(),
            out: Some(BufWriter::with_capacity(PIECE, file)),
            crc: 0,
            written: 0,
            bytes: header.bytes,
        };
        let json = serde_json::to_vec(header).map_err(|error| failed(error.into()))?;
        let mut head = Vec::with_capacity(FIXED + json.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&(json.len() as u32).to_le_bytes());
        head.extend_from_slice(&json);
        head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        writer.raw(&head)?;
        Ok(writer)
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.write_all(bytes).map_err(|source| BackupError::Io { path: self.unfinished.clone(), source })
    }

    /// Appends a part of the state.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, part: &[u8]) -> Result<(), BackupError> {
        self.crc = crc32c::crc32c_append(self.crc, part);
        self.written += part.len() as u64;
        self.raw(part)
    }

    /// Gives the file its name, once it is whole and on the disk.
    ///
    /// # Errors
    /// When the state is not whole, or the file cannot be written.
    pub fn finish(mut self) -> Result<(), BackupError> {
        if self.written != self.bytes {
            return Err(BackupError::Cut { found: self.written, announced: self.bytes });
        }
        self.raw(&self.crc.to_le_bytes())?;
        let failed = |source| BackupError::Io { path: self.path.clone(), source };
        if let Some(out) = self.out.take() {
            out.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
        }
        // A link, unlike a new name, is refused where there is such a file by now.
        fs::hard_link(&self.unfinished, &self.path).map_err(failed)?;
        let folder = self.path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // By now it has another name, or is of no use.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// A backup whose checksums are right.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    header: Header,
    start: u64,
}

impl Backup {
    /// Reads it through.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn open(path: &Path) -> Result<Self, BackupError> {
        let own = Self::head(path)?;
        own.copy(&mut io::sink())?;
        Ok(own)
    }

    fn head(path: &Path) -> Result<Self, BackupError> {
        let failed = |source| BackupError::Io { path: path.to_owned(), source };
        let damaged = |at, why| BackupError::Damaged { path: path.to_owned(), at, why };
        let mut file = File::open(path).map_err(failed)?;
        let mut fixed = [0; FIXED];
        match file.read_exact(&mut fixed) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(error)),
            Ok(()) if fixed[..8] == MAGIC => {}
            _ => return Err(BackupError::NoBackup { path: path.to_owned() }),
        }
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        if word(8) > FORMAT {
            return Err(BackupError::NewerFormat { path: path.to_owned(), found: word(8), known: FORMAT });
        }
        let length = word(12) as usize;
        if length > MAX_HEADER {
            return Err(damaged(12, "its header cannot be as long"));
        }
        let mut json = vec![0; length];
        let mut crc = [0; 4];
        let read = file.read_exact(&mut json).and_then(|()| file.read_exact(&mut crc));
        read.map_err(|_| damaged(FIXED as u64, "it is cut short"))?;
        if crc32c::crc32c_append(crc32c::crc32c(&fixed), &json) != u32::from_le_bytes(crc) {
            return Err(damaged(FIXED as u64, "the checksum of its header is wrong"));
        }
        let header: Header =
            serde_json::from_slice(&json).map_err(|_| damaged(FIXED as u64, "its header is not understood"))?;
        let known = level::highest();
        if header.level > known {
            let (found, version) = (header.level, header.version);
            return Err(BackupError::NewerLevel { path: path.to_owned(), found, known, version });
        }
        let start = (FIXED + length + 4) as u64;
        let size = file.metadata().map_err(failed)?.len();
        if size != start + header.bytes + 4 {
            return Err(damaged(size.min(start + header.bytes + 4), "it is not as long as its header says"));
        }
        Ok(Self { path: path.to_owned(), header, start })
    }

    /// What it is of.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Copies the state, and compares its checksum.
    fn copy(&self, out: &mut dyn Write) -> Result<(), BackupError> {
        let failed = |source| BackupError::Io { path: self.path.clone(), source };
        let mut file = File::open(&self.path).map_err(failed)?;
        file.seek(SeekFrom::Start(self.start)).map_err(failed)?;
        let mut input = BufReader::with_capacity(PIECE, file);
        let (mut left, mut crc, mut piece) = (self.header.bytes, 0, vec![0; PIECE]);
        while left > 0 {
            let take = left.min(PIECE as u64) as usize;
            input.read_exact(&mut piece[..take]).map_err(failed)?;
            crc = crc32c::crc32c_append(crc, &piece[..take]);
            out.write_all(&piece[..take]).map_err(failed)?;
            left -= take as u64;
        }
        let mut stored = [0; 4];
        input.read_exact(&mut stored).map_err(failed)?;
        if crc != u32::from_le_bytes(stored) {
            let why = "the checksum of its state is wrong";
            return Err(BackupError::Damaged { path: self.path.clone(), at: self.start, why });
        }
        Ok(())
    }
}

/// Where a backup is put back.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The backup.
    pub from: PathBuf,
    /// The directory of the first member; it must not be there, or be empty.
    pub data: PathBuf,
    /// Name of the cluster that it becomes. That of the backup: its bus goes on, and what it has behind the backup is
    /// applied again. Another one: a new cluster, whose topics are its own and empty.
    pub cluster: String,
    /// The member whose directory it is.
    pub member: u64,
    /// All members, it among them.
    pub members: BTreeMap<u64, String>,
    /// What holds its log.
    pub log: LogChoice,
}

/// Makes the directory of the first member of a cluster that begins with a backup.
///
/// # Errors
/// See [`BackupError`]; nothing is left behind.
pub fn restore(restore: &Restore) -> Result<Header, BackupError> {
    let Restore { from, data, cluster, member, members, log } = restore;
    if !members.contains_key(member) {
        return Err(BackupError::NoMembers);
    }
    let backup = Backup::open(from)?;
    let header = backup.header().clone();
    let goes_on = header.cluster == *cluster;
    let used = if goes_on { header.used_members.clone() } else { BTreeSet::new() };
    // A member that was always alone promised nothing to anybody.
    let was_alone = used.len() == 1 && members.len() == 1;
    if let Some(again) = members.keys().find(|id| used.contains(id) && !was_alone) {
        return Err(BackupError::NumberUsed { member: *again, cluster: cluster.clone() });
    }
    let founding = Founding {
        dir: data.clone(),
        member: *member,
        cluster: ClusterId::of_name(cluster).0,
        members: members.clone(),
        log: (*log).into(),
        index: header.index,
        used,
    };
    let file = from.display().to_string();
    let note = format!("restored from {file}, made at entry {} of cluster {}", header.index, header.cluster);
    let audit = json!({
        "atMs": now_ms(), "what": "restore", "from": file, "backup": header, "cluster": cluster,
        "newBus": !goes_on, "member": member, "members": members, "version": env!("CARGO_PKG_VERSION"),
    });
    let command = recover_entry(header.shards, !goes_on, note);
    let mut broken = None;
    let state = |out: &mut dyn Write| {
        backup.copy(out).map_err(|error| {
            let kind = io::Error::other(error.to_string());
            broken = Some(error);
            kind
        })
    };
    let made = nova_replication::found(&founding, state, command, &audit);
    match (made, broken) {
        (Ok(()), _) => Ok(header),
        (Err(_), Some(error @ BackupError::Damaged { .. })) => Err(error),
        (Err(error), _) => Err(error.into()),
    }
}

/// `shards`: 0 where they are not known.
fn recover_entry(shards: u32, new_bus: bool, note: String) -> bytes::Bytes {
    let kind = v1::entry_body::Kind::Recover(v1::Recover { new_bus, note });
    let bodies = vec![v1::EntryBody { kind: Some(kind) }];
    // Its time is that of the state: the first leader's clock goes on from there.
    v1::LogEntry { version: level::RECOVER, now_ms: 0, bodies, shards }.encode_to_vec().into()
}

/// Which member goes on alone.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// Its directory; it has stopped.
    pub data: PathBuf,
    /// Name of the cluster; none: the one that the directory tells.
    pub cluster: Option<String>,
    /// The new number.
    pub member: u64,
    /// Where it answers: `http://host:port`.
    pub address: String,
}

impl Recovery {
    fn survivor(&self) -> Survivor {
        let Self { data, cluster, member, address } = self;
        let cluster = cluster.as_ref().map(|name| ClusterId::of_name(name).0);
        Survivor { dir: data.clone(), cluster, member: *member, address: address.clone() }
    }
}

/// Tells what [`recover`] would go on with. Nothing is changed.
///
/// # Errors
/// See [`RepairError`].
pub fn remains(recovery: &Recovery) -> Result<Remains, RepairError> {
    nova_replication::remains(&recovery.survivor())
}

/// Makes what is left of a group whose majority is lost a group of one. **Not safe**: what only the lost members had is
/// gone, accepted executions too; and members that were not lost after all would go on as a second cluster of the name.
///
/// # Errors
/// See [`RepairError`].
pub fn recover(recovery: &Recovery) -> Result<Remains, RepairError> {
    let survivor = recovery.survivor();
    let address = &recovery.address;
    let lost = |remains: &Remains| {
        let lost = remains.members.keys().filter(|id| **id != remains.was_member).map(u64::to_string);
        lost.collect::<Vec<_>>().join(", ")
    };
    let command = |remains: &Remains| {
        let Remains { was_member, last, .. } = remains;
        let note = format!(
            "recovered without members {}: member {was_member} goes on alone behind entry {last}",
            lost(remains)
        );
        recover_entry(0, false, note)
    };
    let audit = |remains: &Remains| {
        json!({
            "atMs": now_ms(), "what": "unsafe-recovery", "remains": remains, "address": address,
            "version": env!("CARGO_PKG_VERSION"),
        })
    };
    let warning = format!(
        "This group was recovered without a majority of its members: entries that only the lost ones had are gone.\n\
         See {} beside this file, and docs/operations.md. Remove this file once that is dealt with.\n",
        "audit.jsonl"
    );
    nova_replication::carry_on(&survivor, command, audit, &warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: u64) -> Header {
        Header {
            cluster: "shop".into(),
            shards: 8,
            index: 7,
            term: 2,
            member: 1,
            members: BTreeMap::from([(1, "http://127.0.0.1:1".into())]),
            used_members: BTreeSet::from([1, 2]),
            level: level::highest(),
            version: "0.1.0".into(),
            made_at_ms: 1,
            bytes,
        }
    }

    fn written(dir: &Path, header: &Header, state: &[u8]) -> PathBuf {
        let path = dir.join("backup");
        let mut writer = Writer::create(&path, header).unwrap();
        state.chunks(3).for_each(|part| writer.write(part).unwrap());
        writer.finish().unwrap();
        path
    }

    #[test]
    fn a_backup_reads_back_and_takes_no_file_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &header(10), b"0123456789");
        let backup = Backup::open(&path).unwrap();
        assert_eq!(*backup.header(), header(10));
        let mut state = Vec::new();
        backup.copy(&mut state).unwrap();
        assert_eq!(state, b"0123456789");
        assert!(matches!(Writer::create(&path, &header(1)), Err(BackupError::Exists { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn one_that_is_not_whole_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(&dir.path().join("backup"), &header(10)).unwrap();
        writer.write(b"0123").unwrap();
        assert!(matches!(writer.finish(), Err(BackupError::Cut { found: 4, announced: 10 })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn every_byte_that_changes_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), &header(10), b"0123456789");
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(&path, &bad).unwrap();
            let error = Backup::open(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "byte {at}: {error}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(matches!(Backup::open(&path), Err(BackupError::Damaged { .. })));
        fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert!(matches!(Backup::open(&path), Err(BackupError::Damaged { .. })));
    }

    #[test]
    fn newer_ones_are_refused_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let later = Header { level: level::highest() + 1, ..header(1) };
        let path = written(dir.path(), &later, b"0");
        assert!(
            matches!(Backup::open(&path), Err(BackupError::NewerLevel { found, .. }) if found == level::highest() + 1)
        );
        let mut bytes = fs::read(&path).unwrap();
        bytes[8] = 9;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Backup::open(&path), Err(BackupError::NewerFormat { found: 9, .. })));
    }

    #[test]
    fn under_the_same_name_numbers_are_not_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let from = written(dir.path(), &header(1), b"0");
        let restored = |cluster: &str, member: u64| {
            restore(&Restore {
                from: from.clone(),
                data: dir.path().join(format!("{cluster}-{member}")),
                cluster: cluster.into(),
                member,
                members: BTreeMap::from([(member, "http://127.0.0.1:1".into())]),
                log: LogChoice::File,
            })
        };
        assert!(matches!(restored("shop", 2), Err(BackupError::NumberUsed { member: 2, .. })));
        assert_eq!(restored("shop", 3).unwrap(), header(1));
        assert_eq!(restored("other", 2).unwrap(), header(1));
        let again = restored("other", 2).unwrap_err().to_string();
        assert!(again.contains("other-2 is not empty"), "{again}");
    }
}
