//! Counts the instructions of every part and compares them with `benchmarks/baseline.toml`.
//!
//! Exit code 0 when none moved, 1 when one did, 2 when that cannot be said.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use nova_benchmarks::baseline::{Baseline, Judgement, Made};
use nova_benchmarks::callgrind::{self, CountError};
use nova_benchmarks::parts::{self, Part};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.toml");

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => check(),
        // What `callgrind::count` starts.
        ["count", name] => match parts::all().iter().find(|part| part.name == name) {
            Some(part) => {
                callgrind::run(part);
                Ok(ExitCode::SUCCESS)
            }
            None => Err(format!("there is no part {name}").into()),
        },
        _ => Err("usage: guard, or guard count PART".into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("guard: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            eprintln!("guard: because {cause}");
            source = cause.source();
        }
        ExitCode::from(2)
    })
}

fn check() -> Result<ExitCode, Box<dyn Error>> {
    let valgrind = callgrind::valgrind().ok_or(CountError::NoValgrind)?;
    let made = Made {
        rustc: env!("NOVA_RUSTC").into(),
        processor: processor(),
        libc: callgrind::told_by("getconf", "GNU_LIBC_VERSION"),
        valgrind: callgrind::told_by(valgrind, "--version"),
    };
    let update = env::var_os("NOVA_UPDATE").is_some();
    let baseline = if update { None } else { Some(Baseline::read(&fs::read_to_string(BASELINE)?)?) };
    if let Some(Baseline { made: before, .. }) = &baseline {
        if before.processor != made.processor {
            println!("NOT COMPARED: the baseline is of {}, this is {}", before.processor, made.processor);
            return Ok(ExitCode::SUCCESS);
        }
        if before.rustc != made.rustc {
            let (wanted, own) = (&before.rustc, &made.rustc);
            return Err(format!(
                "the baseline is of rustc {wanted}, and this was built by {own}: their counts cannot be compared. \
                 `make guard` takes {wanted} where rustup is there. To move the project to {own}, run NOVA_UPDATE=1 \
                 make guard on a commit that changes nothing else"
            )
            .into());
        }
    }
    let (instructions, folder) = count_all()?;
    let now = Baseline { made, instructions };
    let Some(baseline) = baseline else {
        fs::write(BASELINE, now.write())?;
        println!("written: {BASELINE}");
        return Ok(ExitCode::SUCCESS);
    };
    Ok(report(&baseline, &now, &folder))
}

fn report(baseline: &Baseline, now: &Baseline, folder: &Path) -> ExitCode {
    print!("instructions per operation\n{}", baseline.table(&now.instructions));
    let judgements: Vec<Judgement> =
        baseline.compare(&now.instructions).into_iter().map(|(_, judgement)| judgement).collect();
    if judgements.iter().all(|judgement| *judgement == Judgement::Same) {
        return ExitCode::SUCCESS;
    }
    println!();
    if judgements.contains(&Judgement::Worse) {
        println!("More is executed than before. Where: callgrind_annotate {}/PART.out", folder.display());
    }
    if judgements.contains(&Judgement::Better) {
        println!("Less is executed than before: update the baseline, so that it stays so.");
    }
    println!("Where it is meant: NOVA_UPDATE=1 make guard, and commit benchmarks/baseline.toml with the reason.");
    for (what, before, now) in
        [("libc", &baseline.made.libc, &now.made.libc), ("valgrind", &baseline.made.valgrind, &now.made.valgrind)]
    {
        if before != now {
            println!("Note: the baseline was made with {what} {before}, this is {now}.");
        }
    }
    ExitCode::FAILURE
}

/// What of the processor chooses code, under valgrind too: it shows AVX2 where the machine has it, and nothing newer.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx2") {
        return "x86_64 without AVX2".into();
    }
    if cfg!(target_arch = "x86_64") { "x86_64 with AVX2".into() } else { env::consts::ARCH.into() }
}

/// Instructions per operation of all parts, and where callgrind's files are. A part has a process of its own, so that
/// none depends on those before it; as many run at once as there are cores, which counts do not notice.
fn count_all() -> Result<(BTreeMap<String, u64>, PathBuf), Box<dyn Error>> {
    let program = env::current_exe()?;
    let folder = program.with_file_name("callgrind");
    fs::create_dir_all(&folder)?;
    let parts = parts::all();
    let (next, counts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = callgrind::count(&program, &folder, part);
                    counts.lock().expect("nobody panicked with it").push((part, count));
                }
            });
        }
    });
    let counts = counts.into_inner().expect("nobody panicked with it");
    let named = |(part, count): (&Part, Result<u64, CountError>)| Ok((part.name.to_owned(), count?));
    Ok((counts.into_iter().map(named).collect::<Result<_, CountError>>()?, folder))
}
