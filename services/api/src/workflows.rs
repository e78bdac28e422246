//! Workflow versions, compiled, and which one is the newest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use nova_client::{Coordinators, Repeat};
use nova_model::Compiled;
use nova_wire::v1;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Versions kept compiled.
const CACHE: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for a newer catalogue.
const CATALOGUE_WAIT_MS: u64 = 10_000;
const PAUSE: Duration = Duration::from_millis(500);

/// A compiled version.
pub(crate) struct Version {
    pub number: u32,
    pub hash: [u8; 32],
    pub created_at_ms: u64,
    pub document: bytes::Bytes,
    pub compiled: Compiled,
}

#[derive(Default)]
struct Known {
    catalogue: Option<v1::GetCatalogueResponse>,
    newest: BTreeMap<(String, String), u32>,
    versions: HashMap<(String, String, u32), Arc<Version>>,
}

/// What this process knows of the catalogue.
pub(crate) struct Workflows {
    coordinators: Coordinators,
    known: RwLock<Known>,
}

impl Workflows {
    /// Follows the catalogue.
    pub(crate) fn start(coordinators: Coordinators, stop: CancellationToken) -> Arc<Self> {
        let workflows = Arc::new(Self { coordinators, known: RwLock::default() });
        let own = Arc::clone(&workflows);
        tokio::spawn(async move {
            tokio::select! {
                () = own.follow() => {}
                () = stop.cancelled() => {}
            }
        });
        workflows
    }

    async fn follow(&self) {
        loop {
            let after_revision = self.known.read().catalogue.as_ref().map(|it| it.revision);
            let request = v1::GetCatalogueRequest { after_revision, wait_ms: CATALOGUE_WAIT_MS };
            let limit = Duration::from_millis(CATALOGUE_WAIT_MS) + PATIENCE;
            let asking = self
                .coordinators
                .call_slow(limit, Repeat::Read, |mut member| async move { member.get_catalogue(request).await });
            match asking.await {
                Ok(catalogue) => {
                    let mut known = self.known.write();
                    for info in &catalogue.workflows {
                        let newest = known.newest.entry((info.namespace.clone(), info.name.clone())).or_default();
                        *newest = info.version.max(*newest);
                    }
                    known.catalogue = Some(catalogue);
                }
                Err(error) => {
                    tracing::debug!(%error, "the catalogue cannot be followed now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Whether the catalogue was read once.
    pub(crate) fn is_ready(&self) -> bool {
        self.known.read().catalogue.is_some()
    }

    /// A version was stored by this process: it is the newest at once.
    pub(crate) fn stored(&self, namespace: &str, name: &str, version: u32) {
        let mut known = self.known.write();
        let newest = known.newest.entry((namespace.into(), name.into())).or_default();
        *newest = version.max(*newest);
    }

    /// A version, or the newest.
    pub(crate) async fn get(&self, namespace: &str, name: &str, version: Option<u32>) -> Result<Arc<Version>, Problem> {
        {
            let known = self.known.read();
            let key = (namespace.to_owned(), name.to_owned());
            let number = version.or_else(|| known.newest.get(&key).copied());
            if let Some(found) = number.and_then(|number| known.versions.get(&(key.0, key.1, number))) {
                return Ok(Arc::clone(found));
            }
        }
        self.fetch(namespace, name, version).await
    }

    async fn fetch(&self, namespace: &str, name: &str, version: Option<u32>) -> Result<Arc<Version>, Problem> {
        let request = v1::GetWorkflowRequest { namespace: namespace.into(), name: name.into(), version };
        let answer = self
            .coordinators
            .call(PATIENCE, Repeat::Read, |mut member| {
                let request = request.clone();
                async move { member.get_workflow(request).await }
            })
            .await?;
        let Some(info) = answer.info else {
            if answer.unknown_namespace {
                return Err(Problem::unknown_namespace().detail(namespace));
            }
            let which = version.map_or_else(|| name.to_owned(), |version| format!("{name} version {version}"));
            return Err(Problem::new(
                axum::http::StatusCode::NOT_FOUND,
                "workflow.unknown",
                "no such workflow version",
            )
            .detail(format!("workflow {which} in namespace {namespace}")));
        };
        let compiled = Compiled::from_canonical(&answer.document).map_err(|problems| {
            tracing::error!(workflow = name, %problems, "a stored workflow cannot be compiled");
            Problem::unavailable("the stored workflow cannot be compiled by this version")
        })?;
        let hash = info.hash.as_ref().try_into().map_err(|_| Problem::unavailable("a hash is not 32 bytes"))?;
        let version = Arc::new(Version {
            number: info.version,
            hash,
            created_at_ms: info.created_at_ms,
            document: answer.document,
            compiled,
        });
        let mut known = self.known.write();
        if known.versions.len() >= CACHE {
            known.versions.clear();
        }
        known.versions.insert((namespace.into(), name.into(), version.number), Arc::clone(&version));
        let newest = known.newest.entry((namespace.into(), name.into())).or_default();
        *newest = version.number.max(*newest);
        Ok(version)
    }
}
