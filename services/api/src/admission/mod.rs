//! Who may submit while there is more to do than can be done (docs/decisions/0025).
//!
//! [`control`] decides; here it is asked and told: at the door, before a request is read, and around each submission.

mod control;
mod gate;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use control::Control;
pub(crate) use control::{Limits, Refusal};
pub(crate) use gate::Gate;

/// Batches that may wait for room at once.
const ROOMS: usize = 64;
/// How often one of them looks whether there is room.
const ROOM_LOOK: Duration = Duration::from_millis(5);

/// The controller of this api.
pub(crate) struct Admission {
    control: Mutex<Control>,
    /// So that the door costs nothing while nobody is refused.
    limited: AtomicBool,
    rooms: Arc<Semaphore>,
}

/// Room for the lines of one batch.
pub(crate) struct Room {
    admission: Arc<Admission>,
    until: Instant,
    waits: Option<OwnedSemaphorePermit>,
}

/// What became of a line that asked for room.
pub(crate) enum Admitted {
    Now(Result<Permit, Refusal>),
    /// There is none yet.
    Look(tokio::time::Sleep),
}

impl Room {
    pub(crate) fn admit(&mut self, namespace: &str) -> Admitted {
        let refused = match self.admission.admit(namespace) {
            Err(refused) if Instant::now() < self.until => refused,
            result => return Admitted::Now(result),
        };
        if self.waits.is_none() {
            self.waits = Arc::clone(&self.admission.rooms).try_acquire_owned().ok();
        }
        match self.waits {
            Some(_) => Admitted::Look(tokio::time::sleep(ROOM_LOOK)),
            None => Admitted::Now(Err(refused)),
        }
    }
}

/// A submission that is under way until this is dropped.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    namespace: Box<str>,
    begun: Instant,
    taken: Option<Duration>,
}

impl Permit {
    /// Since when it is under way.
    pub(crate) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The cluster has decided about it.
    pub(crate) fn decided(mut self) {
        self.taken = Some(self.begun.elapsed());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut control = self.admission.control.lock();
        control.ended(&self.namespace, self.taken, Instant::now());
        self.admission.limited.store(control.is_limited(), Ordering::Relaxed);
    }
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let control = Mutex::new(Control::new(limits, Instant::now()));
        Arc::new(Self { control, limited: AtomicBool::new(false), rooms: Arc::new(Semaphore::new(ROOMS)) })
    }

    /// Whether a submission of the namespace is to be turned away before it is read, and when it is to be told.
    pub(crate) fn knock(&self, namespace: &str) -> Result<(), (Refusal, Instant)> {
        if !self.limited.load(Ordering::Relaxed) {
            return Ok(());
        }
        let now = Instant::now();
        let mut control = self.control.lock();
        control.knock(namespace, now).map_err(|refusal| (refusal, control.turn(now)))
    }

    /// Takes a submission.
    pub(crate) fn admit(self: &Arc<Self>, namespace: &str) -> Result<Permit, Refusal> {
        let begun = Instant::now();
        let mut control = self.control.lock();
        let admitted = control.admit(namespace, begun);
        self.limited.store(control.is_limited(), Ordering::Relaxed);
        drop(control);
        admitted.map(|()| Permit { admission: Arc::clone(self), namespace: namespace.into(), begun, taken: None })
    }

    /// For a batch, which waits this long for room: its client waits for all of it anyway, and is slowed down by that.
    pub(crate) fn room(self: &Arc<Self>, longest: Duration) -> Room {
        Room { admission: Arc::clone(self), until: Instant::now() + longest, waits: None }
    }

    /// Looks at the answers also while nobody asks. Gives the limit, if there is one, and what answers take.
    pub(crate) fn look(&self) -> (Option<f64>, Duration) {
        let mut control = self.control.lock();
        control.look(Instant::now());
        self.limited.store(control.is_limited(), Ordering::Relaxed);
        (control.limit(), control.taken())
    }
}
