//! openraft's own suite for logs and state machines, and ours for the stores, on both stores.

use std::io::{Read, Write};

use bytes::Bytes;
use futures::TryStreamExt;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, StorageError};
use tempfile::TempDir;

use crate::log::{Log, LogKind};
use crate::machine::{ApplyError, Committed, Machine, StateMachine};
use crate::snapshot::SnapshotDir;
use crate::types::{Entry, LeaderId, Opaque, Types, Vote, log_id};

#[derive(Default)]
pub(crate) struct Concatenation(Vec<u8>);

impl StateMachine for Concatenation {
    type Frozen = Vec<u8>;

    fn apply(&mut self, command: Committed<'_>) -> Result<Bytes, ApplyError> {
        self.0.extend_from_slice(command.command);
        Ok(Bytes::new())
    }

    fn applied(&mut self) {}

    fn freeze(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn write(frozen: Vec<u8>, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&frozen)
    }

    fn restore(&mut self, input: &mut (dyn Read + Send)) -> Result<(), ApplyError> {
        self.0.clear();
        input.read_to_end(&mut self.0).map(drop).map_err(|error| ApplyError(error.to_string()))
    }
}

struct Builder(LogKind);

impl StoreBuilder<Types, Log, Machine<Concatenation>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine<Concatenation>), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::open(self.0, &dir.path().join("log"), [1; 16]).expect("an empty log opens");
        let snapshots = SnapshotDir::open(dir.path().join("snapshots"), [1; 16]).expect("an empty directory");
        let machine = Machine::open(Concatenation::default(), snapshots).expect("nothing to restore");
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn the_file_log_passes_openrafts_suite() {
    Suite::test_all(Builder(LogKind::File)).await.expect("the suite passes");
}

#[tokio::test]
async fn the_sled_log_passes_openrafts_suite() {
    Suite::test_all(Builder(LogKind::Sled)).await.expect("the suite passes");
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let command = Opaque(Bytes::from(format!("{term}/{index}")));
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(command) }
}

async fn append(log: &mut Log, entries: Vec<Entry>) {
    let (sender, receiver) = <Types as TypeConfigExt>::oneshot();
    let callback = IOFlushed::signal(sender);
    log.append(entries, callback).await.expect("handed over");
    receiver.await.expect("the thread lives").expect("written");
}

/// All that was answered is there after the log was opened again, and what was cut off or purged is not.
async fn survives_reopening(kind: LogKind) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let vote = Vote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: true };
    {
        let mut log = Log::open(kind, &path, [1; 16]).expect("it opens");
        append(&mut log, (1..=10).map(|n| entry(1, n)).collect()).await;
        append(&mut log, (11..=20).map(|n| entry(1, n)).collect()).await;
        log.truncate_after(Some(log_id(1, 1, 15))).await.expect("cut");
        append(&mut log, (16..=18).map(|n| entry(2, n)).collect()).await;
        log.save_vote(&vote).await.expect("saved");
        log.purge(log_id(1, 1, 4)).await.expect("purged");
        log.close();
    }
    let mut log = open_again(kind, &path).await;
    let state = log.get_log_state().await.expect("a state");
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 1, 4)));
    assert_eq!(state.last_log_id, Some(log_id(2, 1, 18)));
    assert_eq!(log.read_vote().await.expect("a vote"), Some(vote));
    let expected: Vec<_> = (5..=15).map(|n| entry(1, n)).chain((16..=18).map(|n| entry(2, n))).collect();
    assert_eq!(log.try_get_log_entries(..).await.expect("entries"), expected);
    assert_eq!(log.try_get_log_entries(14..17).await.expect("entries"), expected[9..12]);
    append(&mut log, vec![entry(3, 19)]).await;
    assert_eq!(log.try_get_log_entries(18..).await.expect("entries"), [entry(2, 18), entry(3, 19)]);
}

