//! The state machine: a trait over bytes, and its adapter.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;

use crate::snapshot::{Header, Since, SnapshotDir, SnapshotFile};
use crate::types::{LogId, Opaque, SnapshotMeta, StoredMembership, Types};

/// A committed command.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// Its position in the log.
    pub index: u64,
    /// Term of the leader that appended it.
    pub term: u64,
    /// The command.
    pub command: &'a Bytes,
}

/// The state machine cannot go on; the member stops (it never skips).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

/// What commands are applied to. The same commands in the same order must give the same answers on every member.
pub trait StateMachine: Send + Sync + 'static {
    /// A view of the state that does not change, made in microseconds.
    type Frozen: Send + 'static;

    /// Applies one command and gives its answer.
    ///
    /// # Errors
    /// When the command is not understood.
    fn apply(&mut self, command: Committed<'_>) -> Result<Bytes, ApplyError>;

    /// Called after a run of commands was applied: the time to wake those who wait for changes.
    fn applied(&mut self);

    /// The state as it is now.
    fn freeze(&self) -> Self::Frozen;

    /// Writes a frozen state. Runs beside further applying.
    ///
    /// # Errors
    /// Those of `out`.
    fn write(frozen: Self::Frozen, out: &mut dyn Write) -> io::Result<()>;

    /// Replaces the state by a written one.
    ///
    /// # Errors
    /// When it is not understood; the state is then as before.
    fn restore(&mut self, input: &mut (dyn Read + Send)) -> Result<(), ApplyError>;
}

struct Inner<M> {
    machine: M,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Ids of all members that ever were: an id is never used again.
    seen: BTreeSet<u64>,
    since: Since,
}

/// The adapter between openraft and a [`StateMachine`].
pub(crate) struct Machine<M> {
    inner: Arc<Mutex<Inner<M>>>,
    snapshots: SnapshotDir,
    seen: Arc<Mutex<BTreeSet<u64>>>,
}

impl<M: StateMachine> Machine<M> {
    /// Restores the newest snapshot, if there is one.
    pub(crate) fn open(machine: M, snapshots: SnapshotDir) -> io::Result<Self> {
        let (membership, seen) = (StoredMembership::default(), BTreeSet::new());
        let inner = Inner { machine, applied: None, membership, seen, since: Since::default() };
        let own = Self { inner: Arc::new(Mutex::new(inner)), snapshots, seen: Arc::default() };
        if let Some(file) = own.snapshots.current() {
            own.restore(&file)?;
        }
        Ok(own)
    }

    /// Ids of all members that ever were.
    pub(crate) fn seen(&self) -> Arc<Mutex<BTreeSet<u64>>> {
        Arc::clone(&self.seen)
    }

    fn restore(&self, file: &SnapshotFile) -> io::Result<()> {
        let header = file.header().clone();
        let mut inner = self.inner.lock();
        let mut body = file.body()?;
        inner.machine.restore(&mut body).map_err(io::Error::other)?;
        inner.applied = header.meta.last_log_id;
        inner.since = Since::default();
        inner.membership = header.meta.last_membership;
        inner.seen.extend(header.seen);
        self.seen.lock().extend(inner.seen.iter().copied());
        inner.machine.applied();
        Ok(())
    }
}

impl<M: StateMachine> RaftStateMachine<Types> for Machine<M> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<M>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let inner = self.inner.lock();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut inner = self.inner.lock();
            let answer = match &entry.payload {
                EntryPayload::Blank => Bytes::new(),
                EntryPayload::Normal(command) => {
                    let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
                    let committed = Committed { index, term, command: &command.0 };
                    inner.since.bytes += command.0.len() as u64;
                    inner.machine.apply(committed).map_err(io::Error::other)?
                }
                EntryPayload::Membership(membership) => {
                    inner.seen.extend(membership.nodes().map(|(id, _)| *id));
                    self.seen.lock().extend(inner.seen.iter().copied());
                    inner.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Bytes::new()
                }
            };
            inner.applied = Some(entry.log_id);
            inner.since.entries += 1;
            drop(inner);
            if let Some(responder) = responder {
                responder.send(Opaque(answer));
            }
        }
        self.inner.lock().machine.applied();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<M> {
        Builder { inner: Arc::clone(&self.inner), snapshots: self.snapshots.clone() }
    }

    /// None when none is due, or the disk is too full; openraft asks again some entries later.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder<M>> {
        if !force {
            let mut inner = self.inner.lock();
            if !self.snapshots.is_due(inner.since) {
                return None;
            }
            inner.since = Since::default();
        }
        match self.snapshots.has_room() {
            Err(error) if !force => {
                self.snapshots.report(&error);
                None
            }
            _ => Some(self.get_snapshot_builder().await),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let (inner, snapshots, seen) = (Arc::clone(&self.inner), self.snapshots.clone(), Arc::clone(&self.seen));
        let expected = meta.last_log_id;
        let installing = move || {
            let own = Self { inner, snapshots, seen };
            let kept = own.snapshots.keep(snapshot)?;
            if kept.header().meta.last_log_id != expected {
                return Err(crate::codec::invalid("the snapshot is not the one that was announced"));
            }
            own.restore(&kept)
        };
        nova_host::blocking::run(installing).await.map_err(io::Error::other)?
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<openraft::alias::SnapshotOf<Types, SnapshotFile>>> {
        let snapshot =
            |file: SnapshotFile| openraft::storage::Snapshot { meta: file.header().meta.clone(), snapshot: file };
        Ok(self.snapshots.current().map(snapshot))
    }
}

/// Writes a snapshot in the background.
pub(crate) struct Builder<M> {
    inner: Arc<Mutex<Inner<M>>>,
    snapshots: SnapshotDir,
}

impl<M: StateMachine> RaftSnapshotBuilder<Types> for Builder<M> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<openraft::alias::SnapshotOf<Types, SnapshotFile>> {
        let (frozen, header) = {
            let inner = self.inner.lock();
            let meta = SnapshotMeta { last_log_id: inner.applied, last_membership: inner.membership.clone() };
            (inner.machine.freeze(), Header { meta, seen: inner.seen.iter().copied().collect() })
        };
        let snapshots = self.snapshots.clone();
        let meta = header.meta.clone();
        let writing = move || snapshots.write(&header, |out| M::write(frozen, out));
        let written = nova_host::blocking::run(writing).await.map_err(io::Error::other);
        match written.and_then(|written| written) {
            Ok(snapshot) => Ok(openraft::storage::Snapshot { meta, snapshot }),
            // An error would end the member; and all members write theirs at about the same entry, perhaps on disks that
            // are equally full.
            Err(error) => {
                self.snapshots.report(&error);
                let snapshot = self.snapshots.nothing();
                Ok(openraft::storage::Snapshot { meta: snapshot.header().meta.clone(), snapshot })
            }
        }
    }
}
