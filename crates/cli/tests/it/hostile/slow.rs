//! Peers that take their time.

use futures::future::join_all;
use serde_json::json;

use super::{Attacked, connect_all, drip, problem, rest};

/// Peers of each kind.
const PEERS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_drip_are_given_up_and_so_is_who_says_nothing() {
    let attacked = Attacked::start().await;
    let api = attacked.dev.api();
    let heads = connect_all(&api, PEERS).await.into_iter().map(|stream| async move {
        let said = drip(stream, "GET /api/v1/workers HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
        assert_eq!(said, "", "a request that is not there has no answer");
    });
    let bodies = connect_all(&api, PEERS).await.into_iter().map(|stream| async move {
        let said = drip(stream, "POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: 9999\r\n\r\n").await;
        let (status, problem) = problem(&said);
        assert_eq!((status, &problem["code"]), (408, &json!("request.slow")), "{said}");
    });
    let silent = connect_all(&api, PEERS).await.into_iter().map(|mut stream| async move {
        assert_eq!(rest(&mut stream).await, b"");
    });
    let second_heads = connect_all(&api, PEERS).await.into_iter().map(|stream| async move {
        let said = drip(stream, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\nGET /").await;
        assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("{\"alive\":true}"), "{said}");
    });
    let coordinator = attacked.dev.coordinator();
    let grpc =
        connect_all(&coordinator, PEERS).await.into_iter().map(|mut stream| async move { rest(&mut stream).await });
    tokio::join!(join_all(heads), join_all(bodies), join_all(silent), join_all(second_heads), join_all(grpc));
    attacked.end("slow peers", 100).await;
}
