//! Starts the real processes of a cluster on free loopback ports, for tests and load tests, and ends them.
//!
//! Owns: processes from spawn to reaping (`kill -9` too), ports, config files, temporary directories, a Kafka started
//! by `scripts/kafka.sh`, and a small REST client. Whatever is started here ends when its owner is dropped.
//! Must not know: what is inside a service. It sees what an operator sees: flags, config files, HTTP, `/proc`.
//!
//! Every wait is on a condition, with a deadline. `NOVA_KEEP=1` keeps directories, with all output, for a look.

mod cluster;
mod dev;
mod dir;
mod error;
mod kafka;
pub mod ledger;
mod members;
mod nova;
mod ports;
mod process;
mod rest;
mod settings;
mod usage;
mod wait;

pub use cluster::{Cluster, ClusterOptions};
pub use dev::{DevCluster, DevOptions};
pub use dir::{Dir, bytes_on_disk};
pub use error::Error;
pub use kafka::Kafka;
pub use members::{Members, MembersOptions};
pub use nova::Nova;
pub use ports::{free_port, free_ports, free_ports_apart};
pub use process::{Launch, Process, Readiness};
pub use rest::{Applied, Execution, Page, Rest};
pub use usage::{Usage, own_usage, usage_of};
pub use wait::until;

/// Result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;
