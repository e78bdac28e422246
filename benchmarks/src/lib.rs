//! What the steps of the hot path cost.
//!
//! Owns: the work of each part, the count of its instructions, the committed baseline and how both compare.
//! Must not know: what whole clusters do; `loadtest/` measures that.
//!
//! ```text
//! parts ──▶ `cargo bench`   how long each takes, here and now
//!       └─▶ `make guard`    how many instructions each takes: the same on every run, so that a change is seen
//! ```

pub mod baseline;
pub mod callgrind;
pub mod parts;
pub mod shard;
