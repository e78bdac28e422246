//! Workers and triggers.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use nova_client::Repeat;
use nova_trigger_rules::TriggerSpec;
use nova_wire::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::problem::Problem;
use crate::state::{App, Namespace, PATIENCE};

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerBody {
    /// Its number.
    pub worker: u32,
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// What it carries.
    pub kinds: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// CONNECTED, DRAINING or GONE.
    pub state: String,
    /// Attempts that it may run at once.
    pub slots: u32,
    /// Attempts that it holds.
    pub leases: u32,
}

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerList {
    /// By number.
    pub workers: Vec<WorkerBody>,
}

/// Drain a worker, or take the drain back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DrainBody {
    /// False takes it back.
    pub draining: bool,
}

impl Default for DrainBody {
    fn default() -> Self {
        Self { draining: true }
    }
}

/// Triggers of a namespace.
#[derive(Debug, Serialize, ToSchema)]
pub struct TriggerList {
    /// As they were put.
    #[schema(value_type = Vec<Object>)]
    pub triggers: Vec<Value>,
}

fn worker(view: v1::WorkerView) -> WorkerBody {
    let state = match (view.session, view.draining) {
        (None, _) => "GONE",
        (Some(_), true) => "DRAINING",
        (Some(_), false) => "CONNECTED",
    };
    WorkerBody {
        worker: view.worker,
        name: view.name,
        pool: view.pool,
        kinds: view.kinds,
        labels: view.labels.into_iter().map(|label| (label.name, label.value)).collect(),
        state: state.into(),
        slots: view.capacity,
        leases: view.leases,
    }
}

async fn all_workers(app: &App) -> Result<Vec<v1::WorkerView>, Problem> {
    let asking = app
        .coordinators
        .call(PATIENCE, Repeat::Read, |mut member| async move { member.list_workers(v1::ListWorkersRequest {}).await });
    Ok(asking.await?.workers)
}

/// All workers, with slots and leases.
#[utoipa::path(get, path = "/api/v1/workers", tag = "workers",
    responses((status = 200, body = WorkerList), (status = 503, body = Problem)))]
pub(crate) async fn workers(State(app): State<App>) -> Result<Json<WorkerList>, Problem> {
    Ok(Json(WorkerList { workers: all_workers(&app).await?.into_iter().map(worker).collect() }))
}

/// Give a worker no new attempts; it finishes those that it has.
#[utoipa::path(post, path = "/api/v1/workers/{name}/drain", tag = "workers", params(("name" = String, Path)),
    request_body = DrainBody,
    responses((status = 202), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn drain(State(app): State<App>, Path(name): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let body: DrainBody = if body.is_empty() {
        DrainBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(format!("body: {error}")))?
    };
    let found = all_workers(&app).await?.into_iter().find(|worker| worker.name == name);
    let found = found.ok_or_else(|| Problem::not_found(&format!("worker {name}")))?;
    let drain = v1::Drain { worker: found.worker, draining: body.draining };
    let asking =
        app.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| async move { member.drain_worker(drain).await });
    match asking.await?.result {
        Some(v1::drain_response::Result::Refused(refusal)) => Err(Problem::refused(&refusal)),
        _ => {
            let state = if body.draining { "DRAINING" } else { "CONNECTED" };
            Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "name": name, "state": state }))).into_response())
        }
    }
}

/// Create or change a trigger.
#[utoipa::path(post, path = "/api/v1/triggers", tag = "triggers", request_body(content = Object),
    responses((status = 201), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn put_trigger(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    body: Bytes,
) -> Result<Response, Problem> {
    let spec = TriggerSpec::parse(&body).map_err(|problems| Problem::invalid_trigger(&problems))?;
    app.workflows.get(&namespace, &spec.workflow, spec.version).await?;
    let stored = spec.to_value();
    let trigger = v1::Trigger { namespace, id: spec.id, workflow: spec.workflow, spec: stored.to_string().into() };
    let asking = app.coordinators.call(PATIENCE, Repeat::Harmless, |mut member| {
        let trigger = trigger.clone();
        async move { member.put_trigger(trigger).await }
    });
    match asking.await?.result {
        Some(v1::put_response::Result::Refused(refusal)) => Err(Problem::refused(&refusal)),
        _ => Ok((StatusCode::CREATED, Json(stored)).into_response()),
    }
}

/// Triggers of the namespace.
#[utoipa::path(get, path = "/api/v1/triggers", tag = "triggers",
    responses((status = 200, body = TriggerList), (status = 503, body = Problem)))]
pub(crate) async fn triggers(
    State(app): State<App>,
    Namespace(namespace): Namespace,
) -> Result<Json<TriggerList>, Problem> {
    let request = v1::GetCatalogueRequest::default();
    let asking =
        app.coordinators.call(PATIENCE, Repeat::Read, |mut member| async move { member.get_catalogue(request).await });
    let own = asking.await?.triggers.into_iter().filter(|trigger| trigger.namespace == namespace);
    let triggers = own.filter_map(|trigger| serde_json::from_slice(&trigger.spec).ok()).collect();
    Ok(Json(TriggerList { triggers }))
}

/// Remove a trigger; its position is forgotten.
#[utoipa::path(delete, path = "/api/v1/triggers/{id}", tag = "triggers", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn delete_trigger(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let delete = v1::DeleteTrigger { namespace, id };
    let asking = app.coordinators.call(PATIENCE, Repeat::Never, |mut member| {
        let delete = delete.clone();
        async move { member.delete_trigger(delete).await }
    });
    match asking.await?.result {
        Some(v1::put_response::Result::Refused(refusal)) => Err(Problem::refused(&refusal)),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
