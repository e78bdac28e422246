//! The journal from outside: what was promised is there, what is damaged is refused.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nova_journal::{DirLock, Journal, LockError, OpenError, Options};

fn options() -> Options {
    Options { magic: *b"NOVATEST", cluster: [1; 16], segment_bytes: 4_096 }
}

fn open(dir: &Path) -> Result<(Journal, Vec<Bytes>), OpenError> {
    let mut frames = Vec::new();
    let journal = Journal::open(dir, options(), |_, _, payload| frames.push(payload))?;
    Ok((journal, frames))
}

fn payload(n: u32) -> Bytes {
    Bytes::from(format!("frame {n} {}", "x".repeat((n % 7) as usize * 40)))
}

fn filled(dir: &Path, frames: u32) -> Vec<PathBuf> {
    let (mut journal, _) = open(dir).expect("an empty directory opens");
    for n in 0..frames {
        let whole = payload(n);
        journal.commit(&[whole.slice(..3), whole.slice(3..)]).expect("there is space");
    }
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some());
    files.sort();
    files
}

fn expected(frames: u32) -> Vec<Bytes> {
    (0..frames).map(payload).collect()
}

#[test]
fn frames_survive_reopening_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 100);
    assert!(files.len() > 2, "several segments");
    let (mut journal, frames) = open(dir.path()).expect("it opens again");
    assert_eq!(frames, expected(100));
    let at = journal.commit(&[payload(100)]).expect("it goes on");
    assert_eq!(journal.read(at).unwrap(), payload(100));
    assert_eq!(open(dir.path()).expect("again").1, expected(101));
}

/// A segment is read in pieces of a megabyte: frames end before, at and behind their ends, and some are larger.
#[test]
fn frames_of_any_size_survive_reopening_and_a_torn_one_behind_them_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let large = || Options { segment_bytes: 64 << 20, ..options() };
    let piece = 1 << 20;
    let sizes = [1, piece - 61, 0, piece - 20, piece, 3 * piece + 7, 5, piece + 1, 700_000, 700_000, 3];
    let frames: Vec<_> = (1_u8..).zip(sizes).map(|(n, size)| Bytes::from(vec![n; size])).collect();
    let mut journal = Journal::open(dir.path(), large(), |_, _, _| {}).unwrap();
    for frame in &frames {
        journal.commit(std::slice::from_ref(frame)).unwrap();
    }
    drop(journal);
    let shown = || {
        let mut shown = Vec::new();
        Journal::open(dir.path(), large(), |_, _, payload| shown.push(payload)).map(|_| shown)
    };
    assert!(shown().unwrap() == frames);
    let file = dir.path().join("0000000000000001.log");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(shown().unwrap() == frames[..frames.len() - 1]);
    // With a whole frame behind it, it was synced.
    bytes[last] ^= 1;
    bytes[3 << 20] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(shown(), Err(OpenError::Damaged { .. })));
}

/// A file system may keep no zeros, as a copy without holes filled in does.
#[test]
fn a_frame_that_ends_in_a_hole_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let large = || Options { segment_bytes: 1 << 20, ..options() };
    let frames = [Bytes::from_static(&[7; 100]), Bytes::from_static(&[0; 16_384])];
    let mut journal = Journal::open(dir.path(), large(), |_, _, _| {}).unwrap();
    for frame in &frames {
        journal.commit(std::slice::from_ref(frame)).unwrap();
    }
    drop(journal);
    let path = dir.path().join("0000000000000001.log");
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let sparse = |bytes: &[u8]| {
        fs::write(&path, &bytes[..used]).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(bytes.len() as u64).unwrap();
    };
    sparse(&bytes);
    let mut shown = Vec::new();
    drop(Journal::open(dir.path(), large(), |_, _, payload| shown.push(payload)).unwrap());
    assert!(shown == frames);
    let mut bad = fs::read(&path).unwrap();
    bad[70] ^= 4;
    sparse(&bad);
    assert!(matches!(Journal::open(dir.path(), large(), |_, _, _| {}), Err(OpenError::Damaged { .. })));
}

