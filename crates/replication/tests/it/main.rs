//! Groups of members over real sockets.
#![allow(clippy::unwrap_used)]

mod rig;

use std::time::Duration;

use bytes::Bytes;
use nova_replication::{LogKind, MembershipError, ProposeError, ReadError, SnapshotStats};
use nova_wire::raft_v1 as v1;
use nova_wire::raft_v1::raft_client::RaftClient;
use rig::{Cluster, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_commits_and_restarts_with_all_it_answered() {
    for log in [LogKind::File, LogKind::Sled] {
        let mut cluster = Cluster::start(1, log).await;
        let leader = cluster.leader().await;
        for n in 0..100_u32 {
            cluster.propose(leader, n).await.unwrap();
        }
        cluster.stop(leader).await;
        cluster.restart(leader).await;
        let leader = cluster.leader().await;
        cluster.member(leader).group.read_barrier(SOON).await.unwrap();
        assert_eq!(cluster.member(leader).numbers(), (0..100).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_in_flight_are_applied_in_order() {
    let cluster = Cluster::start(3, LogKind::File).await;
    let leader = cluster.leader().await;
    let group = &cluster.member(leader).group;
    let mut pending = Vec::new();
    for n in 0..500_u32 {
        pending.push(group.propose(n.to_be_bytes().to_vec().into()).await.unwrap());
    }
    let mut before = 0;
    for pending in pending {
        let reply = pending.reply(SOON).await.unwrap();
        assert!(reply.index > before);
        before = reply.index;
    }
    for member in cluster.members() {
        member.applied(before).await;
        assert_eq!(member.numbers(), (0..500).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_leads_when_the_leader_is_gone_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3, LogKind::File).await;
    let first = cluster.leader().await;
    for n in 0..20 {
        cluster.propose(first, n).await.unwrap();
    }
    cluster.stop(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    for n in 20..40 {
        cluster.propose(second, n).await.unwrap();
    }
    cluster.restart(first).await;
    let applied = cluster.member(second).group.status().borrow().applied;
    cluster.member(first).applied(applied).await;
    assert_eq!(cluster.member(first).numbers(), (0..40).collect::<Vec<_>>());
    let follower = cluster.propose(first, 99).await;
    assert!(
        matches!(&follower, Err(ProposeError::NotLeader { leader: Some((id, _)) }) if *id == second),
        "{follower:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_quorum_confirms_nothing() {
    let mut cluster = Cluster::start(3, LogKind::File).await;
    let leader = cluster.leader().await;
    cluster.member(leader).group.confirm_leadership(SOON).await.unwrap();
    for other in (1..=3).filter(|id| *id != leader) {
        cluster.stop(other).await;
    }
    let short = Duration::from_millis(1_500);
    let read = cluster.member(leader).group.read_barrier(short).await;
    assert!(matches!(read, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{read:?}");
    let confirmed = cluster.member(leader).group.confirm_leadership(short).await;
    assert!(matches!(confirmed, Err(ReadError::NoQuorum | ReadError::NotLeader { .. })), "{confirmed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_go_and_a_number_is_used_once() {
    let mut cluster = Cluster::start(3, LogKind::File).await;
    let leader = cluster.leader().await;
    for n in 0..50 {
        cluster.propose(leader, n).await.unwrap();
    }
    cluster.member(leader).group.snapshot(SOON).await.unwrap();
    let address = cluster.start_empty(4).await;
    cluster.member(leader).group.add_member(4, address.clone(), SOON).await.unwrap();
    let applied = cluster.member(leader).group.status().borrow().applied;
    cluster.member(4).applied(applied).await;
    assert_eq!(cluster.member(4).numbers(), (0..50).collect::<Vec<_>>());
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.member(leader).group.remove_member(follower, SOON).await.unwrap();
    cluster.stop(follower).await;
    let again = cluster.member(leader).group.add_member(follower, address, SOON).await;
    assert_eq!(again, Err(MembershipError::IdUsed { id: follower }));
    cluster.propose(leader, 50).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_from_the_snapshot() {
    let mut cluster = Cluster::start(1, LogKind::File).await;
    let leader = cluster.leader().await;
    for n in 0..30 {
        cluster.propose(leader, n).await.unwrap();
    }
    cluster.member(leader).group.snapshot(SOON).await.unwrap();
    for n in 30..40 {
        cluster.propose(leader, n).await.unwrap();
    }
    cluster.stop(leader).await;
    cluster.restart(leader).await;
    let leader = cluster.leader().await;
    cluster.member(leader).group.read_barrier(SOON).await.unwrap();
    assert_eq!(cluster.member(leader).numbers(), (0..40).collect::<Vec<_>>());
    assert!(cluster.member(leader).restored(), "the state came from the snapshot");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_comes_after_many_bytes_though_their_entries_are_few() {
    let cluster = Cluster::start(1, LogKind::File).await;
    let leader = cluster.leader().await;
    for n in 0..64_u32 {
        let command = [&n.to_be_bytes()[..], &[0; 1 << 20]].concat();
        let pending = cluster.member(leader).group.propose(command.into()).await.unwrap();
        pending.reply(SOON).await.unwrap();
    }
    cluster.files(leader, "snapshots", |names| names.iter().any(|name| name.ends_with(".snap"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_cannot_write_a_snapshot_goes_on_and_writes_the_next_one() {
    let cluster = Cluster::start(1, LogKind::File).await;
    let leader = cluster.leader().await;
    let group = &cluster.member(leader).group;
    cluster.propose(leader, 1).await.unwrap();
    let folder = cluster.path(leader).join("snapshots");
    for failed in 1..=2 {
        // First there is no place for it, then it cannot be written.
        if failed == 1 {
            std::fs::remove_dir(&folder).unwrap();
        } else {
            std::fs::create_dir(&folder).unwrap();
            cluster.member(leader).unwritable(true);
        }
        let snapshot = group.snapshot(Duration::from_millis(300)).await;
        assert!(matches!(snapshot, Err(ProposeError::OutcomeUnknown { .. })), "{snapshot:?}");
        cluster.propose(leader, 2).await.unwrap();
        assert_eq!(group.snapshot_stats(), SnapshotStats { written: 0, failed });
    }
    cluster.member(leader).unwritable(false);
    group.snapshot(SOON).await.unwrap();
    assert_eq!(group.snapshot_stats(), SnapshotStats { written: 1, failed: 2 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_did_not_arrive_leaves_no_file_behind() {
    let cluster = Cluster::start(1, LogKind::File).await;
    let target = v1::Target { cluster: vec![9; 16].into(), member: 1 };
    let head = v1::SnapshotHead { target: Some(target), vote: Some(v1::Vote { term: 1, node: 1, committed: true }) };
    let parts = [
        v1::SnapshotPart { head: Some(head), data: Bytes::new() },
        v1::SnapshotPart { head: None, data: vec![0; 1_000].into() },
    ];
    let mut client = RaftClient::connect(cluster.address(1)).await.unwrap();
    // It ends too early; and it stops in the middle, and then the sender is gone.
    client.install_snapshot(tokio_stream::iter(parts.clone())).await.unwrap_err();
    let never = futures::StreamExt::chain(tokio_stream::iter(parts), futures::stream::pending());
    let sending = tokio::spawn(async move { client.install_snapshot(never).await });
    cluster.files(1, "snapshots", |files| !files.is_empty()).await;
    sending.abort();
    cluster.files(1, "snapshots", <[String]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_stays_while_members_fall_with_requests_on_their_way() {
    let mut cluster = Cluster::start(3, LogKind::File).await;
    let (mut answered, mut number) = (Vec::new(), 0_u32);
    for round in 0..4 {
        let leader = cluster.leader().await;
        let mut pending = Vec::new();
        for _ in 0..400 {
            let command = Bytes::copy_from_slice(&number.to_be_bytes());
            pending.push((number, cluster.member(leader).group.propose(command).await.unwrap()));
            number += 1;
        }
        // Now a follower goes, now the leader, while most is not answered.
        let gone = if round % 2 == 0 { leader } else { leader % 3 + 1 };
        cluster.stop(gone).await;
        for (number, pending) in pending {
            match pending.reply(SOON).await {
                Ok(_) => answered.push(number),
                Err(ProposeError::OutcomeUnknown { .. } | ProposeError::NotLeader { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        cluster.restart(gone).await;
    }
    let leader = cluster.leader().await;
    let last = cluster.propose(leader, number).await.unwrap().index;
    for member in cluster.members() {
        member.applied(last).await;
    }
    let numbers = cluster.member(1).numbers();
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order, none twice");
    assert!(cluster.members().all(|member| member.numbers() == numbers), "equal on all members");
    assert!(
        !answered.is_empty() && answered.iter().all(|number| numbers.binary_search(number).is_ok()),
        "none is lost"
    );
}

/// Commits per second with three members; `cargo test --release -p nova-replication --test it -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures"]
async fn throughput_of_three_members() {
    let cluster = Cluster::start(3, LogKind::File).await;
    let leader = cluster.leader().await;
    let group = &cluster.member(leader).group;
    for in_flight in [1, 16, 128, 1_024, 4_096_usize] {
        let begun = std::time::Instant::now();
        let (mut pending, mut done) = (std::collections::VecDeque::new(), 0_u32);
        while begun.elapsed() < Duration::from_secs(3) {
            while pending.len() < in_flight {
                pending.push_back(group.propose(1_u32.to_be_bytes().to_vec().into()).await.unwrap());
            }
            pending.pop_front().unwrap().reply(SOON).await.unwrap();
            done += 1;
        }
        for pending in pending {
            pending.reply(SOON).await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        eprintln!("{in_flight:5} in flight: {:.0} commits/s, {:?}", f64::from(done) / seconds, group.log_stats());
    }
}
