//! The engine behind the log: it takes what triggers submit, and executions stay open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_bus::{Bus, MemoryBus, Topic};
use nova_engine::ids::{Epoch, Offset, OwnerId, Seq, ShardId, TimeMs};
use nova_engine::input::{Entry, EntryBody, Proposal, Record};
use nova_engine::output::Verdict;
use nova_wire::{ClusterId, v1};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use crate::coordinator::{Started, State};
use crate::rig::{CLUSTER, SHARDS, START_MS};

/// The submissions of a record; triggers send nothing else.
pub fn commands(record: &Bytes, shard: u32) -> Vec<v1::Submit> {
    let opened = nova_wire::open(record, ClusterId::of_name(CLUSTER)).unwrap();
    assert_eq!((opened.kind, opened.shard), (v1::RecordKind::Commands, shard));
    let batch = v1::CommandBatch::decode(opened.body).unwrap();
    let submit = |command: v1::Command| match command.kind {
        Some(v1::command::Kind::Submit(submit)) => submit,
        other => panic!("only submissions are expected, not {other:?}"),
    };
    batch.commands.into_iter().map(submit).collect()
}

/// The engine, and a shard's place in the log.
struct Engine {
    state: nova_engine::State,
    index: u64,
    /// Checksum of the last record, by shard.
    before: Vec<u64>,
}

impl Engine {
    fn new() -> Self {
        let state = nova_engine::State::new(nova_engine::Config { shards: SHARDS as u16 });
        let mut engine = Self { state, index: 0, before: vec![0; SHARDS as usize] };
        for shard in 0..SHARDS as u16 {
            engine.entry(EntryBody::Grant { shard: ShardId(shard), after: Epoch(0), owner: OwnerId(1) });
        }
        engine
    }

    fn entry(&mut self, body: EntryBody) {
        self.index += 1;
        let entry = Entry { now: TimeMs(START_MS), index: self.index, term: 1, body };
        let verdict = self.state.apply(&entry);
        assert!(matches!(verdict, Verdict::Applied(_)), "{verdict:?}");
    }

    fn record(&mut self, shard: u32, record: &nova_bus::Record) {
        let checksum = nova_wire::record_checksum(&record.value);
        let opened = nova_wire::open(&record.value, ClusterId::of_name(CLUSTER)).unwrap();
        let commands = nova_wire::commands_from_wire(opened.body).expect("commands that the coordinator takes");
        let before = std::mem::replace(&mut self.before[shard as usize], checksum);
        self.entry(EntryBody::Propose(Proposal {
            shard: ShardId(shard as u16),
            epoch: Epoch(1),
            first_offset: Offset(record.offset),
            next_offset: Offset(record.offset + 1),
            before,
            records: vec![Record { offset: Offset(record.offset), checksum, commands }],
            locals: Vec::new(),
            outbox_acked: Seq(0),
        }));
    }

    fn open_executions(&self) -> u64 {
        (0..SHARDS as u16).map(|shard| self.state.shard_stats(ShardId(shard)).open).sum()
    }
}

/// Gives the engine what is in the log, and notes what became of it. Executions stay open: nobody does their work.
pub async fn apply(bus: MemoryBus, state: Arc<Mutex<State>>, mut runs: watch::Receiver<bool>) {
    let mut engine = Engine::new();
    let mut reader = bus.reader().unwrap();
    for shard in 0..SHARDS {
        reader.assign(&Topic::Commands, shard, 0).unwrap();
    }
    loop {
        let Some(batch) = reader.next(Duration::from_secs(1)).await.unwrap() else { continue };
        // After the read: what was written once it stands still is not applied.
        if runs.wait_for(|runs| *runs).await.is_err() {
            return;
        }
        let mut state = state.lock();
        for install in std::mem::take(&mut state.installs) {
            engine.entry(EntryBody::PutWorkflow(install));
        }
        for record in &batch.records {
            engine.record(batch.partition, record);
            for submit in commands(&record.value, batch.partition) {
                note(&mut state, &engine, batch.partition, submit);
            }
        }
        assert_eq!(engine.open_executions(), state.started.len() as u64, "the engine took others");
    }
}

fn note(state: &mut State, engine: &Engine, shard: u32, submit: v1::Submit) {
    state.commands += 1;
    let Some(v1::submit::Dedupe::Source(source)) = submit.dedupe else { panic!("no source") };
    let id = nova_wire::execution_id(&submit.execution).unwrap();
    assert_eq!(u32::from(id.shard().0), shard);
    let key = (submit.namespace.clone(), source.source.clone());
    if state.positions.get(&key).is_some_and(|last| *last >= source.number) {
        state.repeats += 1;
        return;
    }
    state.positions.insert(key, source.number);
    // The record may hold later numbers too.
    let last = engine.state.source_position(id.shard(), &submit.namespace, &source.source);
    assert!(last >= Some(source.number), "the engine has not decided {} of {}", source.number, source.source);
    if submit.version == 0 {
        state.marks.push((source.source, source.number));
        return;
    }
    let execution = engine.state.execution(id).expect("the engine has started it");
    assert_eq!(execution.execution.workflow.version, submit.version);
    let Some(v1::payload::Kind::Inline(input)) = submit.input.unwrap().kind else { panic!("not inline") };
    state.started.push(Started {
        source: source.source,
        number: source.number,
        version: submit.version,
        started_by: submit.started_by,
        execution: id.to_string(),
        input: serde_json::from_slice(&input).unwrap(),
    });
}
