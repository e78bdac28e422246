//! Looking at executions, and ending them.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use nova_bus::{AppendError, Topic};
use nova_client::Repeat;
use nova_engine::ids::ExecutionId;
use nova_engine::limits;
use nova_history::{EventRow, ExecutionRow, Filter};
use nova_wire::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::events::Renderer;
use crate::problem::Problem;
use crate::replies::Answer;
use crate::state::{App, Id, Namespace, PATIENCE, Prefer, Shared};
use crate::view::{self, ExecutionBody, hex};

/// Entries of the history that are read at once.
const PAGE: u32 = 500;
/// Events after which a page ends.
const EVENTS: usize = 1_000;
/// Longest wait for the history to hold what has ended.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Pause between two looks at what nobody tells of.
const LOOK: Duration = Duration::from_millis(20);

/// Executions, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionList {
    /// The page.
    pub executions: Vec<ExecutionBody>,
    /// Asks for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// How old the answer may be, in milliseconds.
    pub age_ms: u64,
}

/// Events of an execution.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventList {
    /// In order.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Value>,
    /// There may be more: ask again with this as `after`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// How old the answer may be, in milliseconds.
    pub age_ms: u64,
}

/// How an execution ended, or that it has not.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultBody {
    /// 32 hexadecimal digits.
    pub id: String,
    /// RUNNING, COMPLETED, FAILED, CANCELLED.
    pub state: String,
    /// Output, once completed.
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<serde_json::value::RawValue>>,
    /// Why it failed or was cancelled.
    pub error: Option<view::ErrorBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    state: Option<String>,
    workflow: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsQuery {
    after: Option<u64>,
}

/// End an execution early.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CancelBody {
    /// For people.
    pub reason: String,
}

fn age_ms(app: &Shared) -> u64 {
    app.ingester.age().as_millis() as u64
}

async fn live(app: &Shared, id: ExecutionId) -> Result<v1::GetExecutionResponse, Problem> {
    let request = v1::GetExecutionRequest { execution: nova_wire::execution_bytes(id) };
    let asking = app.coordinators.call(PATIENCE, Repeat::Read, |mut member| {
        let request = request.clone();
        async move { member.get_execution(request).await }
    });
    Ok(asking.await?)
}

/// What is known of an execution: open (from the leader), or ended (from the history).
enum Known {
    Open(Box<v1::ExecutionView>),
    Ended(Box<ExecutionRow>),
}

/// Rule 33: the commands that are on their way, the state, the history up to where the state was read, and only then
/// *not found*.
async fn find(app: &Shared, namespace: &str, id: ExecutionId) -> Result<Known, Problem> {
    let bytes = id.0.to_be_bytes();
    if id.shard().0 >= app.submitter.shards() {
        return Err(Problem::not_found("execution"));
    }
    let ended_row = async || {
        let row = app.history.execution(namespace, &bytes).await;
        row.map(|row| row.filter(|row| row.ended_at_ms.is_some()))
    };
    if let Some(row) = ended_row().await? {
        return Ok(Known::Ended(Box::new(row)));
    }
    let mut answer = live(app, id).await?;
    if answer.execution.is_none() {
        // Its submission may be on the bus and not be decided yet.
        let deciding = decided(app, id, answer);
        let late = || Problem::unavailable("commands wait to be decided; try again");
        answer = tokio::time::timeout(CATCH_UP, deciding).await.map_err(|_| late())??;
    }
    if let Some(open) = answer.execution {
        return if open.namespace == namespace {
            Ok(Known::Open(Box::new(open)))
        } else {
            Err(Problem::not_found("execution"))
        };
    }
    // It is not open. All that the state had said by then is in the history once that has caught up.
    let shard = u32::from(id.shard().0);
    let waiting = async {
        let position = answer.position.unwrap_or_default();
        loop {
            let shards =
                app.coordinators
                    .call(PATIENCE, Repeat::Read, |mut member| async move {
                        member.get_shards(v1::GetShardsRequest {}).await
                    })
                    .await?;
            let view = shards.shards.into_iter().find(|view| view.shard == shard);
            let acked = view.and_then(|view| view.position).map_or(0, |position| position.outbox_acked);
            if acked >= position.outbox_last {
                break;
            }
            // What is there may be older than the end.
            if let Some(row) = ended_row().await? {
                return Ok(Some(row));
            }
            tokio::time::sleep(LOOK).await;
        }
        let caught_up = app.ingester.caught_up(shard).await;
        caught_up.map_err(|error| Problem::unavailable(error.to_string()))?;
        ended_row().await.map_err(Problem::from)
    };
    match tokio::time::timeout(CATCH_UP, waiting).await {
        Ok(Ok(Some(row))) => Ok(Known::Ended(Box::new(row))),
        Ok(Ok(None)) => Err(Problem::not_found("execution")),
        Ok(Err(problem)) => Err(problem),
        Err(_) => Err(Problem::unavailable("the history has not caught up; try again")),
    }
}

