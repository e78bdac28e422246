//! What can be set about traces.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Spans of one request to the receiver.
pub(crate) const BATCH_SPANS: usize = 512;

/// Where spans go, and what they may cost. Each service has it as its section `trace`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The receiver, OTLP over gRPC: `http://host:port`. Empty: no spans are made.
    pub otlp: String,
    /// Spans that wait to be sent, 512 to 1,000,000, each about 1 KiB; with more, new ones are dropped.
    pub queue_spans: usize,
    /// Longest time for one request to the receiver, in milliseconds; then its spans are dropped.
    pub timeout_ms: u64,
    /// How long a span waits for others, in milliseconds; 512 do not wait.
    pub send_every_ms: u64,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self { otlp: String::new(), queue_spans: 8_192, timeout_ms: 3_000, send_every_ms: 1_000 }
    }
}

impl TraceSettings {
    /// All that is wrong with it, one sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, what: &str| {
            if !good {
                problems.push(what.to_owned());
            }
        };
        let address = self.otlp.is_empty() || self.otlp.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
        check(address, "trace.otlp: must be http://<host>:<port>, or empty");
        check((BATCH_SPANS..=1_000_000).contains(&self.queue_spans), "trace.queue_spans: must be 512 to 1000000");
        check((1..=60_000).contains(&self.timeout_ms), "trace.timeout_ms: must be 1 to 60000");
        check((1..=60_000).contains(&self.send_every_ms), "trace.send_every_ms: must be 1 to 60000");
        problems
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(crate) fn send_every(&self) -> Duration {
        Duration::from_millis(self.send_every_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::TraceSettings;

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        assert!(TraceSettings::default().problems().is_empty());
        let good = TraceSettings { otlp: "http://127.0.0.1:4317".into(), ..TraceSettings::default() };
        assert!(good.problems().is_empty());
        let bad = TraceSettings { otlp: "127.0.0.1:4317".into(), queue_spans: 1, timeout_ms: 0, send_every_ms: 0 };
        assert_eq!(bad.problems().len(), 4);
    }
}
