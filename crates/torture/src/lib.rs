//! Clusters of processes in network namespaces, with a real Kafka, while everything goes wrong.
//!
//! Owns: hosts on one machine (namespaces on a bridge, file systems on loop devices), faults and the proof that each did
//! something, a client of the apis, and a run from the start of a cluster to the verdict of nova-checker.
//! Must not know: what is inside a service; what a history has to hold.
//!
//! ```text
//! seed ─▶ plan ─▶ faults ─▶ cluster (processes, brokers, disks, net)
//!   └───▶ workflows ─▶ client ──HTTP──▶ │
//!                        └── notes ─▶ history ◀── topics, notes of workers ──┘
//! ```

pub mod client;
pub mod cluster;
pub mod disks;
pub mod faults;
pub mod gaps;
pub mod hosts;
pub mod logs;
pub mod net;
pub mod run;
pub mod soak;
pub mod starved;
pub mod sweep;
pub mod tools;
pub mod worker;
