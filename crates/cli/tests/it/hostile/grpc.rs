//! gRPC that is none.

use nova_wire::v1;
use nova_wire::v1::coordinator_client::CoordinatorClient;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use reqwest::Client;
use tokio::io::AsyncWriteExt;

use super::frames::HELLO;
use super::{Attacked, connect, rest};
use crate::rig::SOON;

/// Asks a coordinator, on a new connection.
pub async fn serves(address: &str) {
    let asking = async {
        let mut client = CoordinatorClient::connect(format!("http://{address}")).await.unwrap();
        client.get_shards(v1::GetShardsRequest {}).await.unwrap().into_inner()
    };
    let shards = tokio::time::timeout(SOON, asking).await.expect("it answers").shards;
    assert!(!shards.is_empty());
}

fn message(compressed: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![compressed];
    message.extend(length.to_be_bytes());
    message.extend(bytes);
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_to_a_coordinator_has_a_status_or_ends_its_connection() {
    let attacked = Attacked::start().await;
    let address = attacked.dev.coordinator();
    let http = Client::builder().http2_prior_knowledge().timeout(SOON).build().unwrap();
    let bomb = vec![0; 4 << 20];
    let cases: [(&str, &str, Vec<u8>, &[&str]); 10] = [
        ("GetShards", "a length above what comes", message(0, 100, b"x"), &["13", "3"]),
        ("GetShards", "4 GiB", message(0, u32::MAX, &[0; 64]), &["11", "8"]),
        ("GetShards", "half a prefix", vec![0, 0], &["13", "3"]),
        ("GetShards", "nothing", vec![], &["13", "3"]),
        ("GetShards", "a flag that there is not", message(77, 0, b""), &["13"]),
        ("GetShards", "compressed, by nothing", message(1, 4, b"gzip"), &["13"]),
        ("PutWorkflow", "no protobuf", message(0, 8, &[0xff; 8]), &["13", "3"]),
        (
            "PutWorkflow",
            "a length within that is too large",
            message(0, 6, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x07]),
            &["13", "3"],
        ),
        ("NoSuchThing", "no such method", message(0, 0, b""), &["12"]),
        ("PutWorkflow", "zeros", message(0, bomb.len() as u32, &bomb), &["13", "3"]),
    ];
    for (method, what, body, expected) in cases {
        let request = http.post(format!("http://{address}/nova.v1.Coordinator/{method}")).body(body);
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        let response = request.send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let status = response.headers().get("grpc-status").map(|it| it.to_str().unwrap().to_owned());
        let message = response.headers().get("grpc-message").cloned();
        assert!(status.as_deref().is_some_and(|it| expected.contains(&it)), "{what}: {status:?} {message:?}");
    }
    let request =
        http.post(format!("http://{address}/nova.v1.Coordinator/PutWorkflow")).body(message(1, 64, &[31; 64]));
    let request = request.header("content-type", "application/grpc").header("grpc-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "12", "compression is not understood");

    let seed = rand::random();
    println!("garbage of seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..200 {
        let mut stream = connect(&address).await;
        let mut garbage = vec![0; random.random_range(1..4_096)];
        random.fill_bytes(&mut garbage);
        if round % 2 == 0 {
            let _ = stream.write_all(HELLO).await;
        }
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        rest(&mut stream).await;
    }
    serves(&address).await;
    attacked.end("garbage", 100).await;
}
