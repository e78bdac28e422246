//! Where the client library's log lines go.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

/// Writes a line of the library's log as an event.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    // Every client is given the same settings; the library remarks on those that a kind of client does not use.
    if facility == "CONFWARN" {
        return tracing::debug!(facility, line, "kafka client");
    }
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, line, "kafka client");
        }
        // A broker that cannot be reached is the library's "error"; it heals itself.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(facility, line, "kafka client"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(facility, line, "kafka client"),
        RDKafkaLogLevel::Debug => tracing::debug!(facility, line, "kafka client"),
    }
}

/// A client without anything to do about errors: whoever asked hears of them.
pub(crate) struct Quiet;

impl ConsumerContext for Quiet {}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}

/// A reader's client. Notes when a topic was deleted and made anew: the library then goes on in the new log at the old
/// offset, and only its log says so (a test holds it to the wording).
#[derive(Default)]
pub(crate) struct Watch {
    logged: AtomicBool,
    replaced: Mutex<Vec<String>>,
}

impl Watch {
    /// Whether the log had a line since the last call, and which topics were made anew.
    pub(crate) fn take(&self) -> (bool, Vec<String>) {
        if !self.logged.swap(false, Ordering::AcqRel) {
            return (false, Vec::new());
        }
        (true, std::mem::take(&mut *self.replaced.lock()))
    }
}

/// The topic that a line of the log says was made anew.
fn made_anew(line: &str) -> Option<&str> {
    // The id of a topic that was not known before is all zeros.
    const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAA";
    let (before, ids) = line.split_once(" changed id from ")?;
    let (_, topic) = before.rsplit_once("Topic ")?;
    (!ids.starts_with(UNKNOWN)).then_some(topic)
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if matches!(level, RDKafkaLogLevel::Debug) {
            self.replaced.lock().extend(made_anew(line).map(str::to_owned));
        } else {
            log(level, facility, line);
        }
        self.logged.store(true, Ordering::Release);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}

impl ConsumerContext for Watch {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_topic_that_was_known_is_made_anew() {
        let line =
            |from| format!("[thrd:main]: Topic nova.commands.v1 changed id from {from} to Cb2m8AYTSF2FRqTFZkEbPw");
        assert_eq!(made_anew(&line("pXD1dWU2QxC6YvnJg0lfRg")), Some("nova.commands.v1"));
        assert_eq!(made_anew(&line("AAAAAAAAAAAAAAAAAAAAAA")), None);
        assert_eq!(made_anew("[thrd:main]: Topic nova.commands.v1 partition 0 Leader 1"), None);
    }
}
