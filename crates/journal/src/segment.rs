//! One file of a journal.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use nova_plants::Plant;
use rustix::fs::{SeekFrom, seek};

use crate::{OpenError, Options, Position, WriteError, lock};

const FORMAT: u32 = 1;
const HEADER: usize = 40;
const FRAME_MAGIC: u32 = 0x4652_4d31;
const FRAME_HEADER: usize = 20;
/// Largest payload of a frame: more is a mistake of the caller, or damage.
const MAX_FRAME: u32 = 64 << 20;
/// Zeros are written this far ahead of the frames.
const AHEAD: u64 = 1 << 20;
/// So many at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

pub(crate) struct Segment {
    pub path: PathBuf,
    pub first: u64,
    pub end: u64,
    file: File,
    /// Up to here the disk has bytes of this file, and not only space for them.
    filled: u64,
    /// Up to here it has space.
    space: u64,
}

pub(crate) enum Scan {
    NoHeader,
    /// `last` is where the last frame begins, or the segment, if it has none.
    Frames {
        last: u64,
        end: u64,
        next_number: u64,
        torn: bool,
    },
}

impl Segment {
    pub(crate) fn create(path: PathBuf, options: &Options, first: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        // Space is taken at once: a later sync has no file size to write, and a full disk shows here.
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, options.segment_bytes)?;
        file.write_all_at(&header(options, first), 0)?;
        file.sync_all()?;
        if let Some(folder) = path.parent() {
            lock::sync_dir(folder)?;
        }
        let end = HEADER as u64;
        Ok(Self { path, first, end, file, filled: end, space: options.segment_bytes })
    }

    /// Opens a segment whose frames end at `end`, and clears what is behind, if the scan found that there is something.
    pub(crate) fn open(path: PathBuf, first: u64, end: u64, torn: bool) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut size = file.metadata()?.len();
        if torn {
            file.set_len(end)?;
            size = end;
        }
        // How far zeros were written, and where there is only space, cannot be told apart.
        Ok(Self { path, first, end, file, filled: end, space: size })
    }

    /// Writes what is there from `from` on once more, and makes it durable. Where a sync failed before, the system takes
    /// what it had not written for written, and a sync alone would not write it.
    pub(crate) fn write_again(&self, from: u64) -> io::Result<()> {
        let mut last = vec![0; (self.end - from) as usize];
        self.file.read_exact_at(&mut last, from)?;
        self.file.write_all_at(&last, from)?;
        self.file.sync_all()
    }

    pub(crate) fn write(&mut self, number: u64, parts: &[Bytes]) -> Result<Position, WriteError> {
        let length: usize = parts.iter().map(Bytes::len).sum();
        let length = u32::try_from(length).ok().filter(|length| *length <= MAX_FRAME);
        let Some(length) = length else {
            return Err(WriteError::failed(&self.path, &io::ErrorKind::InvalidInput.into()));
        };
        let mut crc = crc32c::crc32c(&length.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
        }
        let mut head = [0; FRAME_HEADER];
        head[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..16].copy_from_slice(&number.to_le_bytes());
        head[16..].copy_from_slice(&crc.to_le_bytes());
        let end = self.end + (FRAME_HEADER + length as usize) as u64;
        let written = self.fill(end).and_then(|()| write_all_vectored(&self.file, self.end, &head, parts));
        if let Err(source) = written {
            if source.kind() == io::ErrorKind::StorageFull {
                // What was written of it is behind the end and is cleared, so that it cannot be taken for damage.
                (self.filled, self.space) = (self.end, self.end);
                return match self.file.set_len(self.end).and_then(|()| self.file.sync_all()) {
                    Ok(()) => Err(WriteError::Full { path: self.path.clone() }),
                    Err(source) => Err(WriteError::failed(&self.path, &source)),
                };
            }
            return Err(WriteError::failed(&self.path, &source));
        }
        // A failed sync leaves it unknown what is on disk: the caller takes nothing more.
        let synced = self.file.sync_data().map_err(|source| WriteError::failed(&self.path, &source));
        if !nova_plants::is(Plant::OnAfterFailedSync) {
            synced?;
        }
        let position = Position { segment: self.first, offset: self.end };
        self.end = end;
        Ok(position)
    }

    /// Writes zeros where frames will stand, if `end` is beyond those that are there. The first write to space that was
    /// only taken is a change of the file's map, whose sync waits for the journal of the file system, and with it for the
    /// syncs of all other files; a write over what was written is not.
    fn fill(&mut self, end: u64) -> io::Result<()> {
        if end <= self.filled || self.space <= self.end {
            return Ok(());
        }
        let upto = (end + AHEAD).min(self.space);
        let mut at = self.filled.max(self.end);
        while at < upto {
            let take = ZEROS.len().min((upto - at) as usize);
            self.file.write_all_at(&ZEROS[..take], at)?;
            at += take as u64;
        }
        self.filled = upto.max(end);
        Ok(())
    }

    pub(crate) fn read(&self, offset: u64) -> io::Result<Bytes> {
        read_frame(&self.file, offset)
    }
}

