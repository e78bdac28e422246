//! REST for those who submit, watch and look after executions.
//!
//! Owns: the HTTP surface, requests that wait for an answer, the backpressure towards clients, the history of its process.
//! Must not know: how a command is decided, where a task runs.
//!
//! ```text
//! POST /executions ─▶ submitter: one record per shard for all that is waiting ─▶ bus ─▶ scheduler ─▶ coordinator
//!        ▲                                                                                   │
//!        └── 201, 4xx ◀── replies: one inbox partition per api ◀── bus ◀── outbox ◀──────────┘
//! ```

mod admission;
mod config;
mod events;
mod handlers;
mod metrics;
mod openapi;
mod problem;
mod replies;
mod run;
mod state;
mod submitter;
mod trace;
mod view;
mod workflows;

pub use config::Config;
pub use openapi::openapi_json;
pub use problem::PROBLEM_CODES;
pub use run::{Api, RunError};
