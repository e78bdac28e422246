//! Append-only segmented files with checksummed group commits.
//!
//! Owns: the format, data syncs, the torn tail, refusing damaged or foreign files, locking a directory.
//! Must not know: what a frame holds. Never called from an async thread: it blocks.
//!
//! A *frame* is what one group commit writes: header and payload under one CRC32C. Only the last frame of the last
//! segment can be torn, since each is synced before the next is written. So a bad frame that is followed by a good one
//! is damage to data that was promised, and is reported; a bad frame at the very end was never promised, and is cut.
//!
//! ```text
//! segment  = header frame*            named by the number of its first frame
//! header   = magic(8) version(4) cluster(16) first(8) crc(4)
//! frame    = magic(4) length(4) number(8) crc(4) payload(length)
//! ```
//!
//! An older copy of the last segment is as whole as the newer one was: see [`opened`].

mod lock;
pub mod opened;
mod segment;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use lock::{DirLock, LockError, sync_dir, write_file};
use segment::{Scan, Segment};

/// What a journal is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells kinds of journals apart.
    pub magic: [u8; 8],
    /// The cluster that the files belong to.
    pub cluster: [u8; 16],
    /// Size at which a new segment begins, in bytes. Disk is taken in steps of this.
    pub segment_bytes: u64,
}

/// Place of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// First frame number of its segment.
    pub segment: u64,
    /// Byte offset in that file.
    pub offset: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("cannot open journal {path}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files belong to another cluster.
    #[error("{path} belongs to another cluster")]
    ForeignCluster {
        /// Which file.
        path: PathBuf,
    },
    /// The files were written by a newer version.
    #[error("{path} has format {found}, newer than {known}: start the version that wrote it")]
    NewerFormat {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// Something is not what was written and synced.
    #[error("{path} is damaged at byte {offset}: restore the whole data directory from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// What was there when it was opened to be written before is gone: somebody put old files in the place of newer ones, or took files
    /// away.
    #[error(
        "{path} is older than it was: its next number would be {found}, and was {promised} before; restore the whole data \
         directory from a backup"
    )]
    Older {
        /// The folder.
        path: PathBuf,
        /// The number that comes next.
        found: u64,
        /// The number that came next when it was opened before.
        promised: u64,
    },
}

