//! A worker against coordinators that do as they are told.

mod coordinator;
mod drain;
mod lapse;
mod leader;
mod name;
mod results;
mod rig;
mod stop;
