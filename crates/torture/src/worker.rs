//! A worker whose work notes itself: the service that users run, with work of nova-workload.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use nova_checker::Effect;
use nova_client::Coordinators;
use nova_service_kit::config;
use nova_telemetry::{LogFormat, Telemetry};
use nova_testkit::ledger::boot_ns;
use nova_workload::{Notes, registry};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// A line of a worker's notes.
#[derive(Serialize, Deserialize)]
enum Line {
    /// An attempt begins.
    Begin { number: usize, effect: Effect },
    /// It does something.
    Step { number: usize, at_ns: u64 },
}

/// Notes of one process. A kill leaves them as they are: only the power of the machine could take a line away.
struct Noted {
    file: File,
    next: AtomicUsize,
}

impl Noted {
    fn write(&self, line: &Line) {
        let mut text = serde_json::to_vec(line).expect("a line has nothing that JSON has not");
        text.push(b'\n');
        // One call each, so that lines of two threads are not mixed. What is not noted must not be done.
        (&self.file).write_all(&text).expect("notes can be written");
    }
}

impl Notes for Noted {
    fn begin(&self, effect: Effect) -> usize {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.write(&Line::Begin { number, effect });
        number
    }

    fn step(&self, number: usize, at_ns: u64) {
        self.write(&Line::Step { number, at_ns });
    }
}

/// Runs a worker until it is stopped; each of its starts has notes of its own in the directory.
///
/// # Errors
/// When its config or directory cannot be used, or it ends by itself.
pub async fn run(file: &Path, notes: &Path, stop: CancellationToken) -> Result<()> {
    let config: nova_worker::Config =
        config::load(Some(file), "NOVA_WORKER_", std::iter::empty(), &[], nova_worker::Config::problems)?;
    let trace = config.trace.clone();
    let options = nova_telemetry::Options { service: "worker", format: LogFormat::Json, default_filter: "warn", trace };
    let telemetry = Telemetry::start(&options)?;
    let path = notes.join(format!("{}-{}.jsonl", config.name, boot_ns()));
    let file = OpenOptions::new().create_new(true).append(true).open(&path).context(path.display().to_string())?;
    let noted: Arc<dyn Notes> = Arc::new(Noted { file, next: AtomicUsize::new(0) });
    let bus = config.bus.connect()?;
    let coordinators = Coordinators::new(config.coordinators.clone());
    let registry = registry(&config.name, noted, boot_ns);
    nova_worker::Worker::with(config, coordinators, bus, registry)?.run(stop).await?;
    telemetry.shutdown();
    Ok(())
}

/// All that workers have noted in a directory.
///
/// # Errors
/// When a file cannot be read, or a line is none.
pub fn effects(notes: &Path) -> Result<Vec<Effect>> {
    let mut all = Vec::new();
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(notes)?.map(|entry| entry.map(|it| it.path())).collect::<Result<_, _>>()?;
    files.sort();
    for path in files {
        let mut noted: BTreeMap<usize, Effect> = BTreeMap::new();
        for (number, line) in (1..).zip(BufReader::new(File::open(&path)?).lines()) {
            let place = || format!("line {number} of {}", path.display());
            match serde_json::from_str(&line.with_context(place)?).with_context(place)? {
                Line::Begin { number, effect } => drop(noted.insert(number, effect)),
                Line::Step { number, at_ns } => {
                    noted.get_mut(&number).with_context(place)?.ended_ns = at_ns;
                }
            }
        }
        all.extend(noted.into_values());
    }
    Ok(all)
}
