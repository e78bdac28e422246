//! Lets time pass: a tick when a timer is due, or a cascade is not finished, and nothing else is asked for (rule 6).

use std::sync::Arc;
use std::time::Duration;

use nova_replication::Group;
use nova_wire::v1;

use crate::clock::SharedClock;
use crate::machine::{EngineMachine, View};
use crate::proposer::Proposer;

/// Looks again after this long though nothing changed: leadership may have.
const AT_MOST: Duration = Duration::from_millis(500);
/// Ticks are not closer than this; other entries let time pass too.
const AT_LEAST: Duration = Duration::from_millis(1);

pub(crate) async fn run(group: Group<EngineMachine>, view: Arc<View>, clock: SharedClock, proposer: Proposer) {
    let mut changes = view.changes();
    let status = group.status();
    loop {
        let (due, floor) = {
            let state = view.read();
            (state.next_due(), state.now.0)
        };
        let now = clock.stamp(status.borrow().term, floor);
        let wait = due.map_or(AT_MOST, |due| Duration::from_millis(due.0.saturating_sub(now)).min(AT_MOST));
        if !wait.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
            continue;
        }
        if status.borrow().leads() {
            let _ = proposer.propose(v1::entry_body::Kind::Tick(v1::Tick {})).await;
            tokio::time::sleep(AT_LEAST).await;
        } else {
            tokio::time::sleep(AT_MOST).await;
        }
    }
}
