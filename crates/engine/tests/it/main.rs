//! The engine from outside.

mod build;
mod invariants;
mod life;
mod limits;
mod rig;
mod scenario;
