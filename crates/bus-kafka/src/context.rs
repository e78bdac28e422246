//! Where the client library's log lines go.

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

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client error");
    }
}

impl ConsumerContext for Quiet {}
