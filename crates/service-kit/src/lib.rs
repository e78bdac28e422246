//! What every service does the same way.
//!
//! Owns: how config is put together, serving HTTP to anybody, the port for metrics and health, stopping on a signal.
//! Must not know: what any service does.

pub mod bus;
pub mod config;
pub mod http;
pub mod observe;

pub use nova_host::raise_file_limit;
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT; the second one ends the process at once.
#[must_use]
pub fn stop_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("signals cannot be received");
            return;
        };
        for turn in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if turn == 0 {
                tracing::info!("stopping; a second signal stops at once");
                stop.cancel();
            } else {
                std::process::exit(130);
            }
        }
    });
    token
}
