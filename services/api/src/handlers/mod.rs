//! The routes.

pub(crate) mod cluster;
pub(crate) mod executions;
pub(crate) mod submit;
pub(crate) mod watch;
pub(crate) mod workflows;
