//! The engine from outside.

mod build;
mod life;
mod rig;
