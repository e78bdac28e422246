//! Starting executions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream::{FuturesOrdered, StreamExt};
use nova_bus::AppendError;
use nova_engine::ids::{ExecutionId, ShardId};
use nova_engine::limits;
use nova_wire::v1;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::admission::{Admitted, Permit, Refusal};
use crate::problem::Problem;
use crate::replies::{Answer, Expected};
use crate::state::{App, Namespace, Prefer, Shared};
use crate::trace::Traced;
use crate::view::{ErrorBody, outcome};
use crate::workflows::Version;

/// Largest input, in bytes: what the replicated state takes inline.
const MAX_INPUT_BYTES: usize = 16 * 1024;
/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 256;
/// Submissions in one batch.
const MAX_BATCH: usize = 1_000;

/// Start an execution.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitBody {
    /// Name of the workflow.
    pub workflow: String,
    /// Its version; the newest when left out.
    pub version: Option<u32>,
    /// Input; an empty object when left out.
    #[schema(value_type = Option<Object>)]
    pub input: Option<Box<RawValue>>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The same key starts one execution only. In a batch; else the header `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// An execution that was accepted, and its result when it was waited for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmittedBody {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Name of the workflow.
    pub workflow: String,
    /// Version that runs.
    pub version: u32,
    /// RECEIVED (durable, not decided), RUNNING, COMPLETED, FAILED, CANCELLED.
    pub state: String,
    /// Whether the key was known: this is the first one's execution.
    pub repeated: bool,
    /// Output, once completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Box<RawValue>>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

/// A line of the answer to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchLine {
    /// Line of the request, from 1.
    pub line: usize,
    /// When it was accepted.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<SubmittedBody>,
    /// When it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

struct Prepared {
    version: Arc<Version>,
    id: ExecutionId,
    shard: u16,
    command: v1::Submit,
}

/// Start an execution. It is answered once it is committed: 201 *accepted*, or why not. `Prefer: wait=N` also waits for
/// its end; `Prefer: respond-async` answers 202 *received* as soon as it is durable.
#[utoipa::path(post, path = "/api/v1/executions", tag = "executions", request_body = SubmitBody,
    params(("Idempotency-Key" = Option<String>, Header), ("Prefer" = Option<String>, Header)),
    responses((status = 201, body = SubmittedBody), (status = 200, body = SubmittedBody, description = "the key was known"),
        (status = 202, body = SubmittedBody), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 413, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem),
        (status = 503, body = Problem), (status = 504, body = Problem)))]
pub(crate) async fn submit(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    prefer: Prefer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut request: SubmitBody =
        serde_json::from_slice(&body).map_err(|error| Problem::bad_request(format!("body: {error}")))?;
    if let Some(key) = headers.get("idempotency-key") {
        let key = key.to_str().map_err(|_| Problem::bad_request("header Idempotency-Key is not ASCII"))?;
        request.idempotency_key = Some(key.trim_matches('"').to_owned());
    }
    let permit = app.admission.admit(&namespace).map_err(|refusal| refused(&app, refusal))?;
    let body = one(&app, &namespace, request, prefer, permit, Traced::new(&headers, app.config.trace_ratio)).await?;
    let status = match body.state.as_str() {
        "RECEIVED" => StatusCode::ACCEPTED,
        "RUNNING" if prefer.wait.is_some() => StatusCode::ACCEPTED,
        _ if body.repeated => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    let location = HeaderValue::try_from(format!("/api/v1/executions/{}", body.id));
    let mut response = (status, Json(body)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Start many executions: one JSON object per line, one line of answer for each, in order.
#[utoipa::path(post, path = "/api/v1/executions/batch", tag = "executions",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, content_type = "application/x-ndjson", body = BatchLine), (status = 413, body = Problem)))]
pub(crate) async fn batch(
    State(app): State<App>,
    Namespace(namespace): Namespace,
    prefer: Prefer,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let text = std::str::from_utf8(&body).map_err(|error| Problem::bad_request(format!("body: {error}")))?;
    let lines: Vec<(usize, &str)> =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(|(n, line)| (n + 1, line)).collect();
    if lines.len() > MAX_BATCH {
        let title = "the batch has too many lines";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "limit.batch", title)
            .detail(format!("{} lines; at most {MAX_BATCH}", lines.len())));
    }
    let mut answer = Vec::new();
    let mut running = FuturesOrdered::new();
    let mut room = app.admission.room(Duration::from_millis(app.config.patience_ms));
    for (line, text) in lines {
        let (app, namespace) = (&app, &namespace);
        // Lines before this one go on meanwhile: their answers make the room.
        let permit = loop {
            match room.admit(namespace) {
                Admitted::Now(result) => break result,
                Admitted::Look(again) => tokio::select! {
                    Some(line) = running.next() => write_line(&mut answer, &line),
                    () = again => {}
                },
            }
        };
        let trace = Traced::new(&headers, app.config.trace_ratio);
        running.push_back(async move {
            let result = match (permit, serde_json::from_str(text)) {
                (Ok(permit), Ok(request)) => one(app, namespace, request, prefer, permit, trace).await,
                (Ok(_), Err(error)) => Err(Problem::bad_request(format!("line {line}: {error}"))),
                (Err(refusal), _) => Err(refused(app, refusal)),
            };
            let (accepted, problem) = match result {
                Ok(body) => (Some(body), None),
                Err(problem) => (None, Some(problem)),
            };
            BatchLine { line, accepted, problem }
        });
    }
    while let Some(line) = running.next().await {
        write_line(&mut answer, &line);
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], answer).into_response())
}

fn write_line(answer: &mut Vec<u8>, line: &BatchLine) {
    serde_json::to_writer(&mut *answer, line).expect("texts, numbers and JSON are JSON, and memory takes them");
    answer.push(b'\n');
}

fn refused(app: &Shared, refusal: Refusal) -> Problem {
    app.submissions.overloaded();
    Problem::overloaded(refusal.retry_after_s)
}

async fn one(
    app: &Shared,
    namespace: &str,
    request: SubmitBody,
    prefer: Prefer,
    permit: Permit,
    traced: Option<Traced>,
) -> Result<SubmittedBody, Problem> {
    let Some(traced) = traced else { return start(app, namespace, request, prefer, permit, None).await };
    let workflow = request.workflow.clone();
    let result = start(app, namespace, request, prefer, permit, Some(traced.context())).await;
    traced.end(namespace, workflow, &result);
    result
}

async fn start(
    app: &Shared,
    namespace: &str,
    request: SubmitBody,
    prefer: Prefer,
    permit: Permit,
    trace: Option<v1::TraceContext>,
) -> Result<SubmittedBody, Problem> {
    let mut prepared = prepare(app, namespace, request, trace).await?;
    if let Some(why) = app.cannot_commit() {
        app.submissions.unavailable.increment(1);
        return Err(Problem::unavailable(why));
    }
    if app.load.is_busy(u32::from(prepared.shard)) {
        app.submissions.shard_is_busy();
        return Err(Problem::too_busy("the shard has as much to do as it may", 2));
    }
    let Some(ticket) = app.submitter.admit(prepared.shard) else {
        app.submissions.window_is_full();
        return Err(Problem::too_busy("too many submissions wait for their answer", 1));
    };
    let mut expected = app.replies.expect();
    // Who asks for no verdict is under way until there is one all the same.
    prepared.command.reply_to = Some(expected.reply_to());
    prepared.command.reply_at_end = prefer.wait.is_some() && !prefer.respond_async;
    let id = prepared.id.to_string();
    let version = Arc::clone(&prepared.version);
    let patience = Duration::from_millis(app.config.patience_ms);
    let sending = app.submitter.send(prepared.shard, v1::command::Kind::Submit(prepared.command));
    let sent = tokio::time::timeout(patience, sending).await;
    let outcome = match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(AppendError::OutcomeUnknown { why })) => Err(Problem::outcome_unknown(why).execution(&*id)),
        Ok(Err(error)) => Err(Problem::unavailable(error.to_string())),
        Err(_) => Err(Problem::outcome_unknown("the bus did not acknowledge in time").execution(&*id)),
    };
    let body = SubmittedBody {
        id: id.clone(),
        workflow: version.compiled.name.clone(),
        version: version.number,
        state: "RECEIVED".into(),
        repeated: false,
        output: None,
        error: None,
    };
    if let Err(problem) = outcome {
        app.submissions.not_sent.increment(1);
        return Err(problem);
    }
    if prefer.respond_async {
        app.submissions.received.increment(1);
        tokio::spawn(async move {
            if expected.next(patience).await.is_some() {
                permit.decided();
            }
            drop(ticket);
        });
        return Ok(body);
    }
    let answer = expected.next(patience.saturating_sub(permit.age())).await;
    drop(ticket);
    app.submissions.seconds.record(permit.age().as_secs_f64());
    match answer {
        Some(_) => permit.decided(),
        None => drop(permit),
    }
    match answer {
        Some(Answer::Accepted(accepted)) => {
            app.submissions.accepted.increment(1);
            let body = SubmittedBody {
                id: crate::view::hex(&accepted.execution),
                version: accepted.version,
                state: "RUNNING".into(),
                repeated: accepted.repeated,
                ..body
            };
            match prefer.wait {
                Some(wait) => {
                    let longest = Duration::from_secs(app.config.max_wait_seconds);
                    Ok(wait_for_end(app, namespace, body, expected, wait.min(longest)).await)
                }
                None => Ok(body),
            }
        }
        Some(Answer::Rejected(rejected)) => {
            app.submissions.rejected.increment(1);
            Err(Problem::rejected(&id, &rejected.why.unwrap_or_default()))
        }
        Some(Answer::Finished(_) | Answer::Cancelling(_)) | None => {
            app.submissions.unknown.increment(1);
            Err(Problem::outcome_unknown("no verdict came in time; ask for the execution by its id").execution(id))
        }
    }
}

async fn wait_for_end(
    app: &Shared,
    namespace: &str,
    body: SubmittedBody,
    mut expected: Expected,
    wait: Duration,
) -> SubmittedBody {
    let told = async {
        match expected.next(wait).await {
            Some(Answer::Finished(finished)) => finished.outcome,
            _ => None,
        }
    };
    // Who repeats a key is not told of the end: the first one may have asked for nothing.
    let seen = async {
        match body.id.parse::<ExecutionId>() {
            Ok(id) if body.repeated => super::executions::ended(app, namespace, id, wait).await.ok().flatten(),
            _ => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = told, if !body.repeated => ended,
        ended = seen, if body.repeated => ended,
    };
    match ended {
        Some(ended) => {
            let (state, output, error) = outcome(&ended);
            SubmittedBody { state: state.into(), output, error, ..body }
        }
        None => body,
    }
}

async fn prepare(
    app: &Shared,
    namespace: &str,
    request: SubmitBody,
    trace: Option<v1::TraceContext>,
) -> Result<Prepared, Problem> {
    let version = app.workflows.get(namespace, &request.workflow, request.version).await?;
    let input = request.input.as_deref().map_or("{}", RawValue::get);
    if input.len() > MAX_INPUT_BYTES {
        let title = "the input is too large";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "limit.payload", title)
            .detail(format!("{} bytes; at most {MAX_INPUT_BYTES}", input.len())));
    }
    version.compiled.check_input(input.as_bytes()).map_err(Problem::invalid_input)?;
    let key = match request.idempotency_key {
        Some(key) if key.is_empty() || key.len() > MAX_KEY_BYTES => {
            return Err(Problem::bad_request(format!("the idempotency key must have 1 to {MAX_KEY_BYTES} bytes")));
        }
        key => key,
    };
    if request.labels.len() > limits::MAX_LABELS {
        let title = "a value is out of its limits";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title).detail(format!(
            "labels: {}; at most {}",
            request.labels.len(),
            limits::MAX_LABELS
        )));
    }
    if let Some(long) =
        request.labels.iter().flat_map(|(name, value)| [name, value]).find(|it| it.len() > limits::MAX_TEXT)
    {
        return Err(Problem::too_long("labels", long.len()));
    }
    let shard = match &key {
        Some(key) => nova_wire::shard_of(namespace, key, app.submitter.shards()).0,
        None => app.submitter.any(),
    };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let id = ExecutionId::new(ShardId(shard), now_ms, rand::random());
    let mut content = blake3::Hasher::new();
    content.update(request.workflow.as_bytes()).update(&[0]).update(input.as_bytes());
    let label = |(name, value): (String, String)| v1::Label { name, value };
    let command = v1::Submit {
        execution: nova_wire::execution_bytes(id),
        namespace: namespace.to_owned(),
        workflow: request.workflow,
        version: version.number,
        hash: version.hash.to_vec().into(),
        input: Some(v1::Payload { kind: Some(v1::payload::Kind::Inline(Bytes::copy_from_slice(input.as_bytes()))) }),
        content_hash: content.finalize().as_bytes().to_vec().into(),
        dedupe: key.map(v1::submit::Dedupe::Key),
        reply_to: None,
        reply_at_end: false,
        started_by: "api".into(),
        labels: request.labels.into_iter().map(label).collect(),
        trace,
    };
    Ok(Prepared { version, id, shard, command })
}
