//! A coordinator as triggers see it, and what became of what they submitted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nova_engine::input::PutWorkflow;
use nova_wire::v1;
use nova_wire::v1::coordinator_server::Coordinator;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::rig::SHARDS;

/// A started execution, as the engine took it.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub source: String,
    pub number: u64,
    pub version: u32,
    pub started_by: String,
    pub execution: String,
    pub input: Value,
}

#[derive(Default)]
pub struct State {
    pub revision: u64,
    pub triggers: BTreeMap<(String, String), v1::Trigger>,
    pub workflows: BTreeMap<(String, String), Vec<(Bytes, Bytes)>>,
    pub positions: BTreeMap<(String, String), u64>,
    pub started: Vec<Started>,
    pub marks: Vec<(String, u64)>,
    pub repeats: usize,
    pub busy: BTreeSet<u32>,
    pub down: bool,
    /// Commands that were applied.
    pub commands: usize,
    /// Workflows that the engine has yet to learn.
    pub installs: Vec<PutWorkflow>,
}

pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub changed: watch::Sender<u64>,
}

impl Fake {
    fn up(&self) -> Result<(), Status> {
        if self.state.lock().down { Err(Status::unavailable("down")) } else { Ok(()) }
    }

    fn catalogue(&self) -> v1::GetCatalogueResponse {
        let state = self.state.lock();
        let workflow = |((namespace, name), versions): (&(String, String), &Vec<(Bytes, Bytes)>)| v1::WorkflowInfo {
            namespace: namespace.clone(),
            name: name.clone(),
            version: versions.len() as u32,
            hash: versions.last().unwrap().0.clone(),
            created_at_ms: 0,
        };
        v1::GetCatalogueResponse {
            revision: state.revision,
            namespaces: Vec::new(),
            workflows: state.workflows.iter().map(workflow).collect(),
            triggers: state.triggers.values().cloned().collect(),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Coordinator for Fake {
    async fn describe(&self, _: Request<v1::DescribeRequest>) -> Answer<v1::DescribeResponse> {
        self.up()?;
        Ok(Response::new(v1::DescribeResponse { shards: SHARDS, ..Default::default() }))
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Answer<v1::GetWorkflowResponse> {
        self.up()?;
        let request = request.into_inner();
        let state = self.state.lock();
        let versions = state.workflows.get(&(request.namespace.clone(), request.name.clone()));
        let version = request.version.expect("a trigger names it");
        let found = versions.and_then(|all| all.get(version as usize - 1)).cloned();
        let info = found.as_ref().map(|(hash, _)| v1::WorkflowInfo {
            namespace: request.namespace,
            name: request.name,
            version,
            hash: hash.clone(),
            created_at_ms: 0,
        });
        let document = found.map(|(_, document)| document).unwrap_or_default();
        Ok(Response::new(v1::GetWorkflowResponse { info, document, unknown_namespace: false }))
    }

    async fn get_catalogue(&self, request: Request<v1::GetCatalogueRequest>) -> Answer<v1::GetCatalogueResponse> {
        self.up()?;
        let request = request.into_inner();
        let mut changes = self.changed.subscribe();
        if let Some(after) = request.after_revision {
            let wait = Duration::from_millis(request.wait_ms);
            let _ = tokio::time::timeout(wait, changes.wait_for(|revision| *revision > after)).await;
        }
        Ok(Response::new(self.catalogue()))
    }

    async fn get_source_position(
        &self,
        request: Request<v1::GetSourcePositionRequest>,
    ) -> Answer<v1::GetSourcePositionResponse> {
        self.up()?;
        let request = request.into_inner();
        assert_eq!(
            request.shard,
            u32::from(nova_wire::shard_of(&request.namespace, &request.source, SHARDS as u16).0),
            "sources hash as keys do"
        );
        let last = self.state.lock().positions.get(&(request.namespace, request.source)).copied();
        Ok(Response::new(v1::GetSourcePositionResponse { last }))
    }

    async fn get_shards(&self, _: Request<v1::GetShardsRequest>) -> Answer<v1::GetShardsResponse> {
        self.up()?;
        let busy = self.state.lock().busy.clone();
        let view = |shard| v1::ShardView {
            shard,
            open_executions: if busy.contains(&shard) { 1_000_000 } else { 0 },
            ..Default::default()
        };
        Ok(Response::new(v1::GetShardsResponse { shards: (0..SHARDS).map(view).collect() }))
    }
}
