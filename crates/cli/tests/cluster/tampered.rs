//! What no service of the cluster would write – forged records and results, late repeats, a stale proposal, a second
//! worker of one name, a command topic that was cut or made anew – gets a clear answer and changes nothing, and the
//! rest of the work goes on.
//!
//! One cluster serves all cases, one after the other; what they leave behind is compared at the end.

mod rig;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use nova_bus::{Bus, Topic};
use nova_client::Repeat;
use nova_testkit::ledger::{self, Line};
use nova_testkit::{Error, Launch, MembersOptions, Process, Readiness, Rest, free_port, until};
use nova_wire::v1::outbox_message::Body;
use nova_wire::v1::refusal::Kind as Refused;
use nova_wire::{ClusterId, v1};
use prost::Message;
use serde_json::json;
use tokio::sync::watch;

use crate::{PATIENCE, events, nova};
use rig::{Rig, SHARDS, commands, hex, seal, unhex};

// Each case has a shard of its own, so that what happens to one is seen not to touch the next.
const RECORDS: u16 = 0;
const RESULTS: u16 = 1;
const PROPOSALS: u16 = 2;
const REPEATS: u16 = 3;
const NAMES: u16 = 4;
/// Nothing is written to it before the topic is made anew.
const UNUSED: u16 = 5;
/// Longer than any request may take that cannot be served.
const HANG: Duration = Duration::from_secs(25);

