//! CPU of trees of processes, as the kernel counts it. PostgreSQL is a tree, and one whose leaves come and go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// One process in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Its own time and that of its children that have ended, in ticks.
    ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name of the program is in brackets and may hold anything, brackets too.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // Counted from the state, the third field of the whole line.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = (14..=17).map(field).sum::<Option<u64>>()?;
        Some(Self { parent: u32::try_from(field(4)?).ok()?, ticks })
    }
}

/// What the processes of the system use so far, by kind, and `client`: this process with those that it waited for.
pub(crate) fn read(kinds: &BTreeMap<&'static str, Vec<u32>>) -> io::Result<BTreeMap<String, Duration>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that ended meanwhile is counted with its parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| Stat::parse(&text));
        all.extend(stat.map(|stat| (pid, stat)));
    }
    let mut used = BTreeMap::new();
    for (kind, roots) in kinds {
        used.insert((*kind).to_owned(), time(tree(&all, roots)));
    }
    used.insert("client".to_owned(), time(all.get(&std::process::id()).map_or(0, |stat| stat.ticks)));
    Ok(used)
}

/// Ticks of `roots` and all below them.
fn tree(all: &BTreeMap<u32, Stat>, roots: &[u32]) -> u64 {
    let mut ticks = 0;
    let mut todo = roots.to_vec();
    while let Some(pid) = todo.pop() {
        ticks += all.get(&pid).map_or(0, |stat| stat.ticks);
        todo.extend(all.iter().filter(|(_, stat)| stat.parent == pid).map(|(pid, _)| *pid));
    }
    ticks
}

/// The kernel tells times in hundredths of a second, whatever its own clock ticks.
fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_the_name_of_the_program() {
        let line =
            "7 (a (b) c) S 5 7 7 0 -1 4194304 95 0 0 0 120 30 5 6 20 0 9 0 1000 4096000 256 18446744073709551615";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 5, ticks: 161 }));
        assert_eq!(Stat::parse("7 (short) S 1"), None);
    }

    #[test]
    fn a_tree_is_all_below_its_roots() {
        let stat = |parent, ticks| Stat { parent, ticks };
        let all = BTreeMap::from([(1, stat(0, 1)), (2, stat(1, 10)), (3, stat(2, 100)), (4, stat(1, 1_000))]);
        assert_eq!((tree(&all, &[2]), tree(&all, &[1]), tree(&all, &[3, 4]), tree(&all, &[9])), (110, 1_111, 1_100, 0));
    }

    #[test]
    fn own_work_is_counted_as_the_client() {
        let before = read(&BTreeMap::new()).unwrap()["client"];
        let mut sum = 0_u64;
        while read(&BTreeMap::new()).unwrap()["client"] < before + Duration::from_millis(20) {
            sum = (0..100_000_u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
        }
        assert_eq!(read(&BTreeMap::from([("none", vec![])])).unwrap()["none"], Duration::ZERO, "{sum}");
    }
}
