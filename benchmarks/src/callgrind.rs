//! Counts the instructions of a part: this program runs itself under valgrind's callgrind.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::parts::{Part, Work};

/// Runs before those that are counted: tables are grown, features of the processor asked.
const WARM_UP: usize = 2;

/// Runs that are counted. What the allocator does depends a little on what it did before; several runs level that.
const RUNS: u64 = 8;

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// It is not installed.
    #[error("valgrind is missing: scripts/setup.sh test installs it")]
    NoValgrind,
    /// It could not be started, or left no file.
    #[error("cannot count {part}")]
    Io {
        /// Which part.
        part: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended badly.
    #[error("counting {part} failed:\n{output}")]
    Failed {
        /// Which part.
        part: &'static str,
        /// What it said.
        output: String,
    },
    /// Its file says nothing, or that nothing was counted.
    #[error("{path} holds no count")]
    NoCount {
        /// Which file.
        path: PathBuf,
    },
}

/// What is inside of this call is counted; callgrind finds it by its name.
#[inline(never)]
fn nova_guard_counted(work: &mut dyn Work) {
    work.run();
    // Without anything after it the call above would be a jump, and never come back to here.
    black_box(());
}

/// Runs a part the way it is counted.
pub fn run(part: &Part) {
    let mut work = (part.prepare)();
    for _ in 0..WARM_UP {
        work.ready();
        work.run();
    }
    for _ in 0..RUNS {
        work.ready();
        nova_guard_counted(black_box(&mut *work));
    }
}

/// Counts the instructions of one operation of a part; callgrind's file of it stays in `folder`. `program` must call [`run`] for the part
/// when its arguments are `count` and the part's name.
///
/// # Errors
/// See [`CountError`].
pub fn count(program: &Path, folder: &Path, part: &Part) -> Result<u64, CountError> {
    let failed = |source| CountError::Io { part: part.name, source };
    let path = folder.join(format!("{}.out", part.name));
    let output = Command::new(valgrind().ok_or(CountError::NoValgrind)?)
        // The environment lies on the stack: its length must not move what is counted.
        .env_clear()
        .args(["--tool=callgrind", "--toggle-collect=*nova_guard_counted*"])
        .arg(format!("--callgrind-out-file={}", path.display()))
        .arg(program)
        .args(["count", part.name])
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(CountError::Failed { part: part.name, output });
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let total = parse(&text).filter(|total| *total > 0).ok_or(CountError::NoCount { path })?;
    Ok(total / (RUNS * part.operations))
}

/// Where valgrind is.
pub fn valgrind() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|file| file.is_file())
}

/// The instructions that a callgrind file counts in all.
fn parse(text: &str) -> Option<u64> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().split(' ').next());
    // Whatever else is counted stands behind.
    (value("events:")? == "Ir").then_some(())?;
    value("totals:")?.parse().ok()
}

/// What a program says of itself, in one line.
#[must_use]
pub fn told_by(program: impl AsRef<OsStr>, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::parse;

    const FILE: &str =
        "# callgrind format\nversion: 1\ncreator: callgrind-3.19.0\npid: 7\ncmd: guard count x\npart: 1\n\n
desc: I1 cache: \ndesc: Trigger: Program termination\n\npositions: line\nevents: Ir\nsummary: 4096\n\n
fl=(1) x.rs\nfn=(1) nova_guard_counted\n12 4096\n\ntotals: 4096\n";

    #[test]
    fn the_total_of_instructions_is_read() {
        assert_eq!(parse(FILE), Some(4_096));
        assert_eq!(parse(&FILE.replace("events: Ir", "events: Ir Dr")), Some(4_096));
        assert_eq!(parse(&FILE.replace("totals: 4096", "totals: 4096 17")), Some(4_096));
    }

    #[test]
    fn a_file_of_something_else_is_no_count() {
        assert_eq!(parse(""), None);
        assert_eq!(parse(&FILE.replace("events: Ir", "events: Dr Ir")), None, "other events come first");
        assert_eq!(parse(&FILE.replace("totals:", "total:")), None, "it was cut");
        assert_eq!(parse(&FILE.replace("totals: 4096", "totals: many")), None);
    }
}
