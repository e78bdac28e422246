//! Bad input gets a typed answer that names the place, and changes nothing.

use serde_json::{Value, json};

use crate::rig::{Dev, NOOP, answer};

async fn post(dev: &Dev, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = dev.http.post(dev.path(path)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_wrong_are_refused_with_a_code() {
    let dev = Dev::start();
    dev.apply(NOOP).await;
    dev.apply("{ apiVersion: nova/v1, kind: Workflow, metadata: { name: typed }, spec: { input: { type: object, required: [n], properties: { n: { type: integer } } }, do: [ { id: a, type: task, kind: noop } ] } }")
        .await;
    let deep = format!("{{\"workflow\":\"noop\",\"input\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let large = format!("{{\"workflow\":\"noop\",\"input\":\"{}\"}}", "x".repeat(20_000));
    let long_label = json!({ "workflow": "noop", "labels": { "a": "x".repeat(300) } }).to_string();
    let labels: Value = (0..40).map(|n| (format!("l{n}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let many_labels = json!({ "workflow": "noop", "labels": labels }).to_string();
    let long_key = "k".repeat(300);
    let cases: Vec<(&str, Vec<(&str, &str)>, Vec<u8>, u16, &str)> = vec![
        ("/executions", vec![], b"{".to_vec(), 400, "bad_request"),
        ("/executions", vec![], b"\xff\xfe".to_vec(), 400, "bad_request"),
        ("/executions", vec![], deep.into_bytes(), 422, "input.invalid"),
        ("/executions", vec![], "[".repeat(10_000).into_bytes(), 400, "bad_request"),
        ("/executions", vec![], large.into_bytes(), 413, "limit.payload"),
        ("/executions", vec![], vec![b'x'; 2 << 20], 413, "limit.body"),
        ("/executions", vec![], br#"{"workflow":"noop","inptu":1}"#.to_vec(), 400, "bad_request"),
        ("/executions", vec![], br#"{"workflow":"none"}"#.to_vec(), 404, "workflow.unknown"),
        ("/executions", vec![], br#"{"workflow":"noop","version":9}"#.to_vec(), 404, "workflow.unknown"),
        ("/executions", vec![], br#"{"workflow":"typed","input":{"n":"x"}}"#.to_vec(), 422, "input.invalid"),
        (
            "/executions",
            vec![("nova-namespace", "nowhere")],
            br#"{"workflow":"noop"}"#.to_vec(),
            404,
            "namespace.unknown",
        ),
        ("/executions", vec![("nova-namespace", "two words")], br#"{"workflow":"noop"}"#.to_vec(), 400, "bad_request"),
        ("/executions", vec![("idempotency-key", &long_key)], br#"{"workflow":"noop"}"#.to_vec(), 400, "bad_request"),
        ("/executions", vec![("prefer", "wait=soon")], br#"{"workflow":"noop"}"#.to_vec(), 400, "bad_request"),
        ("/executions", vec![], long_label.into_bytes(), 422, "invalid"),
        ("/executions", vec![], many_labels.into_bytes(), 422, "invalid"),
        ("/triggers", vec![], b"{".to_vec(), 422, "trigger.invalid"),
        (
            "/triggers",
            vec![],
            br#"{"id":"t","workflow":"noop","type":"cron","schedule":"* * *"}"#.to_vec(),
            422,
            "trigger.invalid",
        ),
        (
            "/triggers",
            vec![],
            br#"{"id":"t","workflow":"none","type":"cron","schedule":"* * * * *"}"#.to_vec(),
            404,
            "workflow.unknown",
        ),
        ("/workflows", vec![], b"{ a: 1".to_vec(), 422, "document.invalid"),
        ("/workflows", vec![("nova-namespace", "nowhere")], NOOP.into(), 404, "namespace.unknown"),
        ("/executions/xyz/cancel", vec![], vec![], 400, "bad_request"),
        ("/executions/00000000000000000000000000000001/cancel", vec![], vec![], 404, "not_found"),
        ("/nothing/here", vec![], vec![], 404, "not_found"),
        ("/workers/nobody/drain", vec![], vec![], 404, "not_found"),
    ];
    for (path, headers, body, status, code) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (got, problem) = post(&dev, path, &headers, body).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{path} {headers:?} {shown}: {problem:#}");
    }
    let (status, problem) = dev.get("/executions/ffff0000000000000000000000000001").await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    let (status, problem) = dev.get("/executions?state=DONE").await;
    assert_eq!((status, &problem["code"]), (400, &json!("bad_request")));
    let (_, list) = dev.get("/executions").await;
    assert_eq!(list["executions"], json!([]), "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_refused_with_all_its_problems_and_their_places() {
    let dev = Dev::start();
    let document = r#"
apiVersion: nova/v1
kind: Workflow
metadata: { name: bad }
spec:
  nodes:
    - { id: a, type: task, kind: noop, needs: [b] }
    - { id: b, type: task, kind: noop, needs: [a] }
    - { id: c, type: tusk, kind: noop }
    - { id: C, type: task, kind: noop, timeout: 0s }
"#;
    let (status, problem) = post(&dev, "/workflows", &[("content-type", "application/yaml")], document).await;
    assert_eq!((status, &problem["code"]), (422, &json!("document.invalid")));
    let codes: Vec<_> = problem["problems"].as_array().unwrap().iter().map(|it| it["code"].as_str().unwrap()).collect();
    for code in ["unknown_type", "duplicate_id"] {
        assert!(codes.contains(&code), "{problem:#}");
    }
    assert!(problem["problems"].as_array().unwrap().iter().all(|it| it["line"].as_u64().unwrap() > 1), "{problem:#}");
    let (_, list) = dev.get("/workflows").await;
    assert_eq!(list["workflows"], json!([]), "nothing was changed");
}
