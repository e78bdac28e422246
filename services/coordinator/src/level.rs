//! Feature levels (decision 0031): what a build knows, what is in force, and the file that keeps an older build away.
//!
//! A level is the version of the log entries that may be written at it. It is raised by an entry of the log, once every
//! member's build knows it, and never goes down; a build that does not know the one in force cannot read the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nova_client::{Coordinators, Repeat};
use nova_host::Dialer;
use nova_replication::MemberInfo;
use nova_wire::v1;

use crate::RunError;
use crate::machine::View;

/// The highest level that this build knows.
const KNOWN: u32 = 2;
/// What is in force before it is raised.
pub(crate) const FIRST: u32 = 1;
/// The first level that knows the entry `Recover`, and `RaiseLevel`.
pub(crate) const RECOVER: u32 = 2;

/// Tells the highest level that was in force here.
const FILE: &str = "level";
/// Longest wait for a member to say what it knows.
const PATIENCE: Duration = Duration::from_secs(2);

/// The highest level that this build knows. A debug build can be told to pretend that it is a later one, so that upgrades
/// can be tried before there is something to upgrade to.
pub(crate) fn highest() -> u32 {
    static HIGHEST: OnceLock<u32> = OnceLock::new();
    *HIGHEST.get_or_init(|| {
        let pretended = if cfg!(debug_assertions) { std::env::var("NOVA_PRETEND_LEVEL").ok() } else { None };
        pretended.and_then(|level| level.parse().ok()).unwrap_or(KNOWN)
    })
}

/// Refuses a directory in which a level was in force that this build does not know. Changes nothing.
pub(crate) fn check(dir: &Path) -> Result<(), RunError> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(RunError::Level { path, source }),
    };
    let bad = || RunError::Level { path: path.clone(), source: io::ErrorKind::InvalidData.into() };
    let found: u32 = text.trim().parse().map_err(|_| bad())?;
    let known = highest();
    if found > known { Err(RunError::NewerLevel { path, found, known }) } else { Ok(()) }
}

/// Notes each level that comes into force.
pub(crate) async fn keep(dir: PathBuf, view: Arc<View>) {
    let mut changes = view.changes();
    let mut kept = FIRST;
    loop {
        changes.borrow_and_update();
        let level = view.read().level;
        if level > kept {
            let path = dir.join(FILE);
            let writing = move || nova_journal::write_file(&path, format!("{level}\n").as_bytes());
            match nova_host::blocking::run(writing).await {
                Ok(Ok(())) => {
                    tracing::info!(level, "the feature level is in force; an older build cannot start here any more");
                    kept = level;
                }
                // The log itself keeps it away too, though later.
                Ok(Err(error)) => tracing::error!(%error, level, "the feature level cannot be noted"),
                Err(error) => tracing::error!(%error, level, "the feature level cannot be noted"),
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The highest level that the build of a member knows.
pub(crate) async fn known_by(address: &str, dialer: &Dialer) -> Result<u32, String> {
    let asking = Coordinators::dialing(vec![address.to_owned()], dialer.clone());
    let asking = asking.call(PATIENCE, Repeat::Read, |mut member| async move {
        member.describe(v1::DescribeRequest { without_hash: true }).await
    });
    asking.await.map(|it| it.highest_level.max(FIRST)).map_err(|error| error.to_string())
}

/// The level that all members know: the one that is wanted, or the highest; or who does not know it.
pub(crate) async fn agreed(members: &[MemberInfo], wanted: Option<u32>, dialer: &Dialer) -> Result<u32, String> {
    let asking = members.iter().map(|it| async move { (it.id, known_by(&it.address, dialer).await) });
    let (mut lowest, mut unheard, mut older) = (u32::MAX, Vec::new(), Vec::new());
    for (member, known) in futures::future::join_all(asking).await {
        match known {
            Err(why) => unheard.push(format!("member {member} does not say what it knows: {why}")),
            Ok(known) => {
                lowest = lowest.min(known);
                if wanted.is_some_and(|wanted| known < wanted) {
                    older.push(format!(
                        "member {member} knows feature level {known} and no higher one: upgrade it first"
                    ));
                }
            }
        }
    }
    unheard.extend(older);
    if unheard.is_empty() { Ok(wanted.unwrap_or(lowest)) } else { Err(unheard.join("; ")) }
}
