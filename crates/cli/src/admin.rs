//! Care of a cluster.

use std::time::Duration;

use nova_bus::Layout;
use nova_client::{Coordinators, Repeat};
use nova_service_kit::bus::BusSettings;
use nova_wire::v1;
use serde_json::json;

use crate::args::{self, Admin, Format};
use crate::commands::confirm;
use crate::error::{Failed, chain};
use crate::{members, print, repair};

const PATIENCE: Duration = Duration::from_secs(10);
/// A new member gets the whole log first.
const MEMBERSHIP: Duration = Duration::from_secs(120);

pub fn failed(error: nova_client::ClientError) -> Failed {
    match error {
        nova_client::ClientError::Refused(status) => Failed::Refused(status.message().to_owned()),
        other => Failed::Unreachable(chain(&other)),
    }
}

pub fn client(at: &args::Coordinators) -> Coordinators {
    Coordinators::new(at.addresses.clone())
}

fn print_members(members: &[v1::Member], format: Format) -> Result<(), Failed> {
    let all: Vec<_> = members.iter().map(|it| json!({ "id": it.id, "address": it.address })).collect();
    let all = json!(all);
    if !print::machine(&all, format)? {
        print::table(&["id", "address"], print::rows(&all, &["id", "address"]));
    }
    Ok(())
}

pub async fn run(admin: Admin, format: Format) -> Result<(), Failed> {
    match admin {
        Admin::Topics { bootstrap, shards, events, inboxes, replicas, prefix } => {
            let settings = BusSettings { bootstrap, prefix, replicas, ..BusSettings::default() };
            let problems = settings.problems();
            if !problems.is_empty() {
                return Err(Failed::Usage(problems.join("\n")));
            }
            let bus = settings.connect().map_err(|error| Failed::unreachable(&error))?;
            let topics = Layout { shards, events, inboxes, apis: 16 }.topics();
            bus.ensure_topics(&topics).await.map_err(|error| match error {
                nova_bus::BusError::WrongSettings { .. } => Failed::Refused(error.to_string()),
                other => Failed::unreachable(&other),
            })?;
            for topic in topics {
                println!("{:<24} {:>4} partitions", topic.topic.to_string(), topic.partitions);
            }
            Ok(())
        }
        Admin::Members(at) => describe(&at, format).await,
        Admin::AddMember { at, id, address } => {
            let member = v1::Member { id, address };
            let asking = client(&at);
            let asking = asking.call_slow(MEMBERSHIP, Repeat::Harmless, |mut leader| {
                let member = member.clone();
                async move { leader.add_member(member).await }
            });
            print_members(&asking.await.map_err(failed)?.members, format)
        }
        Admin::RemoveMember { at, id, yes } => {
            confirm(&format!("Remove member {id}? Its number can never be used again."), yes)?;
            let request = v1::RemoveMemberRequest { id };
            let asking = client(&at);
            let asking = asking
                .call_slow(MEMBERSHIP, Repeat::Never, |mut leader| async move { leader.remove_member(request).await });
            print_members(&asking.await.map_err(failed)?.members, format)
        }
        Admin::Replace { at, member, with, force, yes } => repair::replace(&at, member, &with, force, yes).await,
        Admin::Backup { at, to } => repair::backup(&client(&at), to, format).await,
        Admin::Verify { from } => repair::verify(from, format).await,
        Admin::Restore { from, cluster, data, members, log } => {
            repair::restore(from, cluster, data, members, log, format).await
        }
        Admin::Recover { data, member, cluster, i_accept_data_loss } => {
            repair::recover(data, member, cluster, i_accept_data_loss, format).await
        }
        Admin::Shards(at) => shards(&at, format).await,
        Admin::Snapshot(at) => {
            let asking = client(&at);
            let asking = asking.call_slow(MEMBERSHIP, Repeat::Harmless, |mut leader| async move {
                leader.take_snapshot(v1::TakeSnapshotRequest {}).await
            });
            println!("snapshot at log entry {}", asking.await.map_err(failed)?.applied);
            Ok(())
        }
        Admin::RaiseLevel { at, to, yes } => {
            confirm("Raise the feature level? It never goes down: older builds cannot start any more.", yes)?;
            let asking = client(&at);
            let asking = asking.call_slow(MEMBERSHIP, Repeat::Harmless, |mut leader| async move {
                leader.raise_level(v1::RaiseLevelRequest { to }).await
            });
            println!("feature level {} is in force", asking.await.map_err(failed)?.level);
            Ok(())
        }
        Admin::Namespace { at, name, max_open_executions, max_keys } => {
            let namespace = v1::Namespace { name: name.clone(), max_open_executions, max_keys };
            let asking = client(&at);
            let asking = asking.call(PATIENCE, Repeat::Harmless, |mut leader| {
                let namespace = namespace.clone();
                async move { leader.put_namespace(namespace).await }
            });
            match asking.await.map_err(failed)?.result {
                Some(v1::put_response::Result::Refused(refusal)) => Err(Failed::Refused(refusal.what)),
                _ => {
                    println!("namespace {name} stored");
                    Ok(())
                }
            }
        }
        Admin::RebuildHistory { config, yes } => {
            let config: nova_api::Config = nova_service_kit::config::load(
                Some(&config),
                "NOVA_API_",
                std::env::vars(),
                &[],
                nova_api::Config::problems,
            )
            .map_err(|error| Failed::Usage(chain(&error)))?;
            confirm(&format!("Forget {} and read all events again?", config.history.display()), yes)?;
            let cluster = nova_wire::ClusterId::of_name(&config.cluster);
            let history = nova_history::History::open(&config.history, cluster).await;
            let history = history.map_err(|error| Failed::unreachable(&error))?;
            history.clear().await.map_err(|error| Failed::unreachable(&error))?;
            println!("{} is empty; the api fills it when it starts", config.history.display());
            Ok(())
        }
    }
}

