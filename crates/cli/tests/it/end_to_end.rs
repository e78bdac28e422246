//! Workflows from submission to result.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use nova_testkit::until;
use serde_json::{Value, json};

use crate::rig::{Dev, NOOP, SOON, answer, root};

/// The services that `examples/order.yaml` asks: stock fails twice per order.
pub fn shop() -> Router {
    type Asked = Arc<Mutex<HashMap<String, u32>>>;
    let stock = |State(asked): State<Asked>, Path(id): Path<String>| async move {
        let mut asked = asked.lock().unwrap();
        let count = asked.entry(id).or_default();
        *count += 1;
        let status = if *count <= 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        (status, Json(json!({ "available": true })))
    };
    let lines = json!([{ "sku": "tea", "quantity": 2 }, { "sku": "cup", "quantity": 3 }]);
    let order = json!({ "customerId": "c-1", "lines": lines });
    Router::new()
        .route("/orders/{id}", get(move || async move { Json(order) }))
        .route("/customers/{id}", get(|| async { Json(json!({ "name": "Ada" })) }))
        .route("/prices", get(|| async { Json(json!({ "tea": 10, "cup": 30.5 })) }))
        .route("/stock/{id}", get(stock))
        .route("/results", post(|Json(body): Json<Value>| async { (StatusCode::CREATED, Json(body)) }))
        .with_state(Asked::default())
}