fn write_all_vectored(file: &File, mut at: u64, head: &[u8], parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        std::iter::once(IoSlice::new(head)).chain(parts.iter().map(|p| IoSlice::new(p))).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        // The kernel takes at most 1,024 slices at once.
        let take = rest.len().min(1_024);
        match rustix::io::pwritev(file, &rest[..take], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn read_frame(file: &File, offset: u64) -> io::Result<Bytes> {
    let mut head = [0; FRAME_HEADER];
    file.read_exact_at(&mut head, offset)?;
    let frame = parse_head(&head).ok_or(io::ErrorKind::InvalidData)?;
    let mut payload = vec![0; frame.length as usize];
    file.read_exact_at(&mut payload, offset + FRAME_HEADER as u64)?;
    if frame.checks(&payload) { Ok(payload.into()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

fn header(options: &Options, first: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&options.magic);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..28].copy_from_slice(&options.cluster);
    header[28..36].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    header
}

struct FrameHead {
    length: u32,
    number: u64,
    crc: u32,
}

impl FrameHead {
    fn checks(&self, payload: &[u8]) -> bool {
        let crc = crc32c::crc32c(&self.length.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.number.to_le_bytes());
        crc32c::crc32c_append(crc, payload) == self.crc
    }
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}

fn parse_head(head: &[u8]) -> Option<FrameHead> {
    let length = word(&head[4..]);
    let plausible = word(head) == FRAME_MAGIC && length <= MAX_FRAME;
    plausible.then(|| FrameHead { length, number: long(&head[8..]), crc: word(&head[16..]) })
}

/// Reads a segment from its beginning and shows its frames.
pub(crate) fn scan(
    path: &Path,
    options: &Options,
    first: u64,
    expected: u64,
    visit: &mut impl FnMut(Position, u64, Bytes),
) -> Result<Scan, OpenError> {
    let failed = |source| OpenError::Io { path: path.to_owned(), source };
    let damaged = |offset| OpenError::Damaged { path: path.to_owned(), offset };
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut window = Window { file: &file, size, offset: 0, bytes: BytesMut::new() };
    let whole = window.fill(HEADER).map_err(failed)?;
    if !whole || crc32c::crc32c(&window.bytes[..36]) != word(&window.bytes[36..]) {
        // A header is synced before the first frame is written: one that is bad before anything else was good once.
        let used = has_bytes(&file, HEADER as u64, size).map_err(failed)?;
        return if used.is_some() { Err(damaged(0)) } else { Ok(Scan::NoHeader) };
    }
    let header = window.take(HEADER);
    let found = word(&header[8..]);
    if header[..8] != options.magic {
        return Err(damaged(0));
    }
    if found > FORMAT {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
    }
    if header[12..28] != options.cluster {
        return Err(OpenError::ForeignCluster { path: path.to_owned() });
    }
    if long(&header[28..]) != first {
        return Err(damaged(28));
    }
    let mut number = expected.max(first);
    let mut last = 0;
    loop {
        let at = window.offset;
        let Some(payload) = window.frame(number).map_err(failed)? else { break };
        visit(Position { segment: first, offset: at }, number, payload);
        last = at;
        number += 1;
    }
    let end = if nova_plants::is(Plant::TornTail) && last > 0 { last } else { window.offset };
    if end < window.offset {
        return Ok(Scan::Frames { last: 0, end, next_number: number - 1, torn: true });
    }
    let used = has_bytes(&file, end, size).map_err(failed)?;
    if let Some(upto) = used {
        // A frame may end in zeros that the file system does not keep.
        let mut rest = vec![0; (size - end) as usize];
        file.read_exact_at(&mut rest[..(upto - end) as usize], end).map_err(failed)?;
        // A frame above this number that is whole, behind one that is not: the bad one had been synced.
        if find_frame(&rest.into(), number).is_some() {
            return Err(damaged(end));
        }
    }
    Ok(Scan::Frames { last, end, next_number: number, torn: used.is_some() })
}

/// A file that is read from its beginning, a piece at a time: a piece stays in the caches of the processor while it is
/// looked at, and its memory is used again.
struct Window<'a> {
    file: &'a File,
    size: u64,
    /// Where `bytes` stand.
    offset: u64,
    bytes: BytesMut,
}

/// Bytes of a piece; a larger frame makes a larger one.
const PIECE: usize = 1 << 20;

impl Window<'_> {
    /// Reads on until so many bytes are there; not when the file ends before.
    fn fill(&mut self, want: usize) -> io::Result<bool> {
        let there = self.bytes.len();
        if there >= want {
            return Ok(true);
        }
        let left = self.size - self.offset;
        if left < want as u64 {
            return Ok(false);
        }
        self.bytes.resize(left.min(want.max(PIECE) as u64) as usize, 0);
        self.file.read_exact_at(&mut self.bytes[there..], self.offset + there as u64)?;
        Ok(true)
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.offset += count as u64;
        self.bytes.split_to(count).freeze()
    }

    /// The frame that comes next, if it is whole and has this number.
    fn frame(&mut self, number: u64) -> io::Result<Option<Bytes>> {
        if !self.fill(FRAME_HEADER)? {
            return Ok(None);
        }
        let Some(frame) = parse_head(&self.bytes[..FRAME_HEADER]).filter(|frame| frame.number == number) else {
            return Ok(None);
        };
        let end = FRAME_HEADER + frame.length as usize;
        if !self.fill(end)? || !frame.checks(&self.bytes[FRAME_HEADER..end]) {
            return Ok(None);
        }
        Ok(Some(self.take(end).slice(FRAME_HEADER..)))
    }
}

fn frame_at(bytes: &Bytes, offset: usize, number: u64) -> Option<Bytes> {
    let head = bytes.get(offset..offset + FRAME_HEADER)?;
    let frame = parse_head(head).filter(|frame| frame.number == number)?;
    let start = offset + FRAME_HEADER;
    let end = start.checked_add(frame.length as usize).filter(|end| *end <= bytes.len())?;
    let payload = bytes.slice(start..end);
    frame.checks(&payload).then_some(payload)
}

/// The first whole frame with a number above `above`.
fn find_frame(bytes: &Bytes, above: u64) -> Option<usize> {
    let magic = FRAME_MAGIC.to_le_bytes();
    let mut at = 0;
    while at + FRAME_HEADER <= bytes.len() {
        // Most of what is looked through is space that was taken and never written.
        at += bytes[at..].iter().position(|byte| *byte == magic[0])?;
        if at + FRAME_HEADER <= bytes.len()
            && bytes[at..at + 4] == magic
            && let Some(frame) = parse_head(&bytes[at..at + FRAME_HEADER])
            && frame.number > above
            && frame_at(bytes, at, frame.number).is_some()
        {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Whether something else than zeros stands at or behind `from`, and where what was written ends.
fn has_bytes(file: &File, from: u64, size: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; ZEROS.len()];
    let (mut at, mut used, mut last) = (from, false, from);
    while let Some((begin, end)) = written(file, at, size)? {
        at = begin;
        while at < end && !used {
            let want = buffer.len().min((end - at) as usize);
            file.read_exact_at(&mut buffer[..want], at)?;
            used = buffer[..want] != ZEROS[..want];
            at += want as u64;
        }
        (at, last) = (end, end);
    }
    Ok(used.then_some(last))
}

/// The next piece of a file that was written, from `from` on. Space that was only taken reads as zeros, and most of a
/// segment is that.
fn written(file: &File, from: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::io::Errno;
    if from >= size {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(from)) {
        Ok(begin) if begin >= size => Ok(None),
        Ok(begin) => {
            let end = seek(file, SeekFrom::Hole(begin))?.min(size);
            Ok(Some((begin, if end > begin { end } else { size })))
        }
        Err(Errno::NXIO) => Ok(None),
        // A file system that cannot tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Some((from, size))),
        Err(error) => Err(error.into()),
    }
}
