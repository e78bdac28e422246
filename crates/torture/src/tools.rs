//! Programs of the system that faults are made with.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs one to its end, and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    feed(program, args, "")
}

/// The same, with something to read.
///
/// # Errors
/// See [`run`].
pub fn feed(program: &str, args: &[&str], input: &str) -> Result<String> {
    let what = || format!("{program} {}", args.join(" "));
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(what)?;
    // One that reads nothing and has ended is told by its exit code.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(what)?;
    if !output.status.success() {
        bail!("{}: {} {}", what(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a program is there.
#[must_use]
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The library that shows processes another wall clock.
#[must_use]
pub fn faketime() -> Option<std::path::PathBuf> {
    let dirs = ["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let paths = dirs.map(|dir| Path::new(dir).join("faketime/libfaketimeMT.so.1"));
    paths.into_iter().find(|path| path.is_file())
}