/// Looks until the execution is open, or all commands that are on the bus by now are decided.
async fn decided(
    app: &Shared,
    id: ExecutionId,
    mut answer: v1::GetExecutionResponse,
) -> Result<v1::GetExecutionResponse, Problem> {
    let end = app.bus.offsets(&Topic::Commands, u32::from(id.shard().0)).await;
    let end = end.map_err(|error| Problem::unavailable(error.to_string()))?.end;
    while answer.execution.is_none() && answer.position.as_ref().is_none_or(|position| position.next_offset < end) {
        tokio::time::sleep(LOOK).await;
        answer = live(app, id).await?;
    }
    Ok(answer)
}

/// Waits for the end of an execution; none when it does not come in time.
pub(crate) async fn ended(
    app: &Shared,
    namespace: &str,
    id: ExecutionId,
    wait: Duration,
) -> Result<Option<v1::Outcome>, Problem> {
    let bytes = id.0.to_be_bytes();
    let mut told = app.ingester.follow();
    match find(app, namespace, id).await? {
        Known::Ended(row) => return Ok(row.outcome),
        Known::Open(_) if wait.is_zero() => return Ok(None),
        Known::Open(_) => {}
    }
    let waiting = async {
        loop {
            match told.recv().await {
                Ok(told) if told.happened.execution[..] != bytes => continue,
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(None),
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
            }
            let row = app.history.execution(namespace, &bytes).await?;
            if let Some(row) = row.filter(|row| row.ended_at_ms.is_some()) {
                return Ok(row.outcome);
            }
        }
    };
    tokio::time::timeout(wait, waiting).await.unwrap_or(Ok(None))
}

/// An execution with its nodes.
#[utoipa::path(get, path = "/api/v1/executions/{id}", tag = "executions", params(("id" = String, Path)),
    responses((status = 200, body = ExecutionBody), (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn get(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Id(id): Id,
) -> Result<Json<ExecutionBody>, Problem> {
    Ok(Json(match find(&app, &namespace, id).await? {
        Known::Open(open) => {
            let version = app.workflows.get(&namespace, &open.workflow, Some(open.version)).await?;
            view::live(&open, &version.compiled.program)
        }
        Known::Ended(row) => {
            let mut body = view::row(&row, age_ms(&app));
            if row.rejection.is_none() {
                let version = app.workflows.get(&namespace, &row.workflow, Some(row.version)).await?;
                let events = app.history.events(&row.id, 0, u32::MAX).await?;
                body.nodes = view::nodes(&events, &version.compiled.program);
            }
            body
        }
    }))
}

/// Executions of the namespace, newest first.
#[utoipa::path(get, path = "/api/v1/executions", tag = "executions",
    params(("state" = Option<String>, Query), ("workflow" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("cursor" = Option<String>, Query)),
    responses((status = 200, body = ExecutionList), (status = 400, body = Problem)))]
pub(crate) async fn list(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Query(query): Query<ListQuery>,
) -> Result<Json<ExecutionList>, Problem> {
    const STATES: [&str; 5] = ["RUNNING", "COMPLETED", "FAILED", "CANCELLED", "REJECTED"];
    if let Some(state) = &query.state
        && !STATES.contains(&state.as_str())
    {
        return Err(Problem::bad_request(format!("state: '{state}' is not one of {}", STATES.join(", "))));
    }
    let limit = query.limit.unwrap_or(50);
    if !(1..=500).contains(&limit) {
        return Err(Problem::bad_request("limit: must be 1 to 500"));
    }
    let bad_cursor = || Problem::bad_request("cursor: not one that was given out");
    let after = match &query.cursor {
        None => None,
        Some(cursor) => {
            let (at, id) = cursor.split_once('-').ok_or_else(bad_cursor)?;
            let id: ExecutionId = id.parse().map_err(|_| bad_cursor())?;
            Some((at.parse().map_err(|_| bad_cursor())?, id.0.to_be_bytes().to_vec()))
        }
    };
    let filter = Filter { namespace, state: query.state, workflow: query.workflow, after, limit };
    let rows = app.history.list(&filter).await?;
    let full = rows.len() as u32 == limit;
    let cursor = rows.last().filter(|_| full).map(|row| format!("{}-{}", row.started_at_ms, hex(&row.id)));
    let age_ms = age_ms(&app);
    Ok(Json(ExecutionList { executions: rows.iter().map(|row| view::row(row, age_ms)).collect(), cursor, age_ms }))
}

/// What happened to an execution, in order.
#[utoipa::path(get, path = "/api/v1/executions/{id}/events", tag = "executions",
    params(("id" = String, Path), ("after" = Option<u64>, Query)),
    responses((status = 200, body = EventList), (status = 404, body = Problem)))]
