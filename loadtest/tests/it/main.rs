//! The program from outside. What needs a `nova` binary is started by hand:
//!
//! ```sh
//! cargo build -p nova-cli
//! NOVA_BIN=target/debug/nova cargo test -p nova-loadtest --test it -- --ignored
//! ```

mod command;
