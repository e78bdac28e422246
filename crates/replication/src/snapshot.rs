//! Snapshots on disk.
//!
//! ```text
//! file = magic(8) version(4) cluster(16) header_len(4) header(JSON) body body_len(8) crc32c(4)
//! ```
//! The checksum covers all before it. A file gets its name only once it is synced; two are kept. One that is given up,
//! by an error or by nobody waiting for it any more, is removed.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::codec::invalid;
use crate::types::SnapshotMeta;

const MAGIC: [u8; 8] = *b"NOVASNP1";
const VERSION: u32 = 1;
const FIXED: usize = 32;
const TRAILER: u64 = 12;
/// What to do about a snapshot that cannot be used; that of another member, or an older one, does not fit the log.
const LOST: &str = "without this snapshot the member cannot go on: if it cannot be put right, take the member out and let it \
                    in again, empty, under a new number (a cluster of one: restore its whole data directory from a backup)";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub meta: SnapshotMeta,
    pub seen: Vec<u64>,
}

/// Where the snapshots of a member are.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotDir {
    dir: PathBuf,
    cluster: [u8; 16],
    /// Entries after which a snapshot is due at the latest.
    every: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The newest one, checked once: reading it through takes seconds, and openraft asks for it often.
    current: Mutex<Option<SnapshotFile>>,
    written: AtomicU64,
    failed: AtomicU64,
    /// Somebody asked for one.
    wanted: AtomicBool,
}

/// What was applied since the last snapshot, and would be applied again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Since {
    pub entries: u64,
    pub bytes: u64,
}

/// A log of this many bytes is applied again in a moment.
const SHORT_LOG: u64 = 32 << 20;

/// Facts about snapshots of this member, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Written.
    pub written: u64,
    /// Wanted and not written: without any, the log only grows.
    pub failed: u64,
}

/// Room on the disk of a member's data, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What may still be written.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// A file that is not a snapshot yet, and goes with this handle unless it was kept by then.
#[derive(Debug)]
pub(crate) struct Unfinished(PathBuf);

impl Unfinished {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it is kept it has another name, and there is nothing here.
        let _ = fs::remove_file(&self.0);
    }
}

/// A snapshot whose checksum is right.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    header: Header,
    body: std::ops::Range<u64>,
    _unfinished: Option<Arc<Unfinished>>,
}

/// A file of which little waits to be written: one sync of all of a large snapshot at its end would hold up those of the
/// log, on the same disk, for as long as it takes.
struct Steady {
    file: File,
    waiting: u64,
}

/// Bytes written between two syncs.
const SYNC_EVERY: u64 = 4 << 20;

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.waiting >= SYNC_EVERY {
            self.file.sync_data()?;
            self.waiting = 0;
        }
        let written = self.file.write(bytes)?;
        self.waiting += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

struct Summed<W> {
    out: W,
    crc: u32,
    length: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc = crc32c::crc32c_append(self.crc, &bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl SnapshotDir {
    /// Makes the directory, removes what was never finished, and checks the newest snapshot. A damaged one is an error:
    /// the log behind it may be gone.
    pub(crate) fn open(dir: PathBuf, cluster: [u8; 16]) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        let own = Self { dir, cluster, every: 1, shared: Arc::default() };
        if let Some(path) = own.all()?.pop() {
            let named = |error: io::Error| {
                let why = format!("{}: {error}; {LOST}", path.display());
                io::Error::new(error.kind(), why)
            };
            *own.shared.current.lock() = Some(own.check(&path).map_err(named)?);
        }
        Ok(own)
    }

    /// The same, with a snapshot due after so many entries.
    pub(crate) fn every(self, entries: u64) -> Self {
        Self { every: entries, ..self }
    }

    /// Makes the next one due at once.
    pub(crate) fn want(&self) {
        self.shared.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether it is time for one: somebody wants it, it is long ago, or what a restart would apply again is as much as the
    /// last one. So a restart is quick after entries of any size, and a large state is written no more often than the log
    /// is.
    pub(crate) fn is_due(&self, since: Since) -> bool {
        let last = self.current().map_or(0, |last| last.body.end);
        let wanted = self.shared.wanted.swap(false, Ordering::Relaxed);
        wanted || since.entries >= self.every || since.bytes >= SHORT_LOG.max(last)
    }

    /// The newest one.
    pub(crate) fn current(&self) -> Option<SnapshotFile> {
        self.shared.current.lock().clone()
    }

    pub(crate) fn stats(&self) -> SnapshotStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotStats { written: read(&self.shared.written), failed: read(&self.shared.failed) }
    }

    /// Reports a snapshot that was not written: its member goes on, and its log grows until one is.
    pub(crate) fn report(&self, error: &io::Error) {
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "no snapshot was written, and the log grows until one can be");
    }

