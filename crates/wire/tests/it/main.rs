//! The wire from outside.

mod generated;
