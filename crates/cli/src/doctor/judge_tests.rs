use std::collections::BTreeSet;

use super::*;

const LIMITS: Limits = Limits { skew_ms: 500, sync_ms: 50, free_percent: 10, lag_entries: 1_000, lag_records: 1_000 };
const GIB: u64 = 1 << 30;

fn answer(number: u64) -> v1::DescribeResponse {
    v1::DescribeResponse {
        cluster: vec![7; 16].into(),
        member: number,
        leader: Some(1),
        term: 3,
        committed: 5_000,
        applied: 5_000,
        last: 5_000,
        members: vec![],
        shards: 8,
        inboxes: 4,
        version: "0.1.0".into(),
        state_hash: 99,
        state_index: 5_000,
        voters: vec![1, 2, 3],
        disk_free_bytes: 500 * GIB,
        disk_total_bytes: 1_000 * GIB,
        sync_median_us: 900,
        sync_longest_us: 20_000,
        highest_level: 2,
        level: 2,
        ..v1::DescribeResponse::default()
    }
}

fn healthy() -> Facts {
    let member = |number: u64| Member {
        address: format!("http://m{number}:7710"),
        number: Some(number),
        first: Ok(answer(number)),
        later: Some(answer(number)),
        clock: Some(Clock { offset_ms: 1_000 + number as i64, round_trip_ms: 2 }),
    };
    let shard = |shard: u32| v1::ShardView {
        shard,
        position: Some(v1::ShardPosition { owner: Some(9), ..v1::ShardPosition::default() }),
        ..v1::ShardView::default()
    };
    let worker = v1::WorkerView { session: Some(4), capacity: 8, ..v1::WorkerView::default() };
    Facts {
        members: (1..=3).map(member).collect(),
        shards: Some(Ok((0..8).map(shard).collect())),
        workers: Some(vec![worker]),
        apis: vec![Api { url: "http://api:7700".into(), lag: Ok((3, 0)) }],
        topics: vec![Topic { name: "nova.commands.v1".into(), problems: Ok(vec![]) }],
    }
}

/// What is not as it should be, after something was changed in a healthy cluster.
fn sick(change: impl FnOnce(&mut Facts)) -> Vec<(State, &'static str, String)> {
    let mut facts = healthy();
    change(&mut facts);
    let bad = judge(&facts, LIMITS).into_iter().filter(|it| it.state != State::Ok);
    bad.map(|it| {
        assert!(!it.advice.is_empty() && !it.limit.is_empty() && !it.found.is_empty(), "{it:?}");
        (it.state, it.check, it.subject)
    })
    .collect()
}

fn of(facts: &mut Facts, number: usize) -> &mut v1::DescribeResponse {
    facts.members[number - 1].first.as_mut().unwrap()
}

fn later(facts: &mut Facts, number: usize) -> &mut v1::DescribeResponse {
    facts.members[number - 1].later.as_mut().unwrap()
}

const M2: &str = "member 2 at http://m2:7710";

#[test]
fn a_healthy_cluster_has_no_finding_and_every_check_says_so() {
    assert_eq!(sick(|_| {}), []);
    let checks: BTreeSet<_> = judge(&healthy(), LIMITS).into_iter().map(|it| it.check).collect();
    let all = [
        "reachable",
        "leader",
        "settings",
        "versions",
        "clock",
        "fsync",
        "disk",
        "replication",
        "apply",
        "shards",
        "commands",
        "outbox",
        "workers",
        "events",
        "topics",
    ];
    assert_eq!(checks, BTreeSet::from(all));
}

#[test]
fn a_clock_is_off_the_median_by_more_than_its_way_explains() {
    let clock = |offset_ms: i64, round_trip_ms| {
        sick(|facts| facts.members[1].clock = Some(Clock { offset_ms: 1_000 + offset_ms, round_trip_ms }))
    };
    assert_eq!(clock(400, 2), []);
    assert_eq!(clock(600, 2), [(State::Warn, "clock", M2.into())]);
    assert_eq!(clock(-6_000, 2), [(State::Fail, "clock", M2.into())]);
    assert_eq!(clock(600, 400), []);
    // Of two nobody knows who is right.
    let two = sick(|facts| {
        facts.members[1].clock = Some(Clock { offset_ms: 9_000, round_trip_ms: 0 });
        facts.members[2].clock = None;
    });
    assert_eq!(two.iter().map(|it| (it.0, it.1)).collect::<Vec<_>>(), [(State::Fail, "clock"); 2]);
}

#[test]
fn slow_syncs_are_found_by_median_and_by_the_longest() {
    assert_eq!(sick(|facts| of(facts, 2).sync_median_us = 60_000), [(State::Warn, "fsync", M2.into())]);
    assert_eq!(sick(|facts| of(facts, 2).sync_median_us = 700_000), [(State::Fail, "fsync", M2.into())]);
    assert_eq!(sick(|facts| of(facts, 2).sync_longest_us = 3_000_000), [(State::Warn, "fsync", M2.into())]);
}

