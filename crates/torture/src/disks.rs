//! Disks of members: file systems on loop devices, so that their power can be cut; and processes whose syncs are slow or fail.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rand::Rng;

use crate::tools::run;

/// The least that XFS takes; the file has holes.
const BYTES: u64 = 320 << 20;

/// A file system of its own. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Makes it in a directory, and mounts it there.
    ///
    /// # Errors
    /// When that is not permitted, or a tool is missing.
    pub fn make(dir: &Path, name: &str) -> Result<Self> {
        let disk = Self { image: dir.join(format!("{name}.img")), at: dir.join(name) };
        File::create(&disk.image)?.set_len(BYTES)?;
        std::fs::create_dir_all(&disk.at)?;
        run("mkfs.xfs", &["-q", "-f", &disk.image.display().to_string()])?;
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    fn mount(&self) -> Result<()> {
        run("mount", &["-o", "loop", &self.image.display().to_string(), &self.at.display().to_string()]).map(drop)
    }

    /// From now on nothing reaches it, not even what the system was about to write.
    ///
    /// # Errors
    /// When `xfs_io` fails.
    pub fn cut_power(&self) -> Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", &self.at.display().to_string()]).map(drop)
    }

    /// Brings it back as it was when its power was cut. Nobody may have a file of it open.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn power_on(&self) -> Result<()> {
        run("umount", &[&self.at.display().to_string()])?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure; a mount that is not there is none.
        let _ = run("umount", &[&self.at.display().to_string()]);
    }
}

/// Whether a power cut takes away here what was not synced, and nothing else.
///
/// # Errors
/// With what is missing.
pub fn probe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = Disk::make(dir.path(), "probe")?;
    let (synced, lost) = (disk.path().join("synced"), disk.path().join("lost"));
    std::fs::write(&synced, "x")?;
    File::open(&synced)?.sync_all()?;
    File::open(disk.path())?.sync_all()?;
    std::fs::write(&lost, "x")?;
    disk.cut_power()?;
    disk.power_on()?;
    if !synced.exists() || lost.exists() {
        bail!("a file system that is shut down keeps what was not synced, or loses what was");
    }
    Ok(())
}

/// What happens to the syncs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// They take so many milliseconds.
    Slow(u32),
    /// They fail.
    Fail,
}

/// Syncs of a process that are not what they were, until this is dropped.
#[derive(Debug)]
pub struct Tampered {
    strace: Child,
    log: PathBuf,
}

impl Tampered {
    /// Begins.
    ///
    /// # Errors
    /// When `strace` cannot be started.
    pub fn begin(pid: u32, syncs: Syncs, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("strace-{pid}-{:x}", rand::rng().random::<u32>()));
        let how = match syncs {
            Syncs::Slow(ms) => format!("inject=fdatasync,fsync:delay_enter={}", ms * 1_000),
            Syncs::Fail => "inject=fdatasync,fsync:error=EIO".to_owned(),
        };
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-e", &how, "-p", &pid.to_string(), "-o"]).arg(&log);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { strace: command.spawn().context("strace")?, log })
    }

    /// Whether the process is gone.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        matches!(self.strace.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// How many syncs it has tampered with.
    #[must_use]
    pub fn count(&self) -> u64 {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        said.lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count() as u64
    }
}

impl Drop for Tampered {
    fn drop(&mut self) {
        // It lets go of the process when it is asked to end; one that is killed may leave it standing still.
        let _ = run("kill", &["-TERM", &self.strace.id().to_string()]);
        let _ = self.strace.wait();
    }
}

/// Whether the syncs of a process can be tampered with here.
///
/// # Errors
/// With what is missing.
pub fn probe_syncs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let script = "for i in $(seq 100); do sync --data \"$0\" || exit 7; sleep 0.05; done";
    let mut child = Command::new("bash").args(["-c", script]).arg(dir.path()).stderr(Stdio::null()).spawn()?;
    let tampered = Tampered::begin(child.id(), Syncs::Fail, dir.path())?;
    let status = child.wait()?;
    if status.code() != Some(7) || tampered.count() == 0 {
        bail!("strace makes no sync fail");
    }
    Ok(())
}
