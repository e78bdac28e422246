//! What is done when members or their data are lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nova_client::{ClientError, Coordinators, Repeat};
use nova_coordinator::LogChoice;
use nova_coordinator::backup::{self, Backup, BackupError, Header, Recovery, RepairError, Restore, Writer};
use nova_wire::v1;
use serde_json::json;

use crate::admin::{client, failed};
use crate::args::{self, Format, Log, Member};
use crate::commands::confirm;
use crate::error::{Failed, chain};
use crate::{members, print};

/// Longest wait for one change of the members.
const MEMBERSHIP: Duration = Duration::from_secs(70);
/// Longest wait until the state is written for a backup.
const BACKUP: Duration = Duration::from_secs(630);
/// How often the new member is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Longest time in which the new member gets nothing at all.
const STALLED: Duration = Duration::from_secs(180);
/// Parts of a backup that wait for the disk.
const PARTS: usize = 8;

/// Puts a new member in the place of a lost one.
pub async fn replace(at: &args::Coordinators, old: u64, new: &Member, force: bool, yes: bool) -> Result<(), Failed> {
    let refused = |why: String| Err(Failed::Refused(why));
    if old == new.id {
        return Err(Failed::Usage("the new member needs a number that was never used".into()));
    }
    let all = members::ask_all(&at.addresses).await;
    // Who leads has the newest list; without a leader nothing can be changed.
    let known = all.iter().filter_map(|it| it.answer.as_ref().ok()).filter(|it| it.leader == Some(it.member));
    let Some(leader) = known.max_by_key(|it| it.term) else {
        let reached = all.iter().filter(|it| it.answer.is_ok()).count();
        return Err(Failed::Unreachable(format!(
            "no leader: {reached} of {} members answer; if a majority is lost for ever, see nova admin recover",
            all.len()
        )));
    };
    let find = |id: u64| leader.members.iter().find(|it| it.id == id);
    let going = find(old);
    let joined = find(new.id);
    if going.is_none() && !leader.used_members.contains(&old) {
        let ids: Vec<_> = leader.members.iter().map(|it| it.id.to_string()).collect();
        return refused(format!("there is no member {old}: the members are {}", ids.join(", ")));
    }
    if let Some(joined) = joined.filter(|it| it.address != new.address) {
        return refused(format!("member {} is at {}, not at {}", new.id, joined.address, new.address));
    }
    if joined.is_none() && leader.used_members.contains(&new.id) {
        return refused(format!("member number {} was used before; take a new one", new.id));
    }
    if let (Some(going), false) = (going, force)
        && members::ask(&going.address).await.is_ok_and(|it| it.member == old && it.cluster == leader.cluster)
    {
        return refused(format!("member {old} at {} is alive; say --force to take it out all the same", going.address));
    }
    ready(new, leader, joined.is_some()).await?;
    // Without it and without those that do not answer there must still be a majority, or nothing is ever decided again.
    let staying: Vec<_> = leader.members.iter().filter(|it| it.id != old && leader.voters.contains(&it.id)).collect();
    let answering = all.iter().filter_map(|it| it.answer.as_ref().ok()).map(|it| it.member);
    let answering = answering.filter(|id| staying.iter().any(|it| it.id == *id)).count();
    if going.is_some() && answering * 2 <= staying.len() {
        return refused(format!(
            "only {answering} of the {} members that would stay answer: bring another one back first",
            staying.len()
        ));
    }
    confirm(&format!("Replace member {old} by member {} at {}? {old} can never come back.", new.id, new.address), yes)?;
    let asking = client(at);
    if let Some(going) = going {
        println!("member {old} at {} is taken out", going.address);
        let request = v1::RemoveMemberRequest { id: old };
        let removing = asking
            .call_slow(MEMBERSHIP, Repeat::Never, |mut leader| async move { leader.remove_member(request).await });
        if let Err(error) = removing.await {
            let seen = members::ask_all(&at.addresses).await;
            let leads = seen.iter().filter_map(|it| it.answer.as_ref().ok()).find(|it| it.leader == Some(it.member));
            // Not known may be done.
            if leads.is_none_or(|it| it.members.iter().any(|it| it.id == old)) {
                return Err(failed(error));
            }
        }
    } else {
        println!("member {old} is out already");
    }
    join(&asking, new).await
}

