//! Documents as their authors see them.

mod bad;
mod examples;
mod good;
mod hostile;
mod low_code;
mod patterns;
mod rig;
mod run;

/// Files of documents and what is told about them.
mod snapshots;
