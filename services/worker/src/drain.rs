//! Leaving in order: no new work, what runs is finished, the session is closed (rule 29).
//!
//! ```text
//! announced ──▶ all is said ──▶ Close ──▶ closed
//!                    ▲            │ leases are open: their assignments are still on their way
//!                    └────────────┘
//!                  `drain_ms` passes ──▶ what runs is stopped and said to be ──▶ a little later it ends anyhow
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use nova_client::{ClientError, Coordinators, Repeat};
use nova_wire::v1;
use tokio_util::task::AbortOnDropHandle;

use crate::renewal::Session;
use crate::results::Results;
use crate::session::PATIENCE;

const TRY_EVERY: Duration = Duration::from_millis(100);
/// From stopping what runs to leaving without a word: attempts end, are said to be stopped, and the session is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is to be done now.
pub(crate) enum Step {
    /// The session is closed.
    Leave,
    /// The time of the drain is over.
    StopAll,
    /// So is the time after it; the session lapses by itself.
    GiveUp,
}

pub(crate) struct Drain {
    closing: AbortOnDropHandle<()>,
    until: Instant,
    stopping: bool,
}

impl Drain {
    pub(crate) fn begin(coordinators: Coordinators, session: Session, results: Arc<Results>, limit: Duration) -> Self {
        tracing::info!(session = session.session, "draining");
        let closing = AbortOnDropHandle::new(tokio::spawn(close(coordinators, session, results)));
        Self { closing, until: Instant::now() + limit, stopping: false }
    }

    /// Whether nothing may run any more.
    pub(crate) fn is_over(&self) -> bool {
        self.stopping
    }

    /// Waits for the next step. Safe to cancel.
    pub(crate) async fn step(&mut self) -> Step {
        tokio::select! {
            _ = &mut self.closing => Step::Leave,
            () = tokio::time::sleep_until(self.until.into()) => {
                self.until += LAST_WORDS;
                if std::mem::replace(&mut self.stopping, true) { Step::GiveUp } else { Step::StopAll }
            }
        }
    }
}

/// Until the session is closed.
async fn close(coordinators: Coordinators, session: Session, results: Arc<Results>) {
    while let Err(error) = announce(&coordinators, session).await {
        tracing::warn!(%error, "the drain could not be announced");
        tokio::time::sleep(TRY_EVERY).await;
    }
    loop {
        if results.is_idle() && try_close(&coordinators, session).await {
            tracing::info!(session = session.session, "session closed");
            return;
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

async fn announce(coordinators: &Coordinators, session: Session) -> Result<(), ClientError> {
    let drain = v1::Drain { worker: session.worker, draining: true };
    let asking =
        coordinators.call(PATIENCE, Repeat::Harmless, |mut member| async move { member.drain_worker(drain).await });
    asking.await.map(drop)
}

async fn try_close(coordinators: &Coordinators, session: Session) -> bool {
    use v1::close_response::Result as Answer;
    let close = v1::Close { worker: session.worker, session: session.session };
    let asking =
        coordinators.call(PATIENCE, Repeat::Harmless, |mut member| async move { member.close_session(close).await });
    match asking.await {
        Ok(v1::CloseResponse { result: Some(Answer::Refused(refusal)) }) => {
            // Leases that were given before the drain: their assignments are read, run and answered first.
            refusal.kind() != v1::refusal::Kind::LeasesOpen
        }
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "the session could not be closed");
            false
        }
    }
}
