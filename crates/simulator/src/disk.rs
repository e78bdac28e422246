//! Disks of simulated hosts: real files, of which those of a host lose what was not synced when its power fails.
//!
//! Each change of a file notes what was there before, until the file is synced; each change of a directory, until that
//! is. When power fails, changes are taken back: all of them, some sectors of them, or none, as a disk may have written
//! what it was not told to. The calls that come here are in [`os`](crate::os).

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// How long a sync takes.
const SYNC: Duration = Duration::from_millis(1);
/// What is damaged at once, and what is spared at the end of a log, in bytes.
const PAGE: usize = 4_096;
const LAST_FRAME: usize = 64 << 10;
/// What a disk writes whole.
const SECTOR: u64 = 512;

/// What is the matter with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Each sync takes so long.
    Slow(Duration),
    /// Syncs fail with an error of the device, and nobody knows what is written.
    Fails,
    /// There is no space.
    Full,
}

/// All disks. What is done here is done to files as they are: calls that are made inside of a call are not simulated.
pub(crate) struct Disks {
    /// Directories of hosts lie here, by their names.
    root: PathBuf,
    files: BTreeMap<u64, Changed>,
    names: Vec<Name>,
    troubles: BTreeMap<String, Trouble>,
    next: u64,
    random: SmallRng,
    /// The world's time, and that of whoever makes a call: it is later where a sync was made on the only thread, and is
    /// waited for when all is done.
    now_ns: i64,
    own_ns: i64,
}

/// A file with changes that are not synced, oldest first.
struct Changed {
    host: String,
    undo: Vec<Undo>,
    /// Syncs on their way: when each is done, in nanoseconds, and how many of the changes it makes durable.
    syncing: Vec<(i64, usize)>,
    /// Changes of which a sync said that it failed: the system takes them for written, and no later sync writes them
    /// (Rebello et al.: Can Applications Recover from fsync Failures?, 2020).
    given_up: Vec<Undo>,
}

impl Changed {
    fn new(host: String) -> Self {
        Self { host, undo: Vec::new(), syncing: Vec::new(), given_up: Vec::new() }
    }

    /// A sync begins, and is done then.
    fn syncs(&mut self, done_ns: i64) {
        let before: usize = self.syncing.iter().map(|(_, count)| count).sum();
        self.syncing.push((done_ns, self.undo.len() - before));
    }

    /// Changes whose syncs are done are on disk, and so is what was given up and made again by them.
    fn settle(&mut self, now_ns: i64) {
        let done = self.syncing.iter().take_while(|(at, _)| *at <= now_ns).count();
        let count: usize = self.syncing.drain(..done).map(|(_, count)| count).sum();
        for done in self.undo.drain(..count) {
            self.given_up = std::mem::take(&mut self.given_up).into_iter().flat_map(|it| it.without(&done)).collect();
        }
    }

    /// A sync failed.
    fn give_up(&mut self) {
        self.syncing.clear();
        // That a file has another length stays to be written: only pages are taken for written.
        let (lengths, pages) = std::mem::take(&mut self.undo).into_iter().partition(|undo| undo.length == 0);
        self.undo = lengths;
        self.given_up.extend::<Vec<Undo>>(pages);
    }
}

/// What was there before a write, or before a file got another length.
struct Undo {
    at: u64,
    length: u64,
    /// What was there, as far as the file went.
    old: Vec<u8>,
    old_length: u64,
    /// When it was made.
    at_ns: i64,
}

impl Undo {
    fn end(&self) -> u64 {
        self.at + self.length.max(self.old.len() as u64)
    }

    /// What it would take back before and behind `done`.
    fn without(self, done: &Self) -> Vec<Self> {
        if done.end() <= self.at || self.end() <= done.at {
            return vec![self];
        }
        let part = |from: u64, to: u64| {
            let inside = |at: u64| ((at - self.at) as usize).min(self.old.len());
            let old = self.old[inside(from)..inside(to)].to_vec();
            Self { at: from, length: to - from, old, old_length: self.old_length, at_ns: self.at_ns }
        };
        let (before, behind) = ((self.at, done.at), (done.end(), self.end()));
        [before, behind].into_iter().filter(|(from, to)| from < to).map(|(from, to)| part(from, to)).collect()
    }
}

/// A change of a directory that is not synced. What it would lose lies in a place of its own.
struct Name {
    host: String,
    change: Change,
    /// When it was made, and is synced.
    at_ns: i64,
    synced_ns: i64,
}

