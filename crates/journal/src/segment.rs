//! One file of a journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

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
    Frames { end: u64, next_number: u64, torn: bool },
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

    /// Opens a segment whose frames end at `end`, and clears what is behind.
    pub(crate) fn open(path: PathBuf, first: u64, end: u64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut size = file.metadata()?.len();
        if tail_is_dirty(&file, end, size)? {
            file.set_len(end)?;
            size = end;
        }
        // How far zeros were written, and where there is only space, cannot be told apart.
        Ok(Self { path, first, end, file, filled: end, space: size })
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
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
        self.file.sync_data().map_err(|source| WriteError::failed(&self.path, &source))?;
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
    let bytes = Bytes::from(fs::read(path).map_err(|source| OpenError::Io { path: path.to_owned(), source })?);
    if bytes.len() < HEADER || crc32c::crc32c(&bytes[..36]) != word(&bytes[36..]) {
        // A header is synced before the first frame is written: one that is bad before anything else was good once.
        let used = bytes.iter().skip(HEADER).any(|byte| *byte != 0);
        return if used { Err(OpenError::Damaged { path: path.to_owned(), offset: 0 }) } else { Ok(Scan::NoHeader) };
    }
    let found = word(&bytes[8..]);
    if bytes[..8] != options.magic {
        return Err(OpenError::Damaged { path: path.to_owned(), offset: 0 });
    }
    if found > FORMAT {
        return Err(OpenError::NewerFormat { path: path.to_owned(), found, known: FORMAT });
    }
    if bytes[12..28] != options.cluster {
        return Err(OpenError::ForeignCluster { path: path.to_owned() });
    }
    if long(&bytes[28..]) != first {
        return Err(OpenError::Damaged { path: path.to_owned(), offset: 28 });
    }
    let mut offset = HEADER;
    let mut number = expected.max(first);
    loop {
        let Some(payload) = frame_at(&bytes, offset, number) else { break };
        let next = offset + FRAME_HEADER + payload.len();
        visit(Position { segment: first, offset: offset as u64 }, number, payload);
        offset = next;
        number += 1;
    }
    // A frame above this number that is whole, behind one that is not: the bad one had been synced.
    if find_frame(&bytes, offset, number).is_some() {
        return Err(OpenError::Damaged { path: path.to_owned(), offset: offset as u64 });
    }
    let torn = bytes[offset..].iter().any(|byte| *byte != 0);
    Ok(Scan::Frames { end: offset as u64, next_number: number, torn })
}

fn frame_at(bytes: &Bytes, offset: usize, number: u64) -> Option<Bytes> {
    let head = bytes.get(offset..offset + FRAME_HEADER)?;
    let frame = parse_head(head).filter(|frame| frame.number == number)?;
    let start = offset + FRAME_HEADER;
    let end = start.checked_add(frame.length as usize).filter(|end| *end <= bytes.len())?;
    let payload = bytes.slice(start..end);
    frame.checks(&payload).then_some(payload)
}

/// The first whole frame with a number above `above` at or behind `from`.
fn find_frame(bytes: &Bytes, from: usize, above: u64) -> Option<usize> {
    let magic = FRAME_MAGIC.to_le_bytes();
    let mut at = from;
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

fn tail_is_dirty(file: &File, from: u64, size: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 1 << 16];
    let mut at = from;
    while at < size {
        let want = buffer.len().min((size - at) as usize);
        file.read_exact_at(&mut buffer[..want], at)?;
        if buffer[..want].iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
        at += want as u64;
    }
    Ok(false)
}
