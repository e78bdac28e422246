//! A durable append to each store of the log: a group of one member, a proposal from hand-over to applied.

use std::io::{self, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use nova_replication::{ApplyError, Committed, Group, GroupConfig, LogKind, StateMachine};

const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of the entries: one small, and one of a busy moment.
const SIZES: [usize; 2] = [4 << 10, 64 << 10];

/// Applying costs nothing, so that the log is what is timed.
struct Nothing;

impl StateMachine for Nothing {
    type Frozen = ();

    fn apply(&mut self, _: Committed<'_>) -> Result<Bytes, ApplyError> {
        Ok(Bytes::new())
    }

    fn applied(&mut self) {}

    fn freeze(&self) {}

    fn write((): (), _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &mut (dyn Read + Send)) -> Result<(), ApplyError> {
        Ok(())
    }
}

async fn leader(log: LogKind, dir: &std::path::Path) -> Group<Nothing> {
    let config = GroupConfig {
        member: 1,
        cluster: [1; 16],
        dir: dir.to_owned(),
        log,
        heartbeat_ms: 100,
        election_min_ms: 400,
        election_max_ms: 800,
        // All of them together would fill the disk.
        snapshot_entries: 1_000,
        dialer: Default::default(),
    };
    let group = Group::start(config, Nothing).await.unwrap();
    group.initialize([(1, "http://127.0.0.1:1".to_owned())].into()).await.unwrap();
    let mut status = group.status();
    let leads = status.wait_for(|status| status.leader == Some(1));
    tokio::time::timeout(PATIENCE, leads).await.expect("one member elects itself").unwrap();
    group
}

pub fn appends(c: &mut Criterion) {
    let mut all = c.benchmark_group("log");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for log in [LogKind::File, LogKind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let group = runtime.block_on(leader(log, dir.path()));
        for size in SIZES {
            let entry = Bytes::from(vec![7; size]);
            all.throughput(Throughput::Bytes(size as u64));
            all.bench_function(format!("append and sync {} KiB, {log}", size >> 10), |bench| {
                bench.iter(|| {
                    runtime.block_on(async {
                        let pending = group.propose(entry.clone()).await.unwrap();
                        pending.reply(PATIENCE).await.unwrap()
                    })
                });
            });
        }
        runtime.block_on(group.shutdown());
    }
}
