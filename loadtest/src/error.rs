//! What can go wrong before there is anything to verify.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why there is no measurement. A measurement with wrong results is no error: its [`Record`](crate::Record) says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict each other.
    #[error("{0}")]
    Options(String),
    /// The machine is not calm.
    #[error(
        "{percent:.0} % of the CPU is used by others, at most {limit:.0} % makes a figure; --anyway measures all the same"
    )]
    Busy {
        /// What others use.
        percent: f64,
        /// What they may use.
        limit: f64,
    },
    /// Something about the machine cannot be read.
    #[error("cannot read {what} of the machine")]
    Machine {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target does not start, or ended.
    #[error(transparent)]
    Target(#[from] nova_testkit::Error),
    /// A connection of the generator cannot be opened.
    #[error("cannot connect to {address}")]
    Connect {
        /// To whom.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A request got no answer, or none that is HTTP.
    #[error("{what} was not answered")]
    Unanswered {
        /// The request.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Executions cannot be read back.
    #[error("the list of executions is not understood: {why}")]
    List {
        /// What is wrong with it.
        why: String,
    },
    /// The generator itself broke off.
    #[error("the load did not end within {} s", .within.as_secs())]
    Stuck {
        /// How long it was waited for.
        within: Duration,
    },
    /// The measured seconds brought nothing.
    #[error("nothing completed in the measured seconds of {phase}; the first answer that was not right: {answer}")]
    Nothing {
        /// The phase.
        phase: String,
        /// An answer.
        answer: String,
    },
    /// Somebody asked to end.
    #[error("interrupted")]
    Interrupted,
    /// The api is not at an address of the form `http://host:port`.
    #[error("'{url}' is not http://<address>:<port>")]
    Url {
        /// What it is.
        url: String,
    },
    /// A process that was asked to end did so with an error.
    #[error("{who} was asked to end, and ended with {status}")]
    NotInOrder {
        /// Which.
        who: String,
        /// With what.
        status: String,
    },
    /// The target does not get to where it should.
    #[error("{what} did not come within {} s", .within.as_secs())]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
    /// The target was too slow for what was to follow at a fixed time.
    #[error("{what} were not accepted within {} s: ask for fewer of them", .within.as_secs())]
    Behind {
        /// What was to be accepted.
        what: String,
        /// In which time.
        within: Duration,
    },
    /// The coordinators do not answer what they should.
    #[error("the coordinators did not take {what}")]
    Coordinator {
        /// What was asked.
        what: &'static str,
        /// Why.
        #[source]
        source: nova_client::ClientError,
    },
    /// The engine refuses what it should take.
    #[error("the engine refused an entry: {why}")]
    Engine {
        /// What it said.
        why: String,
    },
    /// The older record is of no use.
    #[error("cannot compare with {}: {why}", .path.display())]
    Incomparable {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Some were turned away where all of them are the measurement.
    #[error("{refused} of {phase} were turned away: the target does not take that many")]
    TurnedAway {
        /// The phase.
        phase: String,
        /// How many.
        refused: u64,
    },
    /// The record cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
