//! The engine as a state machine of the log.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use nova_engine::ids::TimeMs;
use nova_engine::input::Entry;
use nova_engine::{Config, State};
use nova_replication::{ApplyError, Committed, StateMachine};
use nova_wire::v1;
use parking_lot::{RwLock, RwLockReadGuard};
use prost::Message;
use tokio::sync::watch;

use crate::level;

/// The applied state, for those who read it.
pub(crate) struct View {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

impl View {
    pub(crate) fn new(shards: u16) -> Self {
        Self { state: RwLock::new(State::new(Config { shards })), changed: watch::Sender::new(0) }
    }

    /// Held shortly: applying waits for it.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    /// The state as it is now, for long looks.
    pub(crate) fn freeze(&self) -> State {
        self.state.read().clone()
    }

    /// Changes after each run of applied entries.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub(crate) struct EngineMachine {
    view: Arc<View>,
    shards: u16,
    seconds: metrics::Histogram,
}

impl EngineMachine {
    pub(crate) fn new(view: Arc<View>) -> Self {
        let shards = view.read().config.shards;
        Self { view, shards, seconds: metrics::histogram!(crate::metrics::APPLY_SECONDS) }
    }
}

impl StateMachine for EngineMachine {
    type Frozen = State;

    fn apply(&mut self, command: Committed<'_>) -> Result<Bytes, ApplyError> {
        let begun = Instant::now();
        let at = |what: String| ApplyError(format!("entry {}: {what}", command.index));
        let entry = v1::LogEntry::decode(command.command.clone()).map_err(|error| at(error.to_string()))?;
        let highest = level::highest();
        if entry.version > highest {
            return Err(at(format!("version {} is newer than {highest}", entry.version)));
        }
        let own = u32::from(self.shards);
        // Who repairs a directory has no config.
        let repairs = entry.shards == 0 && entry.bodies.iter().all(is_recover);
        if entry.shards != own && !repairs {
            let made = entry.shards;
            return Err(at(format!("the cluster was made with {made} shards, and the config says {own}")));
        }
        for body in &entry.bodies {
            if let Some(v1::entry_body::Kind::Recover(recover)) = &body.kind {
                tracing::warn!(
                    index = command.index,
                    note = recover.note,
                    "the state goes on where entries may be lost"
                );
            }
        }
        // Decoded before the lock is taken: readers wait for applying only.
        let bodies: Result<Vec<_>, _> = entry.bodies.into_iter().map(nova_wire::entry_body_from_wire).collect();
        let bodies = bodies.map_err(|error| at(error.to_string()))?;
        let mut state = self.view.state.write();
        let mut verdicts = Vec::with_capacity(bodies.len());
        for body in bodies {
            let entry = Entry { now: TimeMs(entry.now_ms), index: command.index, term: command.term, body };
            verdicts.push(nova_wire::verdict_to_wire(&state.apply(&entry)));
        }
        drop(state);
        self.seconds.record(begun.elapsed().as_secs_f64());
        Ok(v1::Verdicts { verdicts }.encode_to_vec().into())
    }

    fn applied(&mut self) {
        self.view.changed.send_modify(|version| *version += 1);
    }

    fn freeze(&self) -> State {
        self.view.freeze()
    }

    fn write(frozen: State, out: &mut dyn Write) -> io::Result<()> {
        nova_wire::write_snapshot(&frozen, out)
    }

    fn restore(&mut self, input: &mut (dyn Read + Send)) -> Result<(), ApplyError> {
        let state = nova_wire::read_snapshot(input).map_err(|error| ApplyError(format!("snapshot: {error}")))?;
        let (level, highest) = (state.level, level::highest());
        if level > highest {
            return Err(ApplyError(format!(
                "the snapshot is of feature level {level}, and this build knows {highest} and no higher one"
            )));
        }
        if state.config != self.view.read().config {
            let (found, own) = (state.config.shards, self.view.read().config.shards);
            return Err(ApplyError(format!("the cluster was made with {found} shards, and the config says {own}")));
        }
        *self.view.state.write() = state;
        Ok(())
    }
}

fn is_recover(body: &v1::EntryBody) -> bool {
    matches!(body.kind, Some(v1::entry_body::Kind::Recover(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(machine: &mut EngineMachine, version: u32, shards: u32) -> Result<Bytes, ApplyError> {
        let entry = v1::LogEntry { version, now_ms: 1, bodies: vec![], shards };
        machine.apply(Committed { index: 1, term: 1, command: &entry.encode_to_vec().into() })
    }

    #[test]
    fn a_log_of_other_shards_or_of_a_later_version_stops_the_member() {
        let mut machine = EngineMachine::new(Arc::new(View::new(8)));
        assert!(apply(&mut machine, level::FIRST, 8).is_ok());
        let error = apply(&mut machine, level::FIRST, 16).unwrap_err().0;
        assert_eq!(error, "entry 1: the cluster was made with 16 shards, and the config says 8");
        assert!(apply(&mut machine, level::highest() + 1, 8).is_err());
    }
}
