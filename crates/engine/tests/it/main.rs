//! The engine from outside.

mod batches;
mod build;
mod cost;
mod invariants;
mod joins;
mod life;
mod limits;
mod parked;
mod queue;
mod rig;
mod scenario;
mod tape;
mod walk;
mod walker;
