//! Settings, and what becomes of them in the client library.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nova_bus::{BusError, MAX_IN_FLIGHT_BYTES, MAX_RECORD_BYTES};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Properties that may be passed on to the client library: how to reach and trust the brokers, and what a record
/// costs on the wire. Everything else would take away a promise of this crate (acks, idempotence, offsets, timeouts).
pub const ALLOWED_PROPERTIES: &[&str] = &[
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.type",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "metadata.max.age.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
];

/// Largest batch on the wire: one record of the largest size, with what its headers and the batch cost on top.
pub(crate) const MAX_WIRE_BYTES: usize = MAX_RECORD_BYTES + (64 << 10);

/// How to reach Kafka, and how long to wait for it.
#[derive(Clone)]
pub struct Config {
    /// Brokers to ask first: `host:port`, separated by commas.
    pub bootstrap: String,
    /// Put before the names of the cluster's own topics, so that several clusters can share brokers. The users' topics
    /// keep their names.
    pub prefix: String,
    /// Replicas of each topic: 1, or 3 where a broker may fail.
    pub replicas: u16,
    /// After this long without an acknowledgement an append that was handed over has an unknown outcome. A partition
    /// whose broker fails has no leader for 4–9 s, so 10 s is about the least. Default 10 s, at least 1 s.
    pub message_timeout: Duration,
    /// Longest wait for an answer to a question: offsets, partitions, health. Default 5 s.
    pub request_timeout: Duration,
    /// How long the client waits for more records before it sends; callers batch already, so any wait is only latency.
    /// With three brokers under load 1 ms costs less work. Default 0.
    pub linger: Duration,
    /// Bytes handed over and not yet acknowledged; beyond it appends are refused.
    pub max_in_flight_bytes: u64,
    /// More properties of the client library, see [`ALLOWED_PROPERTIES`].
    pub properties: BTreeMap<String, String>,
}

impl Config {
    /// The defaults for these brokers.
    #[must_use]
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            prefix: String::new(),
            replicas: 1,
            message_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            linger: Duration::ZERO,
            max_in_flight_bytes: MAX_IN_FLIGHT_BYTES,
            properties: BTreeMap::new(),
        }
    }

    /// All that is wrong with it, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.bootstrap.trim().is_empty() {
            problems.push("bootstrap is empty".into());
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if self.prefix.len() > 100 || !self.prefix.chars().all(named) {
            problems.push("prefix must be at most 100 letters, digits, '.', '-' and '_'".into());
        }
        if self.replicas == 0 {
            problems.push("replicas must be at least 1".into());
        }
        if self.message_timeout < Duration::from_secs(1) {
            problems.push("message_timeout must be at least 1 s".into());
        }
        if self.request_timeout < Duration::from_millis(100) {
            problems.push("request_timeout must be at least 100 ms".into());
        }
        if self.linger > Duration::from_secs(1) {
            problems.push("linger must be at most 1 s".into());
        }
        if self.max_in_flight_bytes < MAX_RECORD_BYTES as u64 {
            problems.push(format!("max_in_flight_bytes must be at least {MAX_RECORD_BYTES}"));
        }
        for name in self.properties.keys().filter(|name| !ALLOWED_PROPERTIES.contains(&name.as_str())) {
            problems.push(format!("property {name} may not be set"));
        }
        problems
    }

    pub(crate) fn check(&self) -> Result<(), BusError> {
        match self.problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(BusError::Unavailable { why: format!("wrong settings: {}", problems.join("; ")) }),
        }
    }

    /// What every client shares. The library gives up on a silent connection after half the message timeout, so that
    /// there is time to try another broker.
    fn client(&self) -> ClientConfig {
        let socket_ms = (self.message_timeout / 2).as_millis().clamp(500, 30_000).to_string();
        let mut all = ClientConfig::new();
        all.set_log_level(RDKafkaLogLevel::Info).set("client.id", "nova");
        for (name, value) in &self.properties {
            // The consumer and the admin client would warn about what only concerns the producer.
            if name != "compression.type" {
                all.set(name, value);
            }
        }
        all.set("bootstrap.servers", &self.bootstrap)
            .set("socket.timeout.ms", socket_ms)
            .set("socket.nagle.disable", "true")
            // A broker that comes back should be found at once: seconds of back-off would be seconds without a bus.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("log.connection.close", "false")
            // A topic made in passing would have the broker's default settings.
            .set("allow.auto.create.topics", "false")
            .set("message.max.bytes", (MAX_WIRE_BYTES + (64 << 10)).to_string());
        all
    }

    /// A producer that keeps order and leaves no gap: the library retries for ever, and we give up on all of it at once.
    /// Its own timeout would drop one message and send the next.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut all = self.client();
        if let Some(compression) = self.properties.get("compression.type") {
            all.set("compression.type", compression);
        }
        all.set("acks", "all")
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("message.timeout.ms", "0")
            .set("linger.ms", format!("{:.3}", self.linger.as_secs_f64() * 1_000.0))
            // The limit on bytes in flight is ours, so that an append is refused whole or not at all.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2147483647")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            .set("topic.metadata.propagation.max.ms", "5000");
        all
    }

    /// A consumer whose partitions and positions are ours alone.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut all = self.client();
        // For the line that says a topic was made anew; the rest of them is not kept.
        all.set_log_level(RDKafkaLogLevel::Debug).set("debug", "topic");
        // The library wants a group even where partitions are assigned by hand; nothing is ever committed to it.
        all.set("group.id", "nova-unused")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "250")
            .set("fetch.error.backoff.ms", "50")
            .set("fetch.message.max.bytes", (MAX_WIRE_BYTES + (64 << 10)).to_string())
            // What waits in the library is bounded for all partitions together.
            .set("queued.min.messages", "20000")
            .set("queued.max.messages.kbytes", "16384")
            // A partition that has enough in the library is looked at again soon: the default of 1 s is a hole.
            .set("fetch.queue.backoff.ms", "5")
            .set("max.poll.interval.ms", "86400000");
        all
    }

    /// A client that only asks.
    pub(crate) fn queries(&self) -> ClientConfig {
        let mut all = self.client();
        // The library wants a group of each consumer; this one reads nothing.
        all.set("group.id", "nova-unused").set("enable.auto.commit", "false");
        all
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of properties may be secrets; their names are enough to see what is set.
        f.debug_struct("Config")
            .field("bootstrap", &self.bootstrap)
            .field("prefix", &self.prefix)
            .field("replicas", &self.replicas)
            .field("message_timeout", &self.message_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("linger", &self.linger)
            .field("max_in_flight_bytes", &self.max_in_flight_bytes)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_named_and_no_secret_is_shown() {
        let mut config = Config::new(" ");
        config.replicas = 0;
        config.prefix = "a b".into();
        config.properties.insert("acks".into(), "1".into());
        config.properties.insert("sasl.password".into(), "hush".into());
        let problems = config.problems();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.iter().any(|problem| problem == "property acks may not be set"));
        assert!(!format!("{config:?}").contains("hush"));
        assert!(Config::new("127.0.0.1:9092").problems().is_empty());
    }
}
