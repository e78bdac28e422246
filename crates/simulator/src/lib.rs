//! A cluster on one thread, in simulated time.
//!
//! Owns: time, randomness, the network and the disks of simulated processes, and the order in which these run.
//! Must not know: what runs in them. The code in a process is that of production, down to tokio, tonic and openraft: what
//! differs lies below it, in the calls that it makes of the system (`os`).
//!
//! ```text
//! process (a tokio runtime) ──▶ clock_gettime, getrandom, epoll_wait ──▶ os: time and chance of the world
//!            │                                                            ▲
//!            └── bytes ──▶ net: delays, cuts ──▶ the other process        │
//!                                                    world: who runs next, and when
//! ```

mod bus;
mod client;
mod cluster;
mod disk;
mod faults;
mod hosts;
mod net;
mod os;
mod work;
mod workload;
mod world;

pub use cluster::{Options, Report, run};
pub use disk::Trouble;
pub use faults::{Fault, Planned};
pub use hosts::{Host, Role};
pub use net::{Listener, SharedNet, Socket, Stream, Weather};
pub use os::Skew;
pub use world::{Process, World, simulate};
