//! A worker against coordinators that do as they are told.

mod coordinator;
mod drain;
mod inbox;
mod lapse;
mod leader;
mod name;
mod results;
mod rig;
mod stop;
