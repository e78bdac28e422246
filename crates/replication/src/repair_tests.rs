use std::time::Duration;

use nova_host::Dialer;

use super::*;
use crate::suite::Concatenation;
use crate::{Group, GroupConfig};

const SOON: Duration = Duration::from_secs(30);
const NOWHERE: &str = "http://127.0.0.1:9";

fn config(dir: &Path, member: u64, log: LogKind) -> GroupConfig {
    GroupConfig {
        member,
        cluster: [1; 16],
        dir: dir.to_owned(),
        log,
        heartbeat_ms: 50,
        election_min_ms: 100,
        election_max_ms: 200,
        snapshot_entries: 1_000,
        dialer: Dialer::Tcp,
    }
}

fn founding(dir: &Path, members: &[u64], log: LogKind) -> Founding {
    Founding {
        dir: dir.to_owned(),
        member: members[0],
        cluster: [1; 16],
        members: members.iter().map(|id| (*id, NOWHERE.to_owned())).collect(),
        log,
        index: 70,
        used: BTreeSet::from([1, 2]),
    }
}

fn make(founding: &Founding) -> Result<(), RepairError> {
    found(founding, |out| out.write_all(b"state "), Bytes::from_static(b"first "), &"made")
}

/// Starts the member, waits until it leads, and gives what is in its state.
async fn state(config: GroupConfig) -> (Vec<u8>, BTreeSet<u64>) {
    let group = Group::start(config, Concatenation::default()).await.unwrap();
    let mut status = group.status();
    tokio::time::timeout(SOON, status.wait_for(crate::Status::leads)).await.expect("it leads").unwrap();
    let mut copy = group.copy(SOON).await.unwrap();
    let mut state = Vec::new();
    copy.body.read_to_end(&mut state).unwrap();
    assert_eq!(copy.members.len(), 1);
    group.shutdown().await;
    (state, copy.used)
}

fn survivor(dir: &Path, member: u64) -> Survivor {
    Survivor { dir: dir.to_owned(), cluster: None, member, address: NOWHERE.into() }
}

fn carry(survivor: &Survivor) -> Result<Remains, RepairError> {
    carry_on(survivor, |_| Bytes::from_static(b"alone"), |remains| serde_json::json!(remains), "warning")
}

#[tokio::test]
async fn a_group_begins_with_a_state_and_a_command() {
    for log in [LogKind::File, LogKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("member");
        // An empty directory, and what one that was ended has left, are in nobody's way.
        fs::create_dir(&dir).unwrap();
        fs::create_dir(folder.path().join("member.unfinished")).unwrap();
        make(&founding(&dir, &[3], log)).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(make(&founding(&dir, &[3], log)), Err(RepairError::NotEmpty { .. })));
        // A database is let go by threads of its own, some time after its member.
        let starts = if log == LogKind::File { 2 } else { 1 };
        for _ in 0..starts {
            let (state, used) = state(config(&dir, 3, log)).await;
            assert_eq!((&state[..], used), (&b"state first "[..], BTreeSet::from([1, 2, 3])));
        }
    }
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let founding = founding(&folder.path().join("member"), &[3], LogKind::File);
    let broken = found(&founding, |_| Err(io::ErrorKind::StorageFull.into()), Bytes::new(), &"made");
    assert!(matches!(broken, Err(RepairError::Io { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_left_of_a_group_goes_on_alone_under_a_new_number() {
    for log in [LogKind::File, LogKind::Sled] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("member");
        make(&founding(&dir, &[3, 4, 5], log)).unwrap();
        let refused = |member| carry(&survivor(&dir, member)).unwrap_err().to_string();
        assert!(refused(2).contains("number 2 was used"));
        assert!(refused(4).contains("number 4 was used"));
        let foreign = carry(&Survivor { cluster: Some([2; 16]), ..survivor(&dir, 6) });
        assert!(matches!(foreign, Err(RepairError::ForeignCluster { .. })));
        assert_eq!(unread_warning(&dir), None);

        let remains = carry(&survivor(&dir, 6)).unwrap();
        let Remains { was_member, member, ref members, last, last_term, term } = remains;
        assert_eq!((was_member, member, last, last_term, term), (3, 6, 71, 1, 2));
        assert_eq!(members.keys().copied().collect::<Vec<_>>(), [3, 4, 5]);
        assert!(unread_warning(&dir).is_some_and(|(_, text)| text == "warning"));
        let audit = fs::read_to_string(dir.join(AUDIT)).unwrap();
        assert_eq!(audit.lines().count(), 2, "made, and recovered: {audit}");
        assert!(matches!(carry(&survivor(&dir, 7)), Err(RepairError::Alone { member: 6, .. })));

        let old = Group::open(config(&dir, 3, log), Concatenation::default()).await;
        assert!(matches!(old.map(drop), Err(crate::StartError::OtherMember { .. })), "it is member 3 no more");
        let (state, used) = state(config(&dir, 6, log)).await;
        assert_eq!((&state[..], used), (&b"state first alone"[..], (1..=6).collect()));
    }
}

#[test]
fn a_directory_that_is_nobodys_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(carry(&survivor(folder.path(), 2)), Err(RepairError::NoMember { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "not even a lock");
}
