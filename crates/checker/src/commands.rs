//! What was handed over, against what was decided: each submission and each cancel has a decision (G1), each number of a
//! source has one execution (A2, E1, E4), each node completes by a result of the attempt that held it (C2).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nova_wire::v1;
use prost::Message;
use serde_json::Value;
use v1::submit::Dedupe;

use crate::outbox::Outbox;
use crate::{End, Execution, Findings, History, Id, Numbers, Topic};

/// Gives how many executions sources started.
pub(crate) fn check(
    history: &History,
    outbox: &Outbox,
    executions: &BTreeMap<Id, Execution>,
    findings: &mut Findings,
) -> usize {
    let replies = outbox.messages.values().filter_map(|it| match &it.body {
        Some(v1::outbox_message::Body::Reply(reply)) => reply.to,
        _ => None,
    });
    let answered: HashSet<v1::ReplyTo> = replies.collect();
    let cluster = nova_wire::ClusterId::of_name(&history.cluster);
    let mut started: BTreeMap<(String, u64), Vec<Id>> = BTreeMap::new();
    let mut clients: BTreeMap<Id, u32> = BTreeMap::new();
    let mut results: BTreeSet<(Id, u64)> = BTreeSet::new();
    let mut keys: BTreeMap<(String, String), Vec<Id>> = BTreeMap::new();
    for (place, records) in history.topics.iter().filter(|(place, _)| place.topic == Topic::Commands) {
        for (offset, record) in records.iter().enumerate() {
            let batch = nova_wire::open(record, cluster).ok().and_then(|it| v1::CommandBatch::decode(it.body).ok());
            let Some(batch) = batch else {
                findings.add("G4", format!("{place:?} {offset}: no commands"));
                continue;
            };
            for command in batch.commands {
                let (what, reply_to) = match &command.kind {
                    Some(v1::command::Kind::Submit(it)) => ("a submission", it.reply_to),
                    Some(v1::command::Kind::Cancel(it)) => ("a cancel", it.reply_to),
                    _ => ("", None),
                };
                if let Some(to) = reply_to {
                    findings.check(answered.contains(&to), "G1", || {
                        format!("{place:?} {offset}: {what} of {to:?} has no answer")
                    });
                }
                if let Some(v1::command::Kind::Result(result)) = &command.kind
                    && let (Some(lease), Some(v1::task_result::Outcome::Completed(_))) =
                        (&result.lease, &result.outcome)
                    && let Some(id) = Id::of(&lease.execution)
                {
                    results.insert((id, lease.token));
                }
                let Some(v1::command::Kind::Submit(submit)) = command.kind else { continue };
                let Some(id) = Id::of(&submit.execution) else { continue };
                let known = executions.contains_key(&id);
                match &submit.dedupe {
                    Some(Dedupe::Key(key)) => keys.entry((submit.namespace, key.clone())).or_default().push(id),
                    Some(Dedupe::Source(_)) => {}
                    None => findings.check(known, "G1", || format!("{id} was handed over, and nothing was decided")),
                }
                if let Some(Dedupe::Source(source)) = submit.dedupe {
                    let ids = started.entry((source.source, source.number)).or_default();
                    if !ids.contains(&id) && executions.get(&id).is_some_and(|it| it.accepted > 0) {
                        ids.push(id);
                    }
                } else {
                    *clients.entry(id).or_default() += 1;
                }
            }
        }
    }
    for (key, ids) in keys {
        let known = ids.iter().any(|id| executions.contains_key(id));
        findings.check(known, "G1", || format!("{key:?} was handed over as {ids:?}, and nothing was decided"));
    }
    for (id, execution) in executions {
        let without: Vec<_> = execution.completed.iter().filter(|token| !results.contains(&(*id, **token))).collect();
        findings.check(without.is_empty(), "C2", || {
            format!("{id}: nodes completed by attempts that gave no result: tokens {without:?}")
        });
    }
    for ((source, number), ids) in &started {
        findings.check(ids.len() <= 1, "E1", || format!("{number} of {source} began {ids:?}"));
        for id in ids {
            findings.check(!clients.contains_key(id), "A2", || format!("{id} is of {source} and of a client"));
        }
    }
    for source in &history.sources {
        let own: BTreeMap<u64, Id> = started
            .iter()
            .filter(|((name, _), _)| *name == source.name)
            .filter_map(|((_, number), ids)| Some((*number, *ids.first()?)))
            .collect();
        let wanted: BTreeMap<u64, &Value> = match &source.numbers {
            Numbers::These(all) => all.iter().map(|(number, expected)| (*number, expected)).collect(),
            Numbers::Every { step, least, expected } => {
                let count = own.len() as u64;
                findings.check(count >= *least, "E4", || {
                    format!("{} has begun {count} executions, and should have begun {least} at least", source.name)
                });
                match (own.first_key_value(), own.last_key_value()) {
                    (Some((first, _)), Some((last, _))) => {
                        (*first..=*last).step_by(*step as usize).map(|number| (number, expected)).collect()
                    }
                    _ => BTreeMap::new(),
                }
            }
        };
        for (number, expected) in &wanted {
            let end = own.get(number).and_then(|id| executions.get(id)).and_then(|it| it.end.as_ref());
            findings.check(matches!(end, Some(End::Completed(output)) if output == *expected), "E4", || {
                format!("{number} of {} should come to {expected}: {end:?}", source.name)
            });
        }
        for (number, id) in own.iter().filter(|(number, _)| !wanted.contains_key(number)) {
            findings.add("E4", format!("{number} of {} is none, and began {id}", source.name));
        }
    }
    // A2: what began was asked for.
    let known: BTreeSet<Id> = started.values().flatten().chain(clients.keys()).copied().collect();
    for (id, _) in executions.iter().filter(|(id, it)| it.accepted > 0 && !known.contains(id)) {
        findings.add("A2", format!("{id} began, and nobody asked for it"));
    }
    started.values().flatten().count()
}
