use std::ffi::CString;
use std::io::Write;

use super::*;

/// A host of one file, whose disk is told what is done.
struct Host {
    dir: tempfile::TempDir,
    disks: Disks,
}

/// When all syncs are done.
const LATER: i64 = 1_000_000_000;

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no zeros")
}

impl Host {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut disks = Disks::new(seed);
        disks.put_at(dir.path());
        fs::create_dir(dir.path().join("a")).expect("a directory");
        Self { dir, disks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("a").join(name)
    }

    fn make(&mut self, name: &str) -> File {
        let path = self.path(name);
        assert_eq!(self.disks.opens(&c(&path), true, false), None);
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("it is made");
        self.disks.opened(&c(&path), false, file.metadata().expect("it is there").ino());
        file
    }

    fn write(&mut self, file: &File, at: u64, bytes: &[u8]) -> Refused {
        let about = file.metadata().expect("it is there");
        let refused = self.disks.writes(file, about.ino(), about.len(), at, bytes.len() as u64);
        if refused.is_none() {
            file.write_all_at(bytes, at).expect("it is written");
        }
        refused
    }

    fn sync(&mut self, file: &File) -> Result<Duration, i32> {
        self.disks.syncs(file.metadata().expect("it is there").ino(), false)
    }

    fn power_fails(&mut self, at_ns: i64) -> io::Result<()> {
        self.disks.time(at_ns, Duration::ZERO);
        self.disks.power_fails("a")
    }

    fn sync_folder(&mut self) {
        let folder = fs::metadata(self.dir.path().join("a")).expect("it is there");
        self.disks.syncs(folder.ino(), true).expect("it is synced");
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let mut found = [0; 3];
    for seed in 0..60 {
        let mut host = Host::new(seed);
        let file = host.make("f");
        host.write(&file, 0, &[1; 2_000]);
        host.sync(&file).expect("it is synced");
        host.sync_folder();
        host.write(&file, 1_000, &[2; 3_000]);
        host.power_fails(LATER).expect("files can be changed");
        let left = host.read("f").expect("its name was synced");
        assert!(left.len() >= 2_000 && left[..1_000].iter().all(|byte| *byte == 1), "seed {seed}");
        let kind = match () {
            () if left == [1; 2_000] => 0,
            () if left[1_000..] == [2; 3_000] => 1,
            () => 2,
        };
        found[kind] += 1;
    }
    assert!(found.iter().all(|count| *count > 5), "all, nothing, and some sectors: {found:?}");
}

#[test]
fn names_that_were_not_synced_may_go() {
    let mut found = [0; 2];
    for seed in 0..40 {
        let mut host = Host::new(seed);
        let file = host.make("f");
        host.write(&file, 0, b"new");
        host.sync(&file).expect("it is synced");
        host.power_fails(LATER).expect("files can be changed");
        found[usize::from(host.read("f").is_some())] += 1;
        drop(file);
    }
    assert!(found[0] > 5 && found[1] > 5, "{found:?}");
}

#[test]
fn no_power_brings_back_what_was_removed_for_good() {
    for seed in 0..20 {
        let mut host = Host::new(seed);
        let file = host.make("new");
        host.write(&file, 0, b"1");
        let (from, to) = (host.path("new"), host.path("name"));
        host.disks.renames(&c(&from), &c(&to));
        fs::rename(&from, &to).expect("it is renamed");
        host.disks.empties("a").expect("it is removed");
        host.power_fails(LATER).expect("there is nothing to be taken back");
        assert_eq!((host.read("new"), host.read("name")), (None, None), "seed {seed}");
        host.disks.empties("a").expect("there is nothing");
    }
}

#[test]
fn a_rename_is_whole_or_was_not() {
    let mut found = [0; 2];
    for seed in 0..40 {
        let mut host = Host::new(seed);
        for (name, text) in [("old", "old"), ("new", "new")] {
            let mut file = host.make(name);
            file.write_all(text.as_bytes()).expect("it is written");
            host.sync(&file).expect("it is synced");
        }
        host.sync_folder();
        let (from, to) = (host.path("new"), host.path("old"));
        host.disks.renames(&c(&from), &c(&to));
        fs::rename(&from, &to).expect("it is renamed");
        host.disks.removes(&c(&to));
        fs::remove_file(&to).expect("it is removed");
        host.power_fails(LATER).expect("files can be changed");
        match (host.read("old").as_deref(), host.read("new").as_deref()) {
            (Some(b"old"), Some(b"new")) => found[0] += 1,
            (Some(b"new") | None, None) => found[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(found[0] > 5 && found[1] > 5, "{found:?}");
}

#[test]
fn no_later_sync_saves_what_one_has_failed_to_write_unless_it_is_written_again() {
    for (again, safe) in [(false, false), (true, true)] {
        let mut lost = 0;
        for seed in 0..40 {
            let mut host = Host::new(seed);
            let file = host.make("f");
            host.sync_folder();
            host.write(&file, 0, b"new");
            host.disks.trouble("a", Some(Trouble::Fails));
            assert_eq!(host.sync(&file), Err(libc::EIO));
            host.disks.trouble("a", None);
            if again {
                host.write(&file, 0, b"new");
            }
            host.sync(&file).expect("nothing is the matter");
            host.power_fails(LATER).expect("files can be changed");
            lost += u32::from(host.read("f").as_deref() != Some(b"new"));
        }
        assert_eq!(lost == 0, safe, "{lost} of 40");
    }
}

#[test]
fn a_sync_that_is_not_done_saves_nothing() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut host = Host::new(seed);
        let file = host.make("f");
        host.sync_folder();
        host.write(&file, 0, b"new");
        let time = host.sync(&file).expect("it is on its way");
        host.power_fails(time.as_nanos() as i64 - 1).expect("files can be changed");
        lost += u32::from(host.read("f").as_deref() != Some(b"new"));
    }
    assert!(lost > 5, "{lost} of 40");
}

#[test]
fn what_would_have_come_behind_a_sync_that_is_not_done_was_not() {
    for seed in 0..40 {
        let mut host = Host::new(seed);
        let file = host.make("f");
        host.sync_folder();
        host.write(&file, 0, b"new");
        let time = host.sync(&file).expect("it is on its way");
        host.disks.time(0, time);
        host.write(&file, 3, b"er");
        let (from, to) = (host.path("f"), host.path("g"));
        host.disks.renames(&c(&from), &c(&to));
        fs::rename(&from, &to).expect("it is renamed");
        host.sync_folder();
        host.power_fails(time.as_nanos() as i64 - 1).expect("files can be changed");
        assert_eq!(host.read("g"), None, "seed {seed}");
        assert!(host.read("f").is_some_and(|left| left.len() <= 3), "seed {seed}");
    }
}

#[test]
fn a_disk_that_is_full_says_so() {
    let mut host = Host::new(1);
    let file = host.make("f");
    host.write(&file, 0, b"new");
    host.disks.trouble("a", Some(Trouble::Full));
    assert_eq!(host.write(&file, 0, b"old"), None, "it has this space");
    assert_eq!(host.write(&file, 3, b"more"), Some(libc::ENOSPC));
    assert_eq!(host.disks.opens(&c(&host.path("g")), true, false), Some(libc::ENOSPC));
    host.disks.trouble("a", None);
    assert_eq!(host.write(&file, 3, b"more"), None);
}
