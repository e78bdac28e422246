//! A small history in which all is right, and what is found when one thing of it is not.

use std::collections::BTreeMap;

use bytes::Bytes;
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde_json::json;
use v1::execution_event::{AcceptedEvent, AttemptStarted, Kind as Event, NodeCompleted};
use v1::outbox_message::Body;

use crate::*;

const ID: Id = Id([7; 16]);

fn inline(text: &str) -> Option<v1::Payload> {
    Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::copy_from_slice(text.as_bytes()))) })
}

fn node() -> Option<v1::NodeRef> {
    Some(v1::NodeRef { scope: 0, node: 1, visit: 1 })
}

fn lease() -> Option<v1::LeaseRef> {
    Some(v1::LeaseRef { execution: ID.0.to_vec().into(), token: 5, worker: 1, session: 1 })
}

fn started(attempt: u32, token: u64) -> Event {
    Event::AttemptStarted(AttemptStarted { node: node(), attempt, worker: 1, token })
}

fn completed() -> Event {
    Event::NodeCompleted(NodeCompleted { node: node(), output: inline("1"), cases: 0, degraded: false })
}

fn end(kind: v1::outcome::Kind) -> Event {
    Event::Ended(v1::Outcome { kind: Some(kind) })
}

/// What the shard says, one message for each event of the one execution.
fn messages(events: Vec<Event>) -> Vec<v1::OutboxMessage> {
    let message = |(number, kind): (u64, Event)| v1::OutboxMessage {
        seq: number,
        at_ms: 0,
        body: Some(Body::Events(v1::ExecutionEvents {
            execution: ID.0.to_vec().into(),
            namespace: "default".into(),
            first_number: number,
            events: vec![v1::ExecutionEvent { kind: Some(kind) }],
        })),
    };
    (1..).zip(events).map(message).collect()
}

fn all() -> Vec<Event> {
    let accepted = AcceptedEvent { workflow: "w".into(), version: 1, ..Default::default() };
    let output = inline("1").expect("it is there");
    vec![Event::Accepted(accepted), started(1, 5), completed(), end(v1::outcome::Kind::Completed(output))]
}

fn record(kind: v1::RecordKind, body: Vec<u8>) -> Bytes {
    nova_wire::seal(ClusterId::of_name("c"), kind, 0, body.into())
}

fn outbox(messages: &[v1::OutboxMessage]) -> Bytes {
    record(v1::RecordKind::Outbox, v1::OutboxBatch { messages: messages.to_vec() }.encode_to_vec())
}

fn commands(kinds: Vec<v1::command::Kind>) -> Bytes {
    let commands = kinds.into_iter().map(|kind| v1::Command { kind: Some(kind) }).collect();
    record(v1::RecordKind::Commands, v1::CommandBatch { commands }.encode_to_vec())
}

fn place(topic: Topic) -> Place {
    Place { topic, partition: 0 }
}

fn history(messages: &[v1::OutboxMessage]) -> History {
    let submit = v1::Submit { execution: ID.0.to_vec().into(), namespace: "default".into(), ..Default::default() };
    let result =
        v1::TaskResult { lease: lease(), outcome: inline("1").map(v1::task_result::Outcome::Completed), trace: None };
    let handed = commands(vec![v1::command::Kind::Submit(submit), v1::command::Kind::Result(result)]);
    let submission = Submission { id: ID, key: None, content: "w 1".into(), expected: json!(1) };
    let operation = Operation {
        begun_ns: 1,
        ended_ns: 2,
        kind: Kind::Submit(submission),
        answer: Answer::Accepted { id: ID, repeated: false },
    };
    let effect =
        Effect { key: "x".into(), execution: ID, attempt: 1, token: 5, process: "w1".into(), begun_ns: 3, ended_ns: 4 };
    let member = |name: &str| Member { name: name.into(), applied: 9, state_hash: 1 };
    let last = messages.iter().map(|it| it.seq).max().unwrap_or(0);
    History {
        cluster: "c".into(),
        operations: vec![operation],
        effects: vec![effect],
        topics: BTreeMap::from([
            (place(Topic::Commands), vec![handed]),
            (place(Topic::Events), vec![outbox(messages)]),
        ]),
        sources: Vec::new(),
        members: vec![member("c1"), member("c2")],
        shards: vec![Shard { shard: 0, next_offset: 1, outbox_last: last, outbox_acked: last, open: 0 }],
        logs: vec![Log { member: "c1".into(), entries: vec![Entry { index: 9, term: 1, leader: 2, crc: 3 }] }],
    }
}

#[track_caller]
fn finds(history: &History, invariant: &str) {
    let found = check(history).expect_err("something does not hold");
    assert!(found.iter().any(|it| it.invariant == invariant), "{invariant}: {found:#?}");
}

