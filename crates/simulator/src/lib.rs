//! A cluster on one thread, in simulated time.
//!
//! Owns: time, randomness, the network, the disks and the bus of simulated processes, the order in which these run, what
//! goes wrong, and what clients ask for.
//! Must not know: what a service does. The code in a process is that of production, down to tokio, tonic and openraft: what
//! differs lies below it, in the calls that it makes of the system (`os`). What must hold is the checker's.
//!
//! ```text
//! process (a tokio runtime) ──▶ clock_gettime, getrandom, epoll_wait, write, fsync ──▶ os ──▶ disk
//!            │                                                                          ▲
//!            └── bytes ──▶ net: delays, cuts ──▶ the other process, the bus             │
//!                                                          world: who runs next, and when
//!
//! cluster: hosts run processes, faults strike them, a client asks (workload), workers note (work);
//!          then an observer waits until all has ended, and nova-checker judges the history
//! ```

mod bus;
mod client;
mod cluster;
mod disk;
mod faults;
mod hosts;
mod net;
mod operator;
mod os;
mod world;

pub use cluster::{Options, Report, run};
pub use disk::Trouble;
pub use faults::{Fault, Planned};
pub use hosts::{Host, Role};
pub use net::{Listener, SharedNet, Socket, Stream, Weather};
pub use os::Skew;
pub use world::{Process, World, simulate, steps};