/// Serves it on a free port, and says where.
pub async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_example_fetches_retries_branches_merges_and_posts() {
    let (dev, shop) = (Dev::start(), serve(shop()).await);
    let document = std::fs::read_to_string(root().join("examples/order.yaml")).unwrap();
    dev.apply(&document).await;
    let done = dev.run("order", json!({ "baseUrl": shop, "orderId": "A-1" })).await;
    let posted = json!({
        "order": "A-1", "customer": "Ada", "inStock": true, "total": 111.5,
        "decision": { "approved": true, "by": "the rule for large orders" },
    });
    assert_eq!(done["state"], "COMPLETED", "{done:#}");
    assert_eq!(done["output"], json!({ "order": "A-1", "total": 111.5, "stockAttempts": 3, "posted": posted }));
    let id = done["id"].as_str().unwrap();
    let (status, execution) = dev.get(&format!("/executions/{id}")).await;
    assert_eq!((status, &execution["state"]), (200, &json!("COMPLETED")), "{execution:#}");
    let states: HashMap<_, _> = execution["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["path"].as_str().unwrap(), node["state"].as_str().unwrap()))
        .collect();
    assert_eq!((states["express"], states["review"], states["stock"]), ("SKIPPED", "COMPLETED", "COMPLETED"));
    let (_, events) = dev.get(&format!("/executions/{id}/events")).await;
    let events = events["events"].as_array().unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>(), "events have no gap");
    let failed = events.iter().filter(|event| event["type"] == "attemptFailed").count();
    assert_eq!((failed, &events[events.len() - 1]["type"]), (2, &json!("ended")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lowcode_document_is_taken_as_it_is() {
    let dev = Dev::start();
    let app = Router::new().route("/users", get(|| async { Json(json!([{ "name": "Ada" }, { "name": "Bob" }])) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/users", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let document = json!({ "workflow": { "id": "wf-1", "name": "users",
        "nodes": [
            { "id": "fetch", "name": "Fetch", "type": "HTTP", "config": { "url": url, "method": "GET" } },
            { "id": "rename", "type": "DATA_ADAPTER", "config": { "operation": "map", "mapping": { "username": "name" } } },
        ],
        "edges": [{ "source": "fetch", "target": "rename", "type": "DIRECT" }] } });
    let applied = dev.apply(&document.to_string()).await;
    let done = dev.run(applied["name"].as_str().unwrap(), json!({})).await;
    assert_eq!(done["state"], "COMPLETED", "{done:#}");
    assert!(done["output"].to_string().contains(r#""username":"Ada""#), "{done:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_starts_one_execution_and_a_batch_answers_line_by_line() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    let body = json!({ "workflow": "noop", "input": { "n": 1 } });
    let key = [("idempotency-key", "k-1")];
    let (first, one) = dev.submit(&body, &key).await;
    let (second, again) = dev.submit(&body, &key).await;
    assert_eq!((first, second), (201, 200));
    assert_eq!((&one["id"], &again["repeated"]), (&again["id"], &json!(true)));
    let (conflict, problem) = dev.submit(&json!({ "workflow": "noop", "input": { "n": 2 } }), &key).await;
    assert_eq!((conflict, &problem["code"]), (409, &json!("idempotency.conflict")));
    assert_eq!(problem["execution"], one["id"]);
    // Long after its end, too.
    dev.ended(one["id"].as_str().unwrap()).await;
    let (late, repeated) = dev.submit(&body, &[("idempotency-key", "k-1"), ("prefer", "wait=5")]).await;
    assert_eq!((late, &repeated["state"], &repeated["id"]), (200, &json!("COMPLETED"), &one["id"]));

    let lines = "{\"workflow\":\"noop\"}\n\n{\"workflow\":\"nothing\"}\nno json\n{\"workflow\":\"noop\",\"idempotencyKey\":\"k-2\"}\n";
    let response = dev.http.post(dev.path("/executions/batch")).body(lines).send().await.unwrap();
    let answers: Vec<Value> =
        response.text().await.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = answers.iter().map(|answer| answer["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 3, 4, 5]);
    assert_eq!(answers[0]["state"], "RUNNING");
    assert_eq!(answers[1]["problem"]["code"], "workflow.unknown");
    assert_eq!(answers[2]["problem"]["code"], "bad_request");
    dev.ended(answers[3]["id"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_stops_the_worker_and_a_watch_follows_to_the_end() {
    let dev = Dev::start();
    dev.apply("{ apiVersion: nova/v1, kind: Workflow, metadata: { name: slow }, spec: { do: [ { id: nap, type: task, kind: sleep, with: { ms: 600000 } } ] } }")
        .await;
    let (_, accepted) = dev.submit(&json!({ "workflow": "slow" }), &[]).await;
    let id = accepted["id"].as_str().unwrap();
    until("a running node", SOON, || async {
        let (_, execution) = dev.get(&format!("/executions/{id}")).await;
        if execution["nodes"][0]["state"] == "RUNNING" { Ok(()) } else { Err(execution.to_string()) }
    })
    .await
    .unwrap();
    let watching = dev.http.get(dev.path(&format!("/executions/{id}/watch"))).send().await.unwrap();
    let cancel = dev.http.post(dev.path(&format!("/executions/{id}/cancel"))).body("{\"reason\":\"enough\"}");
    assert_eq!(answer(cancel.send().await.unwrap()).await.0, 202);
    let stream = watching.text().await.unwrap();
    for kind in ["event: accepted", "event: attemptStarted", "event: cancelRequested", "event: ended"] {
        assert!(stream.contains(kind), "{kind} is missing in\n{stream}");
    }
    assert_eq!(dev.ended(id).await["state"], "CANCELLED");
    let again = dev.http.post(dev.path(&format!("/executions/{id}/cancel"))).send().await.unwrap();
    let (status, problem) = answer(again).await;
    assert_eq!((status, &problem["code"]), (409, &json!("execution.ended")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_is_found_at_once() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    for _ in 0..50 {
        let (status, body) = dev.submit(&json!({ "workflow": "noop" }), &[("prefer", "respond-async")]).await;
        assert_eq!(status, 202, "{body:#}");
        let (status, body) = dev.get(&format!("/executions/{}", body["id"].as_str().unwrap())).await;
        assert_eq!(status, 200, "{body:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_starts_executions_until_it_is_removed() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    let trigger = json!({ "id": "each-second", "workflow": "noop", "type": "cron", "schedule": "* * * * * *" });
    let stored = dev.http.post(dev.path("/triggers")).json(&trigger).send().await.unwrap();
    let (status, body) = answer(stored).await;
    assert_eq!((status, &body["timezone"]), (201, &json!("UTC")), "{body:#}");
    let ended = until("two executions", SOON, || async {
        let (_, list) = dev.get("/executions?workflow=noop&state=COMPLETED").await;
        let ended = list["executions"].as_array().unwrap();
        if ended.len() >= 2 { Ok(ended.clone()) } else { Err(list.to_string()) }
    })
    .await
    .unwrap();
    let (_, first) = dev.get(&format!("/executions/{}", ended[0]["id"].as_str().unwrap())).await;
    assert_eq!(first["input"]["trigger"], "each-second", "{first:#}");
    let listed = dev.nova(&["trigger", "list", "--output", "json"]);
    assert!(crate::rig::text(&listed.stdout).contains("each-second"), "{listed:?}");
    let removed = dev.nova(&["trigger", "delete", "each-second", "--yes"]);
    assert!(removed.status.success(), "{removed:?}");
    let (_, list) = dev.get("/triggers").await;
    assert_eq!(list["triggers"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_pages_without_a_gap() {
    let dev = Dev::start();
    let nodes: Vec<_> = (0..700).map(|n| json!({ "id": format!("n{n}"), "type": "task", "kind": "noop" })).collect();
    let document = json!({ "apiVersion": "nova/v1", "kind": "Workflow", "metadata": { "name": "wide" },
        "spec": { "nodes": nodes } });
    dev.apply(&document.to_string()).await;
    let done = dev.run("wide", json!({})).await;
    assert_eq!(done["state"], "COMPLETED", "{done:#}");
    let id = done["id"].as_str().unwrap();
    let (_, first) = dev.get(&format!("/executions/{id}/events")).await;
    assert!(first["next"].as_u64().is_some(), "they are more than a page");
    let all = dev.nova(&["get", "events", id, "--output", "json"]);
    let all: Value = serde_json::from_slice(&all.stdout).unwrap();
    let all = all["events"].as_array().unwrap();
    let numbers: Vec<_> = all.iter().map(|event| event["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(all[all.len() - 1]["type"], "ended");
}
