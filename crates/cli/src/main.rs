//! The command line of NovaFlow.

fn main() {}
