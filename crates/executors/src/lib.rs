//! The kinds of work that are built in.
//!
//! Owns: `noop`, `echo`, `sleep`, `fail`, `http`, and the one client through which work reaches the network.
//! Must not know: leases, the bus, workflows.

mod builtin;
mod egress;
mod http;

use std::sync::Arc;

use nova_execution::Registry;

pub use egress::{Egress, EgressConfig, EgressError};

/// All built-in executors, on one egress client.
#[must_use]
pub fn registry(egress: Egress) -> Registry {
    Registry::default().with(Arc::new(builtin::Builtin)).with(Arc::new(http::Http::new(egress)))
}

/// The argument of a task as the type that an executor wants.
fn argument<T: serde::de::DeserializeOwned>(task: &nova_execution::Task) -> Result<T, nova_execution::Failure> {
    let kind = &task.kind;
    serde_json::from_slice(&task.with)
        .map_err(|error| nova_execution::Failure::permanent("task.bad_argument", format!("{kind}: {error}")))
}
