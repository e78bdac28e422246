//! What a trigger says, when it is due, and what makes each of its executions recognisable.
//!
//! Owns: the document of a trigger and its problems, slots of a schedule and which of the missed ones are made up for,
//! the names and numbers by which the engine drops repeats, the input that a record becomes.
//! Must not know: what time it is, how a position is asked for, how anything is read or sent.

pub mod limits;
mod problem;
mod record;
mod schedule;
mod source;
mod spec;

pub use problem::{Problem, codes};
pub use record::{IncomingRecord, Unreadable, input_of_record};
pub use schedule::{Plan, Schedule, time_of};
pub use source::{Source, execution_id, number_of_offset, offset_of_position, shard_of};
pub use spec::{CatchUp, Cron, From, Kafka, Kind, RecordInput, TriggerSpec};
