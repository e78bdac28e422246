//! Requests that are whole and meant to be too much: each has a typed answer.

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{Attacked, connect, connect_all, problem, rest};
use crate::rig::{Dev, answer};

/// So many bytes of zeros, compressed as a stored stream is not: made of what a run of zeros comes to in DEFLATE.
fn bomb() -> Vec<u8> {
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    // A block with fixed codes: the literal 0, then runs of 258 bytes at distance 1, each 8 + 5 bits of it zeros but for
    // the code of the length.
    let mut bits = Bits { bytes: Vec::new(), buffer: 0, count: 0 };
    bits.put(0b011, 3);
    bits.code(0x30, 8);
    for _ in 0..500_000 {
        bits.code(0b1100_0101, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    bits.put(0, 7);
    bomb.extend(&bits.bytes);
    bomb.extend([0; 8]);
    bomb
}

struct Bits {
    bytes: Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        self.buffer |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.buffer as u8);
            self.buffer >>= 8;
            self.count -= 8;
        }
    }

    /// Codes begin with their highest bit.
    fn code(&mut self, code: u32, count: u32) {
        for bit in (0..count).rev() {
            self.put(code >> bit & 1, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compressed_nested_or_long_is_refused_with_its_code() {
    let attacked = Attacked::start().await;
    let dev = &attacked.dev;
    let bomb = bomb();
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    for encoding in ["gzip", "br", "deflate, gzip", "zstd"] {
        for path in ["/executions", "/executions/batch", "/workflows", "/workflows/validate", "/triggers"] {
            let request = dev.http.post(dev.path(path)).header("content-encoding", encoding).body(bomb.clone());
            let (status, problem) = answer(request.send().await.unwrap()).await;
            assert_eq!((status, &problem["code"]), (415, &json!("media_type")), "{path} {encoding}: {problem:#}");
        }
    }
    let plain = dev.http.post(dev.path("/executions")).header("content-encoding", "identity");
    let (status, body) = answer(plain.body("{\"workflow\":\"noop\"}").send().await.unwrap()).await;
    assert_eq!(status, 201, "{body:#}");

    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        for (path, body, status, code) in [
            ("/executions", nested.clone(), 400, "bad_request"),
            ("/executions", format!("{{\"workflow\":\"noop\",\"input\":{nested}}}"), 0, ""),
            ("/workflows", nested.clone(), 422, "document.invalid"),
            ("/triggers", nested.clone(), 422, "trigger.invalid"),
        ] {
            let (got, problem) = answer(dev.http.post(dev.path(path)).body(body).send().await.unwrap()).await;
            if code.is_empty() {
                assert!([400, 413, 422].contains(&got) && problem["code"].is_string(), "{got} {problem:#}");
            } else {
                assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{path}: {problem:#}");
            }
        }
        let validate = dev.http.post(dev.path("/workflows/validate")).body(nested);
        let (status, body) = answer(validate.send().await.unwrap()).await;
        assert_eq!((status, &body["valid"]), (200, &json!(false)), "{body:#}");
    }

    let long = dev.http.get(dev.path("/workers")).header("x-long", "y".repeat(20_000));
    let (status, problem) = answer(long.send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (431, &json!("limit.headers")), "{problem:#}");
    // What the server does not even read is answered as far as HTTP goes.
    let mut stream = connect(&dev.api()).await;
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20)).as_bytes()).await;
    let said = String::from_utf8_lossy(&rest(&mut stream).await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    attacked.end("bombs", 100).await;
}

/// Bodies of 1 MiB, but for their last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_connections_together_have_a_limit() {
    let attacked = Attacked::start().await;
    let api = attacked.dev.api();
    let part = &vec![b' '; (1 << 20) - 1];
    let sending = connect_all(&api, 300).await.into_iter().map(|mut stream| async move {
        let head = "POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: 1048576\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who is refused early is closed on while it still sends.
        let _ = stream.write_all(part).await;
        stream
    });
    let streams = join_all(sending).await;
    attacked.serves().await;
    let answers = join_all(streams.into_iter().map(|mut stream| async move { rest(&mut stream).await })).await;
    let (mut full, mut slow) = (0, 0);
    for said in answers.iter().filter(|said| !said.is_empty()) {
        let (status, problem) = problem(&String::from_utf8_lossy(said));
        match (status, problem["code"].as_str()) {
            (503, Some("unavailable")) => full += 1,
            (408, Some("request.slow")) => slow += 1,
            other => panic!("{other:?} {problem:#}"),
        }
    }
    assert!(full > 0 && slow > 0 && slow <= 128, "{full} found no room, {slow} came too slowly");
    attacked.end("bodies", 300).await;
}

/// What a tool found that makes requests from the document, `make schemathesis`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_is_in_the_document_with_its_media_type() {
    let dev = Dev::start();
    let document: Value = serde_json::from_str(&nova_api::openapi_json().unwrap()).unwrap();
    let requests = [
        ("DELETE", "/triggers/{id}", "/triggers/0", None),
        ("GET", "/executions", "/executions?state=", None),
        ("GET", "/executions", "/executions?limit=-1", None),
        ("GET", "/executions", "/executions?cursor=%00", None),
        ("GET", "/executions/{id}", "/executions/0", None),
        ("GET", "/executions/{id}/events", "/executions/0/events", None),
        ("GET", "/executions/{id}/result", "/executions/0/result", None),
        ("GET", "/executions/{id}/watch", "/executions/0/watch", None),
        ("GET", "/workflows/{name}", "/workflows/0?version=-1", None),
        ("GET", "/workflows/{name}", "/workflows/%ff", None),
        ("POST", "/executions", "/executions", Some("")),
        ("POST", "/executions", "/executions", Some("{\"workflow\":\"\"}")),
        ("POST", "/executions/batch", "/executions/batch", Some("")),
        ("POST", "/executions/batch", "/executions/batch", Some("{\n[]\n")),
        ("POST", "/executions/{id}/cancel", "/executions/0/cancel", Some("")),
        ("POST", "/triggers", "/triggers", Some("")),
        ("POST", "/workers/{name}/drain", "/workers/dev/drain", Some("{\"x\":1}")),
        ("POST", "/workflows", "/workflows", Some("")),
        ("POST", "/workflows/validate", "/workflows/validate", Some("")),
        ("PUT", "/workers", "/workers", None),
    ];
    for (method, route, path, body) in requests {
        let request = dev.http.request(method.parse().unwrap(), dev.path(path)).body(body.unwrap_or_default());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let routes = &document["paths"][format!("/api/v1{route}")];
        // Where there is no such method, that is what the others say.
        let operation = routes.get(method.to_lowercase()).unwrap_or(&routes["get"]);
        let content = &operation["responses"][status.to_string()]["content"];
        assert!(content.get(&kind).is_some(), "{method} {path}: {status} {kind} is not in the document: {content:#}");
    }
}
