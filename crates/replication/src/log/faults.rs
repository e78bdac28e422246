//! A disk that is slow or fails, and what those who wait for it hear.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, EntryPayload};
use parking_lot::{Condvar, Mutex};

use super::{Change, Log, LogStore, OldEntries, Recovered};
use crate::types::{Entry, LeaderId, Opaque, Types, Vote, log_id};

const SOON: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Disk {
    Fast,
    Stuck,
    Failing,
    Panicking,
}

/// A disk in memory that does as it is told.
struct Fake {
    state: Mutex<Disk>,
    changed: Condvar,
    /// Set while a commit waits for the disk.
    entered: AtomicBool,
    largest: AtomicUsize,
}

impl Fake {
    fn new(state: Disk) -> Arc<Self> {
        let (changed, entered, largest) = (Condvar::new(), AtomicBool::new(false), AtomicUsize::new(0));
        Arc::new(Self { state: Mutex::new(state), changed, entered, largest })
    }

    fn set(&self, state: Disk) {
        *self.state.lock() = state;
        self.changed.notify_all();
    }

    fn log(self: &Arc<Self>) -> Log {
        let store = Box::new(Store(Arc::clone(self)));
        Log::over((store, Arc::new(Nothing), Recovered::default())).expect("the thread starts")
    }

    async fn entered(&self) {
        let waiting = async {
            while !self.entered.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect("the thread writes");
    }
}

struct Store(Arc<Fake>);

impl LogStore for Store {
    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        let bytes = |change: &Change| match change {
            Change::Append(entries) => entries.iter().map(super::memory::size).sum(),
            _ => 0,
        };
        self.0.largest.fetch_max(changes.iter().map(bytes).sum(), Ordering::SeqCst);
        let mut state = self.0.state.lock();
        while *state == Disk::Stuck {
            self.0.entered.store(true, Ordering::SeqCst);
            self.0.changed.wait(&mut state);
        }
        match *state {
            Disk::Failing => Err(io::Error::other("the disk is gone")),
            Disk::Panicking => panic!("a planted panic"),
            Disk::Fast | Disk::Stuck => Ok(()),
        }
    }
}

struct Nothing;

impl OldEntries for Nothing {
    fn read(&self, _: u64, _: u64) -> io::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
}

fn entries(indexes: std::ops::Range<u64>, command: &Bytes) -> Vec<Entry> {
    let entry = |n| Entry { log_id: log_id(1, 1, n), payload: EntryPayload::Normal(Opaque(command.clone())) };
    indexes.map(entry).collect()
}

/// What tells that an append is durable.
struct Answer(openraft::alias::OneshotReceiverOf<Types, io::Result<()>>);

impl Answer {
    async fn get(self) -> io::Result<()> {
        tokio::time::timeout(SOON, self.0).await.expect("it is answered").expect("by the log")
    }
}

async fn append(log: &mut Log, entries: Vec<Entry>) -> Answer {
    let (sender, receiver) = <Types as TypeConfigExt>::oneshot();
    log.append(entries, IOFlushed::signal(sender)).await.expect("handed over");
    Answer(receiver)
}

#[tokio::test]
async fn whatever_waits_when_the_disk_fails_hears_it_and_so_does_all_that_comes_later() {
    for end in [Disk::Failing, Disk::Panicking] {
        let disk = Fake::new(Disk::Stuck);
        let mut log = disk.log();
        let small = Bytes::from_static(b"x");
        let being_written = append(&mut log, entries(1..2, &small)).await;
        disk.entered().await;
        let waiting = append(&mut log, entries(2..3, &small)).await;
        disk.set(end);
        being_written.get().await.expect_err("it was not written");
        waiting.get().await.expect_err("it was not written either");
        append(&mut log, entries(3..4, &small)).await.get().await.expect_err("nothing is taken any more");
        let vote = Vote { leader_id: LeaderId { term: 3, node_id: 2 }, committed: false };
        tokio::time::timeout(SOON, log.save_vote(&vote)).await.expect("it is answered").expect_err("nor a vote");
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded_and_written_in_frames_that_fit() {
    let disk = Fake::new(Disk::Stuck);
    let mut log = disk.log();
    let large = Bytes::from(vec![0; MIB]);
    let mut answers = vec![append(&mut log, entries(1..41, &large)).await];
    disk.entered().await;
    let (mut appended, mut next) = (40, 41);
    let mut blocked = loop {
        let mut log = log.clone();
        let batch = entries(next..next + 10, &large);
        let mut appending = Box::pin(async move { append(&mut log, batch).await });
        // What has room is taken at once: there is nothing to wait for on the way.
        match futures::poll!(&mut appending) {
            std::task::Poll::Ready(answer) => answers.push(answer),
            std::task::Poll::Pending => break appending,
        }
        (appended, next) = (appended + 10, next + 10);
        assert!(appended <= 160, "{appended} MiB wait for a disk that does nothing");
    };
    disk.set(Disk::Fast);
    answers.push(tokio::time::timeout(SOON, &mut blocked).await.expect("there is room again"));
    for answer in answers {
        answer.get().await.expect("it is written");
    }
    let largest = disk.largest.load(Ordering::SeqCst);
    assert!(largest <= 16 * MIB, "a frame of {largest} bytes");
    assert_eq!(log.get_log_state().await.expect("a state").last_log_id, Some(log_id(1, 1, next + 9)));
}

#[tokio::test]
async fn a_member_whose_disk_failed_says_so() {
    let disk = Fake::new(Disk::Fast);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let snapshots = crate::snapshot::SnapshotDir::open(dir.path().into(), [1; 16]).expect("an empty directory");
    let machine = crate::machine::Machine::open(crate::suite::Concatenation::default(), snapshots).expect("empty");
    let config = Arc::new(openraft::Config::default().validate().expect("the defaults are valid"));
    let network = crate::network::Network { cluster: [1; 16], dialer: nova_host::Dialer::Tcp };
    let raft = crate::types::Raft::new(1, config, network, disk.log(), machine).await.expect("it starts");
    let mut status = crate::status::watch_status(&raft);
    raft.initialize(BTreeMap::from([(1, BasicNode::default())])).await.expect("a member alone");
    let leads = status.wait_for(crate::status::Status::leads);
    drop(tokio::time::timeout(SOON, leads).await.expect("it leads").expect("it runs"));
    disk.set(Disk::Failing);
    raft.client_write_ff(Opaque(Bytes::from_static(b"lost")), None).await.expect("handed over");
    let fatal = status.wait_for(|status| status.fatal.is_some());
    drop(tokio::time::timeout(SOON, fatal).await.expect("it says that it stopped").expect("it runs"));
}
