//! Documents as their authors see them.

mod bad;
mod good;
mod hostile;
mod rig;

/// Files of documents and what is told about them.
mod snapshots;
