//! What a process has from its host: threads for work that blocks, connections to others, and how many of them.
//!
//! Owns: the difference between a service on a machine and the same service in the simulator, where one thread runs all
//! processes and the network is a part of the program. It is small: time, randomness and files are simulated below the
//! calls of the system.
//! Must not know: what is sent or done.

pub mod blocking;
mod connect;
mod door;

pub use connect::{Connection, Dialer, Io, Listener};
pub use door::{Door, Guest, Patience, Visit, Visitor, raise_file_limit};
