//! What became of the executions of one loop.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::request::Said;

/// Answers that were not right and are kept for a look.
const KEPT: usize = 3;
/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;

/// One submission, as far as its answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub number: u64,
    pub said: Said,
}

/// What is counted while load runs.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The measured time.
    from: Instant,
    to: Instant,
    /// All submissions, those of the warm-up too.
    pub sent: Vec<Sent>,
    /// From when an execution was due to the answer with its result, in microseconds, of those due in the measured time.
    pub latency_us: Histogram<u64>,
    /// How late submissions were sent, in microseconds: the generator's own delay, and that of connections in use.
    pub late_us: Histogram<u64>,
    /// Completed, or accepted where nothing else is asked for, in the measured time.
    pub completed: u64,
    /// Turned away, ever.
    pub refused: u64,
    /// From when those were sent that were turned away until they knew, in microseconds.
    pub refused_us: Histogram<u64>,
    /// How long they were told to wait, in seconds; 0 where they were not told.
    pub retry_after_s: Histogram<u64>,
    /// Some of the answers that were not right.
    pub wrong: Vec<String>,
    /// When the last answer came.
    last: Instant,
}

impl Tally {
    pub(crate) fn new(from: Instant, to: Instant) -> Self {
        let (latency_us, late_us) = (histogram(), histogram());
        Self {
            from,
            to,
            sent: Vec::new(),
            latency_us,
            late_us,
            completed: 0,
            refused: 0,
            refused_us: histogram(),
            retry_after_s: histogram(),
            wrong: Vec::new(),
            last: from,
        }
    }

    /// Notes that what was due then was sent at this time.
    pub(crate) fn note_sent(&mut self, due: Instant, sent: Instant) {
        if self.from <= due && due < self.to {
            self.late_us.saturating_record(sent.saturating_duration_since(due).as_micros() as u64);
        }
    }

    /// Notes how a whole request was turned away.
    pub(crate) fn note_refusal(&mut self, sent: Instant, now: Instant, retry_after_seconds: Option<u64>) {
        self.refused_us.saturating_record(now.saturating_duration_since(sent).as_micros() as u64);
        self.retry_after_s.saturating_record(retry_after_seconds.unwrap_or(0));
    }

    /// The measured time ends with the last answer.
    pub(crate) fn end_with_last(&mut self) {
        self.to = self.last;
    }

    /// Notes an answer that came `now` to an execution that was due at `due`.
    pub(crate) fn note(&mut self, number: u64, said: Said, due: Instant, now: Instant) {
        self.sent.push(Sent { number, said });
        self.last = self.last.max(now);
        match said {
            Said::Completed(_) | Said::Accepted(_) => {
                if self.from <= now && now < self.to {
                    self.completed += 1;
                }
                // By when it was due, whenever it ended: slow ones must not fall out at the end.
                if self.from <= due && due < self.to {
                    self.latency_us.saturating_record(now.saturating_duration_since(due).as_micros() as u64);
                }
            }
            Said::Refused => self.refused += 1,
            Said::Other => {}
        }
    }

    /// Keeps an answer that was not right for a look.
    pub(crate) fn keep(&mut self, status: u16, body: &[u8]) {
        if self.wrong.len() < KEPT {
            let text = String::from_utf8_lossy(&body[..body.len().min(500)]);
            self.wrong.push(format!("{status} {}", text.trim()));
        }
    }

    pub(crate) fn window(&self) -> Duration {
        self.to - self.from
    }
}

/// For microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("these bounds are in order")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_ends_and_latencies_count_beginnings_in_the_measured_time() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut tally = Tally::new(at(1_000), at(2_000));
        tally.note(1, Said::Completed(1), at(900), at(1_100));
        tally.note(2, Said::Completed(2), at(1_100), at(1_150));
        // Due within, ended after: a figure without it would flatter.
        tally.note(3, Said::Completed(3), at(1_990), at(5_990));
        tally.note(4, Said::Refused, at(1_500), at(1_501));
        tally.note(5, Said::Other, at(1_500), at(1_501));
        assert_eq!((tally.completed, tally.latency_us.len(), tally.refused, tally.sent.len()), (2, 2, 1, 5));
        let longest = tally.latency_us.max();
        assert!((3_990_000..=4_010_000).contains(&longest), "{longest}");
        assert_eq!(tally.window(), Duration::from_secs(1));
        tally.note_sent(at(1_100), at(1_103));
        tally.note_sent(at(900), at(999));
        assert_eq!((tally.late_us.len(), tally.late_us.max()), (1, 3_001));
        tally.end_with_last();
        assert_eq!(tally.window(), Duration::from_millis(4_990));
    }

    #[test]
    fn only_a_few_answers_are_kept() {
        let begin = Instant::now();
        let mut tally = Tally::new(begin, begin);
        for _ in 0..9 {
            tally.keep(504, &[b'x'; 10_000]);
        }
        assert_eq!(tally.wrong.len(), KEPT);
        assert!(tally.wrong[0].starts_with("504 xxx") && tally.wrong[0].len() < 600);
    }
}
