//! openraft's types to and from protobuf.

use std::io;

use nova_wire::raft_v1 as v1;
use openraft::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use crate::types::{Entry, LeaderId, LogId, Opaque, Types, Vote, log_id};

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

pub(crate) fn append_to_wire(
    target: v1::Target,
    request: &AppendEntriesRequest<Types>,
) -> io::Result<v1::AppendRequest> {
    Ok(v1::AppendRequest {
        target: Some(target),
        vote: Some(vote_to_wire(&request.vote)),
        prev: request.prev_log_id.as_ref().map(id_to_wire),
        commit: request.leader_commit.as_ref().map(id_to_wire),
        entries: request.entries.iter().map(entry_to_wire).collect::<io::Result<_>>()?,
    })
}

pub(crate) fn append_from_wire(request: v1::AppendRequest) -> io::Result<AppendEntriesRequest<Types>> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote.as_ref())?,
        prev_log_id: request.prev.as_ref().map(id_from_wire),
        entries: entries_from_wire(request.entries)?,
        leader_commit: request.commit.as_ref().map(id_from_wire),
    })
}

pub(crate) fn answer_to_wire(answer: AppendEntriesResponse<Types>) -> v1::AppendResponse {
    use v1::append_response::{Matching, Result as Answer};
    let answer = match answer {
        AppendEntriesResponse::Success => Answer::Success(true),
        AppendEntriesResponse::Conflict => Answer::Conflict(true),
        AppendEntriesResponse::PartialSuccess(last) => {
            Answer::Partial(Matching { last: last.as_ref().map(id_to_wire) })
        }
        AppendEntriesResponse::HigherVote(vote) => Answer::HigherVote(vote_to_wire(&vote)),
    };
    v1::AppendResponse { result: Some(answer) }
}

pub(crate) fn answer_from_wire(answer: v1::AppendResponse) -> io::Result<AppendEntriesResponse<Types>> {
    use v1::append_response::Result as Answer;
    match answer.result.ok_or_else(|| invalid("an answer without content"))? {
        Answer::Success(_) => Ok(AppendEntriesResponse::Success),
        Answer::Conflict(_) => Ok(AppendEntriesResponse::Conflict),
        Answer::Partial(matching) => {
            Ok(AppendEntriesResponse::PartialSuccess(matching.last.as_ref().map(id_from_wire)))
        }
        Answer::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote_from_wire(Some(&vote))?)),
    }
}
