//! What is on disk.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use nova_journal::{Journal, OpenError, Options};
use nova_wire::v1::SnapshotChunk;
use prost::Message;

use crate::{byte, messages, short, take};

const OPTIONS: Options = Options { magic: *b"HOSTILE1", cluster: [7; 16], segment_bytes: 16 << 10 };

pub(crate) fn folder() -> tempfile::TempDir {
    // Memory, where there is a file system of it: these files are synced.
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

/// What a journal shows, or that it cannot be opened.
fn shown(folder: &Path) -> Option<Vec<(u64, Bytes)>> {
    let mut frames = Vec::new();
    match Journal::open(folder, OPTIONS, |_, number, frame| frames.push((number, frame))) {
        Ok(_) => Some(frames),
        Err(OpenError::Io { path, source }) => panic!("{}: {source}", path.display()),
        Err(_) => None,
    }
}

/// A segment of a journal: never a frame that was not written, none in the middle is left out, and what was shown is shown
/// again.
///
/// The bytes are the whole file, or what frames hold and which of their bytes are changed.
pub fn segment(mut bytes: &[u8]) {
    let folder = folder();
    let file = folder.path().join("0000000000000001.log");
    let mut written = Vec::new();
    let raw = byte(&mut bytes) & 1 == 0;
    if raw {
        fs::write(&file, bytes).expect("there is room");
    } else {
        let mut journal = Journal::open(folder.path(), OPTIONS, |_, _, _| {}).expect("it is new");
        for number in 1..=u64::from(byte(&mut bytes) % 6) {
            let length = usize::from(byte(&mut bytes)) * 4;
            let frame = Bytes::copy_from_slice(take(&mut bytes, length));
            journal.commit(std::slice::from_ref(&frame)).expect("there is room");
            written.push((number, frame));
        }
        drop(journal);
        if let Ok(mut content) = fs::read(&file) {
            while bytes.len() >= 3 {
                let at = usize::from(short(&mut bytes)) % content.len();
                content[at] ^= byte(&mut bytes);
            }
            fs::write(&file, content).expect("there is room");
        }
    }
    let Some(frames) = shown(folder.path()) else { return };
    assert!(frames.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "numbers follow each other");
    if !raw {
        assert!(written.starts_with(&frames), "{frames:?} is not the beginning of {written:?}");
    }
    assert!(shown(folder.path()) == Some(frames), "what was shown is shown again");
}

/// A frame of the embedded bus.
pub fn bus_frame(bytes: &[u8]) {
    let records = nova_bus_embedded::hostile::records(bytes);
    // A record takes seven bytes at least.
    assert!(records.unwrap_or(0) <= bytes.len() / 7);
}

/// The replicated state in a snapshot: what is read is written and read as the same.
///
/// The bytes are the whole stream, or chunks behind their lengths, as if their checksums were right.
pub fn snapshot(mut bytes: &[u8]) {
    let state = if byte(&mut bytes) & 1 == 0 {
        let mut rest = bytes;
        nova_wire::read_snapshot(&mut rest).ok()
    } else {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let length = usize::from(short(&mut bytes));
            let Ok(chunk) = SnapshotChunk::decode(Bytes::copy_from_slice(take(&mut bytes, length))) else { return };
            chunks.push(chunk);
        }
        nova_wire::state_from_wire(chunks).ok()
    };
    let Some(state) = state else { return };
    let again = messages::again(&state);
    assert!(again == state);
}
