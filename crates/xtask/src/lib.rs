//! Checks of the house that no compiler makes.
//!
//! Owns: the layers of crates and which arrows are allowed between them, the single homes of heavy dependencies,
//! whether the links between documents lead anywhere, and whether the page of metrics names those in the code.
//! Must not know: what any crate does.

pub mod layers;
pub mod links;
pub mod metrics;
