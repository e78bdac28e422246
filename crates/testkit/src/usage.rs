//! What processes use, as the kernel counts it.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use crate::{Error, Result};

/// CPU time and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads since it began; the kernel counts in hundredths of a second.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// The part of it that is of no file: what the process itself has asked for.
    pub anonymous_bytes: u64,
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            anonymous_bytes: self.anonymous_bytes + other.anonymous_bytes,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// CPU since `earlier`; the memory is that of now.
impl Sub for Usage {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), ..self }
    }
}

/// Of the process `pid`.
///
/// # Errors
/// When there is none.
pub fn usage_of(pid: u32) -> Result<Usage> {
    read(&format!("/proc/{pid}"))
}

/// Of this process.
///
/// # Errors
/// When `/proc` is not there.
pub fn own_usage() -> Result<Usage> {
    read("/proc/self")
}

fn read(process: &str) -> Result<Usage> {
    let file = |name: &str| {
        let path = format!("{process}/{name}");
        std::fs::read_to_string(&path).map_err(Error::file("read", path))
    };
    let (stat, status) = (file("stat")?, file("status")?);
    let unit = rustix::param::clock_ticks_per_second();
    parse(&stat, &status, unit, rustix::param::page_size() as u64)
        .ok_or_else(|| Error::Unexpected { what: process.to_owned(), why: [stat, status].concat() })
}

fn parse(stat: &str, status: &str, ticks_per_second: u64, page_bytes: u64) -> Option<Usage> {
    // The name of the program is in brackets and may hold anything, brackets too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    // Counted from the state, the third field of the whole line.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)? + field(15)?;
    let cpu = Duration::from_nanos(ticks * (1_000_000_000 / ticks_per_second.max(1)));
    let mut lines = status.lines();
    let kib = lines.find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())?;
    Some(Usage { cpu, rss_bytes: field(24)? * page_bytes, anonymous_bytes: kib << 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_of_the_program() {
        let line =
            "7 (a (b) c) S 1 7 7 0 -1 4194304 95 0 0 0 120 30 5 6 20 0 9 0 1000 4096000 256 18446744073709551615";
        let status = "Name:\ta\nVmRSS:\t    1024 kB\nRssAnon:\t     700 kB\nRssFile:\t 324 kB\n";
        let usage = parse(line, status, 100, 4096).unwrap();
        let cpu = Duration::from_millis(1_500);
        assert_eq!(usage, Usage { cpu, rss_bytes: 256 * 4096, anonymous_bytes: 700 << 10 });
        assert_eq!(parse("7 (short) S 1", status, 100, 4096), None);
        assert_eq!(parse(line, "Name:\ta\n", 100, 4096), None);
        assert_eq!(parse("", "", 100, 4096), None);
    }

    #[test]
    fn work_is_counted() {
        let before = own_usage().unwrap();
        let mut sum = 0_u64;
        while (own_usage().unwrap() - before).cpu < Duration::from_millis(20) {
            sum = (0..100_000_u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert!(before.rss_bytes > 0, "{sum}");
    }
}
