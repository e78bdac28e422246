//! The wire from outside.

/// That of the binary, so that the memory that is measured is a member's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

mod checked;
mod generated;
mod parked;
mod snapshot;

// States worth a snapshot come from the walks of the engine's own tests.
#[path = "../../../engine/tests/it/build.rs"]
mod build;
#[path = "../../../engine/tests/it/invariants.rs"]
mod invariants;
#[path = "../../../engine/tests/it/rig.rs"]
#[allow(dead_code, reason = "used in full by the engine's tests")]
mod rig;
#[path = "../../../engine/tests/it/tape.rs"]
mod tape;
#[path = "../../../engine/tests/it/walker.rs"]
mod walker;
