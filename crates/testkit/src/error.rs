//! What can go wrong.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a step of the harness did not succeed. All of them mean: stop, the test or measurement has no ground.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nova` to start.
    #[error("no nova binary at {}; build it (`cargo build -p nova-cli`) or name one in NOVA_BIN", paths(.looked))]
    NoBinary {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// There is no `scripts/kafka.sh`.
    #[error("no Kafka script at {}; name one in NOVA_KAFKA_SCRIPT", paths(.looked))]
    NoKafkaScript {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A file or directory cannot be used.
    #[error("cannot {what} {}", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process cannot be started.
    #[error("cannot start {name}")]
    Spawn {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A process ended although it should run.
    #[error("{name} ended ({status}); the end of its output:\n{tail}")]
    Ended {
        /// Its name.
        name: String,
        /// Exit code or signal.
        status: String,
        /// The last lines of its output.
        tail: String,
    },
    /// A process does not run.
    #[error("{name} does not run")]
    NotRunning {
        /// Its name.
        name: String,
    },
    /// A signal cannot be sent.
    #[error("cannot send a signal to {name}")]
    Signal {
        /// To whom.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {} ms: {last}", .within.as_millis())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// What was seen last.
        last: String,
    },
    /// A command that should succeed did not.
    #[error("{what} failed ({status}):\n{output}")]
    Command {
        /// The command.
        what: String,
        /// Exit code or signal.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// An answer did not come, or broke off.
    #[error("{what} was not answered")]
    Unanswered {
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The api refused a request.
    #[error("{what} was refused with {status} {code}: {body}")]
    Refused {
        /// The request.
        what: String,
        /// HTTP status.
        status: u16,
        /// Code of the problem.
        code: String,
        /// The whole answer.
        body: String,
    },
    /// An answer or a file of the system is not what it should be.
    #[error("{what} is not understood: {why}")]
    Unexpected {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// No free port was found.
    #[error("no {count} free ports were found")]
    NoPorts {
        /// How many were wanted.
        count: usize,
    },
}

impl Error {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// The error with all its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        text
    }
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}
