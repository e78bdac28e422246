//! Processes that may open nothing more.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Files that it may open besides those that it has.
const MORE: usize = 2;
/// Longest wait for a connection to it, which a fault of the network may swallow.
const CONNECT: Duration = Duration::from_millis(50);

/// A process that may have hardly more files open than it has, until this is dropped.
#[derive(Debug)]
pub struct Starved {
    pid: Pid,
    most: usize,
    address: SocketAddr,
    open: Vec<TcpStream>,
}

impl Starved {
    /// Begins, with a process that listens at this address.
    ///
    /// # Errors
    /// When the limit cannot be set.
    pub fn begin(pid: u32, address: SocketAddr) -> Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
        let most = files(pid)? + MORE;
        limit(pid, Some(most as u64))?;
        Ok(Self { pid, most, address, open: Vec::new() })
    }

    /// Connects once more. Whether it has all the files that it may have, and connections wait for more.
    ///
    /// # Errors
    /// When its process is gone.
    pub fn has_run_out(&mut self) -> Result<bool> {
        self.open.extend(TcpStream::connect_timeout(&self.address, CONNECT));
        Ok(self.open.len() > MORE && files(self.pid)? >= self.most)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // One that died has no limit any more.
        let _ = limit(self.pid, None);
    }
}

fn files(pid: Pid) -> Result<usize> {
    let dir = format!("/proc/{}/fd", pid.as_raw_nonzero());
    Ok(std::fs::read_dir(dir)?.count())
}

/// So many, or as many as any process of ours.
fn limit(pid: Pid, files: Option<u64>) -> Result<()> {
    let own = getrlimit(Resource::Nofile);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: files.or(own.maximum), maximum: own.maximum })?;
    Ok(())
}

/// Whether a process can be kept from opening files here.
///
/// # Errors
/// When it opens them all the same.
pub fn probe() -> Result<()> {
    // A shell that cannot open what it is told to ends itself.
    let script = "i=0; while [ $i -lt 200 ]; do exec 9</dev/null; i=$((i+1)); sleep 0.02; done 2>/dev/null";
    let mut child = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
    let limited = limit(pid, Some(3));
    if limited.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    limited?;
    if status.success() {
        bail!("a process opens more files than it may");
    }
    Ok(())
}
