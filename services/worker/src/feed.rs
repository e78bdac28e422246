//! Reads the inbox from where it stands, also after the bus lost sight of it.

use std::time::{Duration, Instant};

use nova_bus::{BusError, ReadError, Reader, Record, Topic};
use tokio::time::sleep_until;

use crate::session::PAUSE;

const WAIT: Duration = Duration::from_millis(100);
/// How long a partition may be said not to exist: brokers that have just started deny what they have not heard of yet.
const GONE_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct Feed {
    reader: Box<dyn Reader>,
    inbox: u32,
    next: u64,
    /// When the reader is to be given the partition; none while it has it.
    assign_at: Option<Instant>,
    /// Since when it is said not to exist; ends with the next record.
    gone_since: Option<Instant>,
}

impl Feed {
    pub(crate) fn new(reader: Box<dyn Reader>, inbox: u32, from: u64) -> Self {
        Self { reader, inbox, next: from, assign_at: Some(Instant::now()), gone_since: None }
    }

    /// The next records, none after a while without. Safe to cancel. An error is final: the inbox cannot be read on.
    pub(crate) async fn next(&mut self) -> Result<Vec<Record>, ReadError> {
        if let Some(at) = self.assign_at {
            sleep_until(at.into()).await;
            if let Err(error) = self.reader.assign(&Topic::Tasks, self.inbox, self.next) {
                return self.failed(error.into());
            }
            self.assign_at = None;
        }
        match self.reader.next(WAIT).await {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(batch)) => {
                self.next = batch.records.last().map_or(self.next, |last| last.offset + 1);
                self.gone_since = None;
                Ok(batch.records)
            }
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: ReadError) -> Result<Vec<Record>, ReadError> {
        let is_final = match &error {
            ReadError::OutOfRange { .. } => true,
            ReadError::Bus(BusError::NoSuchPartition { .. }) => {
                self.gone_since.get_or_insert_with(Instant::now).elapsed() > GONE_LIMIT
            }
            // The bus is away for everybody, and what runs goes on.
            ReadError::Bus(_) => false,
        };
        if is_final {
            return Err(error);
        }
        tracing::warn!(%error, "the inbox cannot be read; it is tried again");
        // The reader may have dropped the partition with the error.
        self.assign_at = Some(Instant::now() + PAUSE);
        Ok(Vec::new())
    }
}
