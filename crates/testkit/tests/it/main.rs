//! Processes for real, with a shell in the place of `nova`; whole clusters are tried beside the binary, in `crates/cli/tests`.

mod processes;
