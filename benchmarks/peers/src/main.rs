//! `nova-peers`: see the library.

use std::process::ExitCode;

use clap::Parser;
use nova_peers::{Args, Error, run};
use tokio::signal::unix::{SignalKind, signal};

/// One thread: the load client shares the cores with what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match until_signal(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::from(code)
        }
    }
}

/// Runs until the end or a signal; either way what was started is ended and removed before this returns.
async fn until_signal(args: &Args) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    tokio::select! {
        ended = run(args) => ended,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}