/// A submission that nobody can take now is refused, or handed over without an answer: that is said, in time.
async fn has_no_outcome(rest: &Rest, key: &str, statuses: &[u16]) {
    let begun = Instant::now();
    let answer = rest.submit_once("echo", &json!({ "n": 0 }), key).await;
    assert!(begun.elapsed() < HANG, "it hung: {answer:?}");
    let Err(Error::Refused { status, code, .. }) = &answer else { panic!("{answer:?}") };
    assert!(statuses.contains(status), "{answer:?}");
    assert_eq!(code, if *status == 503 { "unavailable" } else { "OUTCOME_UNKNOWN" });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_tampered_with_is_told_and_changes_nothing() {
    let mut rig = Rig::start().await;
    let begun = Instant::now();
    let done = |case: &str| println!("{case}: {:.1} s", begun.elapsed().as_secs_f64());
    records_that_nobody_should_take_are_passed_over_counted_and_put_aside(&mut rig).await;
    done("records");
    results_without_a_lease_do_not_count(&mut rig).await;
    done("results");
    proposals_of_the_past_are_refused(&mut rig).await;
    done("proposals");
    a_submission_that_comes_again_late_starts_nothing(&mut rig).await;
    done("repeats");
    a_name_has_one_worker_at_a_time(&mut rig).await;
    done("names");
    a_shard_whose_records_were_cut_off_stands_still(&mut rig).await;
    done("cut");
    a_command_topic_made_anew_is_not_taken_for_the_old_one(&mut rig).await;
    done("made anew");

    // What happened in all: each execution that was accepted, once, and nothing else.
    let name = MembersOptions::default().cluster;
    let told = until("an end of each execution", PATIENCE, || async {
        let told = events::read(&rig.bus, &name).await;
        let ended = told.values().filter(|it| it.ends > 0).count();
        if ended >= rig.accepted.len() { Ok(told) } else { Err(format!("{ended} of {} ended", rig.accepted.len())) }
    });
    let told = told.await.unwrap_or_else(|error| panic!("{}", error.chain()));
    // A submission that was rejected tells that and no more: the one whose key stood for another input.
    let (ran, refused): (Vec<_>, Vec<_>) = told.iter().partition(|(_, it)| it.accepted + it.ends > 0);
    assert!(ran.iter().map(|(id, _)| *id).eq(rig.accepted.keys()), "{:?} were accepted, not {ran:#?}", rig.accepted);
    assert_eq!(refused.len(), 1, "{refused:#?}");
    let wrong: Vec<_> = ran.iter().filter(|(_, it)| (it.accepted, it.ends) != (1, 1)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let summary = ledger::check(&rig.ledgers()).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(summary.attempts, rig.accepted.values().sum::<usize>(), "each task was tried once");
}

async fn records_that_nobody_should_take_are_passed_over_counted_and_put_aside(rig: &mut Rig) {
    let (submit, id) = rig.forged(RECORDS).await;
    let kind = v1::command::Kind::Submit(submit);
    let shard = u32::from(RECORDS);
    let sealed = |kind_of, body| nova_wire::seal(rig.id, kind_of, shard, body);
    let mut damaged = seal(rig.id, RECORDS, &kind).to_vec();
    // The checksum stands last.
    *damaged.last_mut().unwrap() ^= 1;
    // All that could be read would start an execution.
    let records = [
        ("another cluster", seal(ClusterId::of_name("elsewhere"), RECORDS, &kind)),
        ("a wrong checksum", damaged.into()),
        ("not readable", Bytes::from_static(b"this is no envelope")),
        ("not readable", Bytes::new()),
        ("not a record of this shard", seal(rig.id, RECORDS + 1, &kind)),
        ("not a record of this shard", sealed(v1::RecordKind::Outbox, commands(&kind))),
        ("commands that are not understood", sealed(v1::RecordKind::Commands, Bytes::from_static(b"no commands"))),
    ];
    let (epoch, next, _, last, open) = rig.place(RECORDS).await;
    let dropped = rig.metric("nova_scheduler_records_dropped_total").await;
    let mut expected = BTreeMap::new();
    for (why, record) in records {
        expected.insert(rig.append(RECORDS, record.clone()).await, (why.to_owned(), record));
    }
    let end = *expected.keys().last().unwrap();
    rig.applied(RECORDS, end).await;
    let now = rig.place(RECORDS).await;
    assert_eq!((now.0, now.3, now.4), (epoch, last, open), "the records were passed over and said nothing");
    assert_eq!(now.1, next + expected.len() as u64);
    rig.shows("nova_scheduler_records_dropped_total", dropped + expected.len() as f64).await;
    until("a dead letter of each", PATIENCE, || async {
        let mut letters = BTreeMap::new();
        for record in rig.records(Topic::DeadLetter, 0).await {
            let opened = nova_wire::open(&record.value, rig.id).unwrap();
            let letter = v1::DeadLetter::decode(opened.body).unwrap();
            assert_eq!((letter.topic.as_str(), letter.partition), ("nova.commands.v1", shard));
            letters.insert(letter.offset, (letter.reason, letter.original));
        }
        if letters == expected { Ok(()) } else { Err(format!("{letters:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
    rig.is_unknown(&id).await;
    rig.works(RECORDS).await;
}

async fn results_without_a_lease_do_not_count(rig: &mut Rig) {
    let (open, held) = watch::channel(false);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let app = Router::new().route(
        "/",
        get(move || async move {
            count.fetch_add(1, Ordering::Relaxed);
            let mut held = held.clone();
            // An error means that the test is over.
            let _ = held.wait_for(|open| *open).await;
            Json("real")
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let key = rig.key(RESULTS);
    let id = rig.submit("held", &json!({ "url": url }), &key).await.id;
    until("the attempt that is held", PATIENCE, || async {
        let events = rig.rest.events(&id).await.map_err(|error| error.chain())?;
        let begun = asked.load(Ordering::Relaxed) == 1 && rig.attempts(&id).len() == 2;
        // The history has all that happened, so that more of it would be seen.
        let told = events.to_string().matches("\"attemptStarted\"").count();
        if begun && told == 2 { Ok(()) } else { Err(events.to_string()) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
    let attempts = rig.attempts(&id);
    let lease = |line: &Line| v1::LeaseRef {
        execution: unhex(&id),
        token: line.token,
        worker: line.worker,
        session: line.session,
    };
    let (ended, live) = (lease(&attempts[0]), lease(&attempts[1]));
    let never = v1::LeaseRef { token: live.token + 1_000, ..live.clone() };
    let other_session = v1::LeaseRef { session: live.session + 1, ..live.clone() };
    let other_worker = v1::LeaseRef { worker: live.worker + 1, ..live.clone() };
    let result = |lease: &v1::LeaseRef| {
        let payload = v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::from_static(b"\"forged\""))) };
        let outcome = Some(v1::task_result::Outcome::Completed(payload));
        v1::command::Kind::Result(v1::TaskResult { lease: Some(lease.clone()), outcome, trace: None })
    };
    let failure = v1::Failure { code: "forged".into(), ..v1::Failure::default() };
    let failed = v1::TaskResult {
        lease: Some(never.clone()),
        outcome: Some(v1::task_result::Outcome::Failed(failure)),
        trace: None,
    };
    let forged = [
        result(&ended),
        result(&never),
        result(&other_session),
        result(&other_worker),
        v1::command::Kind::Result(failed),
        v1::command::Kind::Stopped(v1::Stopped { lease: Some(never.clone()) }),
        v1::command::Kind::Declined(v1::Declined { lease: Some(ended.clone()), reason: "forged".into() }),
    ];
    let view = rig.rest.get(&id).await.unwrap();
    let history = rig.rest.events(&id).await.unwrap();
    let (_, _, _, last, _) = rig.place(RESULTS).await;
    let mut end = 0;
    for kind in forged {
        end = rig.command(RESULTS, kind).await;
    }
    rig.applied(RESULTS, end).await;
    // Who has the session hears of each result that does not count; another session, or no worker, hears nothing.
    let stale = |body| match body {
        Body::StaleToken(stale) => stale.lease,
        _ => None,
    };
    let wanted = vec![ended.token, never.token, never.token];
    until("stale tokens", PATIENCE, || async {
        let told: Vec<_> = rig.messages(Topic::Tasks, stale).await.iter().map(|lease| lease.token).collect();
        if told == wanted { Ok(()) } else { Err(format!("{told:?}, wanted {wanted:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
    let now = rig.place(RESULTS).await;
    assert_eq!((now.3, now.4), (last + 3, 1), "nothing else was said");
    assert_eq!(rig.rest.get(&id).await.unwrap(), view);
    assert_eq!(rig.rest.events(&id).await.unwrap()["events"], history["events"]);

    open.send(true).unwrap();
    let outcome = rig.rest.wait(&id, PATIENCE).await.unwrap();
    assert_eq!((outcome.state.as_str(), outcome.output), ("COMPLETED", Some(json!("real"))));
    // The lease that did count is over too.
    let (_, _, _, last, _) = rig.place(RESULTS).await;
    let end = rig.command(RESULTS, result(&live)).await;
    rig.applied(RESULTS, end).await;
    let now = rig.place(RESULTS).await;
    assert_eq!((now.3, now.4), (last + 1, 0), "it is told that the token is stale, and nothing else");
    assert_eq!(rig.rest.wait(&id, PATIENCE).await.unwrap().output, Some(json!("real")));
    assert_eq!((asked.load(Ordering::Relaxed), rig.attempts(&id).len()), (1, 2));
    rig.works(RESULTS).await;
}

/// What the leader says to a proposal, as the owner of a shard would send it.
async fn propose(rig: &Rig, proposal: v1::Proposal) -> v1::Refusal {
    let request = v1::ProposeRequest { request: 7, proposal: Some(proposal) };
    let mut answers = rig
        .coordinators
        .call(PATIENCE, Repeat::Read, |mut member| {
            let requests = tokio_stream::iter([request.clone()]);
            async move { member.propose(requests).await }
        })
        .await
        .unwrap();
    let answer = answers.message().await.unwrap().expect("an answer");
    assert_eq!(answer.request, 7);
    let Some(v1::propose_response::Result::Verdict(verdict)) = answer.result else { panic!("no verdict: {answer:?}") };
    match verdict.kind {
        Some(v1::verdict::Kind::Refused(refusal)) => refusal,
        applied => panic!("it was not refused: {applied:?}"),
    }
}

async fn proposals_of_the_past_are_refused(rig: &mut Rig) {
    let (submit, id) = rig.forged(PROPOSALS).await;
    let position = rig.position(PROPOSALS).await;
    let before = rig.place(PROPOSALS).await;
    let next = position.next_offset;
    assert!(position.epoch > 0 && next > 0, "{position:?}");
    // But for what is wrong with each, it would be applied, and start an execution.
    let good = v1::Proposal {
        shard: u32::from(PROPOSALS),
        epoch: position.epoch,
        first_offset: next,
        next_offset: next + 1,
        before: position.before,
        records: vec![v1::CommandRecord {
            offset: next,
            checksum: 1,
            commands: commands(&v1::command::Kind::Submit(submit)),
        }],
        locals: Vec::new(),
        outbox_acked: position.outbox_acked,
    };
    let late = v1::CommandRecord { offset: next + 1, ..good.records[0].clone() };
    let gap =
        v1::Proposal { first_offset: next + 1, next_offset: next + 2, before: 1, records: vec![late], ..good.clone() };
    let cases = [
        (v1::Proposal { epoch: position.epoch - 1, ..good.clone() }, Refused::StaleEpoch, position.epoch),
        (v1::Proposal { epoch: position.epoch + 1, ..good.clone() }, Refused::StaleEpoch, position.epoch),
        (gap, Refused::Gap, next),
        (v1::Proposal { before: position.before ^ 1, ..good.clone() }, Refused::Rewritten, next),
    ];
    for (proposal, kind, number) in cases {
        let refusal = propose(rig, proposal).await;
        assert_eq!((refusal.kind(), refusal.number), (kind, number), "{refusal:?}");
        assert_eq!(rig.place(PROPOSALS).await, before);
    }
    let unknown = propose(rig, v1::Proposal { shard: u32::from(SHARDS), ..good }).await;
    assert_eq!(unknown.kind(), Refused::UnknownShard, "{unknown:?}");
    rig.is_unknown(&id).await;
    rig.works(PROPOSALS).await;
}

async fn a_submission_that_comes_again_late_starts_nothing(rig: &mut Rig) {
    let (key, id) = rig.works(REPEATS).await;
    let (record, _) = rig.submission(REPEATS, &id).await;
    let (epoch, next, _, last, _) = rig.place(REPEATS).await;
    let offset = rig.append(REPEATS, record).await;
    assert_eq!(offset, next, "it comes last");
    rig.applied(REPEATS, offset).await;
    let now = rig.place(REPEATS).await;
    assert_eq!((now.0, now.3, now.4), (epoch, last + 1, 0), "it is answered, and nothing is open");
    let repeated = |body| match body {
        Body::Reply(v1::Reply { answer: Some(v1::reply::Answer::Accepted(accepted)), .. }) => Some(accepted),
        _ => None,
    };
    until("the answer that it was known", PATIENCE, || async {
        let told = rig.messages(Topic::Replies, repeated).await;
        let told = told.iter().filter(|accepted| accepted.repeated && hex(&accepted.execution) == id).count();
        if told == 1 { Ok(()) } else { Err(format!("it was told {told} times")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));

    let again = rig.rest.submit_once("echo", &json!({ "n": REPEATS }), &key).await.unwrap();
    assert!(again.repeated && again.id == id, "{again:?}");
    let other = rig.rest.submit_once("echo", &json!({ "n": "other" }), &key).await;
    let Err(Error::Refused { status: 409, code, body, .. }) = other else { panic!("{other:?}") };
    assert_eq!(code, "idempotency.conflict");
    assert!(body.contains(&id), "it names the execution that the key started: {body}");
    assert_eq!(rig.place(REPEATS).await.4, 0);
    assert_eq!(rig.attempts(&id).len(), 1);
    rig.works(REPEATS).await;
    let wanted = rig.accepted.values().filter(|attempts| **attempts == 1).count();
    until("the history of all", PATIENCE, || async {
        let all = rig.rest.list_all("echo").await.map_err(|error| error.chain())?.len();
        if all == wanted { Ok(()) } else { Err(format!("{all} executions, {wanted} were accepted")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
}

async fn a_name_has_one_worker_at_a_time(rig: &mut Rig) {
    let dir = rig.cluster.dir().path().to_owned();
    let session = session(rig).await.expect("the worker is connected");
    let register = v1::Register {
        name: "worker-1".into(),
        pool: "default".into(),
        kinds: vec!["echo".into()],
        capacity: 1,
        boot: 1,
        ..v1::Register::default()
    };
    let fenced = v1::Register { fenced: true, last_session: session + 1, ..register.clone() };
    for (register, kind) in [(register, Refused::NameTaken), (fenced, Refused::NotLastSession)] {
        let asking = rig.coordinators.call(PATIENCE, Repeat::Never, |mut member| {
            let register = register.clone();
            async move { member.register(register).await }
        });
        let answer = asking.await.unwrap().result;
        let Some(v1::register_response::Result::Refused(refusal)) = answer else { panic!("{answer:?}") };
        assert_eq!((refusal.kind(), refusal.number), (kind, session));
    }

    // On the directory of the first one: only one process may have it.
    let mut second = worker(rig, "second", &[]);
    let end = until("the end of the second", PATIENCE, || {
        let alive = second.check();
        async move {
            match alive {
                Err(Error::Ended { tail, .. }) => Ok(tail),
                other => Err(format!("{other:?}")),
            }
        }
    });
    let said = end.await.unwrap();
    assert!(said.contains("worker-1 is in use by another process"), "{said}");

    // On a directory of its own: it waits.
    let own = [("data", dir.join("twin-data")), ("ledger", dir.join("twin.ledger"))];
    let twin = worker(rig, "twin", &own);
    until("word that the name is taken", PATIENCE, || async {
        let said = twin.errors().map_err(|error| error.chain())?;
        if said.contains("another session has the name") { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));
    rig.twin = Some(twin);
    rig.works(NAMES).await;
    assert_eq!(self::session(rig).await, Some(session), "the first one has the name still");
    assert!(rig.ledgers()[1].lines.is_empty(), "the second one was given no work");

    // It takes over when the first one has gone, and not before.
    rig.cluster.workers()[0].stop(PATIENCE).await.unwrap();
    let rig = &*rig;
    until("the session of the second", PATIENCE, || async {
        self::session(rig).await.filter(|now| *now > session).ok_or("there is no new session".to_owned())
    })
    .await
    .unwrap();
}

/// The open session of the worker.
async fn session(rig: &Rig) -> Option<u64> {
    let asking = |mut member: nova_client::Member| async move { member.list_workers(v1::ListWorkersRequest {}).await };
    let all = rig.coordinators.call(PATIENCE, Repeat::Read, asking).await.unwrap().workers;
    assert_eq!(all.len(), 1, "one name is one worker: {all:?}");
    all[0].session
}

/// Another process with the config of the first worker, but for these paths.
fn worker(rig: &Rig, process: &str, paths: &[(&str, PathBuf)]) -> Process {
    let dir = rig.cluster.dir().path();
    let mut config: toml::Table = std::fs::read_to_string(dir.join("worker-1.toml")).unwrap().parse().unwrap();
    let observe = format!("127.0.0.1:{}", free_port().unwrap());
    config.insert("observe".into(), observe.clone().into());
    for (field, path) in paths {
        config.insert((*field).into(), path.display().to_string().into());
    }
    let file = dir.join(format!("{process}.toml"));
    std::fs::write(&file, config.to_string()).unwrap();
    Process::spawn(Launch {
        name: process.into(),
        program: nova().path().to_owned(),
        args: vec!["serve".into(), "worker".into(), "--config".into(), file.into()],
        env: vec![("NOVA_LOG".into(), "warn".into())],
        dir: dir.to_owned(),
        readiness: Readiness::Http(format!("http://{observe}")),
    })
    .unwrap()
}

/// Records are deleted that no scheduler has read. What they said is lost, and that is for people to decide: the shard
/// does not go on as if they had never been.
async fn a_shard_whose_records_were_cut_off_stands_still(rig: &mut Rig) {
    rig.works(RECORDS).await;
    let before = rig.place(RECORDS).await;
    rig.cluster.schedulers()[0].stop(PATIENCE).await.unwrap();
    let from = rig.said();
    let (rest, key) = (rig.rest.clone(), rig.key(RECORDS));
    let waiting = tokio::spawn(async move { has_no_outcome(&rest, &key, &[504]).await });
    let end = until("the record that is not read", PATIENCE, || async {
        let end = rig.bus.offsets(&Topic::Commands, u32::from(RECORDS)).await.map_err(|error| error.to_string())?.end;
        if end > before.1 { Ok(end) } else { Err(format!("the end is {end}")) }
    });
    let end = end.await.unwrap();
    let cut = json!({ "version": 1, "partitions":
        [{ "topic": "nova.commands.v1", "partition": RECORDS, "offset": end }] });
    let file = rig.cluster.dir().path().join("cut.json");
    std::fs::write(&file, cut.to_string()).unwrap();
    let args = ["--offset-json-file", file.to_str().unwrap()];
    rig.cluster.kafka().tool("org.apache.kafka.tools.DeleteRecordsCommand", &args).await.unwrap();

    rig.cluster.schedulers()[0].start().unwrap();
    rig.cluster.schedulers()[0].ready(PATIENCE).await.unwrap();
    rig.shows("nova_scheduler_shards_halted", 1.0).await;
    assert!(rig.alarms(from).keys().eq([&RECORDS]), "{:?}", rig.alarms(from));
    for shard in [RESULTS, PROPOSALS, REPEATS, NAMES] {
        rig.works(shard).await;
    }
    waiting.await.unwrap();
    let (_, next, checksum, last, open) = rig.place(RECORDS).await;
    assert_eq!((next, checksum, last, open), (before.1, before.2, before.3, before.4), "nothing of it was passed over");
}

async fn a_command_topic_made_anew_is_not_taken_for_the_old_one(rig: &mut Rig) {
    let used = [RESULTS, PROPOSALS, REPEATS, NAMES];
    let mut places = BTreeMap::new();
    for shard in used {
        places.insert(shard, rig.place(shard).await);
    }
    assert_eq!(rig.position(UNUSED).await.next_offset, 0);
    let backup = rig.records(Topic::Commands, u32::from(REPEATS)).await;
    assert!(backup.iter().map(|record| record.offset).eq(0..places[&REPEATS].1), "the backup is whole");

    let from = rig.said();
    let args = ["--delete", "--topic", "nova.commands.v1"];
    rig.cluster.kafka().tool("org.apache.kafka.tools.TopicCommand", &args).await.unwrap();
    // Without a topic it is refused, or handed over to the new one.
    let (rest, key) = (rig.rest.clone(), rig.key(NAMES));
    let without = tokio::spawn(async move { has_no_outcome(&rest, &key, &[503, 504]).await });
    let bootstrap = rig.cluster.kafka().bootstrap().to_owned();
    let (nova, shards) = (nova(), SHARDS.to_string());
    let inboxes = MembersOptions::default().inboxes.to_string();
    until("the new topic", PATIENCE, || async {
        let args = ["admin", "topics", "--bootstrap", &bootstrap, "--shards", &shards];
        let args = args.into_iter().chain(["--inboxes", &inboxes, "--replicas", "1"]);
        nova.run(args).await.map_err(|error| error.chain())?;
        let new = rig.bus.offsets(&Topic::Commands, u32::from(REPEATS)).await.map_err(|error| error.to_string())?;
        if new == (0..0) { Ok(()) } else { Err(format!("{new:?}")) }
    })
    .await
    .unwrap_or_else(|error| panic!("{}", error.chain()));

    // All that had records stand still, the one that was cut too; the one that had none goes on with the new topic.
    rig.shows("nova_scheduler_shards_halted", 5.0).await;
    let alarms = rig.alarms(from);
    assert!(used.iter().all(|shard| alarms.contains_key(shard)), "{alarms:?}");
    rig.works(UNUSED).await;
    let (rest, key) = (rig.rest.clone(), rig.key(PROPOSALS));
    let waiting = tokio::spawn(async move { has_no_outcome(&rest, &key, &[504]).await });
    // Longer than the old one was: the offset that is next is there again, behind another record.
    let (submit, forged) = rig.forged(UNUSED).await;
    let mut end = 0;
    while end <= places[&RESULTS].1 + 1 {
        end = rig.command(RESULTS, v1::command::Kind::Submit(submit.clone())).await;
    }

    // A new owner sees it too: it reads the record before again.
    let from = rig.said();
    rig.restart_scheduler().await;
    rig.shows("nova_scheduler_shards_halted", 5.0).await;
    let alarms = rig.alarms(from);
    assert!(alarms[&RESULTS].contains("has checksum"), "{alarms:?}");

    // What the alarm tells to do helps: the same records in the same places, and the shard goes on where it stood.
    for record in backup {
        assert_eq!(rig.append(REPEATS, record.value).await, record.offset);
    }
    rig.shows("nova_scheduler_shards_halted", 4.0).await;
    rig.works(REPEATS).await;
    without.await.unwrap();
    waiting.await.unwrap();
    for shard in [RESULTS, PROPOSALS, NAMES] {
        let (now, was) = (rig.place(shard).await, places[&shard]);
        assert_eq!((now.1, now.2, now.3, now.4), (was.1, was.2, was.3, was.4), "shard {shard} moved");
    }
    assert_eq!(rig.metric("nova_scheduler_shards_halted").await, 4.0);
    rig.is_unknown(&forged).await;
}
