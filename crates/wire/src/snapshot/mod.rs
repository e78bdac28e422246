//! Snapshots of the replicated state: a stream of framed chunks.
//!
//! ```text
//!   State ──snapshot_to_wire──▶ chunks ──write_snapshot──▶ length · checksum · bytes, length · checksum · bytes, …
//!   State ◀──state_from_wire─── chunks ◀──read_snapshot───
//! ```
//! Chunks are made one at a time, so a large state is never in memory twice.

mod read;
mod write;

use std::io::{self, Read, Write};

use bytes::Bytes;
use nova_engine::State;
use prost::Message;

pub use read::state_from_wire;
pub use write::snapshot_to_wire;

use crate::error::WireError;
use crate::v1;

/// The version of snapshots that is written and read here. It changes with the form of packed executions.
pub const SNAPSHOT_VERSION: u32 = 1 + nova_engine::packed::FORM;

/// A chunk is closed when it has this many bytes: small enough for a message, large enough that framing costs nothing.
const CHUNK_BYTES: usize = 1 << 20;

/// The largest frame that is read. One piece may be larger than a chunk (an execution with many nodes), never this much.
const MAX_FRAME_BYTES: usize = 256 << 20;

/// Chunks that are decoded and wait for the state to take them.
const CHUNKS_AHEAD: usize = 4;

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The reader failed, or the stream is shorter than its frames say.
    #[error("cannot read the snapshot")]
    Io(#[from] io::Error),
    /// A frame's bytes are not those that were written.
    #[error("chunk {chunk} of the snapshot is damaged")]
    Damaged {
        /// From 0.
        chunk: u64,
    },
    /// A chunk does not say what it must.
    #[error("a chunk of the snapshot makes no sense")]
    Content(#[from] WireError),
}

/// Writes a state as framed chunks. It does not flush or sync.
///
/// # Errors
/// Those of the writer.
pub fn write_snapshot(state: &State, out: &mut dyn Write) -> io::Result<()> {
    let mut bytes = Vec::new();
    for chunk in snapshot_to_wire(state) {
        bytes.clear();
        chunk.encode(&mut bytes).expect("a vector takes any number of bytes");
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a chunk is above 4 GiB"))?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&xxhash_rust::xxh3::xxh3_64(&bytes).to_le_bytes())?;
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads what [`write_snapshot`] wrote, up to its last chunk and no further. Chunks are read and decoded by a thread of
/// their own: that and building the state take about as long, and a restart waits for both.
///
/// # Errors
/// When it was cut, damaged, written by a newer version, or makes no sense.
pub fn read_snapshot(input: &mut (dyn Read + Send)) -> Result<State, SnapshotError> {
    let (sender, chunks) = std::sync::mpsc::sync_channel(CHUNKS_AHEAD);
    let (state, error) = std::thread::scope(|threads| {
        let reading = threads.spawn(move || {
            let mut frames = Frames { input, read: 0, over: false, error: None };
            for chunk in frames.by_ref() {
                // Who makes no sense of a chunk wants no more of them.
                if sender.send(chunk).is_err() {
                    break;
                }
            }
            frames.error
        });
        let state = state_from_wire(chunks);
        (state, reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    // A broken frame ends the stream of chunks: it is the reason for whatever was missing.
    match error {
        Some(error) => Err(error),
        None => Ok(state?),
    }
}

struct Frames<'a> {
    input: &'a mut (dyn Read + Send),
    read: u64,
    over: bool,
    error: Option<SnapshotError>,
}

impl Frames<'_> {
    fn frame(&mut self) -> Result<v1::SnapshotChunk, SnapshotError> {
        let damaged = SnapshotError::Damaged { chunk: self.read };
        let (mut length, mut checksum) = ([0; 4], [0; 8]);
        self.input.read_exact(&mut length)?;
        self.input.read_exact(&mut checksum)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(damaged);
        }
        let mut bytes = Vec::new();
        // Grows with what is really there, so that a damaged length takes no memory.
        let got = Read::by_ref(&mut self.input).take(length as u64).read_to_end(&mut bytes)?;
        if got < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if xxhash_rust::xxh3::xxh3_64(&bytes) != u64::from_le_bytes(checksum) {
            return Err(damaged);
        }
        self.read += 1;
        let decoded = v1::SnapshotChunk::decode(Bytes::from(bytes));
        decoded.map_err(|source| WireError::Decode { what: "SnapshotChunk", source }.into())
    }
}

impl Iterator for Frames<'_> {
    type Item = v1::SnapshotChunk;

    fn next(&mut self) -> Option<v1::SnapshotChunk> {
        if self.over {
            return None;
        }
        match self.frame() {
            Ok(chunk) => {
                self.over = chunk.end.is_some();
                Some(chunk)
            }
            Err(error) => {
                self.over = true;
                self.error = Some(error);
                None
            }
        }
    }
}
