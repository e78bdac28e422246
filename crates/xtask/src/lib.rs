//! Checks of the house that no compiler makes.
//!
//! Owns: the layers of crates and which arrows are allowed between them, the single homes of heavy dependencies, and
//! whether the links between documents lead anywhere.
//! Must not know: what any crate does.

pub mod layers;
pub mod links;
