//! Processes for real. Those that need `nova` or Kafka are started by hand:
//!
//! ```sh
//! cargo build -p nova-cli
//! NOVA_BIN=target/debug/nova cargo test -p nova-testkit --test it -- --ignored
//! ```

mod clusters;
mod processes;
