//! Words of the command line that stand for one of several things.

use clap::ValueEnum;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScenarioName {
    /// One task.
    S1,
    /// A chain of ten tasks.
    S2,
    /// 1,000 chains of five tasks at once.
    S3,
    /// One execution that fans out to 1,000 tasks and joins them; then 10,000.
    S4,
    /// Submissions by the clock, answered when they are durable.
    S5,
    /// Executions parked on a timer, and others that wake meanwhile.
    S6,
    /// Processes killed under load.
    S7,
    /// Everything killed and started again with parked executions.
    S8,
    /// Three times of what can be done.
    Overload,
    /// 10,000 simulated workers that renew their sessions.
    S9a,
    /// Tasks given to 10,000 workers: the engine alone, in this process.
    S9b,
    /// Loads that others have published: fibonacci, and chains of 100 and 50 tasks.
    X1,
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

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Victim {
    /// The coordinator that leads.
    Leader,
    /// A scheduler.
    Scheduler,
    /// A worker.
    Worker,
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

impl ScenarioName {
    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::S1 => "s1",
            Self::S2 => "s2",
            Self::S3 => "s3",
            Self::S4 => "s4",
            Self::S5 => "s5",
            Self::S6 => "s6",
            Self::S7 => "s7",
            Self::S8 => "s8",
            Self::Overload => "overload",
            Self::S9a => "s9a",
            Self::S9b => "s9b",
            Self::X1 => "x1",
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

impl Victim {
    /// As in the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Scheduler => "scheduler",
            Self::Worker => "worker",
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

    /// Whether its services meet on Kafka.
    #[must_use]
    pub fn on_kafka(self) -> bool {
        matches!(self, Self::Kafka1 | Self::Kafka3)
    }
}
