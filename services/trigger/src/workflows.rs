//! The workflows that triggers start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_client::{ClientError, Coordinators, Repeat};
use nova_model::Compiled;
use nova_wire::v1;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::run::Catalogue;

/// Compiled versions that are kept; they are made again when they are needed.
const KEPT: usize = 512;
const PATIENCE: Duration = Duration::from_secs(5);
/// Problems of an input that are told.
const TOLD: usize = 3;

type Key = (Arc<str>, Arc<str>, u32);

/// A version that can be started.
pub(crate) struct Target {
    pub version: u32,
    pub hash: Bytes,
    compiled: Compiled,
}

impl Target {
    /// Whether an execution of this version may begin with this input; what is wrong.
    pub(crate) fn check(&self, input: &[u8]) -> Result<(), String> {
        self.compiled.check_input(input).map_err(|problems| {
            let told = problems.iter().take(TOLD).map(|problem| format!("{}: {}", problem.pointer, problem.message));
            told.collect::<Vec<_>>().join("; ")
        })
    }
}

/// Why a workflow cannot be started now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("there is no such workflow")]
    Workflow,
    #[error("the workflow has no version {0}")]
    Version(u32),
    #[error("version {version} of the workflow cannot be compiled here: {why}")]
    Unreadable { version: u32, why: String },
    #[error("no coordinator answers: {0}")]
    Unavailable(String),
}

pub(crate) struct Workflows {
    coordinators: Coordinators,
    catalogue: watch::Receiver<Catalogue>,
    known: Mutex<BTreeMap<Key, Arc<Target>>>,
}

impl Workflows {
    pub(crate) fn new(coordinators: Coordinators, catalogue: watch::Receiver<Catalogue>) -> Self {
        Self { coordinators, catalogue, known: Mutex::default() }
    }

    /// The version to start now: the newest, unless one is named.
    pub(crate) async fn target(
        &self,
        namespace: &Arc<str>,
        name: &Arc<str>,
        version: Option<u32>,
    ) -> Result<Arc<Target>, Missing> {
        let newest = self.catalogue.borrow().newest(namespace, name);
        let newest = newest.ok_or(Missing::Workflow)?;
        let version = version.unwrap_or(newest);
        if version > newest {
            return Err(Missing::Version(version));
        }
        let key = (Arc::clone(namespace), Arc::clone(name), version);
        if let Some(known) = self.known.lock().get(&key) {
            return Ok(Arc::clone(known));
        }
        let target = Arc::new(self.fetch(&key).await?);
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(key, Arc::clone(&target));
        Ok(target)
    }

    async fn fetch(&self, (namespace, name, version): &Key) -> Result<Target, Missing> {
        let request = v1::GetWorkflowRequest {
            namespace: namespace.to_string(),
            name: name.to_string(),
            version: Some(*version),
        };
        let asking = self.coordinators.call(PATIENCE, Repeat::Read, |mut member| {
            let request = request.clone();
            async move { member.get_workflow(request).await }
        });
        let answer = match asking.await {
            Ok(answer) => answer,
            Err(ClientError::Refused(_)) => return Err(Missing::Version(*version)),
            Err(error) => return Err(Missing::Unavailable(error.to_string())),
        };
        let info = answer.info.ok_or(Missing::Version(*version))?;
        let compiled = Compiled::from_canonical(&answer.document).map_err(|problems| {
            let why = problems.iter().next().map(ToString::to_string).unwrap_or_default();
            Missing::Unreadable { version: *version, why }
        })?;
        Ok(Target { version: info.version, hash: info.hash, compiled })
    }
}
