//! Tests of the bus in memory.
#![allow(clippy::unwrap_used)]

mod lane;

use std::sync::Arc;

use nova_bus::{MemoryBus, contract};

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract::all(Arc::new(MemoryBus::new()), "memory").await;
}