/// The same with other events.
#[track_caller]
fn told(invariant: &str, change: impl FnOnce(&mut Vec<Event>)) {
    let mut events = all();
    change(&mut events);
    finds(&history(&messages(events)), invariant);
}

/// The same with something else that is another way.
#[track_caller]
fn noted(invariant: &str, change: impl FnOnce(&mut History)) {
    let mut history = history(&messages(all()));
    change(&mut history);
    finds(&history, invariant);
}

#[test]
fn nothing_is_found_where_all_is_right() {
    let counts = check(&history(&messages(all()))).expect("all holds");
    assert_eq!((counts.accepted, counts.ended, counts.attempts), (1, 1, 1));
}

#[test]
fn events_that_cannot_be_are_found() {
    told("B1", |events| events.push(events[3].clone()));
    told("A2", |events| events.insert(0, events[0].clone()));
    told("B2", |events| drop(events.remove(0)));
    told("B4", |events| events.insert(3, completed()));
    told("B8", |events| events[1] = started(3, 5));
    told("C1", |events| events.insert(2, started(2, 5)));
    told("C2", |events| events.insert(2, started(2, 6)));
    told("D1", |events| events.insert(1, Event::CancelRequested(String::new())));
    let begins = Event::NodeStarted(node().unwrap_or_default());
    told("D1", |events| events.splice(1..1, [Event::CancelRequested(String::new()), begins]).for_each(drop));
    told("D2", |events| events.insert(2, Event::CancelRequested(String::new())));
    told("J2", |events| drop(events.pop()));
    told("J5", |events| events[3] = end(v1::outcome::Kind::Failed(v1::Failure::default())));
    told("J5", |events| events[3] = end(v1::outcome::Kind::Cancelled(String::new())));
}

#[test]
fn messages_that_are_missing_late_or_two_are_found() {
    let own = messages(all());
    let on_topic = |records: Vec<Bytes>| {
        let mut history = history(&own);
        history.topics.insert(place(Topic::Events), records);
        history
    };
    finds(&on_topic(vec![outbox(&own[..2]), outbox(&own[3..])]), "G1");
    finds(&on_topic(vec![outbox(&own[1..]), outbox(&own[..1])]), "G3");
    let mut other = own.clone();
    other[1].at_ms = 1;
    finds(&on_topic(vec![outbox(&own), outbox(&other)]), "G2");
    finds(&on_topic(vec![outbox(&own), Bytes::from_static(b"x")]), "G4");
    let counts = check(&on_topic(vec![outbox(&own), outbox(&own)])).expect("who repeats does no harm");
    assert_eq!(counts.duplicates, own.len());
    let elsewhere = |place: Place| {
        let mut history = history(&own);
        let records = history.topics.remove(&self::place(Topic::Events)).unwrap_or_default();
        history.topics.insert(place, records);
        history
    };
    finds(&elsewhere(place(Topic::Replies)), "G4");
    finds(&elsewhere(Place { topic: Topic::Events, partition: 1 }), "G4");
    noted("G2", |history| history.shards[0].outbox_last = 3);
    noted("J2", |history| history.shards[0].outbox_acked = 3);
    noted("J2", |history| history.shards[0].open = 1);
    noted("J2", |history| history.shards[0].next_offset = 0);
}

#[test]
fn answers_that_are_not_true_are_found() {
    let answered = |invariant, answer: Answer| noted(invariant, |history| history.operations[0].answer = answer);
    answered("A1", Answer::Accepted { id: Id([8; 16]), repeated: true });
    answered("A4", Answer::Rejected { why: "full".into(), conflict: false });
    answered("A4", Answer::NotSent);
    noted("C7", |history| {
        let (kind, answer) = (Kind::OldEpoch(0, 1), Answer::Added);
        history.operations.push(Operation { begun_ns: 1, ended_ns: 2, kind, answer });
    });
    let cancel = |answer: Answer| {
        move |history: &mut History| {
            history.operations.push(Operation { begun_ns: 1, ended_ns: 2, kind: Kind::Cancel(ID), answer });
        }
    };
    noted("D2", cancel(Answer::Cancelling));
    let ended = |answer: Answer| {
        let mut events = all();
        events.splice(1.., [end(v1::outcome::Kind::Cancelled(String::new()))]);
        let mut history = history(&messages(events));
        history.effects.clear();
        cancel(answer)(&mut history);
        history
    };
    assert_eq!(check(&ended(Answer::Cancelling)).map(|counts| counts.ended), Ok(1));
    assert_eq!(check(&ended(Answer::Unknown)).map(|counts| counts.ended), Ok(1));
    finds(&ended(Answer::Rejected { why: "ended".into(), conflict: false }), "J5");
    noted("A3", |history| {
        let Kind::Submit(first) = &mut history.operations[0].kind else { return };
        first.key = Some(("default".into(), "k".into()));
        let mut again = history.operations[0].clone();
        let Kind::Submit(second) = &mut again.kind else { return };
        second.content = "w 2".into();
        history.operations.push(again);
    });
}

