//! What a directory remembers across restarts: the last session that was begun on it (rule 21), and in which cluster.
//! Clusters number their sessions alike: the number of one could end the session of a worker of another that lives.

use std::io;
use std::path::Path;

use nova_wire::ClusterId;
use serde::{Deserialize, Serialize};

use crate::session::RunError;

const FILE: &str = "session.json";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub last_session: u64,
    /// None in files of versions that did not write it.
    #[serde(default)]
    pub cluster: Option<String>,
}

pub(crate) fn load(dir: &Path, cluster: ClusterId) -> Result<Memory, RunError> {
    let path = dir.join(FILE);
    let failed = |source| RunError::Data { path: path.clone(), source };
    let memory: Memory = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Memory::default(),
        Err(error) => return Err(failed(error)),
    };
    match memory.cluster {
        Some(found) if found != cluster.to_string() => Err(RunError::ForeignCluster { path, found }),
        _ => Ok(memory),
    }
}

pub(crate) fn save(dir: &Path, cluster: ClusterId, last_session: u64) -> Result<(), RunError> {
    let path = dir.join(FILE);
    let memory = Memory { last_session, cluster: Some(cluster.to_string()) };
    let written =
        serde_json::to_vec(&memory).map_err(io::Error::from).and_then(|bytes| nova_journal::write_file(&path, &bytes));
    written.map_err(|source| RunError::Data { path, source })
}
