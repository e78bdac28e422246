//! One execution is one trace, from the request of the client to the requests of its workflow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::extract::{Request as HttpRequest, State};
use axum::middleware::{Next, from_fn_with_state};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::end_to_end::{serve, shop};
use crate::rig::{Dev, SOON, root};

/// Takes spans, as a collector does.
#[derive(Clone)]
struct Receiver(watch::Sender<Vec<Span>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|it| it.scope_spans).flat_map(|it| it.spans);
        self.0.send_modify(|all| all.extend(spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self(watch::Sender::default());
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(receiver.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (receiver, url)
    }

    /// The spans of a trace, once `complete` is satisfied with them.
    async fn trace(&self, id: &str, complete: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        self.some(|span| span.trace == id, complete).await
    }

    /// Spans that are `wanted`, once `complete` is satisfied with them.
    async fn some(&self, wanted: impl Fn(&Told) -> bool, complete: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let mut all = self.0.subscribe();
        let mut found = Vec::new();
        let there = all.wait_for(|all| {
            found = all.iter().map(Told::of).filter(|span| wanted(span)).collect();
            complete(&found)
        });
        if tokio::time::timeout(SOON, there).await.is_err() {
            panic!("spans are missing: {found:#?}");
        }
        found
    }

    fn knows(&self, trace: &str) -> bool {
        self.0.borrow().iter().any(|span| hex(&span.trace_id) == trace)
    }
}

/// What a span says.
#[derive(Clone, Debug)]
struct Told {
    trace: String,
    id: String,
    parent: String,
    name: String,
    attributes: BTreeMap<String, String>,
}

impl Told {
    fn of(span: &Span) -> Self {
        let attributes = span.attributes.iter().map(|it| {
            let value = match it.value.as_ref().and_then(|it| it.value.as_ref()) {
                Some(Any::StringValue(text)) => text.clone(),
                Some(Any::IntValue(number)) => number.to_string(),
                other => format!("{other:?}"),
            };
            (it.key.clone(), value)
        });
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name.clone(),
            attributes: attributes.collect(),
        }
    }

    fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    fn is(&self, name: &str, key: &str, value: &str) -> bool {
        self.name == name && self.get(key) == value
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// The shop, and the `traceparent` of each request to it.
async fn watched_shop() -> (Seen, String) {
    let seen = Seen::default();
    let note = |State(seen): State<Seen>, request: HttpRequest, next: Next| async move {
        let header = request.headers().get("traceparent").map(|it| it.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(header);
        next.run(request).await
    };
    let url = serve(shop().layer(from_fn_with_state(Arc::clone(&seen), note))).await;
    (seen, url)
}

fn traced_dev(receiver: &str) -> Dev {
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={receiver}");
    Dev::start_in(tempfile::tempdir().unwrap(), &["env", &endpoint])
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";
const NOT_SAMPLED: &str = "11111111111111111111111111111111";

/// Whether each span hangs on the client's or on one that came too, and all that must be there is.
fn complete(spans: &[Told]) -> bool {
    let ids: BTreeSet<&str> = spans.iter().map(|span| &*span.id).chain([CLIENT]).collect();
    let wanted = [
        ("api.submit", "workflow", "order"),
        ("scheduler.propose", "command", "submit"),
        ("coordinator.commit", "command", "submit"),
        ("scheduler.evaluate", "node", "order"),
        ("worker.attempt", "node", "order"),
    ];
    let there = wanted.iter().all(|(name, key, value)| spans.iter().any(|span| span.is(name, key, value)));
    let of = |name: &str, key: &str, value: &str| spans.iter().filter(|span| span.is(name, key, value)).count();
    // Results are committed before the answer, and their spans end about then.
    let attempts = spans.iter().filter(|span| span.name == "worker.attempt").count();
    let results = of("scheduler.propose", "command", "result").min(of("coordinator.commit", "command", "result"));
    let called = spans.iter().filter(|span| span.name == "request").count();
    there
        && attempts > 0
        && results >= attempts
        && called >= of("worker.attempt", "kind", "http")
        && spans.iter().all(|span| ids.contains(&*span.parent))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_is_one_trace_from_the_client_to_what_it_calls() {
    let (receiver, endpoint) = Receiver::start().await;
    let (seen, shop) = watched_shop().await;
    let dev = traced_dev(&endpoint);
    dev.apply(&std::fs::read_to_string(root().join("examples/order.yaml")).unwrap()).await;
    let submit = async |order: &str, trace: &str, flags: &str| {
        let body = json!({ "workflow": "order", "input": { "baseUrl": shop, "orderId": order } });
        let traceparent = format!("00-{trace}-{CLIENT}-{flags}");
        let (status, done) = dev.submit(&body, &[("prefer", "wait=30"), ("traceparent", &traceparent)]).await;
        assert_eq!((status, &done["state"]), (201, &json!("COMPLETED")), "{done:#}");
        done["id"].as_str().unwrap().to_owned()
    };

    // Who asks not to be traced is not.
    submit("A-1", NOT_SAMPLED, "00").await;
    let untraced = std::mem::take(&mut *seen.lock().unwrap());
    assert!(untraced.len() > 5 && untraced.iter().all(Option::is_none), "{untraced:?}");

    let id = submit("A-2", TRACE, "01").await;
    let spans = receiver.trace(TRACE, complete).await;
    let one = |name: &str, key: &str, value: &str| spans.iter().find(|span| span.is(name, key, value)).unwrap();
    let of_all = |span: &Told| span.name == "request" || span.get("execution_id") == id;
    assert!(spans.iter().all(of_all), "another execution is in the trace: {spans:#?}");

    // The api hangs on the client, what starts the execution on the api, and each result on its attempt.
    let submitted = one("api.submit", "workflow", "order");
    assert_eq!(submitted.parent, CLIENT);
    assert_eq!(spans.iter().filter(|span| span.name == "api.submit").count(), 1);
    for span in [
        one("scheduler.propose", "command", "submit"),
        one("coordinator.commit", "command", "submit"),
        one("scheduler.evaluate", "node", "order"),
        one("worker.attempt", "node", "order"),
    ] {
        assert_eq!(span.parent, submitted.id, "{span:?}");
    }
    let attempts: BTreeMap<&str, &Told> =
        spans.iter().filter(|span| span.name == "worker.attempt").map(|span| (&*span.id, span)).collect();
    for name in ["scheduler.propose", "coordinator.commit"] {
        let results = spans.iter().filter(|span| span.is(name, "command", "result"));
        let parents: BTreeSet<&str> = results.map(|span| &*span.parent).collect();
        assert_eq!(parents, attempts.keys().copied().collect(), "{name} of each result");
    }
    let (again, numbers): (BTreeSet<_>, BTreeSet<_>) =
        attempts.values().filter(|it| it.get("node") == "stock").map(|it| (&it.id, it.get("attempt"))).unzip();
    assert_eq!((again.len(), numbers), (3, BTreeSet::from(["1", "2", "3"])), "stock is asked three times");

    // What the workflow calls hangs on the attempt that calls.
    let requests = seen.lock().unwrap().clone();
    assert_eq!(requests.len(), untraced.len());
    let mut callers = BTreeSet::new();
    for request in &requests {
        let parts: Vec<&str> = request.as_deref().expect("each request is traced").split('-').collect();
        assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"));
        let caller = attempts.get(parts[2]).expect("an attempt of the trace calls");
        assert_eq!(caller.get("kind"), "http");
        callers.insert(parts[2]);
    }
    assert_eq!(callers.len(), requests.len(), "each attempt has a span of its own");
    let called: Vec<&Told> = spans.iter().filter(|span| span.name == "request").collect();
    assert_eq!(called.iter().map(|span| &*span.parent).collect::<BTreeSet<_>>(), callers);
    let refused = called.iter().filter(|span| span.get("status") == "503").count();
    assert_eq!(refused, 2, "stock fails twice: {called:#?}");
    assert!(!receiver.knows(NOT_SAMPLED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_without_a_trace_begins_one() {
    let (receiver, endpoint) = Receiver::start().await;
    let dev = traced_dev(&endpoint);
    dev.apply(&std::fs::read_to_string(root().join("examples/hello.yaml")).unwrap()).await;
    let done = dev.run("hello", json!({ "name": "Ada" })).await;
    let tick = json!({ "id": "tick", "workflow": "hello", "type": "cron", "schedule": "* * * * * *" });
    let made = dev.http.post(dev.path("/triggers")).json(&tick).send().await.unwrap();
    assert_eq!(made.status(), 201);

    let first = |name: &'static str| receiver.some(move |span| span.name == name, |spans| !spans.is_empty());
    let (submitted, fired) = (first("api.submit").await.remove(0), first("trigger.fire").await.remove(0));
    assert_eq!(submitted.get("execution_id"), done["id"]);
    assert_ne!(submitted.trace, fired.trace);
    for begun in [submitted, fired] {
        assert!(begun.parent.is_empty(), "{begun:?}");
        let there = |spans: &[Told], name: &str, parent: &str| {
            spans.iter().any(|span| span.name == name && span.parent == parent)
        };
        let ended = |spans: &[Told]| {
            let attempt = spans.iter().find(|span| span.name == "worker.attempt" && span.parent == begun.id);
            let result = attempt.is_some_and(|attempt| there(spans, "coordinator.commit", &attempt.id));
            result && there(spans, "scheduler.propose", &begun.id) && there(spans, "coordinator.commit", &begun.id)
        };
        let spans = receiver.trace(&begun.trace, ended).await;
        assert!(spans.iter().all(|span| span.get("execution_id") == begun.get("execution_id")), "{spans:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_does_not_answer_slows_nothing_down() {
    // The system takes the connection, and nobody ever reads from it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut dev = traced_dev(&format!("http://{}", silent.local_addr().unwrap()));
    dev.apply(&std::fs::read_to_string(root().join("examples/hello.yaml")).unwrap()).await;
    for _ in 0..20 {
        assert_eq!(dev.run("hello", json!({ "name": "Ada" })).await["state"], "COMPLETED");
    }
    let begun = Instant::now();
    assert!(dev.stop().success());
    assert!(begun.elapsed() < SOON);
}
