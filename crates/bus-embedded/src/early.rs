//! Who waits for commands that are shown and not on the disk yet. They are answered once the commands are there, or are
//! applied, whichever is first.

use std::collections::{HashMap, VecDeque};

use nova_bus::AppendError;
use tokio::sync::oneshot;

type Sender = oneshot::Sender<Result<u64, AppendError>>;

/// An append that waits.
pub(crate) struct EarlyAck {
    first: u64,
    end: u64,
    ack: Sender,
}

impl EarlyAck {
    pub(crate) fn succeed(self) {
        let _ = self.ack.send(Ok(self.first));
    }
}

/// All of them, by partition.
#[derive(Default)]
pub(crate) struct EarlyAcks(HashMap<u32, VecDeque<EarlyAck>>);

impl EarlyAcks {
    /// Offsets only grow.
    pub(crate) fn push(&mut self, partition: u32, first: u64, end: u64, ack: Option<Sender>) {
        self.0.entry(partition).or_default().extend(ack.map(|ack| EarlyAck { first, end, ack }));
    }

    /// Takes those of a partition that end at this offset or before.
    pub(crate) fn upto(&mut self, partition: u32, next: u64) -> Vec<EarlyAck> {
        let Some(waiting) = self.0.get_mut(&partition) else { return Vec::new() };
        let done = waiting.partition_point(|it| it.end <= next);
        waiting.drain(..done).collect()
    }

    /// Takes all.
    pub(crate) fn all(&mut self) -> Vec<Sender> {
        std::mem::take(&mut self.0).into_values().flatten().map(|it| it.ack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_is_answered_when_all_of_it_is_done_and_once() {
        let mut acks = EarlyAcks::default();
        let mut receivers = Vec::new();
        for (partition, first, end) in [(0, 5, 6), (0, 6, 9), (1, 0, 1), (0, 9, 10)] {
            let (sender, receiver) = oneshot::channel();
            acks.push(partition, first, end, Some(sender));
            receivers.push(receiver);
        }
        acks.upto(0, 8).into_iter().for_each(EarlyAck::succeed);
        assert_eq!(receivers[0].try_recv(), Ok(Ok(5)));
        receivers[1].try_recv().expect_err("not all of it is done");
        acks.upto(0, 9).into_iter().for_each(EarlyAck::succeed);
        assert_eq!(receivers[1].try_recv(), Ok(Ok(6)));
        receivers[2].try_recv().expect_err("that is another partition");
        assert!(acks.upto(0, 9).is_empty() && acks.upto(7, 9).is_empty());
        assert_eq!(acks.all().len(), 2);
        assert!(acks.all().is_empty());
    }
}
