//! The whole thing as its users meet it: real processes, real sockets, real disks.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod cli;
mod directories;
mod docs;
mod doctor;
mod end_to_end;
mod full_disk;
mod hostile;
mod metrics;
mod repair;
mod restart;
mod rig;
mod sync;
mod trace;
mod upgrade;
