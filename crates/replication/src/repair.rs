//! Directories of members that are made or changed while nobody runs on them: a backup that is put back, and the last
//! member that is left of a group.
//!
//! ```text
//! found:     state of a backup ─▶ <dir>.unfinished: snapshot, log of one entry, name ─▶ renamed to <dir>
//! carry_on:  snapshot and log of a member that is not alone ─▶ the same, and behind its end: it alone, one entry
//! ```
//! Both append a command of the caller: the state machine must know that what was promised behind it is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nova_journal::DirLock;
use openraft::{BasicNode, EntryPayload};
use serde::Serialize;

use crate::error::RepairError;
use crate::log::{Change, LogKind, LogStore, open_store};
use crate::open::{hex, name_of};
use crate::snapshot::{Header, SnapshotDir};
use crate::types::{Entry, LeaderId, LogId, Membership, Opaque, SnapshotMeta, StoredMembership, Vote, log_id};

/// Entries that are read at once.
const RUN: u64 = 256;
/// What was done to a directory, a line of JSON each; never removed by us.
const AUDIT: &str = "audit.jsonl";
/// Tells at every start that the group has lost entries, until somebody removes it.
const UNSAFE: &str = "unsafe-recovery.txt";

/// What the directory of a first member is made with.
#[derive(Clone, Debug)]
pub struct Founding {
    /// Where; it must not be there, or be empty.
    pub dir: PathBuf,
    /// Its number.
    pub member: u64,
    /// The cluster.
    pub cluster: [u8; 16],
    /// All members, it among them; the others begin with empty directories.
    pub members: BTreeMap<u64, String>,
    /// What holds its log.
    pub log: LogKind,
    /// The last entry in the state.
    pub index: u64,
    /// Numbers that were used before.
    pub used: BTreeSet<u64>,
}

/// Makes the directory of the first member of a group that begins with this state, and with `command` as its first entry.
/// The directory is there whole, or not at all.
///
/// # Errors
/// See [`RepairError`]; nothing is left behind.
pub fn found(
    founding: &Founding,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    command: Bytes,
    audit: &impl Serialize,
) -> Result<(), RepairError> {
    let dir = &founding.dir;
    empty(dir)?;
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    let made = dir.with_file_name(name);
    // What was left there by one that was ended has that name from nobody else.
    remove(&made)?;
    let result = fill(&made, founding, state, command, audit).and_then(|()| {
        let failed = |source| RepairError::Io { path: dir.clone(), source };
        // Over an empty directory, if there is one.
        fs::rename(&made, dir).map_err(failed)?;
        nova_journal::sync_dir(parent(dir)).map_err(failed)
    });
    if result.is_err() {
        let _ = fs::remove_dir_all(&made);
    }
    result
}

fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn empty(dir: &Path) -> Result<(), RepairError> {
    let failed = |source| RepairError::Io { path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(Ok(_)) => Err(RepairError::NotEmpty { path: dir.to_owned() }),
            Some(Err(error)) => Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn remove(made: &Path) -> Result<(), RepairError> {
    match fs::remove_dir_all(made) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RepairError::Io { path: made.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

fn fill(
    made: &Path,
    founding: &Founding,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    command: Bytes,
    audit: &impl Serialize,
) -> Result<(), RepairError> {
    let Founding { member, cluster, index, .. } = founding;
    let failed = |source| RepairError::Io { path: made.to_owned(), source };
    fs::create_dir_all(made).map_err(failed)?;
    let _lock = DirLock::take(made)?;
    // The group's first term: votes of before are another group's.
    let last = log_id(1, *member, *index);
    let membership = voters(founding.members.clone())?;
    let meta = SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::new(Some(last), membership) };
    let seen = founding.used.iter().chain(founding.members.keys()).copied().collect::<BTreeSet<_>>();
    let snapshots = SnapshotDir::open(made.join("snapshots"), *cluster).map_err(failed)?;
    snapshots.write(&Header { meta, seen: seen.into_iter().collect() }, state).map_err(failed)?;
    let entry = Entry { log_id: log_id(1, *member, index + 1), payload: EntryPayload::Normal(Opaque(command)) };
    let vote = Vote { leader_id: LeaderId { term: 1, node_id: *member }, committed: true };
    let (mut store, ..) = open_store(founding.log, &founding.log.dir(made), *cluster)?;
    store.commit(&[Change::Vote(vote), Change::PurgeTo(last), Change::Append(vec![entry])]).map_err(failed)?;
    drop(store);
    nova_journal::write_file(&made.join("member"), name_of(*member, *cluster).as_bytes()).map_err(failed)?;
    note(made, audit).map_err(failed)
}

fn voters(members: BTreeMap<u64, String>) -> Result<Membership, RepairError> {
    let voters = members.keys().copied().collect::<BTreeSet<_>>();
    let nodes: BTreeMap<_, _> = members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect();
    Membership::new(vec![voters], nodes).map_err(|error| RepairError::Members(error.to_string()))
}

/// Appends a line to the directory's audit file and makes it durable.
fn note(dir: &Path, line: &impl Serialize) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(dir.join(AUDIT))?;
    let mut line = serde_json::to_vec(line)?;
    line.push(b'\n');
    file.write_all(&line)?;
    file.sync_all()?;
    nova_journal::sync_dir(dir)
}

/// What is left of a group.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// The directory of a member that has stopped.
    pub dir: PathBuf,
    /// The cluster; none: the one that its directory tells, which those of older versions do not.
    pub cluster: Option<[u8; 16]>,
    /// The number that it goes on under: votes and entries of its old one are promises to members that are gone.
    pub member: u64,
    /// Where it answers: `http://host:port`.
    pub address: String,
}

/// What is known of a group whose majority is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Remains {
    /// The number that the member had.
    pub was_member: u64,
    /// The number that it goes on under.
    pub member: u64,
    /// The members of the group that was, by number.
    pub members: BTreeMap<u64, String>,
    /// The last entry that it has.
    pub last: u64,
    /// Term of that entry.
    pub last_term: u64,
    /// The term in which it goes on.
    pub term: u64,
}

