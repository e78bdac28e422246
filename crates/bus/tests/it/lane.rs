//! Publishing in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nova_bus::lane::{Acknowledge, Item, Lane, Seal};
use nova_bus::{AppendError, Bus, MemoryBus, Topic, TopicSpec};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

struct Text(String);

impl Item for Text {
    fn bytes(&self) -> usize {
        self.0.len()
    }
}

struct Rig {
    bus: Arc<MemoryBus>,
    lane: Lane<Text>,
    waiting: Arc<AtomicU64>,
    acknowledged: mpsc::UnboundedReceiver<Vec<usize>>,
    stop: CancellationToken,
}

/// A lane whose records are its items one after the other; it tells the sizes of what is acknowledged together.
async fn rig() -> Rig {
    let bus = Arc::new(MemoryBus::new());
    bus.ensure_topics(&[TopicSpec { topic: Topic::Events, partitions: 1, retention_ms: 1_000 }]).await.unwrap();
    let (told, acknowledged) = mpsc::unbounded_channel();
    let seal: Seal<Text> =
        Arc::new(|items| vec![Bytes::from(items.iter().map(|it| it.0.as_str()).collect::<String>())]);
    let acknowledge: Acknowledge<Text> = Arc::new(move |items, _| {
        told.send(items.iter().map(Item::bytes).collect()).unwrap();
    });
    let (waiting, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let lane = Lane::start(
        Arc::<MemoryBus>::clone(&bus),
        Topic::Events,
        0,
        seal,
        acknowledge,
        Arc::clone(&waiting),
        stop.clone(),
    );
    Rig { bus, lane, waiting, acknowledged, stop }
}

#[tokio::test]
async fn what_waited_in_a_stopped_lane_waits_no_more() {
    let Rig { bus, lane, waiting, stop, .. } = rig().await;
    waiting.fetch_add(5, Ordering::Relaxed);
    bus.refuse(Some(AppendError::NotSent { why: "out".into() }));
    for _ in 0..3 {
        lane.push(Text("x".repeat(100)));
    }
    assert_eq!(waiting.load(Ordering::Relaxed), 305);
    stop.cancel();
    lane.push(Text("late".into()));
    drop(lane);
    let gone = async {
        while waiting.load(Ordering::Relaxed) != 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("only what others wait for is left");
}

#[tokio::test]
async fn a_large_item_does_not_push_its_neighbours_over_the_limit() {
    let Rig { bus, lane, waiting, mut acknowledged, .. } = rig().await;
    bus.refuse(Some(AppendError::NotSent { why: "out".into() }));
    let sizes = [200_000, 900_000, 100, 200];
    for size in sizes {
        lane.push(Text("x".repeat(size)));
    }
    bus.refuse(None);
    let mut told = Vec::new();
    while told.len() < sizes.len() {
        let batch = tokio::time::timeout(PATIENCE, acknowledged.recv()).await.unwrap().unwrap();
        assert!(batch.len() == 1 || batch.iter().sum::<usize>() <= 256 << 10, "{batch:?}");
        told.extend(batch);
    }
    assert_eq!(told, sizes, "all are published, in order");
    assert_eq!(waiting.load(Ordering::Relaxed), 0);
}