/// Whether a process runs under the new number that can be taken in.
async fn ready(new: &Member, leader: &v1::DescribeResponse, joined: bool) -> Result<(), Failed> {
    let hint = "start it with an empty directory, its number, and members=[]";
    let found = members::ask(&new.address).await;
    let found = found.map_err(|why| Failed::Unreachable(format!("{} does not answer: {why}; {hint}", new.address)))?;
    let refused = |why: String| Err(Failed::Refused(format!("{}: {why}", new.address)));
    if found.member != new.id {
        return refused(format!("this is member {}, not {}; {hint}", found.member, new.id));
    }
    if found.cluster != leader.cluster {
        return refused("it is set to another cluster".into());
    }
    if found.highest_level < leader.level {
        let (known, level) = (found.highest_level, leader.level);
        return refused(format!("its build knows feature level {known}, and {level} is in force: start a newer one"));
    }
    if found.shards != leader.shards {
        return refused(format!("it is set to {} shards, and the cluster has {}", found.shards, leader.shards));
    }
    if !joined && (found.last > 0 || !found.members.is_empty()) {
        return refused(format!("it is a member of a group already; {hint}"));
    }
    Ok(())
}

/// Takes a member in and says how far it is, until it votes and has what the others had when this began.
async fn join(asking: &Coordinators, new: &Member) -> Result<(), Failed> {
    let member = v1::Member { id: new.id, address: new.address.clone() };
    let adding = async {
        loop {
            let adding = asking.call_slow(MEMBERSHIP, Repeat::Harmless, |mut leader| {
                let member = member.clone();
                async move { leader.add_member(member).await }
            });
            match adding.await {
                Ok(answer) => return Ok(answer.members),
                // A large state takes longer than one call; whether it moves is looked at beside this.
                Err(ClientError::OutcomeUnknown(_) | ClientError::Unavailable { .. }) => tokio::time::sleep(LOOK).await,
                Err(refused) => return Err(failed(refused)),
            }
        }
    };
    println!("member {} at {} is taken in", new.id, new.address);
    let watching = async {
        let (mut told, mut moved) = (0, tokio::time::Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let applied = members::ask(&new.address).await.map_or(told, |it| it.applied);
            if applied > told {
                println!("member {} has {applied} entries", new.id);
                (told, moved) = (applied, tokio::time::Instant::now());
            } else if moved.elapsed() > STALLED {
                return stalled(new.id);
            }
        }
    };
    let members = tokio::select! {
        added = adding => added?,
        stalled = watching => return Err(stalled),
    };
    let (leader, goal) = goal(asking).await?;
    let (mut told, mut moved) = (0, tokio::time::Instant::now());
    loop {
        let found = members::ask(&new.address).await;
        let applied = found.as_ref().map_or(told, |it| it.applied);
        if applied > told {
            (told, moved) = (applied, tokio::time::Instant::now());
        } else if moved.elapsed() > STALLED {
            return Err(stalled(new.id));
        }
        if let Ok(found) = &found
            && found.applied >= goal
            && found.voters.contains(&new.id)
        {
            println!("member {} has {} entries, as many as member {leader} had, and votes", new.id, found.applied);
            let ids: Vec<_> = members.iter().map(|it| it.id.to_string()).collect();
            println!("the members are {}", ids.join(", "));
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn stalled(member: u64) -> Failed {
    let s = STALLED.as_secs();
    Failed::Unreachable(format!("member {member} got nothing for {s} s; it is not done: run the same command again"))
}

/// Who leads, and how much it has applied.
async fn goal(asking: &Coordinators) -> Result<(u64, u64), Failed> {
    let asking = asking.call(MEMBERSHIP, Repeat::Read, |mut member| async move {
        // Only the leader answers this.
        member.get_shards(v1::GetShardsRequest {}).await?;
        member.describe(v1::DescribeRequest { without_hash: true }).await
    });
    let leader = asking.await.map_err(failed)?;
    Ok((leader.member, leader.applied))
}

fn backup_failed(error: &BackupError) -> Failed {
    Failed::Refused(chain(error))
}

fn repair_failed(error: &RepairError) -> Failed {
    Failed::Refused(chain(error))
}

/// Runs what blocks beside the tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failed> + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Failed::Unreachable(chain(&error))))
}

fn shown(header: &Header, what: &str, format: Format) -> Result<(), Failed> {
    let value = json!(header);
    if !print::machine(&value, format)? {
        let Header { index, cluster, shards, version, bytes, made_at_ms, .. } = header;
        println!(
            "{what}: entry {index} of cluster {cluster}, {shards} shards, {bytes} bytes, by {version}, at {made_at_ms} ms"
        );
    }
    Ok(())
}

/// Writes a backup.
pub async fn backup(asking: &Coordinators, to: PathBuf, format: Format) -> Result<(), Failed> {
    if to.exists() {
        return Err(backup_failed(&BackupError::Exists { path: to }));
    }
    let asking =
        asking.call_slow(BACKUP, Repeat::Read, |mut leader| async move { leader.backup(v1::BackupRequest {}).await });
    let mut parts = asking.await.map_err(failed)?;
    let cut = |status: tonic::Status| Failed::Unreachable(format!("the backup broke off: {}", status.message()));
    let first = parts.message().await.map_err(cut)?;
    let head = first.and_then(|part| part.head);
    let header = Header::of(head.ok_or_else(|| Failed::Unreachable("the backup has no head".into()))?);
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<v1::BackupPart>(PARTS);
    let written = header.clone();
    let writing = blocking(move || {
        let mut writer = Writer::create(&to, &written).map_err(|error| backup_failed(&error))?;
        while let Some(part) = receiver.blocking_recv() {
            writer.write(&part.data).map_err(|error| backup_failed(&error))?;
        }
        Ok((writer, to))
    });
    let reading = async {
        while let Some(part) = parts.message().await.map_err(cut)? {
            if sender.send(part).await.is_err() {
                // The writer says why.
                break;
            }
        }
        drop(sender);
        Ok::<_, Failed>(())
    };
    let (read, written) = tokio::join!(reading, writing);
    let (writer, to) = written?;
    read?;
    blocking(move || writer.finish().map_err(|error| backup_failed(&error))).await?;
    shown(&header, &to.display().to_string(), format)
}

/// Reads a backup through.
pub async fn verify(from: PathBuf, format: Format) -> Result<(), Failed> {
    let what = from.display().to_string();
    let header = blocking(move || {
        let backup = Backup::open(&from).map_err(|error| backup_failed(&error))?;
        Ok(backup.header().clone())
    });
    shown(&header.await?, &what, format)
}

/// Puts a backup back.
pub async fn restore(
    from: PathBuf,
    cluster: String,
    data: PathBuf,
    members: Vec<Member>,
    log: Log,
    format: Format,
) -> Result<(), Failed> {
    let Some(first) = members.first().map(|it| it.id) else { return Err(backup_failed(&BackupError::NoMembers)) };
    let count = members.len();
    let members: BTreeMap<_, _> = members.into_iter().map(|it| (it.id, it.address)).collect();
    if members.len() < count {
        return Err(Failed::Usage("--member: a number is there twice".into()));
    }
    let (log, log_name) = match log {
        Log::File => (LogChoice::File, "file"),
        Log::Sled => (LogChoice::Sled, "sled"),
    };
    let settings: Vec<_> = members.iter().map(|(id, address)| format!("\"{id}@{address}\"")).collect();
    let (name, place) = (cluster.clone(), data.display().to_string());
    let restore = Restore { from, data, cluster, member: first, members, log };
    let header = blocking(move || backup::restore(&restore).map_err(|error| backup_failed(&error))).await?;
    shown(&header, &place, format)?;
    let bus = if name == header.cluster {
        "the topics that the cluster had, where all that they have behind this entry is applied again"
    } else {
        "topics of its own, empty ones"
    };
    eprintln!(
        "start member {first} with: cluster = \"{name}\", member = {first}, shards = {}, data = \"{place}\",",
        header.shards
    );
    eprintln!(
        "members = [{}], log = \"{log_name}\", and the `inboxes` that the cluster had; the others alike, each with an empty \
         directory.",
        settings.join(", ")
    );
    eprintln!("All services need the same cluster name, and {bus}.");
    Ok(())
}

/// Goes on with what is left of a group.
pub async fn recover(
    data: PathBuf,
    member: Member,
    cluster: Option<String>,
    accepted: bool,
    format: Format,
) -> Result<(), Failed> {
    let place = data.display().to_string();
    let recovery = Recovery { data, cluster, member: member.id, address: member.address.clone() };
    if !accepted {
        let remains = blocking(move || backup::remains(&recovery).map_err(|error| repair_failed(&error))).await?;
        print::machine(&json!(remains), format)?;
        return Err(Failed::Usage(format!(
            "{place} is that of member {}; its last entry is {}, of term {}. Of all that are left take the one with the highest \
             term, then the highest entry.\nThis is not safe: what only the lost members had is gone, accepted executions too, \
             and a lost member that starts again all the same is a second cluster of the name. Nothing was done: say \
             --i-accept-data-loss",
            remains.was_member, remains.last, remains.last_term
        )));
    }
    let remains = blocking(move || backup::recover(&recovery).map_err(|error| repair_failed(&error))).await?;
    if !print::machine(&json!(remains), format)? {
        let lost = remains.members.iter().filter(|(id, _)| **id != remains.was_member);
        let lost: Vec<_> = lost.map(|(id, address)| format!("{id} at {address}")).collect();
        println!(
            "member {} goes on alone as member {} behind entry {} (term {}); given up: {}",
            remains.was_member,
            remains.member,
            remains.last,
            remains.last_term,
            lost.join(", ")
        );
    }
    eprintln!("start it with member = {}, members = [], data = \"{place}\"; then nova admin add-member", member.id);
    eprintln!(
        "{place}/audit.jsonl tells what was done; {place}/unsafe-recovery.txt warns at each start until it is removed."
    );
    Ok(())
}