#[test]
fn attempts_at_once_and_attempts_nobody_gave_are_found() {
    let again = |begun_ns, ended_ns| {
        move |history: &mut History| {
            let first = history.effects[0].clone();
            history.effects.push(Effect { begun_ns, ended_ns, ..first });
        }
    };
    noted("C3", again(3, 9));
    noted("C5", again(5, 9));
    noted("C5", |history| history.effects[0].token = 4);
    noted("C1", |history| {
        let older = Effect { token: 4, begun_ns: 5, ended_ns: 6, ..history.effects[0].clone() };
        history.effects.push(older);
    });
}

#[test]
fn what_sources_should_have_started_is_found() {
    let source = |numbers| Source { name: "s".into(), numbers };
    noted("E4", |history| history.sources.push(source(Numbers::These([(1, json!(1))].into()))));
    noted("A2", |history| drop(history.topics.insert(place(Topic::Commands), vec![commands(Vec::new())])));
    noted("E4", |history| {
        history.sources.push(source(Numbers::Every { step: 10, least: 1, expected: json!(1) }));
    });
    noted("G1", |history| {
        let reply_to = Some(v1::ReplyTo { inbox: 0, boot: 1, request: 2 });
        let cancel = v1::Cancel { execution: ID.0.to_vec().into(), reply_to, ..Default::default() };
        let records = history.topics.entry(place(Topic::Commands)).or_default();
        records.push(commands(vec![v1::command::Kind::Cancel(cancel)]));
    });
    noted("G1", |history| {
        let lost = v1::Submit { execution: vec![9; 16].into(), ..Default::default() };
        let records = history.topics.entry(place(Topic::Commands)).or_default();
        records.push(commands(vec![v1::command::Kind::Submit(lost)]));
    });
    for (number, id, invariant) in [(1, [9; 16], "E1"), (2, [7; 16], "E4")] {
        noted(invariant, |history| {
            let of = |execution: [u8; 16], number| {
                let dedupe = Some(v1::submit::Dedupe::Source(v1::Source { source: "s".into(), number }));
                let execution = execution.to_vec().into();
                v1::command::Kind::Submit(v1::Submit { execution, dedupe, ..Default::default() })
            };
            history.topics.insert(place(Topic::Commands), vec![commands(vec![of([7; 16], 1), of(id, number)])]);
            history.sources.push(source(Numbers::These([(1, json!(1))].into())));
            let mut other = messages(all());
            for message in &mut other {
                message.seq += 4;
                if let Some(Body::Events(events)) = &mut message.body {
                    events.execution = id.to_vec().into();
                }
            }
            if id != ID.0 {
                history.topics.entry(place(Topic::Events)).or_default().push(outbox(&other));
                (history.shards[0].outbox_last, history.shards[0].outbox_acked) = (8, 8);
            }
        });
    }
}

#[test]
fn members_that_differ_are_found() {
    noted("F3", |history| history.members[1].state_hash = 2);
    let mut behind = history(&messages(all()));
    (behind.members[1].state_hash, behind.members[1].applied) = (2, 8);
    assert!(check(&behind).is_ok(), "nobody knows what it would be");
}

#[test]
fn a_history_in_files_is_the_same_and_one_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut whole = history(&messages(all()));
    whole
        .sources
        .push(Source { name: "s".into(), numbers: Numbers::Every { step: 10, least: 0, expected: json!({ "x": 1 }) } });
    whole.operations.push(Operation { begun_ns: 5, ended_ns: 6, kind: Kind::Read, answer: Answer::There([].into()) });
    whole.write(dir.path()).expect("it is written");
    let again = History::read(dir.path()).expect("it is read");
    assert_eq!(format!("{again:?}"), format!("{whole:?}"));
    assert_eq!(check(&again), check(&whole));
    std::fs::write(dir.path().join("effects.jsonl"), "{\"key\":1}\n").expect("it is written");
    let error = History::read(dir.path()).expect_err("it is none").to_string();
    assert!(error.contains("line 1 of") && error.contains("effects.jsonl"), "{error}");
    std::fs::remove_file(dir.path().join("effects.jsonl")).expect("it goes");
    assert!(matches!(History::read(dir.path()), Err(HistoryError::Io { .. })));
}
