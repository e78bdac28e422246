//! The bus on a real Kafka: the suite that every bus passes, and what happens when brokers and topics go away.
#![allow(clippy::unwrap_used)]

mod broker;
mod failures;
mod figures;
mod topics;

use std::sync::Arc;

use nova_bus::{SharedBus, contract};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_keeps_the_contract() {
    let broker = broker::shared();
    let bus: SharedBus = Arc::new(broker.connect());
    contract::all(bus, &broker::unique("contract")).await;
}