async fn describe(at: &args::Coordinators, format: Format) -> Result<(), Failed> {
    let all = members::ask_all(&at.addresses).await;
    let reached = all.iter().any(|it| it.answer.is_ok());
    let row = |it: &members::Asked| match &it.answer {
        Ok(answer) => json!({
            "id": answer.member, "address": it.address, "leader": answer.leader, "term": answer.term,
            "committed": answer.committed, "applied": answer.applied, "last": answer.last, "version": answer.version,
            "votes": answer.voters.contains(&answer.member), "level": answer.level, "knowsLevel": answer.highest_level,
            "stateHash": format!("{:016x}", answer.state_hash), "error": "",
        }),
        Err(why) => json!({ "id": it.member, "address": it.address, "error": why }),
    };
    let all = json!(all.iter().map(row).collect::<Vec<_>>());
    if !print::machine(&all, format)? {
        let columns =
            ["id", "address", "leader", "term", "last", "committed", "applied", "votes", "level", "stateHash", "error"];
        print::table(&columns, print::rows(&all, &columns));
    }
    if reached { Ok(()) } else { Err(Failed::Unreachable("no coordinator answers".into())) }
}

async fn shards(at: &args::Coordinators, format: Format) -> Result<(), Failed> {
    let asking = client(at);
    let asking = asking
        .call(PATIENCE, Repeat::Read, |mut leader| async move { leader.get_shards(v1::GetShardsRequest {}).await });
    let row = |view: v1::ShardView| {
        let position = view.position.unwrap_or_default();
        json!({
            "shard": view.shard, "epoch": position.epoch,
            "owner": position.owner.map(|owner| format!("{owner:016x}")),
            "nextOffset": position.next_offset, "open": view.open_executions, "outboxBytes": view.outbox_bytes,
            "outboxWaiting": position.outbox_last - position.outbox_acked, "lag": view.read_lag,
        })
    };
    let all = json!(asking.await.map_err(failed)?.shards.into_iter().map(row).collect::<Vec<_>>());
    if !print::machine(&all, format)? {
        let columns = ["shard", "epoch", "owner", "nextOffset", "open", "outboxWaiting", "outboxBytes", "lag"];
        print::table(&columns, print::rows(&all, &columns));
    }
    Ok(())
}
