//! How much was there when a directory was opened: old files that took the place of newer ones are as whole as those were.
//!
//! Before the first thing is written after that, the number that comes next is written down, and whoever opens the directory
//! later refuses what ends before that. An old copy of the whole directory is not found so, and neither is one of what was
//! written since.
//!
//! ```text
//! opened = next(8) crc(4)     little-endian; the CRC32C of the eight bytes before it
//! ```

use std::fs;
use std::io;
use std::path::Path;

use crate::{OpenError, write_file};

const NAME: &str = "opened";

fn content(next: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&next.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Refuses a directory in which the next number is `next`, when a higher one came next as it was opened before.
///
/// # Errors
/// [`OpenError::Older`]; [`OpenError::Damaged`] when the file does not hold what was written.
pub fn is_no_older(dir: &Path, next: u64) -> Result<(), OpenError> {
    let path = dir.join(NAME);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let promised = bytes.first_chunk().map(|next| u64::from_le_bytes(*next));
    match promised.filter(|promised| bytes[..] == content(*promised)) {
        None => Err(OpenError::Damaged { path, offset: 0 }),
        Some(promised) if next < promised => Err(OpenError::Older { path: dir.to_owned(), found: next, promised }),
        Some(_) => Ok(()),
    }
}

/// Writes down which number comes next. All below it is on disk.
///
/// # Errors
/// When the system refuses; not for a full disk, since what was written down before still holds.
pub fn write_down(dir: &Path, next: u64) -> io::Result<()> {
    match write_file(&dir.join(NAME), &content(next)) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
        other => other,
    }
}