    /// Refuses when a snapshot could take the space that the log needs to go on.
    pub(crate) fn has_room(&self) -> io::Result<()> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let last = self.current().map_or(0, |last| last.body.end + TRAILER);
        enough(disk.f_bavail.saturating_mul(disk.f_frsize), last)
    }

    /// The disk that it is on.
    pub(crate) fn space(&self) -> io::Result<DiskSpace> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(DiskSpace { free: bytes(disk.f_bavail), total: bytes(disk.f_blocks) })
    }

    /// A snapshot of nothing, for openraft, which has to be given one: it is older than any other.
    pub(crate) fn nothing(&self) -> SnapshotFile {
        let header = Header { meta: SnapshotMeta::default(), seen: Vec::new() };
        SnapshotFile { path: self.dir.join("nothing"), header, body: 0..0, _unfinished: None }
    }

    /// A place for a file that is being written.
    pub(crate) fn unfinished(&self) -> Unfinished {
        // One row of numbers for the process: a member that was stopped and started again takes no name twice.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Unfinished(self.dir.join(format!("{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed))))
    }

    pub(crate) fn write(
        &self,
        header: &Header,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<SnapshotFile> {
        let unfinished = self.unfinished();
        let json = serde_json::to_vec(header)?;
        let file = Steady { file: File::create(unfinished.path())?, waiting: 0 };
        let mut out = Summed { out: BufWriter::new(file), crc: 0, length: 0 };
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&self.cluster)?;
        out.write_all(&(json.len() as u32).to_le_bytes())?;
        out.write_all(&json)?;
        let before = out.length;
        body(&mut out)?;
        let body_length = out.length - before;
        out.write_all(&body_length.to_le_bytes())?;
        let crc = out.crc;
        out.write_all(&crc.to_le_bytes())?;
        out.out.into_inner().map_err(io::IntoInnerError::into_error)?.file.sync_all()?;
        let kept = self.keep(self.finished(unfinished)?)?;
        self.shared.written.fetch_add(1, Ordering::Relaxed);
        Ok(kept)
    }

    /// Looks whether what was written is a whole snapshot of this cluster.
    pub(crate) fn finished(&self, unfinished: Unfinished) -> io::Result<SnapshotFile> {
        let file = self.check(unfinished.path())?;
        Ok(SnapshotFile { _unfinished: Some(Arc::new(unfinished)), ..file })
    }

    fn check(&self, path: &Path) -> io::Result<SnapshotFile> {
        let mut input = BufReader::new(File::open(path)?);
        let length = input.get_ref().metadata()?.len();
        let mut fixed = [0; FIXED];
        input.read_exact(&mut fixed)?;
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        if fixed[..8] != MAGIC {
            return Err(invalid("it is no snapshot"));
        }
        if word(8) > VERSION {
            return Err(invalid(&format!(
                "the snapshot has format {}, newer than {VERSION}: start the version that wrote it",
                word(8)
            )));
        }
        if fixed[12..28] != self.cluster {
            return Err(invalid("the snapshot belongs to another cluster"));
        }
        let start = FIXED as u64 + u64::from(word(28));
        let end = length.checked_sub(TRAILER).filter(|end| *end >= start).ok_or_else(|| invalid("it is cut short"))?;
        let mut json = vec![0; word(28) as usize];
        input.read_exact(&mut json)?;
        let mut crc = crc32c::crc32c_append(crc32c::crc32c(&fixed), &json);
        let mut rest = input.by_ref().take(end - start + 8);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = rest.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            crc = crc32c::crc32c_append(crc, &buffer[..read]);
        }
        let mut stored = [0; 4];
        input.read_exact(&mut stored)?;
        if crc != u32::from_le_bytes(stored) {
            return Err(invalid("the snapshot's checksum is wrong"));
        }
        let header = serde_json::from_slice(&json)?;
        Ok(SnapshotFile { path: path.to_owned(), header, body: start..end, _unfinished: None })
    }

    /// Gives a synced snapshot its name, and removes all but the two newest.
    pub(crate) fn keep(&self, file: SnapshotFile) -> io::Result<SnapshotFile> {
        let id = file.header.meta.last_log_id;
        let (index, term) = id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let path = self.dir.join(format!("{index:016x}-{term:016x}.snap"));
        fs::rename(&file.path, &path)?;
        nova_journal::sync_dir(&self.dir)?;
        let mut all = self.all()?;
        all.truncate(all.len().saturating_sub(2));
        for old in all {
            fs::remove_file(old)?;
        }
        let kept = SnapshotFile { path, _unfinished: None, ..file };
        let mut current = self.shared.current.lock();
        // One that was written while a newer one arrived stays behind it.
        if current.as_ref().is_none_or(|current| current.header.meta.last_log_id <= id) {
            *current = Some(kept.clone());
        }
        Ok(kept)
    }

    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "snap") {
                all.push(path);
            }
        }
        all.sort();
        Ok(all)
    }
}

