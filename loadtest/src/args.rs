//! What can be typed.

mod check;
mod names;

use std::path::PathBuf;

use clap::Parser;

pub use names::{LogKind, Loops, ScenarioName, TargetName, Victim, Work};

/// Highest rate: the generator remembers each execution until it is verified.
const MAX_RATE: u64 = 100_000;

/// Puts load on a NovaFlow of real processes, measures it, and verifies every result.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "nova-loadtest",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  nova-loadtest s1 --target embedded\n  nova-loadtest s1 --target kafka-3 --seconds 60 --json s1.json\n  nova-loadtest s1 --parked 1000000 --compare s1.json\n  nova-loadtest s7 --target embedded-3 --kills 100\n\nExit codes: 0 all results right, 1 a result is wrong or missing, 2 there is no measurement. --compare changes none of them: whether a change is good is for people to say."
)]
pub struct Args {
    /// What is done.
    #[arg(value_enum)]
    pub scenario: ScenarioName,
    /// What it is done to.
    #[arg(long, value_enum, default_value_t = TargetName::Embedded)]
    pub target: TargetName,
    /// s1, s2, s3, s5, overload: what a task is; left out: noop.
    #[arg(long, value_enum)]
    pub work: Option<Work>,
    /// s1, s2, s5, s6, overload, s9a: measured seconds of each loop; left out: 10, s5 300, s9a 30.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: Option<u64>,
    /// Seconds of load before each measurement; left out: 2, on Kafka 60, whose brokers are slow at first.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub warmup: Option<u64>,
    /// How often each figure is measured, on the same target, of s6, s7, s9a and overload on new ones; more than once adds
    /// medians and spreads. Left out: 1; s3, s4, x1, s9b 3.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub repeat: Option<u32>,
    /// s1, s2: which loops.
    #[arg(long, value_enum)]
    pub loops: Option<Loops>,
    /// s1, s2, overload: executions in flight in the closed loop; left out: 256, s2 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub concurrency: Option<u32>,
    /// Executions per second of the open loop; left out: s1 four fifths of what the closed loop reached, s2 100, s5 first
    /// 1,000 and then 5,000, s6 and s7 1,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_RATE))]
    pub rate: Option<u64>,
    /// s1, s2, s3, x1: executions in one request; above 1 they go to /executions/batch, and each counts as ended with the
    /// last of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: Option<u32>,
    /// s1, s2, s5: each execution has an idempotency key, which says what shard it goes to.
    #[arg(long)]
    pub keyed: bool,
    /// s1, s2, s5, s6, s8: executions that are parked on a timer of two hours before; left out: none, s6 100,000, s8
    /// 1,000,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub parked: Option<u64>,
    /// s6: executions that wake each second; left out: 10,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_RATE))]
    pub wakes: Option<u64>,
    /// overload: tasks in sequence of each execution; left out: 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub steps: Option<u32>,
    /// s7: how often something is killed; left out: 10.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub kills: Option<u32>,
    /// s7: what is killed; left out: the leader.
    #[arg(long, value_enum)]
    pub victim: Option<Victim>,
    /// s7: the victim, a scheduler, is not killed: it leaves in order, and joins again.
    #[arg(long)]
    pub gently: bool,
    /// s9a, s9b: how many workers; left out: 10,000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=32_000))]
    pub workers: Option<u32>,
    /// s9b: how many tasks; left out: 1,000,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub tasks: Option<u64>,
    /// Also write the record there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also print each figure beside that of an older record of the same scenario, target and work.
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
    /// Measure although others use the machine.
    #[arg(long)]
    pub anyway: bool,
    /// The nova binary; left out: NOVA_BIN, else the one beside this program.
    #[arg(long, value_name = "PATH")]
    pub nova: Option<PathBuf>,
    /// Where the data of the target goes, which decides on the disk; left out: the directory for temporary files.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// kafka-1, kafka-3: what holds the log of the coordinators; left out: file.
    #[arg(long, value_enum)]
    pub log: Option<LogKind>,
}

impl Args {
    /// What a task is.
    #[must_use]
    pub fn work(&self) -> Work {
        self.work.unwrap_or(Work::Noop)
    }

    /// Which loops run.
    #[must_use]
    pub fn loops(&self) -> Loops {
        self.loops.unwrap_or(Loops::Both)
    }

    /// Executions in one request.
    #[must_use]
    pub fn batch(&self) -> u32 {
        self.batch.unwrap_or(1)
    }

    /// Tasks of each execution of the overload.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.unwrap_or(1).into()
    }

    /// Executions in flight in the closed loop.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.concurrency.unwrap_or(if self.scenario == ScenarioName::S2 { 1 } else { 256 })
    }

    /// Measured seconds of each loop.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(match self.scenario {
            ScenarioName::S5 => 300,
            ScenarioName::S9a => 30,
            _ => 10,
        })
    }

    /// Seconds of load before each measurement.
    #[must_use]
    pub fn warmup_seconds(&self) -> u64 {
        self.warmup.unwrap_or(if self.target.on_kafka() { 60 } else { 2 })
    }

    /// How often each figure is measured.
    #[must_use]
    pub fn repeat(&self) -> u32 {
        self.repeat.unwrap_or(match self.scenario {
            ScenarioName::S3 | ScenarioName::S4 | ScenarioName::X1 | ScenarioName::S9b => 3,
            _ => 1,
        })
    }

    /// How many targets of its own a measurement takes: more than one where a second run would find the traces of the first.
    #[must_use]
    pub fn runs_apart(&self) -> u32 {
        match self.scenario {
            ScenarioName::S6 | ScenarioName::S7 | ScenarioName::S9a | ScenarioName::Overload => self.repeat(),
            _ => 1,
        }
    }

    /// Executions that are parked before.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.parked.unwrap_or(match self.scenario {
            ScenarioName::S6 => 100_000,
            ScenarioName::S8 => 1_000_000,
            _ => 0,
        })
    }

    /// What is killed.
    #[must_use]
    pub fn victim(&self) -> Victim {
        self.victim.unwrap_or(Victim::Leader)
    }

    /// Simulated workers.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.workers.unwrap_or(10_000)
    }
}
