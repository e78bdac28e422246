//! What a member finds in its directory.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nova_host::blocking;
use nova_journal::DirLock;

use crate::error::StartError;
use crate::group::GroupConfig;
use crate::log::Log;
use crate::machine::{Machine, StateMachine};
use crate::snapshot::SnapshotDir;

pub(crate) type Opened<M> = (DirLock, Log, Machine<M>, SnapshotDir);

/// Takes the directory, restores the newest snapshot and reads the log. Blocks.
pub(crate) fn open<M: StateMachine>(config: &GroupConfig, machine: M) -> Result<Opened<M>, StartError> {
    let lock = DirLock::take(&config.dir)?;
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| StartError::Io { path, source }
    };
    config.log.check(&config.dir)?;
    let name = config.dir.join("member");
    match std::fs::read_to_string(&name) {
        Ok(found) => own(&found, config)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = name_of(config.member, config.cluster);
            nova_journal::write_file(&name, text.as_bytes()).map_err(failed(&name))?;
        }
        Err(error) => return Err(failed(&name)(error)),
    }
    // Before the log: a database is not the same after it was opened, and what is refused must not be touched.
    let dir = config.dir.join("snapshots");
    let begun = Instant::now();
    let snapshots =
        SnapshotDir::open(dir.clone(), config.cluster).map_err(failed(&dir))?.every(config.snapshot_entries);
    let checked = begun.elapsed();
    let restore = || {
        let begun = Instant::now();
        Machine::open(machine, snapshots.clone()).map(|machine| (machine, begun.elapsed()))
    };
    // Neither needs the other, and with a large state both take long.
    let open_log = || {
        let log = Log::open(config.log, &config.log.dir(&config.dir), config.cluster);
        log.map(|log| (log, begun.elapsed() - checked))
    };
    let (log, restored) = if blocking::is_alone() {
        (open_log(), restore())
    } else {
        std::thread::scope(|threads| {
            let restoring = threads.spawn(restore);
            (open_log(), restoring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    };
    let (log, read) = log?;
    // openraft takes it for granted that the log goes on where the snapshot ends.
    let next = snapshots.current().and_then(|file| file.header().meta.last_log_id).map_or(0, |last| last.index + 1);
    if next < log.oldest() {
        log.close();
        return Err(StartError::EntriesMissing { path: config.dir.clone(), from: next, to: log.oldest() - 1 });
    }
    let (machine, restored) = restored.map_err(|error| {
        log.close();
        failed(&dir)(error)
    })?;
    let ms = |took: Duration| took.as_millis() as u64;
    let (check_ms, restore_ms, log_ms) = (ms(checked), ms(restored), ms(read));
    tracing::info!(check_ms, restore_ms, log_ms, from = next, "the snapshot was restored and the log read");
    Ok((lock, log, machine, snapshots))
}

/// Refuses a directory whose file `member` tells of another one: its number, then a line for its cluster, which files of
/// older versions lack.
fn own(found: &str, config: &GroupConfig) -> Result<(), StartError> {
    let (path, mut lines) = (config.dir.clone(), found.lines());
    let member = lines.next().unwrap_or_default().trim();
    if member != config.member.to_string() {
        return Err(StartError::OtherMember { path, found: member.to_owned(), wanted: config.member });
    }
    match lines.next().map(|line| line.strip_prefix("cluster ").unwrap_or(line)) {
        Some(found) if found != hex(config.cluster) => {
            Err(StartError::ForeignCluster { path, found: found.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What the file `member` says.
pub(crate) fn name_of(member: u64, cluster: [u8; 16]) -> String {
    format!("{member}\ncluster {}\n", hex(cluster))
}

pub(crate) fn hex(cluster: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(cluster))
}

#[cfg(test)]
mod tests {
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use openraft::type_config::TypeConfigExt;

    use super::*;
    use crate::log::LogKind;
    use crate::snapshot::Header;
    use crate::suite::{Concatenation, entry};
    use crate::types::{SnapshotMeta, Types, log_id};

    #[tokio::test]
    async fn a_snapshot_older_than_what_was_purged_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = folder.path().to_owned();
        let cluster = [1; 16];
        let mut log = Log::open(LogKind::File, &dir.join("log"), cluster).expect("it opens");
        let (sender, receiver) = <Types as TypeConfigExt>::oneshot();
        let entries: Vec<_> = (0..30).map(|n| entry(1, n)).collect();
        log.append(entries, IOFlushed::signal(sender)).await.expect("handed over");
        receiver.await.expect("it is answered").expect("written");
        log.purge(log_id(1, 1, 20)).await.expect("purged");
        log.close();
        let config = GroupConfig {
            member: 1,
            cluster,
            dir: dir.clone(),
            log: LogKind::File,
            heartbeat_ms: 100,
            election_min_ms: 400,
            election_max_ms: 800,
            snapshot_entries: 1_000,
            dialer: nova_host::Dialer::Tcp,
        };
        let missing = || match open(&config, Concatenation::default()).map(drop) {
            Ok(()) => None,
            Err(StartError::EntriesMissing { from, to, .. }) => Some((from, to)),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(missing(), Some((0, 20)), "there is none at all");
        for (last, expected) in [(10, Some((11, 20))), (19, Some((20, 20))), (20, None), (25, None)] {
            let snapshots = SnapshotDir::open(dir.join("snapshots"), cluster).expect("it opens");
            let meta = SnapshotMeta { last_log_id: Some(log_id(1, 1, last)), ..SnapshotMeta::default() };
            snapshots.write(&Header { meta, seen: Vec::new() }, |out| out.write_all(b"state")).expect("written");
            assert_eq!(missing(), expected, "a snapshot up to {last}");
        }
    }
}