/// The next snapshot may be larger than the last one, and the log must be able to grow beside it.
fn enough(free: u64, last: u64) -> io::Result<()> {
    if free / 2 >= last { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
}

impl SnapshotFile {
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn body(&self) -> io::Result<impl Read + use<>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.body.start))?;
        Ok(BufReader::new(file).take(self.body.end - self.body.start))
    }

    /// Bytes of the state in it.
    pub(crate) fn bytes(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The whole file, for another member.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens");
        let header = Header { meta: SnapshotMeta::default(), seen: Vec::new() };
        let full = |_: &mut dyn Write| Err(io::ErrorKind::StorageFull.into());
        dir.write(&header, full).expect_err("there is no space");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
        dir.write(&header, |out| out.write_all(b"state")).expect("there is space");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
    }

    #[test]
    fn a_large_snapshot_is_synced_on_its_way() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens");
        let header = Header { meta: SnapshotMeta::default(), seen: Vec::new() };
        let body: Vec<u8> = (0..3 * SYNC_EVERY as usize).map(|at| (at / 1_000) as u8).collect();
        let written = dir.write(&header, |out| body.chunks(100_000).try_for_each(|part| out.write_all(part)));
        let mut read = Vec::new();
        written.expect("there is space").body().expect("it opens").read_to_end(&mut read).expect("it is read");
        assert!(read == body);
    }

    #[test]
    fn the_newest_snapshot_is_known_without_reading_it_again() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens");
        assert!(dir.current().is_none());
        let upto = |index| {
            let meta = SnapshotMeta { last_log_id: Some(crate::types::log_id(1, 1, index)), ..SnapshotMeta::default() };
            Header { meta, seen: Vec::new() }
        };
        let last = |dir: &SnapshotDir| dir.current().and_then(|file| file.header.meta.last_log_id).map(|id| id.index);
        for (index, newest) in [(5, 5), (9, 9), (7, 9)] {
            dir.write(&upto(index), |out| out.write_all(b"state")).expect("there is space");
            assert_eq!(last(&dir), Some(newest));
        }
        assert_eq!(last(&SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens")), Some(9));
        fs::remove_dir_all(folder.path()).expect("it goes");
        assert_eq!(last(&dir), Some(9));
    }

    #[test]
    fn a_snapshot_is_due_after_many_entries_or_bytes_or_when_wanted() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = SnapshotDir::open(folder.path().into(), [1; 16]).expect("it opens").every(100);
        let due = |entries, bytes| dir.is_due(Since { entries, bytes });
        assert!(!due(99, 0) && due(100, 0));
        assert!(!due(1, SHORT_LOG - 1) && due(1, SHORT_LOG));
        dir.want();
        assert!(due(0, 0) && !due(0, 0), "wanted once");
        // As large as a snapshot of a large state, without its bytes.
        let meta = SnapshotMeta::default();
        let body = 0..SHORT_LOG * 2;
        let large = SnapshotFile {
            path: folder.path().into(),
            header: Header { meta, seen: Vec::new() },
            body,
            _unfinished: None,
        };
        *dir.shared.current.lock() = Some(large);
        assert!(!due(1, SHORT_LOG * 2 - 1) && due(1, SHORT_LOG * 2));
    }

    #[test]
    fn a_snapshot_is_not_begun_without_room_for_twice_the_last_one() {
        enough(0, 0).expect("the first one is tried");
        enough(20, 10).expect("twice as much");
        assert_eq!(enough(19, 10).expect_err("less").kind(), io::ErrorKind::StorageFull);
    }
}
