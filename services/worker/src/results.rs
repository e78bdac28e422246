//! Results on their way to the shards of their executions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use nova_bus::lane::{Acknowledge, Item, Lane, Seal};
use nova_bus::{SharedBus, Topic};
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;
use tokio_util::sync::CancellationToken;

/// A command about a lease, and the token that is done with once it is acknowledged.
pub(crate) struct Report {
    command: Bytes,
    token: u64,
}

impl Item for Report {
    fn bytes(&self) -> usize {
        self.command.len() + 16
    }
}

/// What the leader wants to hear about leases (rule 27).
#[derive(Default)]
pub(crate) struct Holding {
    /// Tokens that run, or whose result is not acknowledged.
    pub tokens: BTreeMap<u64, u32>,
    /// Position after the last acknowledged result by shard.
    pub last_result: BTreeMap<u32, u64>,
}

pub(crate) struct Results {
    bus: SharedBus,
    cluster: ClusterId,
    lanes: Mutex<BTreeMap<u32, Lane<Report>>>,
    pub holding: Arc<Mutex<Holding>>,
    pub waiting: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Results {
    /// Results of one session; they are dropped when `stop` is cancelled.
    pub(crate) fn new(bus: SharedBus, cluster: ClusterId, stop: CancellationToken) -> Self {
        Self { bus, cluster, lanes: Mutex::default(), holding: Arc::default(), waiting: Arc::default(), stop }
    }

    pub(crate) fn report(&self, shard: u32, token: u64, kind: v1::command::Kind) {
        let command = v1::Command { kind: Some(kind) }.encode_to_vec().into();
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(shard).or_insert_with(|| self.lane(shard));
        lane.push(Report { command, token });
    }

    fn lane(&self, shard: u32) -> Lane<Report> {
        let cluster = self.cluster;
        let seal: Seal<Report> = Arc::new(move |reports: &[Report]| {
            // A repeated field of messages: tag, length, bytes. The commands are encoded already.
            let mut body = Vec::with_capacity(reports.iter().map(|it| it.bytes()).sum());
            for report in reports {
                prost::encoding::bytes::encode(1, &report.command, &mut body);
            }
            vec![nova_wire::seal(cluster, v1::RecordKind::Commands, shard, body.into())]
        });
        let holding = Arc::clone(&self.holding);
        let acknowledge: Acknowledge<Report> = Arc::new(move |reports: Vec<Report>, offset| {
            let mut holding = holding.lock();
            holding.last_result.insert(shard, offset + 1);
            for report in reports {
                holding.tokens.remove(&report.token);
            }
        });
        let waiting = Arc::clone(&self.waiting);
        Lane::start(Arc::clone(&self.bus), Topic::Commands, shard, seal, acknowledge, waiting, self.stop.clone())
    }

    /// Whether everything that was reported is acknowledged and nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.holding.lock().tokens.is_empty()
    }
}
