//! The comparison, from the look at the machine to the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nova_loadtest::machine::{MAX_FOREIGN_PERCENT, Machine, Ticks};
use nova_testkit::Nova;

use crate::args::Args;
use crate::case::{Amount, Case, Scenario, cases};
use crate::record::{Measurement, Record};
use crate::system::{Places, System, SystemName};
use crate::{Error, cpu, table};

/// Load before each measurement: caches fill, and servers in other languages compile and grow.
const WARM_UP: Duration = Duration::from_secs(2);
/// In flight meanwhile: a slow system would take a minute for the last of 1,000.
const WARM_UP_IN_FLIGHT: u32 = 64;
/// How often a case is measured before somebody else's work on the machine ends the comparison.
const TRIES: u32 = 3;
/// Longest wait for a calm machine.
const CALM: Duration = Duration::from_secs(30);
/// The first number of an execution: all have the same length.
const FIRST: u64 = 1_000_000_000;

/// Measures, writes the record after each system, and prints the table.
///
/// # Errors
/// When there is no comparison: see [`Error`].
pub async fn run(args: &Args) -> Result<(), Error> {
    if args.table {
        let path = args.record.as_ref().expect("the option requires it");
        print!("{}", table::text(&Record::read(path)?));
        return Ok(());
    }
    let nova = args.nova.as_ref().map(Nova::at).transpose()?;
    let places = Places { nova, peers: args.peers.clone(), data: args.data.clone() };
    let systems = all_if_none(&args.systems);
    let scenarios = all_if_none(&args.scenarios);
    // What is missing is said before half an hour has passed.
    for system in &systems {
        System::look(*system, &places)?;
    }
    let before = match &args.record {
        Some(path) if path.exists() && !args.append => {
            return Err(Error::Options(format!("{} exists; --append adds to it", path.display())));
        }
        Some(path) if path.exists() => Some((path, Record::read(path)?)),
        _ => None,
    };
    let mut record = Record::new(&look(args).await?);
    if let Some((path, before)) = before {
        before.check(path, &record)?;
        record = before;
    }
    for round in 1..=args.rounds {
        for system in &systems {
            eprintln!("round {round} of {}: {}", args.rounds, system.name());
            look(args).await?;
            measure(args, *system, &scenarios, &places, &mut record).await?;
            if let Some(path) = &args.record {
                record.write(path)?;
            }
        }
    }
    print!("{}", table::text(&record));
    Ok(())
}

fn all_if_none<T: ValueEnum + Copy>(wanted: &[T]) -> Vec<T> {
    if wanted.is_empty() { T::value_variants().to_vec() } else { wanted.to_vec() }
}

/// The machine with nothing of ours running on it. What was just built or ended may need a moment to calm down.
async fn look(args: &Args) -> Result<Machine, Error> {
    let data = args.data.clone().unwrap_or_else(std::env::temp_dir);
    let begun = Instant::now();
    loop {
        let machine = Machine::look(&data).map_err(Error::Machine)?;
        match machine.check() {
            Ok(()) => return Ok(machine),
            Err(_) if !args.anyway && begun.elapsed() < CALM => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(busy) if !args.anyway => return Err(Error::Machine(busy)),
            Err(busy) => {
                eprintln!("  {busy}");
                return Ok(machine);
            }
        }
    }
}

/// One system, started anew and ended.
async fn measure(
    args: &Args,
    name: SystemName,
    scenarios: &[Scenario],
    places: &Places,
    record: &mut Record,
) -> Result<(), Error> {
    let begun = Instant::now();
    let mut system = System::start(name, places).await?;
    eprintln!("  first result after {:.1} s", begun.elapsed().as_secs_f64());
    let about = system.about().await?;
    if let Some(before) = record.systems.insert(name, about.clone()).filter(|before| *before != about) {
        let (before, now) = (before.version, about.version);
        return Err(Error::Options(format!("the record has {} {before}, this is {now}; begin a new one", name.name())));
    }
    let next = Arc::new(AtomicU64::new(FIRST));
    for case in scenarios.iter().flat_map(|scenario| cases(*scenario, name)) {
        let what = format!("{:?} with {} in flight, {}", case.scenario, case.in_flight, table::form(case.form));
        let mut tries = 0;
        let measured = loop {
            let measured = one(name, &system, &case, &next).await?;
            // The end of a process says more than a connection that broke.
            system.check()?;
            let wrong = |why| Error::Wrong { system: name.name(), what: what.clone(), why };
            let measured = measured.map_err(wrong)?;
            eprintln!("  {what}: {}", measured.line());
            let percent = measured.others_percent;
            if percent <= MAX_FOREIGN_PERCENT || args.anyway {
                break measured;
            }
            tries += 1;
            if tries == TRIES {
                let limit = MAX_FOREIGN_PERCENT;
                return Err(Error::Machine(nova_loadtest::Error::Busy { percent, limit }));
            }
            eprintln!("  somebody else used {percent:.0} % of the CPU meanwhile; again");
        };
        record.measurements.push(measured);
    }
    Ok(())
}

/// One case: warm up, measure. The inner error says which result is wrong.
async fn one(
    name: SystemName,
    system: &System,
    case: &Case,
    next: &Arc<AtomicU64>,
) -> Result<Result<Measurement, String>, Error> {
    if let Err(why) = system.load(case, case.in_flight.min(WARM_UP_IN_FLIGHT), Amount::For(WARM_UP), next).await {
        return Ok(Err(why));
    }
    let kinds = system.processes();
    let read = || cpu::read(&kinds).map_err(Error::file("read", "/proc"));
    let (before, ticks, begun) = (read()?, Ticks::now().map_err(Error::Machine)?, Instant::now());
    let figures = match system.load(case, case.in_flight, case.amount, next).await {
        Ok(figures) => figures,
        Err(why) => return Ok(Err(why)),
    };
    let (after, took) = (read()?, begun.elapsed());
    let busy = Ticks::now().map_err(Error::Machine)?.busy_percent_since(ticks);
    let used = |kind: &String| after[kind].saturating_sub(before[kind]);
    let us: BTreeMap<_, _> = after.keys().map(|kind| (kind.clone(), used(kind).as_secs_f64() * 1e6)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let ours = 100.0 * us.values().sum::<f64>() / 1e6 / (took.as_secs_f64() * cores as f64);
    Ok(Ok(Measurement::of(name, case, figures, us, (busy - ours).max(0.0))))
}
