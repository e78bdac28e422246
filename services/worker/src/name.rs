//! The worker's name, and who may take it from an open session (rule 21).
//!
//! Holding the lock of a directory proves that the processes of *its* sessions are gone, and nothing about a session that
//! was begun elsewhere: on a directory that was lost, or by another worker that was given the same name. Such a session is
//! left to lapse.

use std::time::Duration;

use nova_client::{ClientError, Repeat};
use nova_wire::v1;

use crate::memory::{self, Memory};
use crate::renewal::Session;
use crate::session::{PATIENCE, RunError, Worker};

/// Between two tries for a name that another session has: each is an entry in the coordinators' log.
const TAKEN_PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Name {
    /// Its last session, as far as it is known; 0 when none is.
    last: u64,
    /// Whether that one was begun on this directory.
    own: bool,
    /// Whether it was said that the name is taken.
    told: bool,
}

impl Name {
    pub(crate) fn new(memory: &Memory) -> Self {
        Self { last: memory.last_session, own: memory.last_session > 0, told: false }
    }

    /// Begins a session. None when it should be tried again.
    pub(crate) async fn register(&mut self, worker: &Worker) -> Result<Option<Session>, RunError> {
        use v1::refusal::Kind;
        use v1::register_response::Result as Answer;
        let config = &worker.config;
        let labels = config.labels.iter();
        let register = v1::Register {
            name: config.name.clone(),
            pool: config.pool.clone(),
            kinds: worker.registry.kinds().map(Into::into).collect(),
            labels: labels.map(|(name, value)| v1::Label { name: name.clone(), value: value.clone() }).collect(),
            capacity: config.slots,
            boot: worker.boot,
            last_session: self.last,
            // Attempts run in this process only, and all of an earlier session have ended.
            fenced: self.own,
            inboxes: 0,
        };
        let asking = worker.coordinators.call(PATIENCE, Repeat::Never, |mut member| {
            let register = register.clone();
            async move { member.register(register).await }
        });
        let refusal = match asking.await {
            Ok(v1::RegisterResponse { result: Some(Answer::Registered(done)), ttl_ms }) => {
                memory::save(&config.data, worker.cluster, done.session)?;
                *self = Self { last: done.session, own: true, told: false };
                let ttl = Duration::from_millis(ttl_ms);
                return Ok(Some(Session { worker: done.worker, session: done.session, inbox: done.inbox, ttl }));
            }
            Ok(v1::RegisterResponse { result: Some(Answer::Refused(refusal)), .. }) => refusal,
            Ok(_) => return Ok(None),
            Err(error @ ClientError::Refused(_)) => return Err(RunError::Refused(error.to_string())),
            Err(error) => {
                // Tried again at once: only what lasts is worth a word, and `call` has waited already.
                tracing::warn!(%error, "no coordinator takes the registration");
                return Ok(None);
            }
        };
        match refusal.kind() {
            // Another's, or an answer to this worker was lost: they cannot be told apart.
            Kind::NotLastSession => (self.last, self.own) = (refusal.number, false),
            Kind::NameTaken => {
                (self.last, self.own) = (refusal.number, false);
                if !std::mem::replace(&mut self.told, true) {
                    let session = refusal.number;
                    tracing::warn!(name = config.name, session, "another session has the name; waiting for its end");
                }
                tokio::time::sleep(TAKEN_PAUSE).await;
            }
            Kind::NoInbox => {
                tracing::warn!("all inboxes are full; the cluster needs more partitions of the task topic");
            }
            kind => return Err(RunError::Refused(format!("{}: {}", kind.as_str_name(), refusal.what))),
        }
        Ok(None)
    }
}
