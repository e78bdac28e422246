//! A file that tells, for verification, which attempts ran when: one JSON line when an attempt begins and one when it
//! ends, each synced before the attempt goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use nova_wire::v1;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

#[derive(Clone)]
pub(crate) struct Ledger(Option<Arc<Mutex<File>>>);

impl Ledger {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open =
            |path| OpenOptions::new().create(true).append(true).open(path).map(|file| Arc::new(Mutex::new(file)));
        path.map(open).transpose().map(Self)
    }

    pub(crate) fn write(&self, what: &str, assignment: &v1::Assignment, lease: &v1::LeaseRef) {
        let Some(file) = &self.0 else { return };
        // The boot clock is the machine's own: lines of several workers on it can be compared.
        let now = clock_gettime(ClockId::Boottime);
        let line = json!({
            "what": what,
            "boot_ns": now.tv_sec * 1_000_000_000 + now.tv_nsec,
            "execution": lease.execution.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
            "scope": assignment.scope,
            "node": assignment.node_id,
            "visit": assignment.visit,
            "attempt": assignment.attempt,
            "token": lease.token,
            "worker": lease.worker,
            "session": lease.session,
        });
        let mut file = file.lock();
        let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        if let Err(error) = written {
            tracing::error!(%error, "the ledger cannot be written");
        }
    }
}
