//! A trigger by records.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use nova_bus::{Batch, BusError, ReadError, Reader, Record, Topic};
use nova_client::ClientError;
use nova_trigger_rules::{From, IncomingRecord, Kafka, Source, input_of_record, number_of_offset};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::context::{Context, Entry};
use crate::metrics as names;
use crate::partition::Partition;
use crate::submit::{Dead, Start};
use crate::workflows::Target;

const TICK: Duration = Duration::from_millis(50);
/// How often a workflow or topic that is missing is looked for.
const HELD_PAUSE: Duration = Duration::from_millis(500);
/// How often ends of partitions are asked for, for the lag.
const ENDS_EVERY: Duration = Duration::from_secs(5);
/// How often the topic is asked for new partitions.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
const READ_WAIT: Duration = Duration::from_secs(1);
const READ_PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(5);
/// Records that are looked at in one go; others want the thread too.
const RECORDS_AT_ONCE: usize = 128;

/// Runs until it is dropped, which it may be at any moment.
pub(crate) async fn run(context: Arc<Context>, entry: Arc<Entry>, kafka: Kafka) {
    let topic = Topic::Named(kafka.topic.as_str().into());
    loop {
        let reader = match context.bus.reader() {
            Ok(reader) => reader,
            Err(error) => {
                trouble(&entry, &error);
                tokio::time::sleep(READ_PAUSE).await;
                continue;
            }
        };
        let feed = Feed {
            context: Arc::clone(&context),
            entry: Arc::clone(&entry),
            kafka: kafka.clone(),
            topic: topic.clone(),
            partitions: BTreeMap::new(),
            asked: JoinSet::new(),
            target: None,
            look_at: Instant::now(),
            ends_at: Instant::now(),
            partitions_at: Instant::now() + PARTITIONS_EVERY,
        };
        feed.run(reader).await;
    }
}

fn trouble(entry: &Entry, error: &BusError) {
    counter!(names::ERRORS, "what" => "read").increment(1);
    tracing::warn!(trigger = %entry.id, %error, "the bus is asked again");
}

/// What was asked for beside reading.
enum Answer {
    Position(u32, Result<Option<u64>, ClientError>),
    Offsets(u32, Option<Range<u64>>),
    Partitions(Option<u32>),
}

struct Feed {
    context: Arc<Context>,
    entry: Arc<Entry>,
    kafka: Kafka,
    topic: Topic,
    partitions: BTreeMap<u32, Partition>,
    asked: JoinSet<Answer>,
    target: Option<Arc<Target>>,
    look_at: Instant,
    ends_at: Instant,
    partitions_at: Instant,
}

