//! openraft's types to and from protobuf.

use std::io;

use nova_wire::raft_v1 as v1;
use openraft::EntryPayload;

use crate::types::{Entry, LeaderId, LogId, Opaque, Vote, log_id};

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

pub(crate) fn id_to_wire(id: &LogId) -> v1::LogId {
    v1::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn id_from_wire(id: &v1::LogId) -> LogId {
    log_id(id.term, id.node, id.index)
}

pub(crate) fn vote_to_wire(vote: &Vote) -> v1::Vote {
    v1::Vote { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: Option<&v1::Vote>) -> io::Result<Vote> {
    let vote = vote.ok_or_else(|| invalid("a vote is missing"))?;
    let leader_id = LeaderId { term: vote.term, node_id: vote.node };
    Ok(Vote { leader_id, committed: vote.committed })
}

pub(crate) fn entry_to_wire(entry: &Entry) -> io::Result<v1::Entry> {
    use v1::entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(command) => Some(Payload::Command(command.0.clone())),
        EntryPayload::Membership(membership) => Some(Payload::Membership(serde_json::to_vec(membership)?.into())),
    };
    Ok(v1::Entry { id: Some(id_to_wire(&entry.log_id)), payload })
}

pub(crate) fn entry_from_wire(entry: v1::Entry) -> io::Result<Entry> {
    use v1::entry::Payload;
    let id = entry.id.ok_or_else(|| invalid("an entry without id"))?;
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(Payload::Command(command)) => EntryPayload::Normal(Opaque(command)),
        Some(Payload::Membership(json)) => EntryPayload::Membership(serde_json::from_slice(&json)?),
    };
    Ok(Entry { log_id: id_from_wire(&id), payload })
}

pub(crate) fn entries_from_wire(entries: Vec<v1::Entry>) -> io::Result<Vec<Entry>> {
    entries.into_iter().map(entry_from_wire).collect()
}