/// What stands in the directory of a member that has stopped.
struct Found {
    _lock: DirLock,
    name: PathBuf,
    cluster: [u8; 16],
    store: Box<dyn LogStore>,
    logged: Option<LogId>,
    last: LogId,
    remains: Remains,
}

/// Tells what is left of a group in the directory of a member that has stopped. Nothing is changed.
///
/// Of several such members the one has all that was committed whose last entry has the highest term, and among those of one
/// term the highest number: Raft's order of logs.
///
/// # Errors
/// See [`RepairError`].
pub fn remains(survivor: &Survivor) -> Result<Remains, RepairError> {
    Ok(survey(survivor)?.remains)
}

/// Makes a member that has stopped the only one of its group, under a new number, with `command` as its next entry. Entries
/// that only the others had are lost for ever, and so is what was promised with them; entries that it has and that were never
/// committed count from now on.
///
/// # Errors
/// See [`RepairError`]; where a file cannot be written, the same call takes it up where it was.
pub fn carry_on(
    survivor: &Survivor,
    command: impl FnOnce(&Remains) -> Bytes,
    audit: impl FnOnce(&Remains) -> serde_json::Value,
    warning: &str,
) -> Result<Remains, RepairError> {
    let Found { _lock, name, cluster, mut store, logged, last, remains } = survey(survivor)?;
    let Survivor { dir, member, address, .. } = survivor;
    let failed = |source| RepairError::Io { path: dir.clone(), source };
    let term = remains.term;
    let alone = voters(BTreeMap::from([(*member, address.clone())]))?;
    let entries = vec![
        Entry { log_id: log_id(term, *member, last.index + 1), payload: EntryPayload::Membership(alone) },
        Entry {
            log_id: log_id(term, *member, last.index + 2),
            payload: EntryPayload::Normal(Opaque(command(&remains))),
        },
    ];
    // Said before it is done: whatever happens to this process, there is a trace of it.
    note(dir, &audit(&remains)).map_err(failed)?;
    nova_journal::write_file(&dir.join(UNSAFE), warning.as_bytes()).map_err(failed)?;
    nova_journal::write_file(&name, name_of(*member, cluster).as_bytes()).map_err(failed)?;
    let vote = Vote { leader_id: LeaderId { term, node_id: *member }, committed: true };
    let mut changes = vec![Change::Vote(vote)];
    // A snapshot that came from another member may stand behind a log that was not cut yet.
    if logged < Some(last) {
        changes.push(Change::PurgeTo(last));
    }
    changes.push(Change::Append(entries));
    store.commit(&changes).map_err(failed)?;
    Ok(remains)
}