impl Feed {
    /// Ends when the reader is of no use any more.
    async fn run(mut self, mut reader: Box<dyn Reader>) {
        self.find_topic().await;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            self.look_for_target().await;
            self.choose(&mut *reader);
            let read = tokio::select! {
                read = reader.next(READ_WAIT) => Some(read),
                Some(answer) = self.asked.join_next() => {
                    if let Ok(answer) = answer {
                        self.answered(answer, &mut *reader).await;
                    }
                    None
                }
                _ = tick.tick() => {
                    self.ask();
                    None
                }
            };
            match read {
                None => {}
                Some(Ok(batch)) => {
                    failures = 0;
                    if let Some(batch) = batch {
                        self.take(&batch).await;
                    }
                }
                Some(Err(ReadError::OutOfRange { partition, wanted, low, high, .. })) => {
                    self.out_of_range(partition, wanted, &(low..high));
                }
                Some(Err(ReadError::Bus(error))) => {
                    trouble(&self.entry, &error);
                    failures += 1;
                    if failures > 10 {
                        return;
                    }
                    tokio::time::sleep(READ_PAUSE).await;
                }
            }
        }
    }

    async fn find_topic(&mut self) {
        let count = loop {
            match tokio::time::timeout(PATIENCE, self.context.bus.partitions(&self.topic)).await {
                Ok(Ok(Some(count))) => break count,
                Ok(Ok(None)) => self.context.hold(&self.entry, format!("there is no topic {}", self.topic)),
                Ok(Err(error)) => trouble(&self.entry, &error),
                Err(_) => counter!(names::ERRORS, "what" => "read").increment(1),
            }
            tokio::time::sleep(HELD_PAUSE).await;
        };
        self.begin(0..count, self.kafka.from).await;
    }

    /// Takes partitions up where they stand, all at once: `latest` is a moment.
    async fn begin(&mut self, numbers: Range<u32>, from: From) {
        let mut beginning = JoinSet::new();
        for number in numbers {
            let source = Source::of_kafka(&self.entry.id, &self.kafka, number);
            let entry = &self.entry;
            let outlet = self.context.submitter.outlet(&entry.namespace, &entry.id, &entry.workflow, source);
            let (context, topic) = (Arc::clone(&self.context), self.topic.clone());
            beginning.spawn(async move {
                // The end before the position: what is written meanwhile is behind it.
                let range = loop {
                    match tokio::time::timeout(PATIENCE, context.bus.offsets(&topic, number)).await {
                        Ok(Ok(range)) => break range,
                        Ok(Err(error)) => tracing::warn!(%topic, number, %error, "offsets are asked for again"),
                        Err(_) => tracing::warn!(%topic, number, "offsets are asked for again"),
                    }
                    counter!(names::ERRORS, "what" => "read").increment(1);
                    tokio::time::sleep(READ_PAUSE).await;
                };
                let position = context.first_position(&outlet).await;
                (number, outlet, position, range)
            });
        }
        while let Some(Ok((number, outlet, position, range))) = beginning.join_next().await {
            let position = match (position, from) {
                (Some(position), _) => position,
                (None, From::Earliest) => range.start,
                (None, From::Latest) => {
                    // Records from here on belong to it, also when this process does not live to see one.
                    self.context.submitter.mark(&outlet, range.end, self.context.clock.now_ms());
                    range.end
                }
            };
            let partition = Partition::new(outlet, position, range.end);
            let next = partition.next;
            self.partitions.insert(number, partition);
            if !(range.start..=range.end).contains(&next) {
                self.out_of_range(number, next, &range);
            }
        }
    }

    /// The position is not in the partition.
    fn out_of_range(&mut self, number: u32, wanted: u64, there: &Range<u64>) {
        let Some(partition) = self.partitions.get_mut(&number) else { return };
        partition.reading = false;
        partition.end = there.end;
        let (topic, trigger) = (&self.topic, &self.entry.id);
        if wanted < there.start {
            let lost = there.start - wanted;
            counter!(names::LOST).increment(lost);
            tracing::error!(%topic, partition = number, %trigger, lost, "records were gone before they were read");
            partition.skip_to(there.start);
        } else {
            // Its numbers are below the position and would all be dropped as repeats: silence would look like quiet.
            partition.halted = true;
            let end = there.end;
            tracing::error!(%topic, partition = number, %trigger, wanted, end, "a partition ends before its position");
        }
    }

    async fn look_for_target(&mut self) {
        if self.target.is_some() || Instant::now() < self.look_at {
            return;
        }
        match self.context.target(&self.entry).await {
            Ok(target) => {
                self.context.release(&self.entry);
                self.target = Some(target);
            }
            Err(missing) => {
                self.context.hold(&self.entry, missing.to_string());
                self.look_at = Instant::now() + HELD_PAUSE;
            }
        }
    }

    /// Reads what may be read, and nothing else.
    fn choose(&mut self, reader: &mut dyn Reader) {
        for (number, partition) in &mut self.partitions {
            let open = partition.is_open(self.context.window);
            let wanted = open && self.target.is_some() && !self.context.load.is_busy(partition.outlet.shard);
            if wanted && !partition.reading {
                match reader.assign(&self.topic, *number, partition.next) {
                    Ok(()) => partition.reading = true,
                    Err(error) => trouble(&self.entry, &error),
                }
            } else if !wanted && partition.reading {
                reader.remove(&self.topic, *number);
                partition.reading = false;
            }
        }
    }

    /// Asks for positions, ends and partitions; the answers come beside the records.
    fn ask(&mut self) {
        let now = Instant::now();
        for (number, partition) in &mut self.partitions {
            if partition.asks(self.context.window, now) {
                let (context, outlet, number) = (Arc::clone(&self.context), partition.outlet.clone(), *number);
                self.asked.spawn(async move { Answer::Position(number, context.position(&outlet).await) });
            }
        }
        if now >= self.ends_at {
            self.ends_at = now + ENDS_EVERY;
            for number in self.partitions.keys().copied() {
                let (context, topic) = (Arc::clone(&self.context), self.topic.clone());
                self.asked.spawn(async move {
                    let asking = tokio::time::timeout(PATIENCE, context.bus.offsets(&topic, number));
                    Answer::Offsets(number, asking.await.ok().and_then(Result::ok))
                });
            }
            let lag = self.partitions.values().map(Partition::lag).sum();
            let halted = self.partitions.values().filter(|it| it.halted).count();
            self.context.kafka_lag(&self.entry, lag, halted as u64);
        }
        if now >= self.partitions_at {
            self.partitions_at = now + PARTITIONS_EVERY;
            let (context, topic) = (Arc::clone(&self.context), self.topic.clone());
            self.asked.spawn(async move {
                let asking = tokio::time::timeout(PATIENCE, context.bus.partitions(&topic));
                Answer::Partitions(asking.await.ok().and_then(Result::ok).flatten())
            });
        }
        // The newest version may be another by now; it is looked up without a question unless it is.
        if self.target.take().is_some() {
            self.look_at = now;
        }
    }

    async fn answered(&mut self, answer: Answer, reader: &mut dyn Reader) {
        match answer {
            Answer::Position(number, answer) => {
                let Some(partition) = self.partitions.get_mut(&number) else { return };
                let position = match answer {
                    Ok(position) => position,
                    Err(error) => {
                        counter!(names::ERRORS, "what" => "position").increment(1);
                        tracing::debug!(source = %partition.outlet.source, %error, "a position is not known");
                        None
                    }
                };
                if partition.answered(position) && partition.reading {
                    reader.remove(&self.topic, number);
                    partition.reading = false;
                }
            }
            Answer::Offsets(number, range) => {
                if let (Some(partition), Some(range)) = (self.partitions.get_mut(&number), range) {
                    partition.end = range.end;
                }
            }
            Answer::Partitions(count) => {
                let known = self.partitions.len() as u32;
                if let Some(count) = count.filter(|count| *count > known) {
                    tracing::info!(topic = %self.topic, count, "a topic has more partitions");
                    // All of their records came after the trigger.
                    self.begin(known..count, From::Earliest).await;
                }
            }
        }
    }

    /// Submits the records of a batch.
    async fn take(&mut self, batch: &Batch) {
        self.context.submitter.room().await;
        let Some(partition) = self.partitions.get_mut(&batch.partition) else { return };
        let Some(target) = &self.target else {
            // Taken back while this was on its way: it is read again.
            partition.reading = false;
            return;
        };
        let mut starts = Vec::new();
        let mut dead = Vec::new();
        let mut through = None;
        for records in batch.records.chunks(RECORDS_AT_ONCE) {
            for record in records.iter().filter(|record| record.offset >= partition.next) {
                let number = number_of_offset(record.offset);
                match start(&self.kafka, target, batch.partition, record) {
                    Ok(start) => {
                        starts.push(start);
                        through = Some((number, None));
                    }
                    Err((code, reason)) => {
                        dead.push(Dead {
                            topic: self.kafka.topic.clone(),
                            partition: batch.partition,
                            offset: record.offset,
                            code,
                            reason,
                            original: record.value.clone(),
                            at_ms: self.context.clock.now_ms(),
                        });
                        through = Some((number, Some(record.timestamp_ms)));
                    }
                }
            }
            tokio::task::yield_now().await;
        }
        let Some((number, marked_at)) = through else { return };
        // Before anything behind them moves the position.
        self.context.submitter.put_aside("kafka", dead).await;
        counter!(names::FIRED, "kind" => "kafka").increment(starts.len() as u64);
        for start in starts {
            self.context.submitter.start(&partition.outlet, target, start);
        }
        if let Some(at_ms) = marked_at {
            self.context.submitter.mark(&partition.outlet, number, at_ms);
        }
        partition.submitted(number);
    }
}

fn start(kafka: &Kafka, target: &Target, partition: u32, record: &Record) -> Result<Start, (&'static str, String)> {
    let headers: Vec<(&str, &[u8])> = record.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let incoming = IncomingRecord {
        topic: &kafka.topic,
        partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.as_deref(),
        headers: &headers,
        value: &record.value,
    };
    let input = input_of_record(kafka.input, &incoming).map_err(|why| (why.code(), why.to_string()))?;
    target.check(&input).map_err(|why| ("trigger.input.schema", why))?;
    Ok(Start { number: number_of_offset(record.offset), at_ms: record.timestamp_ms, input: input.into() })
}
