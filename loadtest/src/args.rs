//! What can be typed.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::Error;

/// Highest rate: the generator remembers each execution until it is verified.
const MAX_RATE: u64 = 100_000;

/// Puts load on a NovaFlow of real processes, measures it, and verifies every result.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "nova-loadtest",
    version,
    max_term_width = 100,
    after_help = "Examples:\n  nova-loadtest s1 --target embedded\n  nova-loadtest s1 --target kafka-3 --seconds 60 --json s1.json\n  nova-loadtest s2 --target embedded-3 --anyway\n\nExit codes: 0 all results right, 1 a result is wrong or missing, 2 there is no measurement."
)]
pub struct Args {
    /// What is done.
    #[arg(value_enum)]
    pub scenario: ScenarioName,
    /// What it is done to.
    #[arg(long, value_enum, default_value_t = TargetName::Embedded)]
    pub target: TargetName,
    /// What a task is.
    #[arg(long, value_enum, default_value_t = Work::Noop)]
    pub work: Work,
    /// Measured seconds of each loop.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub seconds: u64,
    /// Seconds of load before each measurement; left out: 2, on Kafka 60, whose brokers are slow at first.
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=600))]
    pub warmup: Option<u64>,
    /// How often each loop is measured, on the same target; more than once adds medians and spreads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub repeat: u32,
    /// Which loops.
    #[arg(long, value_enum, default_value_t = Loops::Both)]
    pub loops: Loops,
    /// Executions in flight in the closed loop; left out: s1 256, s2 1.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    pub concurrency: Option<u32>,
    /// Executions per second of the open loop; left out: s1 four fifths of what the closed loop reached, s2 100.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MAX_RATE))]
    pub rate: Option<u64>,
    /// Executions in one request; above 1 they go to /executions/batch, and each counts as ended with the last of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub batch: u32,
    /// Also write the record there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
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

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// One task.
    S1,
    /// A chain of ten tasks.
    S2,
}

/// What a task is, and with it how much is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Tasks do nothing; the output is an expression that gives back the input.
    Noop,
    /// Tasks do nothing and nothing is evaluated; the output is null.
    Bare,
    /// Tasks give back what they get, one more than the task before: an expression for each, and payloads.
    Echo,
}

/// Which loops run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Loops {
    /// The closed one, then the open one.
    Both,
    /// So many in flight.
    Closed,
    /// So many per second, whatever became of those before.
    Open,
}

/// What holds the log of a coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogKind {
    /// Segments of our own.
    File,
    /// sled.
    Sled,
}

/// A target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetName {
    /// `nova dev`.
    Embedded,
    /// Three coordinators, and `nova dev` with everything else.
    #[value(name = "embedded-3")]
    Embedded3,
    /// 1 coordinator, 2 schedulers, 2 workers, 1 api on 1 broker.
    #[value(name = "kafka-1")]
    Kafka1,
    /// 3 coordinators, 2 schedulers, 2 workers, 1 api on 3 brokers.
    #[value(name = "kafka-3")]
    Kafka3,
}

impl Args {
    /// Executions in flight in the closed loop.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.concurrency.unwrap_or(match self.scenario {
            ScenarioName::S1 => 256,
            ScenarioName::S2 => 1,
        })
    }

    /// Seconds of load before each measurement.
    #[must_use]
    pub fn warmup_seconds(&self) -> u64 {
        self.warmup.unwrap_or(if self.on_kafka() { 60 } else { 2 })
    }

    fn on_kafka(&self) -> bool {
        matches!(self.target, TargetName::Kafka1 | TargetName::Kafka3)
    }

    /// That the options go together.
    ///
    /// # Errors
    /// [`Error::Options`] with all that does not.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        let mut check = |good: bool, what: &str| {
            if !good {
                problems.push(what.to_owned());
            }
        };
        let (closed, open) = (self.loops != Loops::Open, self.loops != Loops::Closed);
        check(
            self.on_kafka() || self.log.is_none(),
            "--log: only coordinators of kafka-1 and kafka-3 can be given another log",
        );
        check(closed || self.concurrency.is_none(), "--concurrency: there is no closed loop with --loops open");
        check(open || self.rate.is_none(), "--rate: there is no open loop with --loops closed");
        let rate_known = closed || self.rate.is_some() || self.scenario == ScenarioName::S2;
        check(rate_known, "--rate: the open loop of s1 needs one when no closed loop finds it");
        let whole = !closed || self.in_flight().is_multiple_of(self.batch);
        check(whole, "--batch: must divide the executions in flight (--concurrency)");
        let most = self.rate.map(|rate| rate * (self.seconds + self.warmup_seconds()));
        check(most.is_none_or(|most| most >= u64::from(self.batch)), "--batch: more than the open loop sends at all");
        let folder =
            self.json.as_deref().and_then(|file| file.parent()).filter(|folder| !folder.as_os_str().is_empty());
        check(folder.is_none_or(|folder| folder.is_dir()), "--json: its directory is not there");
        if problems.is_empty() { Ok(()) } else { Err(Error::Options(problems.join("; "))) }
    }
}

impl ScenarioName {
    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S1 => "s1",
            Self::S2 => "s2",
        }
    }
}

impl Work {
    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Bare => "bare",
            Self::Echo => "echo",
        }
    }
}

impl TargetName {
    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Embedded3 => "embedded-3",
            Self::Kafka1 => "kafka-1",
            Self::Kafka3 => "kafka-3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(["nova-loadtest"].into_iter().chain(words.split_whitespace()))
    }

    #[test]
    fn the_command_is_well_formed_and_has_defaults() {
        use clap::CommandFactory;
        Args::command().debug_assert();
        let args = parse("s1").unwrap();
        assert_eq!((args.target, args.in_flight(), args.rate, args.batch), (TargetName::Embedded, 256, None, 1));
        args.check().unwrap();
        for target in TargetName::value_variants() {
            let args = parse(&format!("s2 --target {}", target.name())).unwrap();
            assert_eq!((args.target, args.in_flight()), (*target, 1));
            args.check().unwrap();
        }
    }

    #[test]
    fn values_out_of_their_limits_are_refused() {
        for wrong in ["s3", "s1 --seconds 0", "s1 --concurrency 0", "s1 --batch 1001", "s1 --log tape", "s1 --rate 0"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for wrong in [
            "s1 --log sled",
            "s1 --loops open",
            "s1 --loops open --rate 9 --concurrency 2",
            "s1 --loops closed --rate 9",
            "s1 --batch 100",
            "s2 --batch 10",
            "s1 --loops open --rate 9 --batch 1000",
            "s1 --json /no/such/place/x.json",
        ] {
            let error = parse(wrong).unwrap().check().unwrap_err();
            assert!(matches!(error, Error::Options(_)), "{wrong}: {error}");
        }
        for right in
            ["s1 --target kafka-1 --log sled", "s1 --loops open --rate 100", "s1 --batch 64", "s2 --loops open"]
        {
            parse(right).unwrap().check().unwrap();
        }
    }
}
