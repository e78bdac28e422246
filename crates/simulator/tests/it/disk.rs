//! What is kept on disk, when syncs fail and power does too.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nova_journal::{Journal, Options};
use nova_simulator::{Trouble, World, simulate};

const OPTIONS: Options = Options { magic: *b"NOVATEST", cluster: [7; 16], segment_bytes: 4_096 };
const HOST: &str = "a";

fn frame(number: u64) -> Bytes {
    vec![number as u8; 700].into()
}

/// Opens the journal and looks that it holds the first frames, and so many of them at least; gives how many there are.
fn open(dir: &Path, least: u64) -> (Journal, u64) {
    let mut count = 0;
    let journal = Journal::open(dir, OPTIONS, |_, number, bytes| {
        assert_eq!((number, &bytes), (count + 1, &frame(number)));
        count += 1;
    });
    let journal = journal.expect("it opens");
    assert!(count >= least, "{count} frames of {least}");
    (journal, count)
}

/// A process of the host opens the journal, which holds so many frames at least, and does this; meanwhile syncs fail.
fn on_host(world: &mut World, dir: &Path, least: u64, fails: bool, act: impl FnOnce(Journal, u64) + Send + 'static) {
    let done = Arc::new(AtomicBool::new(false));
    let (own, dir) = (Arc::clone(&done), dir.to_owned());
    let process = world.start(HOST, |_| async move {
        let (journal, count) = open(&dir, least);
        tokio::time::sleep(Duration::from_secs(1)).await;
        act(journal, count);
        own.store(true, Ordering::Relaxed);
    });
    world.run_for(Duration::from_millis(500));
    world.trouble(HOST, fails.then_some(Trouble::Fails));
    world.run_for(Duration::from_secs(1));
    world.trouble(HOST, None);
    world.kill(process);
    assert!(done.load(Ordering::Relaxed), "it panicked");
}

fn write(journal: &mut Journal, numbers: RangeInclusive<u64>) {
    for number in numbers {
        journal.commit(&[frame(number)]).expect("it is written");
    }
}

/// Writes some frames, has a sync fail after some more, starts again on a disk that is well, writes others, and loses power.
fn through_failing_syncs(seed: u64, before: u64, after: u64) {
    let folder = tempfile::tempdir().expect("a directory");
    let dir: PathBuf = folder.path().join(HOST).join("log");
    std::fs::create_dir_all(&dir).expect("a directory");
    simulate(seed, |mut world| {
        world.put_disks_at(folder.path());
        on_host(&mut world, &dir, 0, false, move |mut journal, _| write(&mut journal, 1..=before));
        on_host(&mut world, &dir, before, true, move |mut journal, count| {
            journal.commit(&[frame(count + 1)]).expect_err("it is not synced");
        });
        on_host(&mut world, &dir, before, false, move |mut journal, count| {
            write(&mut journal, count + 1..=count + after);
        });
        world.power_fails(HOST);
        on_host(&mut world, &dir, before + after, false, |_, _| {});
    });
}

#[test]
fn what_is_written_behind_a_sync_that_failed_is_kept() {
    for seed in 0..30 {
        for before in [0, 1, 4, 5, 6] {
            through_failing_syncs(seed, before, 3);
        }
    }
}

#[test]
fn what_was_synced_is_kept_when_power_fails_at_any_time() {
    for seed in 0..60 {
        let folder = tempfile::tempdir().expect("a directory");
        let dir: PathBuf = folder.path().join(HOST).join("log");
        std::fs::create_dir_all(&dir).expect("a directory");
        simulate(seed, |mut world| {
            world.put_disks_at(folder.path());
            let mut written = 0;
            for more in [3, 1, 7, 0, 5] {
                on_host(&mut world, &dir, written, false, move |mut journal, count| {
                    write(&mut journal, count + 1..=count + more);
                });
                written += more;
                world.power_fails(HOST);
            }
        });
    }
}