enum Change {
    Made(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, lost: Option<PathBuf> },
    Removed { path: PathBuf, lost: PathBuf },
}

impl Change {
    /// Directories in which it shows.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        let paths: [Option<&PathBuf>; 2] = match self {
            Self::Made(path) | Self::Removed { path, .. } => [Some(path), None],
            Self::Renamed { from, to, .. } => [Some(from), Some(to)],
        };
        paths.into_iter().flatten().filter_map(|path| path.parent())
    }
}

/// What a call comes to without being made.
pub(crate) type Refused = Option<i32>;

impl Disks {
    /// Disks without hosts.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            root: PathBuf::new(),
            files: BTreeMap::new(),
            names: Vec::new(),
            troubles: BTreeMap::new(),
            next: 0,
            random: SmallRng::seed_from_u64(seed ^ 0x6469_736b),
            now_ns: 0,
            own_ns: 0,
        }
    }

    /// What time it is in the world, and how much later for whoever makes calls.
    pub(crate) fn time(&mut self, now_ns: i64, ahead: Duration) {
        (self.now_ns, self.own_ns) = (now_ns, now_ns + ahead.as_nanos() as i64);
    }

    /// Directories in this one are hosts from now on.
    pub(crate) fn put_at(&mut self, root: &Path) {
        root.clone_into(&mut self.root);
    }

    pub(crate) fn trouble(&mut self, host: &str, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => drop(self.troubles.insert(host.to_owned(), trouble)),
            None => drop(self.troubles.remove(host)),
        }
    }

    /// The host of a path, where it is one of ours.
    fn host(&self, path: &Path) -> Option<String> {
        if self.root.as_os_str().is_empty() {
            return None;
        }
        let below = path.strip_prefix(&self.root).ok()?;
        Some(below.components().next()?.as_os_str().to_str()?.to_owned())
    }

    /// A place for what a change of a directory would lose.
    fn spare(&mut self) -> PathBuf {
        self.next += 1;
        self.root.join(format!(".lost-{}", self.next))
    }

    fn changes(&mut self, host: String, change: Change) {
        self.names.push(Name { host, change, at_ns: self.own_ns, synced_ns: i64::MAX });
    }

    fn is_full(&self, host: &str) -> bool {
        self.troubles.get(host) == Some(&Trouble::Full)
    }

    /// Whether there is something of this name.
    pub(crate) fn is_there(&self, path: &CStr) -> bool {
        own(path).exists()
    }

    /// Before a file is opened; `makes` when it is made if it is not there, `empties` when all in it goes.
    pub(crate) fn opens(&mut self, path: &CStr, makes: bool, empties: bool) -> Refused {
        let (path, at_ns) = (own(path), self.own_ns);
        let host = self.host(&path)?;
        match fs::metadata(&path) {
            Ok(about) if about.is_file() => {
                let entry = self.files.entry(about.ino());
                let changed = entry.or_insert_with(|| Changed::new(host));
                if empties && about.len() > 0 {
                    let old = fs::read(&path).unwrap_or_default();
                    changed.undo.push(Undo { at: 0, length: 0, old, old_length: about.len(), at_ns });
                }
                None
            }
            Ok(_) => None,
            Err(_) if makes && self.is_full(&host) => Some(libc::ENOSPC),
            Err(_) => None,
        }
    }

    /// A file was opened; `was` is whether it had been there.
    pub(crate) fn opened(&mut self, path: &CStr, was: bool, inode: u64) {
        let path = own(path);
        let Some(host) = self.host(&path) else { return };
        if !was {
            // The number may have been another file's.
            self.files.insert(inode, Changed::new(host.clone()));
            self.changes(host, Change::Made(path));
        }
    }

    /// Before `length` bytes are written at a place of a file.
    pub(crate) fn writes(&mut self, file: &File, inode: u64, size: u64, at: u64, length: u64) -> Refused {
        let at_ns = self.own_ns;
        let full = self.files.get(&inode).is_some_and(|changed| self.is_full(&changed.host));
        let changed = self.files.get_mut(&inode)?;
        if full && at + length > size {
            return Some(libc::ENOSPC);
        }
        let mut old = vec![0; size.saturating_sub(at).min(length) as usize];
        if file.read_exact_at(&mut old, at).is_ok() {
            changed.undo.push(Undo { at, length, old, old_length: size, at_ns });
        }
        None
    }

    /// Before a file gets this length. Space that is taken counts as a new length.
    pub(crate) fn resizes(&mut self, file: &File, inode: u64, size: u64, length: u64) -> Refused {
        let at_ns = self.own_ns;
        let full = self.files.get(&inode).is_some_and(|changed| self.is_full(&changed.host));
        let changed = self.files.get_mut(&inode)?;
        if full && length > size {
            return Some(libc::ENOSPC);
        }
        let mut old = vec![0; size.saturating_sub(length) as usize];
        if file.read_exact_at(&mut old, length).is_ok() {
            changed.undo.push(Undo { at: length.min(size), length: 0, old, old_length: size, at_ns });
        }
        None
    }

    /// A file or directory is to be durable; gives an error of the system, or how long that takes.
    pub(crate) fn syncs(&mut self, inode: u64, is_folder: bool) -> Result<Duration, i32> {
        if is_folder {
            let here = |path: &Path| fs::metadata(path).is_ok_and(|about| about.ino() == inode);
            let (now_ns, own_ns) = (self.now_ns, self.own_ns);
            // One that shows in two directories is durable once one of them is: so file systems that keep a journal do it.
            for name in self.names.iter_mut().filter(|name| name.change.folders().any(here)) {
                name.synced_ns = name.synced_ns.min(own_ns);
            }
            let (synced, left): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.names).into_iter().partition(|name| name.synced_ns <= now_ns);
            self.names = left;
            synced.into_iter().for_each(|name| forget(&name.change));
            return Ok(Duration::ZERO);
        }
        let (now_ns, own_ns) = (self.now_ns, self.own_ns);
        let Some(changed) = self.files.get_mut(&inode) else { return Ok(Duration::ZERO) };
        changed.settle(now_ns);
        let time = match self.troubles.get(&changed.host) {
            Some(Trouble::Fails) => {
                changed.give_up();
                return Err(libc::EIO);
            }
            Some(Trouble::Full) if !changed.undo.is_empty() => return Err(libc::ENOSPC),
            Some(Trouble::Slow(time)) => *time,
            Some(Trouble::Full) | None => SYNC,
        };
        // Who is told of it when it is done.
        changed.syncs(own_ns + time.as_nanos() as i64);
        Ok(time)
    }

    /// Before a file gets another name.
    pub(crate) fn renames(&mut self, from: &CStr, to: &CStr) {
        let (from, to) = (own(from), own(to));
        let Some(host) = self.host(&from) else { return };
        let lost = to.exists().then(|| self.spare());
        let lost = lost.filter(|lost| fs::hard_link(&to, lost).is_ok());
        self.changes(host, Change::Renamed { from, to, lost });
    }

    /// Before a file is removed.
    pub(crate) fn removes(&mut self, path: &CStr) {
        let path = own(path);
        let Some(host) = self.host(&path) else { return };
        let lost = self.spare();
        if fs::hard_link(&path, &lost).is_ok() {
            self.changes(host, Change::Removed { path, lost });
        }
    }

    /// A bit of a file of a host is another one, or a page of it is lost; gives which. No process of it runs. The last frame
    /// of a log is left as it is: one that is damaged cannot be told from one that was never written whole.
    pub(crate) fn damages(&mut self, host: &str) -> io::Result<Option<String>> {
        let mut files = Vec::new();
        find(&self.root.join(host), &mut files)?;
        let mut used = Vec::new();
        for (path, _) in files {
            let bytes = read_written(&path)?;
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let end = if path.extension().is_some_and(|it| it == "log") { end.saturating_sub(LAST_FRAME) } else { end };
            if end > 0 {
                used.push((path, bytes, end));
            }
        }
        if used.is_empty() {
            return Ok(None);
        }
        let (path, mut bytes, end) = used.swap_remove(self.random.random_range(0..used.len()));
        let at = self.random.random_range(0..end);
        let page = at / PAGE * PAGE..(at / PAGE + 1) * PAGE;
        let what = if self.random.random_bool(0.5) || page.end > end {
            bytes[at] ^= 1 << self.random.random_range(0..8);
            format!("a bit of byte {at}")
        } else {
            bytes[page.clone()].fill(0);
            format!("page {}", page.start / PAGE)
        };
        let file = File::options().write(true).open(&path)?;
        let around = page.start..page.end.min(bytes.len());
        file.write_all_at(&bytes[around.clone()], around.start as u64)?;
        Ok(Some(format!("{what} of {}", path.strip_prefix(&self.root).unwrap_or(&path).display())))
    }

    /// All files of a host are gone for good: no power brings back what they were. No process of it runs.
    pub(crate) fn empties(&mut self, host: &str) -> io::Result<()> {
        self.names.retain(|name| {
            if name.host == host {
                forget(&name.change);
            }
            name.host != host
        });
        self.files.retain(|_, changed| changed.host != host);
        match fs::remove_dir_all(self.root.join(host)) {
            // It may have had none yet.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The power of a host failed: what was not synced may be gone. No process of it runs.
    pub(crate) fn power_fails(&mut self, host: &str) -> io::Result<()> {
        let now_ns = self.now_ns;
        let (own, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.names).into_iter().partition(|name| name.host == host);
        self.names = others;
        // Directories keep an order: the first of their changes are there.
        let made = own.iter().filter(|name| name.at_ns <= now_ns).count();
        let synced = own.iter().take_while(|name| name.synced_ns <= now_ns).count();
        let kept = self.random.random_range(synced..=made);
        for (place, name) in own.into_iter().enumerate().rev() {
            if place >= kept {
                take_back(&name.change)?;
            }
            forget(&name.change);
        }
        let mut files = Vec::new();
        find(&self.root.join(host), &mut files)?;
        for (path, inode) in files {
            if let Some(changed) = self.files.get_mut(&inode) {
                changed.settle(now_ns);
                let mut undo = std::mem::take(&mut changed.given_up);
                undo.append(&mut changed.undo);
                lose(&path, undo, now_ns, &mut self.random)?;
            }
        }
        self.files.retain(|_, changed| changed.host != host);
        Ok(())
    }
}

fn own(path: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}

/// What stands in a file, without the space behind it that was only taken.
fn read_written(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut end = 0;
    loop {
        end = match seek(&file, SeekFrom::Data(end)) {
            Ok(begin) => seek(&file, SeekFrom::Hole(begin))?,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
    }
    let mut bytes = vec![0; end as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// What a change has put aside is no longer needed.
fn forget(change: &Change) {
    match change {
        Change::Removed { lost, .. } | Change::Renamed { lost: Some(lost), .. } => remove(lost),
        Change::Made(_) | Change::Renamed { .. } => {}
    }
}

fn remove(path: &Path) {
    // It may be gone already.
    let _ = fs::remove_file(path);
}

fn take_back(change: &Change) -> io::Result<()> {
    match change {
        Change::Made(path) => remove(path),
        Change::Renamed { from, to, lost } => {
            fs::hard_link(to, from)?;
            remove(to);
            if let Some(lost) = lost {
                fs::hard_link(lost, to)?;
            }
        }
        Change::Removed { path, lost } => fs::hard_link(lost, path)?,
    }
    Ok(())
}

fn find(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut entries: Vec<_> = entries.collect::<io::Result<_>>()?;
    // The order of names in a directory is not that of any seed.
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let about = entry.metadata()?;
        if about.is_dir() {
            find(&entry.path(), files)?;
        } else {
            files.push((entry.path(), about.ino()));
        }
    }
    Ok(())
}

/// Takes changes of a file back: all, some sectors of them, or none.
fn lose(path: &Path, undo: Vec<Undo>, now_ns: i64, random: &mut SmallRng) -> io::Result<()> {
    let Some(first) = undo.first().map(|undo| undo.old_length) else { return Ok(()) };
    let luck = random.random_range(0..3);
    let file = File::options().write(true).open(path)?;
    for Undo { at, length, mut old, old_length, at_ns } in undo.into_iter().rev() {
        // What would have been done later was not.
        let whole = luck == 1 || at_ns > now_ns;
        // Where there was nothing, nothing is what a disk has that took the length and not the bytes.
        old.resize(old.len().max(length as usize), 0);
        let mut begin = at;
        let end = at + old.len() as u64;
        while begin < end {
            let next = ((begin / SECTOR + 1) * SECTOR).min(end);
            if whole || (luck == 2 && random.random_bool(0.5)) {
                file.write_all_at(&old[(begin - at) as usize..(next - at) as usize], begin)?;
            }
            begin = next;
        }
        if whole {
            file.set_len(old_length)?;
        }
    }
    if luck == 2 && random.random_bool(0.5) {
        let now = file.metadata()?.len();
        file.set_len(random.random_range(first.min(now)..=first.max(now)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
