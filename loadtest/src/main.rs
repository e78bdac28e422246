//! `nova-loadtest`: see the library.

use std::process::ExitCode;

use clap::Parser;
use nova_loadtest::args::Args;
use nova_loadtest::{Error, Old, Record, run};
use tokio::signal::unix::{SignalKind, signal};

/// One thread: the generator shares the cores with what it measures.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args).await {
        Ok((record, old)) => {
            print!("{}", record.table());
            if let Some(old) = old.filter(|_| record.verified) {
                print!("{}", old.beside(&record));
            }
            if record.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::from(2)
        }
    }
}

/// Runs until the end or a signal; either way what was started is ended and removed before this returns.
async fn measure(args: &Args) -> Result<(Record, Option<Old>), Error> {
    // Before anything is measured: a run of an hour that cannot be compared is lost time.
    let old = args.compare.as_deref().map(|path| Old::read(path, args)).transpose()?;
    let unheard = |source| Error::Machine { what: "signals".into(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
    let record = tokio::select! {
        record = run(args) => record?,
        _ = interrupt.recv() => return Err(Error::Interrupted),
        _ = terminate.recv() => return Err(Error::Interrupted),
    };
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&record).expect("a record of texts and numbers is JSON");
        std::fs::write(path, text + "\n").map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    Ok((record, old))
}
