//! What is to be known of the machine before a figure from it means anything.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Error;

/// Others may use this much of the CPU.
pub const MAX_FOREIGN_PERCENT: f64 = 10.0;
/// How long the machine is watched.
const WATCH: Duration = Duration::from_secs(1);
const SYNCS: usize = 200;
const SYNC_BUDGET: Duration = Duration::from_secs(5);

/// A machine, just before a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Model of its CPU.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Load average of 1, 5 and 15 minutes.
    pub load_average: String,
    /// Idle share of all cores, in percent.
    pub idle_percent: f64,
    /// File system under the data directory.
    pub file_system: String,
    /// A 4 KiB append and `fdatasync` in the data directory: median, in microseconds.
    pub fdatasync_p50_us: u64,
    /// The same: 99th percentile.
    pub fdatasync_p99_us: u64,
}

impl Machine {
    /// Looks at the machine for a second, and at the disk under `data`.
    ///
    /// # Errors
    /// When something cannot be read, or the disk cannot be written.
    pub fn look(data: &Path) -> Result<Self, Error> {
        let before = Ticks::now()?;
        std::thread::sleep(WATCH);
        let after = Ticks::now()?;
        let (p50, p99) = syncs(data).map_err(|source| Error::Machine { what: "the disk".into(), source })?;
        let meminfo = read("/proc/meminfo")?;
        let memory_kib = field(&meminfo, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Ok(Self {
            cpu: field(&read("/proc/cpuinfo")?, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_mib: memory_kib.unwrap_or(0) / 1_024,
            load_average: read("/proc/loadavg")?.split(' ').take(3).collect::<Vec<_>>().join(" "),
            idle_percent: 100.0 - after.busy_percent_since(before),
            file_system: file_system(data)?,
            fdatasync_p50_us: p50,
            fdatasync_p99_us: p99,
        })
    }

    /// That others leave enough of it.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn check(&self) -> Result<(), Error> {
        let percent = 100.0 - self.idle_percent;
        if percent <= MAX_FOREIGN_PERCENT { Ok(()) } else { Err(Error::Busy { percent, limit: MAX_FOREIGN_PERCENT }) }
    }
}

/// Time of all cores since the machine began, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// Doing something, for us or for another guest of the host.
    pub busy: u64,
    /// All.
    pub total: u64,
}

impl Ticks {
    /// Until now.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read.
    pub fn now() -> Result<Self, Error> {
        let text = read("/proc/stat")?;
        let wrong = || Error::Machine { what: "/proc/stat".into(), source: io::ErrorKind::InvalidData.into() };
        Self::parse(&text).ok_or_else(wrong)
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let fields: Option<Vec<u64>> = line.split_whitespace().take(8).map(|field| field.parse().ok()).collect();
        let fields = fields.filter(|fields| fields.len() == 8)?;
        let total = fields.iter().sum::<u64>();
        // The fourth is idle, the fifth waits for the disk with nothing else to do.
        Some(Self { busy: total - fields[3] - fields[4], total })
    }

    /// Busy share of all cores since `earlier`, in percent.
    #[must_use]
    pub fn busy_percent_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total).max(1);
        100.0 * self.busy.saturating_sub(earlier.busy) as f64 / total as f64
    }
}

/// Kind and device of what is mounted closest above `data`, with the kind of its disk where the kernel tells.
fn file_system(data: &Path) -> Result<String, Error> {
    let whole = data.canonicalize().map_err(|source| Error::Machine { what: data.display().to_string(), source })?;
    let mounts = read("/proc/self/mountinfo")?;
    Ok(mount_of(&mounts, &whole).unwrap_or_else(|| "unknown".into()))
}

fn mount_of(mounts: &str, data: &Path) -> Option<String> {
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let (left, right) = line.split_once(" - ")?;
        let place = left.split(' ').nth(4)?;
        let mut right = right.split(' ');
        let (kind, device) = (right.next()?, right.next()?);
        // The last of equal ones covers those before.
        if data.starts_with(place) && best.as_ref().is_none_or(|(length, _)| *length <= place.len()) {
            best = Some((place.len(), format!("{kind} on {device}")));
        }
    }
    best.map(|(_, text)| text)
}

fn read(path: &str) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Machine { what: path.to_owned(), source })
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find_map(|(key, value)| (key.trim() == name).then(|| value.trim()))
}

/// Median and 99th percentile of an append with its sync, in microseconds.
fn syncs(data: &Path) -> io::Result<(u64, u64)> {
    std::fs::create_dir_all(data)?;
    let mut file: File = tempfile::tempfile_in(data)?;
    let block = [7_u8; 4_096];
    let begun = Instant::now();
    let mut took = Vec::with_capacity(SYNCS);
    while took.len() < SYNCS && begun.elapsed() < SYNC_BUDGET {
        let at = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(at.elapsed().as_micros() as u64);
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    Ok((at(50), at(99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_and_compared() {
        let ticks = |text| Ticks::parse(text).unwrap();
        let before = ticks("cpu  100 0 100 700 50 0 0 50 0 0\ncpu0 1 2 3 4\n");
        assert_eq!(before, Ticks { busy: 250, total: 1_000 });
        let after = ticks("cpu  120 0 110 760 50 0 0 60 0 0\n");
        assert!((after.busy_percent_since(before) - 40.0).abs() < 1e-9);
        assert_eq!(Ticks::parse("cpu  1 2 3\n"), None);
        assert_eq!(Ticks::parse(""), None);
    }

    #[test]
    fn the_closest_mount_is_told() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:5 / /tmp/a rw,x shared:2 - tmpfs none rw\n";
        let of = |path: &str| mount_of(mounts, Path::new(path)).unwrap();
        assert_eq!(
            (of("/tmp/a/b"), of("/tmp/ab"), of("/")),
            ("tmpfs on none".into(), "ext4 on /dev/vda".into(), "ext4 on /dev/vda".into())
        );
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let text = "processor\t: 0\nmodel name\t: Fast One @ 2.0GHz: x\nmodel name\t: other\n";
        assert_eq!(field(text, "model name"), Some("Fast One @ 2.0GHz: x"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn a_busy_machine_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::look(dir.path()).unwrap();
        assert!(machine.fdatasync_p50_us <= machine.fdatasync_p99_us && machine.memory_mib > 0, "{machine:?}");
        let with = |idle_percent| Machine { idle_percent, ..machine.clone() }.check();
        assert!(with(95.0).is_ok());
        assert!(matches!(with(50.0), Err(Error::Busy { .. })));
    }
}