#[test]
fn a_torn_tail_is_cut_wherever_it_is_torn() {
    let source = tempfile::tempdir().unwrap();
    let files = filled(source.path(), 10);
    let last = files.last().unwrap();
    let whole = fs::read(last).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap() + 1;
    let dir = tempfile::tempdir().unwrap();
    for file in &files {
        fs::copy(file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    let target = dir.path().join(last.file_name().unwrap());
    let frame = payload(9).len() + 20;
    for cut in used - frame..used {
        let mut torn = whole.clone();
        torn[cut..].fill(0);
        fs::write(&target, &torn).unwrap();
        assert_eq!(open(dir.path()).expect("a torn tail is no damage").1, expected(9), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_in_a_synced_frame_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 40);
    for file in [&files[0], files.last().unwrap()] {
        let good = fs::read(file).unwrap();
        let mut bad = good.clone();
        bad[70] ^= 4;
        fs::write(file, &bad).unwrap();
        match open(dir.path()) {
            Err(OpenError::Damaged { path, .. }) => assert_eq!(&path, file),
            Ok(_) => panic!("damage was not seen"),
            Err(other) => panic!("{other}"),
        }
        fs::write(file, &good).unwrap();
    }
}

#[test]
fn a_damaged_header_never_takes_frames_with_it() {
    let dir = tempfile::tempdir().unwrap();
    // One large frame, so that a lost page takes its beginning and leaves its end.
    let (mut journal, _) = open(dir.path()).unwrap();
    journal.commit(&[Bytes::from(vec![7; 10_000])]).unwrap();
    drop(journal);
    let file = dir.path().join("0000000000000001.log");
    let good = fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        bad
    };
    let mut zeroed = good.clone();
    zeroed[..4_096].fill(0);
    for bad in (0..40).map(flipped).chain([zeroed]) {
        fs::write(&file, &bad).unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
        assert_eq!(fs::read(&file).unwrap(), bad, "it is left as it was found");
    }
}

#[test]
fn a_segment_that_was_being_made_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    for size in [0, 20, 4_096] {
        fs::write(dir.path().join("0000000000000001.log"), vec![0; size]).unwrap();
        let (mut journal, frames) = open(dir.path()).unwrap();
        assert!(frames.is_empty());
        journal.commit(&[payload(0)]).unwrap();
        fs::remove_file(dir.path().join("0000000000000001.log")).unwrap();
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 100);
    fs::remove_file(&files[1]).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })));
}

#[test]
fn old_files_in_the_place_of_newer_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 10);
    let last = files.last().unwrap();
    let old = fs::read(last).unwrap();
    for n in 11..13 {
        let (mut journal, _) = open(dir.path()).expect("it opens");
        journal.commit(&[payload(n)]).expect("written");
    }
    let newer = fs::read(last).unwrap();
    fs::write(last, old).unwrap();
    for _ in 0..2 {
        let refused = open(dir.path()).map(drop);
        assert!(matches!(refused, Err(OpenError::Older { found: 11, promised: 12, .. })), "{refused:?}");
    }
    fs::write(last, newer).unwrap();
    assert_eq!(open(dir.path()).expect("it opens").1.len(), 12);

    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let refused = open(dir.path()).map(drop);
    assert!(matches!(refused, Err(OpenError::Older { found: 1, promised: 12, .. })), "{refused:?}");
}

#[test]
fn what_says_how_long_it_was_is_not_believed_when_damaged() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3);
    let path = dir.path().join("opened");
    let good = fs::read(&path).unwrap();
    for length in 0..good.len() {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })), "{length} bytes");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bad).unwrap();
        assert!(matches!(open(dir.path()), Err(OpenError::Damaged { .. })), "bit {bit}");
    }
}

#[test]
fn another_cluster_and_a_newer_format_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = filled(dir.path(), 1);
    let foreign = Options { cluster: [2; 16], ..options() };
    assert!(matches!(Journal::open(dir.path(), foreign, |_, _, _| {}), Err(OpenError::ForeignCluster { .. })));
    let mut bytes = fs::read(&files[0]).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..36]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    fs::write(&files[0], bytes).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::NewerFormat { found: 9, .. })));
}

/// Opens what another process left; run by the test below, which watches its system calls.
#[test]
#[ignore = "run by another test"]
fn opener() {
    open(Path::new(&std::env::var_os("JOURNAL").unwrap())).unwrap();
}

#[test]
fn what_a_killed_process_left_is_synced_before_it_is_built_upon() {
    let dir = tempfile::tempdir().unwrap();
    let last = filled(dir.path(), 100).pop().unwrap();
    let traced = dir.path().join("traced");
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-o"]).arg(&traced);
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", "opener", "--ignored"]);
    let run = strace.env("JOURNAL", dir.path()).output().expect("strace is there; scripts/setup.sh test installs it");
    assert!(run.status.success(), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"), "the opener ran: {run:?}");
    let traced = fs::read_to_string(traced).unwrap();
    for path in [last.as_path(), dir.path()] {
        assert!(traced.contains(&format!("<{}>", path.display())), "{} is not synced: {traced}", path.display());
    }
}

#[test]
fn old_segments_go_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100);
    let (mut journal, _) = open(dir.path()).unwrap();
    let first = journal.drop_below(60).unwrap();
    assert!(first > 1 && first <= 60);
    drop(journal);
    let mut numbers = Vec::new();
    Journal::open(dir.path(), options(), |_, number, _| numbers.push(number)).unwrap();
    assert_eq!(numbers, (first..=100).collect::<Vec<_>>());
}

#[test]
fn a_directory_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let held = DirLock::take(dir.path()).unwrap();
    assert!(matches!(DirLock::take(dir.path()), Err(LockError::InUse { .. })));
    drop(held);
    DirLock::take(dir.path()).unwrap();
}
