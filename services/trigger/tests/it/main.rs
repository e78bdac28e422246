//! The loops, against a coordinator that only knows what triggers ask for, and a bus in memory.

mod cron;
mod kafka;
mod rig;