/// The thread of the old handle lets go of its files a moment after it was told to.
async fn open_again(kind: LogKind, path: &std::path::Path) -> Log {
    let begun = std::time::Instant::now();
    loop {
        match Log::open(kind, path, [1; 16]) {
            Ok(log) => return log,
            Err(error) => assert!(begun.elapsed().as_secs() < 30, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_file_log_survives_reopening() {
    survives_reopening(LogKind::File).await;
}

#[tokio::test]
async fn the_sled_log_survives_reopening() {
    survives_reopening(LogKind::Sled).await;
}

#[test]
fn both_refuse_a_directory_of_another_cluster() {
    for kind in [LogKind::File, LogKind::Sled] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let log = Log::open(kind, dir.path(), [1; 16]).expect("it opens");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            append(&mut log.clone(), vec![entry(1, 1)]).await;
        });
        log.close();
        drop(log);
        let begun = std::time::Instant::now();
        loop {
            match Log::open(kind, dir.path(), [2; 16]).err().expect("it is refused") {
                crate::OpenLogError::Journal(nova_journal::OpenError::ForeignCluster { .. }) => break,
                error => assert!(begun.elapsed().as_secs() < 30, "{error}"),
            }
        }
    }
}

fn files(dir: &std::path::Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            all.extend(files(&entry));
        } else {
            all.insert(entry.clone(), std::fs::read(entry).expect("a file"));
        }
    }
    all
}

/// A member that begins with them would have forgotten votes and entries that it answered for.
#[tokio::test]
async fn old_files_in_the_place_of_newer_ones_are_refused() {
    for kind in [LogKind::File, LogKind::Sled] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut old = None;
        for n in 1..=3 {
            let mut log = open_again(kind, dir.path()).await;
            append(&mut log, vec![entry(1, n)]).await;
            log.close();
            drop(log);
            // Its thread lets go of all files first.
            open_again(kind, dir.path()).await.close();
            old.get_or_insert_with(|| files(dir.path()));
        }
        let old = old.expect("there is a first time");
        let is_data = |path: &std::path::PathBuf| !path.ends_with("opened");
        for path in files(dir.path()).into_keys().filter(is_data) {
            std::fs::remove_file(path).expect("it goes");
        }
        for (path, bytes) in old.into_iter().filter(|(path, _)| is_data(path)) {
            std::fs::write(path, bytes).expect("put back");
        }
        let begun = std::time::Instant::now();
        loop {
            match Log::open(kind, dir.path(), [1; 16]).err().unwrap_or_else(|| panic!("{kind}: it is refused")) {
                crate::OpenLogError::Damaged { why, .. } if why.starts_with("it is older than it was") => break,
                error => assert!(begun.elapsed().as_secs() < 30, "{kind}: {error}"),
            }
        }
    }
}

/// What is applied after a restart comes in runs, read ahead: each entry once, in order.
#[tokio::test]
async fn a_stream_of_old_entries_has_all_of_them_in_order() {
    for kind in [LogKind::File, LogKind::Sled] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut log = Log::open(kind, dir.path(), [1; 16]).expect("it opens");
        for first in (0..1_000).step_by(50) {
            append(&mut log, (first..first + 50).map(|n| entry(1, n)).collect()).await;
        }
        log.close();
        drop(log);
        let mut log = open_again(kind, dir.path()).await;
        append(&mut log, (1_000..1_010).map(|n| entry(2, n)).collect()).await;
        for (range, expected) in [(0..2_000, 0..1_010), (7..1_007, 7..1_007), (990..1_001, 990..1_001), (3..3, 3..3)] {
            let read: Vec<_> = log.entries_stream(range).await.try_collect().await.expect("entries");
            let expected: Vec<_> = expected.map(|n| entry(if n < 1_000 { 1 } else { 2 }, n)).collect();
            assert_eq!(read, expected);
        }
    }
}

/// Opens what another process left; run by the test below, which watches its system calls.
#[tokio::test]
#[ignore = "run by another test"]
async fn sled_opener() {
    let dir = std::env::var_os("LOG").expect("the test below sets it");
    open_again(LogKind::Sled, std::path::Path::new(&dir)).await;
}

#[tokio::test]
async fn what_a_killed_process_left_in_sled_is_synced_before_it_is_built_upon() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let mut log = Log::open(LogKind::Sled, &path, [1; 16]).expect("it opens");
    append(&mut log, vec![entry(1, 1)]).await;
    log.close();
    drop(log);
    let traced = dir.path().join("traced");
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-y", "-e", "trace=fsync,fdatasync", "-o"]).arg(&traced);
    strace.arg(std::env::current_exe().expect("it runs")).args(["--exact", "suite::sled_opener", "--ignored"]);
    let run = strace.env("LOG", &path).output().expect("strace is there; scripts/setup.sh test installs it");
    assert!(run.status.success(), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"), "the opener ran: {run:?}");
    let traced = std::fs::read_to_string(traced).expect("it was written");
    for path in [path.join("db"), path] {
        assert!(traced.contains(&format!("<{}>", path.display())), "{} is not synced: {traced}", path.display());
    }
}
