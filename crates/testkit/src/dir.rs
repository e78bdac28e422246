//! Directories of a run.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// A directory that is removed with everything in it when this is dropped, unless it was given by the caller or
/// `NOVA_KEEP` is set.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Dir {
    /// A new temporary directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary() -> Result<Self> {
        Self::temporary_in(&std::env::temp_dir())
    }

    /// A new temporary directory inside `parent`, which decides on which disk it is.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary_in(parent: &Path) -> Result<Self> {
        std::fs::create_dir_all(parent).map_err(Error::file("make", parent))?;
        let made = tempfile::Builder::new().prefix("nova-").tempdir_in(parent);
        let mut made = made.map_err(Error::file("make a directory in", parent))?;
        if std::env::var_os("NOVA_KEEP").is_some_and(|value| value != "0") {
            made.disable_cleanup(true);
        }
        Ok(Self { path: made.path().to_owned(), temporary: Some(made) })
    }

    /// A directory of the caller; it is made when it is missing and stays.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn kept(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path).map_err(Error::file("make", &path))?;
        Ok(Self { path, temporary: None })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is, for a look.
    pub fn keep(&mut self) -> &Path {
        if let Some(temporary) = &mut self.temporary {
            temporary.disable_cleanup(true);
        }
        &self.path
    }

    /// Bytes on the disk of all files in it; files that go away meanwhile count nothing.
    #[must_use]
    pub fn bytes_on_disk(&self) -> u64 {
        bytes_on_disk(&self.path)
    }
}

/// Bytes on the disk of a file, or of all files in a directory; those that go away meanwhile count nothing.
#[must_use]
pub fn bytes_on_disk(path: &Path) -> u64 {
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let entries = metadata.is_dir().then(|| std::fs::read_dir(path).ok()).flatten().into_iter().flatten();
    let inside: u64 = entries.filter_map(Result::ok).map(|entry| bytes_on_disk(&entry.path())).sum();
    metadata.blocks() * 512 + inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_the_disk_is_counted() {
        let dir = Dir::temporary().unwrap();
        let before = dir.bytes_on_disk();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/b"), vec![7; 100_000]).unwrap();
        let more = dir.bytes_on_disk() - before;
        // In whole blocks, with its directory.
        assert!((100_000..150_000).contains(&more), "{more}");
    }
}
