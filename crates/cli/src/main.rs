//! The command line.

mod admin;
mod args;
mod commands;
mod dev;
mod doctor;
mod error;
mod live;
mod members;
mod print;
mod repair;
mod rest;
mod serve;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use error::Failed;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    nova_service_kit::raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::from(4);
        }
    };
    let result = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(code) => code,
        Err(failed) => {
            eprintln!("error: {failed}");
            ExitCode::from(failed.code())
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failed> {
    let done = |()| ExitCode::SUCCESS;
    let rest = rest::Rest::new(&cli.url, &cli.namespace)?;
    let format = cli.output;
    match cli.command {
        Command::Dev(dev) => dev::run(dev).await.map(done),
        Command::Serve(serve) => serve::run(serve).await.map(done),
        Command::Validate(files) => commands::validate(&files, format),
        Command::Apply(files) => commands::apply(&rest, &files, format).await.map(done),
        Command::Run(run) => commands::run(&rest, run, format).await,
        Command::Get(get) => commands::get(&rest, &get, format).await.map(done),
        Command::List(list) => commands::list(&rest, &list, format).await.map(done),
        Command::Watch { execution } => live::follow(&rest, &execution, format).await,
        Command::Cancel { execution, reason, yes } => commands::cancel(&rest, &execution, &reason, yes).await.map(done),
        Command::Worker(worker) => commands::worker(&rest, worker, format).await.map(done),
        Command::Trigger(trigger) => commands::trigger(&rest, trigger, format).await.map(done),
        Command::Admin(admin) => admin::run(admin, format).await.map(done),
        Command::Doctor(doctor) => doctor::run(doctor, format).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "nova", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