pub(crate) async fn events(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Id(id): Id,
    Query(query): Query<EventsQuery>,
) -> Result<Json<EventList>, Problem> {
    let (workflow, version) = match find(&app, &namespace, id).await? {
        Known::Open(open) => (open.workflow, open.version),
        Known::Ended(row) => (row.workflow, row.version),
    };
    let version = app.workflows.get(&namespace, &workflow, Some(version)).await?;
    let mut renderer = Renderer::new(&version.compiled.program);
    let after = query.after.unwrap_or(0);
    let (mut events, mut read) = (Vec::new(), 0);
    // From the beginning: events name scopes, and what a scope is stands where it was entered.
    while events.len() < EVENTS {
        let rows = app.history.events(&id.0.to_be_bytes(), read, PAGE).await?;
        let last = |row: &EventRow| row.happened.first_number + row.happened.events.len() as u64 - 1;
        let new: Vec<_> = rows.iter().filter(|row| last(row) > read).collect();
        let Some(end) = new.last().map(|row| last(row)) else { break };
        events.extend(new.into_iter().flat_map(|row| renderer.entry(row, after)));
        read = end;
    }
    let next = if events.len() < EVENTS { None } else { Some(read) };
    Ok(Json(EventList { events, next, age_ms: age_ms(&app) }))
}

/// The result of an execution; 202 while it runs. `Prefer: wait=N` waits for it.
#[utoipa::path(get, path = "/api/v1/executions/{id}/result", tag = "executions",
    params(("id" = String, Path), ("Prefer" = Option<String>, Header)),
    responses((status = 200, body = ResultBody), (status = 202, body = ResultBody), (status = 404, body = Problem)))]
pub(crate) async fn result(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Id(id): Id,
    prefer: Prefer,
) -> Result<Response, Problem> {
    let longest = Duration::from_secs(app.config.max_wait_seconds);
    let wait = prefer.wait.unwrap_or_default().min(longest);
    match ended(&app, &namespace, id, wait).await? {
        Some(outcome) => {
            let (state, output, error) = view::outcome(&outcome);
            Ok(Json(ResultBody { id: id.to_string(), state: state.into(), output, error }).into_response())
        }
        None => {
            let body = ResultBody { id: id.to_string(), state: "RUNNING".into(), output: None, error: None };
            Ok((StatusCode::ACCEPTED, [(header::RETRY_AFTER, "1")], Json(body)).into_response())
        }
    }
}

/// End an execution early. Workers stop what they are doing; then it is CANCELLED.
#[utoipa::path(post, path = "/api/v1/executions/{id}/cancel", tag = "executions", params(("id" = String, Path)),
    request_body = CancelBody,
    responses((status = 202), (status = 404, body = Problem), (status = 409, body = Problem), (status = 504, body = Problem)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    Id(id): Id,
    body: Bytes,
) -> Result<Response, Problem> {
    let body: CancelBody = if body.is_empty() {
        CancelBody::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(format!("body: {error}")))?
    };
    if body.reason.len() > limits::MAX_TEXT {
        return Err(Problem::too_long("reason", body.reason.len()));
    }
    if let Known::Ended(_) = find(&app, &namespace, id).await? {
        let title = "the execution has ended";
        return Err(Problem::new(StatusCode::CONFLICT, "execution.ended", title).execution(id.to_string()));
    }
    let mut expected = app.replies.expect();
    let cancel = v1::Cancel {
        execution: nova_wire::execution_bytes(id),
        reason: body.reason,
        reply_to: Some(expected.reply_to()),
    };
    let sending = app.submitter.send(id.shard().0, v1::command::Kind::Cancel(cancel));
    match tokio::time::timeout(PATIENCE, sending).await {
        Ok(Ok(())) => {}
        Ok(Err(AppendError::OutcomeUnknown { why })) => return Err(Problem::outcome_unknown(why)),
        Ok(Err(error)) => return Err(Problem::unavailable(error.to_string())),
        Err(_) => return Err(Problem::outcome_unknown("the bus did not acknowledge in time")),
    }
    match expected.next(PATIENCE).await {
        Some(Answer::Cancelling(_)) => {
            let body = serde_json::json!({ "id": id.to_string(), "state": "CANCELLING" });
            Ok((StatusCode::ACCEPTED, Json(body)).into_response())
        }
        Some(Answer::Rejected(rejected)) => Err(Problem::rejected(&id.to_string(), &rejected.why.unwrap_or_default())),
        _ => Err(Problem::outcome_unknown("no verdict came in time").execution(id.to_string())),
    }
}

/// Namespace, workflow and version of an execution, for those who follow it.
pub(crate) async fn whose(app: &Shared, namespace: &str, id: ExecutionId) -> Result<(String, u32), Problem> {
    Ok(match find(app, namespace, id).await? {
        Known::Open(open) => (open.workflow, open.version),
        Known::Ended(row) => (row.workflow, row.version),
    })
}
