//! Why there is no comparison.

use std::io;
use std::path::PathBuf;

/// All of them mean: stop. A figure of a run that went wrong would be taken for one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict each other or what is there.
    #[error("{0}")]
    Options(String),
    /// A program is not there.
    #[error("there is no {what} at {}; {how}", .path.display())]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What puts it there.
        how: &'static str,
    },
    /// The machine cannot be looked at, or is not calm.
    #[error(transparent)]
    Machine(nova_loadtest::Error),
    /// A process does not start, does not answer, or ended.
    #[error(transparent)]
    Process(#[from] nova_testkit::Error),
    /// A result is wrong, or there is none.
    #[error("{system}, {what}: a result is wrong, so there are no figures: {why}")]
    Wrong {
        /// The system.
        system: &'static str,
        /// The measurement.
        what: String,
        /// What is wrong.
        why: String,
    },
    /// A file cannot be used.
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
    /// A record is not one of ours.
    #[error("{} is not a record of a comparison: {why}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Signals cannot be listened to.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// Somebody ended it.
    #[error("interrupted; what was started is ended, and its data removed")]
    Interrupted,
}

impl Error {
    /// 1: a result is wrong; 2: there is no measurement.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Wrong { .. } => 1,
            _ => 2,
        }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
