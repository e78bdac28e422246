//! Parking: an execution of which nothing runs is packed at the end of the entry, and unpacked before a step about it.
//!
//! Steps that are about an execution with a lease, an evaluation or a place in the queue need not ask: it is not parked.

use std::sync::Arc;

use crate::decide::Step;
use crate::ids::ExecutionId;
use crate::input::Command;
use crate::state::{Shard, State, Timer};
use crate::work::{At, Work};

impl State {
    /// Unpacks the execution that a step is about.
    pub(crate) fn wake_for(&mut self, step: &Step<'_>) {
        let id = match step {
            Step::Work(work) => execution_of(*work),
            Step::Timer(_, Timer::Node(id, ..) | Timer::NodeTotal(id, ..) | Timer::Execution(id)) => *id,
            Step::Command(_, Command::Cancel { execution, .. }) => *execution,
            _ => return,
        };
        let Some(shard) = self.shards.get_mut(usize::from(id.shard().0)) else { return };
        if shard.executions.sleeps(id) {
            let Shard { executions, .. } = Arc::make_mut(shard);
            executions.wake(id, &self.catalogue.versions);
            self.may_rest(id);
        }
    }

    /// Unpacks all that is parked. Nothing else changes, now or later; for tests.
    pub fn unpack_all(&mut self) {
        for shard in self.shards.iter_mut().map(Arc::make_mut) {
            let parked: Vec<_> = shard.executions.parked_ids().collect();
            parked.into_iter().for_each(|id| shard.executions.wake(id, &self.catalogue.versions));
        }
    }

    /// Notes that nothing of an execution may run any more. To ask too often costs a look, to forget it costs memory.
    pub(crate) fn may_rest(&mut self, id: ExecutionId) {
        if self.resting.last() != Some(&id) {
            self.resting.push(id);
        }
    }

    /// Packs those of which nothing runs.
    pub(crate) fn park_resting(&mut self) {
        if self.resting.is_empty() {
            return;
        }
        let (mut resting, mut room) = (std::mem::take(&mut self.resting), Vec::new());
        for id in resting.drain(..) {
            let Some(shard) = self.shards.get_mut(usize::from(id.shard().0)) else { continue };
            if shard.executions.may_park(id) {
                Arc::make_mut(shard).executions.park(id, &mut room);
            }
        }
        // Its room is used again.
        self.resting = resting;
    }
}

fn execution_of(work: Work) -> ExecutionId {
    match work {
        Work::Begin(At { execution, .. })
        | Work::Join(At { execution, .. })
        | Work::Ended(At { execution, .. }, _)
        | Work::Enter(execution, ..)
        | Work::Settle(execution, _)
        | Work::Stop(execution, ..) => execution,
    }
}
