//! Ten thousand connections that want nothing.

use tokio::io::AsyncWriteExt;

use super::frames::HELLO;
use super::{Attacked, connect_all, grpc};

const CONNECTIONS: usize = 10_000;
/// What each port of `nova dev` allows, unless the process may open few files.
const MOST: usize = 4_096;
/// Files that it has open besides.
const OWN: usize = 300;

/// Half of them say nothing, the others have been of use before.
async fn fill(attacked: &Attacked, address: &str, count: usize, hello: &[u8]) {
    let mut open = connect_all(address, count).await;
    for stream in open.iter_mut().step_by(2) {
        // Some were closed on before.
        let _ = stream.write_all(hello).await;
    }
    attacked.serves().await;
    let files = attacked.files();
    assert!(files <= MOST + OWN, "{files} files are open");
}

/// One after the other: the files of this process have a limit too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_bounded_and_others_are_served() {
    let attacked = Attacked::start().await;
    fill(&attacked, &attacked.dev.api(), CONNECTIONS, b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let coordinator = attacked.dev.coordinator();
    fill(&attacked, &coordinator, CONNECTIONS / 2, HELLO).await;
    grpc::serves(&coordinator).await;
    attacked.end("idle connections", 300).await;
}
