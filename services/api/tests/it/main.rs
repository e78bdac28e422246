//! The api over HTTP, with a bus in memory and coordinators that know one workflow.

mod overload;
mod rig;
