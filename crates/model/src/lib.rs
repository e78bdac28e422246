//! The workflow language.
//!
//! Owns: documents in YAML and JSON, their fields, rules, limits and problems – each with file, line and column – the
//! low-code form, input schemas, and what the scheduler evaluates for a node.
//! Must not know: how an execution stands, where documents are stored, what time it is, how anything is sent.
//!
//! ```text
//!   bytes ──parse──▶ Document ──compile──▶ Compiled { program ─▶ engine, plan ─▶ scheduler, canonical ─▶ storage }
//!                    (values, places)        reader: fields known ▶ compile: names resolved
//! ```

mod build;
mod document;
mod evaluate;
mod input;
pub mod limits;
mod low_code;
mod plan;
mod problem;
mod reader;
mod report;
mod schema;
mod source;
mod syntax;
mod tree;
mod words;

pub use document::{Compiled, Document, compile, parse};
pub use evaluate::{ErrorView, Evaluated, ExecutionView, NodeState, NodeView, Offered, Phase};
pub use input::InputProblem;
pub use plan::Plan;
pub use problem::{Problem, Problems, Severity, codes};
pub use schema::schema;
pub use source::Format;