fn survey(survivor: &Survivor) -> Result<Found, RepairError> {
    let Survivor { dir, cluster, member, .. } = survivor;
    let failed = |source| RepairError::Io { path: dir.clone(), source };
    let name = dir.join("member");
    let found = match fs::read_to_string(&name) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(RepairError::NoMember { path: dir.clone() });
        }
        Err(source) => return Err(RepairError::Io { path: name, source }),
    };
    let _lock = DirLock::take(dir)?;
    let mut lines = found.lines();
    let was = lines.next().unwrap_or_default().trim();
    let was_member: u64 = was.parse().map_err(|_| RepairError::NoMember { path: dir.clone() })?;
    let told = lines.next().map(|line| line.strip_prefix("cluster ").unwrap_or(line));
    let cluster = match (cluster, told) {
        (Some(cluster), Some(found)) if found != hex(*cluster) => {
            return Err(RepairError::ForeignCluster { path: dir.clone(), found: found.to_owned() });
        }
        (Some(cluster), _) => *cluster,
        (None, found) => found.and_then(unhex).ok_or_else(|| RepairError::NoCluster { path: name.clone() })?,
    };
    let folder = dir.join("snapshots");
    let snapshots =
        SnapshotDir::open(folder.clone(), cluster).map_err(|source| RepairError::Io { path: folder, source })?;
    let header = snapshots.current().map(|file| file.header().clone());
    let kind = LogKind::found(dir).map_err(failed)?.ok_or_else(|| RepairError::NoMember { path: dir.clone() })?;
    let (store, old, recovered) = open_store(kind, &kind.dir(dir), cluster)?;
    let restored = header.as_ref().and_then(|header| header.meta.last_log_id);
    let oldest = recovered.first.or(recovered.purged.map(|last| last.index + 1)).unwrap_or(0);
    let next = restored.map_or(0, |last| last.index + 1);
    if next < oldest {
        return Err(RepairError::EntriesMissing { path: dir.clone(), from: next, to: oldest - 1 });
    }
    let last = recovered.last.max(restored).ok_or_else(|| RepairError::NoMember { path: dir.clone() })?;
    let (members, used) =
        group(header, &*old, recovered.first, recovered.last.map(|last| last.index)).map_err(failed)?;
    if members.keys().eq([&was_member]) {
        return Err(RepairError::Alone { path: dir.clone(), member: was_member });
    }
    // A run that was ended between the name and the log is taken up where it was.
    if used.contains(member) {
        return Err(RepairError::NumberUsed { member: *member });
    }
    let term = recovered.vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
    let remains =
        Remains { was_member, member: *member, members, last: last.index, last_term: last.leader_id.term, term };
    Ok(Found { _lock, name, cluster, store, logged: recovered.last, last, remains })
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// The members of the group as its last entry about them says, committed or not, and all numbers that were ever used.
fn group(
    header: Option<Header>,
    old: &dyn crate::log::OldEntries,
    first: Option<u64>,
    last: Option<u64>,
) -> io::Result<(BTreeMap<u64, String>, BTreeSet<u64>)> {
    let (mut at, mut membership, mut used) = match header {
        Some(header) => {
            let stored = header.meta.last_membership;
            (stored.log_id().as_ref().map(|id: &LogId| id.index), stored.membership().clone(), header.seen)
        }
        None => (None, Membership::default(), Vec::new()),
    };
    let mut used: BTreeSet<u64> = std::mem::take(&mut used).into_iter().collect();
    if let Some((first, last)) = first.zip(last) {
        let mut from = first;
        while from <= last {
            let to = (from + RUN).min(last + 1);
            for entry in old.read(from, to)? {
                let EntryPayload::Membership(found) = entry.payload else { continue };
                used.extend(found.nodes().map(|(id, _)| *id));
                if at.is_none_or(|at| entry.log_id.index >= at) {
                    (at, membership) = (Some(entry.log_id.index), found);
                }
            }
            from = to;
        }
    }
    let members: BTreeMap<u64, String> = membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect();
    used.extend(members.keys());
    Ok((members, used))
}

/// What was written when the group of this directory was recovered and nobody has read it yet: it is removed by whoever
/// did.
#[must_use]
pub fn unread_warning(dir: &Path) -> Option<(PathBuf, String)> {
    let path = dir.join(UNSAFE);
    let text = fs::read_to_string(&path).ok()?;
    Some((path, text))
}

/// A snapshot of a running member, for a backup.
pub struct Copy {
    /// The last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Members, by number.
    pub members: BTreeMap<u64, String>,
    /// All numbers that were ever used.
    pub used: BTreeSet<u64>,
    /// Its size.
    pub bytes: u64,
    /// The state.
    pub body: Box<dyn Read + Send>,
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
