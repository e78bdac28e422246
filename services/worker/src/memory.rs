//! What a directory remembers across restarts: the last session that was begun on it (rule 21).

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "session.json";

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub last_session: u64,
}

pub(crate) fn load(dir: &Path) -> io::Result<Memory> {
    match std::fs::read(dir.join(FILE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(error),
    }
}

pub(crate) fn save(dir: &Path, memory: Memory) -> io::Result<()> {
    nova_journal::write_file(&dir.join(FILE), &serde_json::to_vec(&memory)?)
}
