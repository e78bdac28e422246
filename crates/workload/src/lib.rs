//! What a cluster is tried with, be it simulated or made of processes.
//!
//! Owns: random workflows of known result, the work that their nodes ask for, which notes itself, triggers beside them,
//! the client that asks for it, what is asked of coordinators meanwhile, and the look at a cluster when all is over, which makes a history of it.
//! Must not know: how the cluster runs, what goes wrong in it, what a history has to hold (that is nova-checker).

mod asked;
mod client;
mod observer;
mod planned;
mod triggers;
mod work;
mod workflow;

pub use asked::{Clock, Noted, propose_as_before, read};
pub use client::{Ask, Client, Wanted};
pub use observer::{Observer, Seen, records};
pub use planned::Planned;
pub use triggers::{BY_RECORDS, BY_TIME, ORDERS, ORDERS_PARTITIONS, SLOT_INPUT, SLOT_MS, source, trigger};
pub use work::{Notes, registry};
pub use workflow::{WORK, Workflow};

/// Where all of it happens.
pub const NAMESPACE: &str = "default";