/// Why a frame was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No space is left; nothing was changed, and writing may be tried again.
    #[error("the disk is full: no space left for {path}")]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// A write or a sync failed, now or earlier. What is on disk is unknown: the journal takes nothing more.
    #[error("{path} cannot be written, and its journal takes nothing more: {why}")]
    Failed {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl WriteError {
    fn failed(path: &Path, error: &io::Error) -> Self {
        Self::Failed { path: path.to_owned(), why: error.to_string() }
    }
}

/// A journal that is open for writing. There is one per directory.
pub struct Journal {
    dir: PathBuf,
    options: Options,
    segments: VecDeque<Segment>,
    next_number: u64,
    /// What was there when it was opened is written down.
    is_noted: bool,
    failed: Option<WriteError>,
}

impl Journal {
    /// Opens the journal in `dir`, making it when it is not there, and shows every frame in order.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing was changed, but for a torn tail that was cut.
    pub fn open(dir: &Path, options: Options, mut visit: impl FnMut(Position, u64, Bytes)) -> Result<Self, OpenError> {
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let name = entry.map_err(io_error(dir))?.file_name();
            let first =
                name.to_str().and_then(|name| name.strip_suffix(".log")).map(|hex| u64::from_str_radix(hex, 16));
            if let Some(Ok(first)) = first {
                firsts.push(first);
            }
        }
        firsts.sort_unstable();
        let mut journal = Self {
            dir: dir.to_owned(),
            options,
            segments: VecDeque::new(),
            next_number: firsts.first().copied().unwrap_or(1),
            is_noted: false,
            failed: None,
        };
        let mut tail = 0;
        for (index, first) in firsts.iter().enumerate() {
            let last = index + 1 == firsts.len();
            tail = journal.scan(*first, last, &mut visit)?.unwrap_or(tail);
        }
        opened::is_no_older(dir, journal.next_number)?;
        // Whoever was killed between a write and its sync, or ended because a sync failed, left a frame that only the kernel
        // has. It was just shown, and will be built upon: it must not go with a power cut. One frame has one sync.
        if let Some(last) = journal.segments.back() {
            last.write_again(tail.min(last.end)).map_err(io_error(&last.path))?;
        }
        sync_dir(dir).map_err(io_error(dir))?;
        Ok(journal)
    }

    /// Gives where the last frame of a segment begins; none when there is no segment.
    fn scan(
        &mut self,
        first: u64,
        last: bool,
        visit: &mut impl FnMut(Position, u64, Bytes),
    ) -> Result<Option<u64>, OpenError> {
        let path = self.path(first);
        let expected = self.next_number;
        let scan = segment::scan(&path, &self.options, first, expected, visit)?;
        match scan {
            // A segment whose header never reached the disk holds nothing that was promised.
            Scan::NoHeader if last => {
                fs::remove_file(&path).map_err(|source| OpenError::Io { path, source })?;
                Ok(None)
            }
            Scan::NoHeader => Err(OpenError::Damaged { path, offset: 0 }),
            Scan::Frames { last: tail, end, next_number, torn } => {
                if first != expected || (torn && !last) {
                    return Err(OpenError::Damaged { path, offset: end });
                }
                let segment =
                    Segment::open(path.clone(), first, end, torn).map_err(|source| OpenError::Io { path, source })?;
                self.next_number = next_number;
                self.segments.push_back(segment);
                Ok(Some(tail))
            }
        }
    }

    fn path(&self, first: u64) -> PathBuf {
        file_of(&self.dir, first)
    }

    /// Number that the next frame gets.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Writes one frame of these parts and syncs it to the disk.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn commit(&mut self, parts: &[Bytes]) -> Result<Position, WriteError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        if !self.is_noted {
            // Not when it is opened: who is refused for another reason has changed nothing.
            opened::write_down(&self.dir, self.next_number)
                .map_err(|error| self.fail(WriteError::failed(&self.dir, &error)))?;
            self.is_noted = true;
        }
        let full = self.segments.back().is_none_or(|last| last.end >= self.options.segment_bytes);
        if full {
            self.begin_segment()?;
        }
        let number = self.next_number;
        let Some(last) = self.segments.back_mut() else {
            return Err(WriteError::failed(&self.dir, &io::ErrorKind::NotFound.into()));
        };
        match last.write(number, parts) {
            Ok(position) => {
                self.next_number += 1;
                Ok(position)
            }
            Err(full @ WriteError::Full { .. }) => Err(full),
            Err(failed) => Err(self.fail(failed)),
        }
    }

    fn begin_segment(&mut self) -> Result<(), WriteError> {
        let first = self.next_number;
        let path = self.path(first);
        match Segment::create(path.clone(), &self.options, first) {
            Ok(segment) => {
                self.segments.push_back(segment);
                Ok(())
            }
            Err(source) => {
                // Nothing was promised of it; what is left of it would only be in the way.
                let _ = fs::remove_file(&path);
                if source.kind() == io::ErrorKind::StorageFull {
                    Err(WriteError::Full { path })
                } else {
                    Err(self.fail(WriteError::failed(&path, &source)))
                }
            }
        }
    }

    fn fail(&mut self, failed: WriteError) -> WriteError {
        self.failed = Some(failed.clone());
        failed
    }

    /// Reads the frame at `position` again, checking it.
    ///
    /// # Errors
    /// When it is not there any more or not what was written.
    pub fn read(&self, position: Position) -> io::Result<Bytes> {
        let segment = self.segments.iter().find(|segment| segment.first == position.segment);
        segment.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.read(position.offset)
    }

    /// Removes whole segments that hold only frames below `number`; the last one always stays. Gives the number of the
    /// first frame that is left.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn drop_below(&mut self, number: u64) -> io::Result<u64> {
        while self.segments.len() > 1 && self.segments[1].first <= number {
            let Some(oldest) = self.segments.pop_front() else { break };
            fs::remove_file(&oldest.path)?;
        }
        Ok(self.segments.front().map_or(self.next_number, |first| first.first))
    }

    /// Bytes written in all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// First frame numbers of all segments, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().map(|segment| segment.first)
    }
}

/// Reads frames of a journal, checking them, beside whoever writes there. It blocks, and keeps the segment open that it
/// read last.
#[derive(Debug)]
pub struct FrameReader<'a> {
    dir: &'a Path,
    open: Option<(u64, fs::File)>,
}

impl<'a> FrameReader<'a> {
    /// Of the journal in `dir`.
    #[must_use]
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, open: None }
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// When the file is no more or not what was written.
    pub fn read(&mut self, position: Position) -> io::Result<Bytes> {
        let (_, file) = match self.open.take().filter(|(first, _)| *first == position.segment) {
            Some(open) => self.open.insert(open),
            None => self.open.insert((position.segment, fs::File::open(file_of(self.dir, position.segment))?)),
        };
        segment::read_frame(file, position.offset)
    }
}

fn file_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:016x}.log"))
}