#[test]
fn a_disk_is_nearly_full_by_its_part_or_by_what_is_left() {
    assert_eq!(sick(|facts| of(facts, 2).disk_free_bytes = 90 * GIB), [(State::Warn, "disk", M2.into())]);
    assert_eq!(sick(|facts| of(facts, 2).disk_free_bytes = 20 * GIB), [(State::Fail, "disk", M2.into())]);
    let small =
        |free| sick(move |facts| (of(facts, 2).disk_free_bytes, of(facts, 2).disk_total_bytes) = (free, 4 * GIB));
    assert_eq!(small(GIB), []);
    assert_eq!(small(GIB / 2), [(State::Warn, "disk", M2.into())]);
    // What the system does not say is no finding.
    assert_eq!(sick(|facts| (of(facts, 2).disk_free_bytes, of(facts, 2).disk_total_bytes) = (0, 0)), []);
}

#[test]
fn a_member_that_stays_behind_or_stands_still_is_found() {
    let behind = |first, now| {
        sick(move |facts| {
            of(facts, 2).last = first;
            (later(facts, 2).last, later(facts, 2).committed, later(facts, 2).applied) = (now, now, now);
        })
    };
    assert_eq!(behind(4_000, 4_999), []);
    assert_eq!(behind(10, 3_000), [(State::Warn, "replication", M2.into())]);
    assert_eq!(behind(4_990, 4_990), [(State::Fail, "replication", M2.into())]);
    assert_eq!(sick(|facts| later(facts, 2).applied = 3_000), [(State::Warn, "apply", M2.into())]);
}

#[test]
fn members_that_do_not_answer_and_groups_without_leader_are_found() {
    let gone = |facts: &mut Facts, number: usize| {
        facts.members[number - 1].first = Err("connection refused".into());
        (facts.members[number - 1].later, facts.members[number - 1].clock) = (None, None);
    };
    assert_eq!(sick(|facts| gone(facts, 2)), [(State::Warn, "reachable", M2.into())]);
    let two = sick(|facts| {
        gone(facts, 2);
        gone(facts, 3);
        of(facts, 1).leader = None;
        facts.shards = None;
        facts.workers = None;
    });
    let two: Vec<_> = two.into_iter().map(|it| (it.0, it.1)).collect();
    assert_eq!(two, [(State::Fail, "reachable"), (State::Fail, "reachable"), (State::Fail, "leader")]);
    // One that follows nobody yet is no harm; a leader whom nobody follows is.
    assert_eq!(sick(|facts| of(facts, 2).leader = None), []);
    let alone = sick(|facts| (of(facts, 2).leader, of(facts, 3).leader) = (None, None));
    assert_eq!(alone, [(State::Warn, "leader", "the group".into())]);
}

#[test]
fn other_builds_settings_and_states_are_found() {
    assert_eq!(sick(|facts| of(facts, 2).version = "0.2.0".into()), [(State::Warn, "versions", "the group".into())]);
    assert_eq!(sick(|facts| of(facts, 2).highest_level = 3), [(State::Warn, "versions", "the group".into())]);
    assert_eq!(sick(|facts| of(facts, 2).inboxes = 9), [(State::Fail, "settings", M2.into())]);
    let foreign = sick(|facts| of(facts, 2).cluster = vec![8; 16].into());
    assert!(foreign.contains(&(State::Fail, "settings", M2.into())), "{foreign:?}");
    assert_eq!(sick(|facts| of(facts, 2).state_hash = 98), [(State::Fail, "state", "the group".into())]);
    assert_eq!(sick(|facts| (of(facts, 2).state_hash, of(facts, 2).state_index) = (98, 4_999)), []);
    assert_eq!(sick(|facts| of(facts, 2).unsafe_recovery = "/data/x".into()), [(State::Warn, "recovered", M2.into())]);
}

fn shard(facts: &mut Facts) -> &mut v1::ShardView {
    let Some(Ok(views)) = &mut facts.shards else { panic!("there are some") };
    &mut views[5]
}

#[test]
fn what_waits_for_schedulers_workers_and_apis_is_found() {
    let schedulers = |state, check| vec![(state, check, "schedulers".to_owned())];
    assert_eq!(sick(|facts| shard(facts).position = None), schedulers(State::Fail, "shards"));
    assert_eq!(sick(|facts| shard(facts).read_lag = 1_500), schedulers(State::Warn, "commands"));
    assert_eq!(sick(|facts| shard(facts).read_lag = 15_000), schedulers(State::Fail, "commands"));
    assert_eq!(sick(|facts| shard(facts).outbox_bytes = 20 << 20), schedulers(State::Warn, "outbox"));
    assert_eq!(sick(|facts| shard(facts).outbox_bytes = 50 << 20), schedulers(State::Fail, "outbox"));
    let workers = (State::Warn, "workers", "workers".to_owned());
    assert_eq!(sick(|facts| facts.workers = Some(vec![])), [workers]);
    let api = |state| vec![(state, "events", "http://api:7700".to_owned())];
    assert_eq!(sick(|facts| facts.apis[0].lag = Ok((2_000, 1))), api(State::Warn));
    assert_eq!(sick(|facts| facts.apis[0].lag = Ok((0, 60))), api(State::Warn));
    assert_eq!(sick(|facts| facts.apis[0].lag = Err("no answer".into())), api(State::Fail));
    let wrong = sick(|facts| facts.topics[0].problems = Ok(vec!["retention.ms is 1 and should be 2".into()]));
    assert_eq!(wrong, [(State::Fail, "topics", "nova.commands.v1".into())]);
}
