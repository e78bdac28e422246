//! Workflows: validate, apply, get, list.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use nova_client::Repeat;
use nova_model::{Compiled, Format};
use nova_wire::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::{Place, Problem};
use crate::state::{App, Namespace, PATIENCE};
use crate::view::{hex, moment};

/// What a document came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ValidateBody {
    /// Whether it can be applied.
    pub valid: bool,
    /// Name of the workflow, when it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What must be changed.
    pub problems: Vec<Place>,
    /// What is worth a look.
    pub warnings: Vec<Place>,
}

/// A stored version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowBody {
    /// Tenant.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// From 1; each change of the document makes a new one.
    pub version: u32,
    /// blake3 of the canonical document.
    pub hash: String,
    /// RFC 3339.
    pub created_at: String,
    /// The document; only when one version is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub document: Option<Box<serde_json::value::RawValue>>,
}

/// What applying a document came to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedBody {
    /// Tenant.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The version that holds this document.
    pub version: u32,
    /// Whether it is new.
    pub new: bool,
    /// What is worth a look.
    pub warnings: Vec<Place>,
}

/// Workflows of a namespace.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkflowList {
    /// Newest versions, by name.
    pub workflows: Vec<WorkflowBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionQuery {
    version: Option<u32>,
}

fn compile(headers: &HeaderMap, body: &Bytes) -> Result<Compiled, nova_model::Problems> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = headers.get("nova-file-name").and_then(|value| value.to_str().ok()).unwrap_or("document");
    let format = if kind.contains("json") {
        Format::Json
    } else if kind.contains("yaml") {
        Format::Yaml
    } else {
        Format::Detect
    };
    nova_model::compile(&nova_model::parse(body, name, format)?)
}

/// Check a document; nothing is stored.
#[utoipa::path(post, path = "/api/v1/workflows/validate", tag = "workflows", request_body(content = String, content_type = "application/yaml"),
    responses((status = 200, body = ValidateBody), (status = 413, body = Problem)))]
pub(crate) async fn validate(headers: HeaderMap, body: Bytes) -> Json<ValidateBody> {
    Json(match compile(&headers, &body) {
        Ok(compiled) => ValidateBody {
            valid: true,
            name: Some(compiled.name),
            problems: Vec::new(),
            warnings: compiled.warnings.iter().map(Place::of_document).collect(),
        },
        Err(problems) => ValidateBody {
            valid: false,
            name: None,
            problems: problems.iter().map(Place::of_document).collect(),
            warnings: Vec::new(),
        },
    })
}

/// Store a document: a changed one becomes a new version, the same one changes nothing.
#[utoipa::path(post, path = "/api/v1/workflows", tag = "workflows", request_body(content = String, content_type = "application/yaml"),
    responses((status = 201, body = AppliedBody), (status = 200, body = AppliedBody, description = "the newest version is the same"),
        (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn apply(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let compiled = compile(&headers, &body).map_err(|problems| Problem::invalid_document(&problems))?;
    let namespace = compiled.namespace.clone().unwrap_or(namespace);
    let put = v1::PutWorkflow {
        namespace: namespace.clone(),
        name: compiled.name.clone(),
        hash: compiled.hash.to_vec().into(),
        program: Some(nova_wire::program_to_wire(&compiled.program)),
        document: compiled.canonical.into(),
    };
    let answer = app
        .coordinators
        .call(PATIENCE, Repeat::Harmless, |mut member| {
            let put = put.clone();
            async move { member.put_workflow(put).await }
        })
        .await?;
    match answer.result {
        Some(v1::put_response::Result::Applied(v1::Applied { kind: Some(v1::applied::Kind::Workflow(stored)) })) => {
            app.workflows.stored(&namespace, &put.name, stored.version);
            let status = if stored.new { StatusCode::CREATED } else { StatusCode::OK };
            let warnings = compiled.warnings.iter().map(Place::of_document).collect();
            let body = AppliedBody { namespace, name: put.name, version: stored.version, new: stored.new, warnings };
            Ok((status, Json(body)).into_response())
        }
        Some(v1::put_response::Result::Refused(refusal)) => Err(Problem::refused(&refusal)),
        _ => Err(Problem::unavailable("the coordinator gave no verdict")),
    }
}

/// A version of a workflow, the newest when none is named.
#[utoipa::path(get, path = "/api/v1/workflows/{name}", tag = "workflows",
    params(("name" = String, Path), ("version" = Option<u32>, Query)),
    responses((status = 200, body = WorkflowBody), (status = 404, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Path(name): Path<String>,
    Query(query): Query<VersionQuery>,
) -> Result<Json<WorkflowBody>, Problem> {
    let version = app.workflows.get(&namespace, &name, query.version).await?;
    let document = std::str::from_utf8(&version.document).ok().map(str::to_owned);
    Ok(Json(WorkflowBody {
        namespace,
        name,
        version: version.number,
        hash: hex(&version.hash),
        created_at: moment(version.created_at_ms),
        document: document.and_then(|text| serde_json::value::RawValue::from_string(text).ok()),
    }))
}

/// Newest versions of all workflows of the namespace.
#[utoipa::path(get, path = "/api/v1/workflows", tag = "workflows",
    responses((status = 200, body = WorkflowList), (status = 503, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Namespace(namespace): Namespace,
) -> Result<Json<WorkflowList>, Problem> {
    let request = v1::GetCatalogueRequest::default();
    let catalogue = app
        .coordinators
        .call(PATIENCE, Repeat::Read, |mut member| async move { member.get_catalogue(request).await })
        .await?;
    let body = |info: v1::WorkflowInfo| WorkflowBody {
        namespace: info.namespace,
        name: info.name,
        version: info.version,
        hash: hex(&info.hash),
        created_at: moment(info.created_at_ms),
        document: None,
    };
    let own = catalogue.workflows.into_iter().filter(|info| info.namespace == namespace);
    Ok(Json(WorkflowList { workflows: own.map(body).collect() }))
}
