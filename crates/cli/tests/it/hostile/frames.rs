//! HTTP/2 as nobody means it, frame by frame.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Attacked, connect};
use crate::rig::SOON;

/// The preface and empty settings.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers in HPACK, all of them spelt out.
fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "longer ones need more than a byte");
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

fn get(path: &str) -> Vec<u8> {
    headers(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)])
}

/// GOAWAY says so to who has to calm down.
const CALM: Option<u32> = Some(11);

/// Sends parts, as long as the other side takes them, while it reads what is said. Gives the code of GOAWAY, if there was
/// one before the end.
async fn flood(address: &str, begin: &[u8], parts: impl Iterator<Item = Vec<u8>>) -> Option<u32> {
    let mut stream = connect(address).await;
    stream.write_all(HELLO).await.unwrap();
    stream.write_all(begin).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        for part in parts {
            if writing.write_all(&part).await.is_err() {
                break;
            }
        }
        let _ = writing.shutdown().await;
    };
    let watching = async {
        let mut said = Vec::new();
        let mut code = None;
        loop {
            match frame_of(&mut reading, &mut said).await {
                Some((GOAWAY, payload)) => code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
                Some(_) => {}
                None => return code,
            }
        }
    };
    let both = async { tokio::join!(sending, watching) };
    let ((), code) = tokio::time::timeout(SOON, both).await.expect("it is taken or closed");
    code
}

async fn frame_of(stream: &mut (impl AsyncReadExt + Unpin), buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    buffer.resize(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, 0);
    stream.read_exact(buffer).await.ok()?;
    Some((head[3], buffer.clone()))
}

/// So many times the same, with stream numbers that a client uses, in pieces of many frames.
fn streams(count: u32, frames: impl Fn(u32) -> Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    let all: Vec<u32> = (0..count).map(|n| 2 * n + 1).collect();
    let pieces: Vec<Vec<u8>> = all.chunks(200).map(|some| some.iter().flat_map(|&n| frames(n)).collect()).collect();
    pieces.into_iter()
}

fn repeated(count: usize, frame: Vec<u8>) -> impl Iterator<Item = Vec<u8>> {
    let piece = frame.repeat(100);
    std::iter::repeat_n(piece, count / 100)
}

async fn attack(address: &str, path: &str) {
    let request = get(path);
    let reset = streams(100_000, |stream| {
        let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream, &request);
        frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        frames
    });
    assert_eq!(flood(address, &[], reset).await, CALM, "rapid reset");
    let begin = frame(HEADERS, END_STREAM, 1, &request);
    let more = repeated(20_000, frame(CONTINUATION, 0, 1, &headers(&[("x-more", &"y".repeat(100))])));
    assert_eq!(flood(address, &begin, more).await, CALM, "continuation");
    let empty = repeated(200_000, frame(CONTINUATION, 0, 1, &[]));
    assert_eq!(flood(address, &begin, empty).await, CALM, "empty continuation");
    let begin = frame(HEADERS, END_HEADERS, 1, &request);
    let data = repeated(100_000, frame(DATA, 0, 1, &[]));
    assert_eq!(flood(address, &begin, data).await, CALM, "empty data");
    let open = streams(100_000, |stream| frame(HEADERS, END_HEADERS, stream, &request));
    assert_eq!(flood(address, &[], open).await, CALM, "streams above what was agreed");
    // Each of these has an answer, or costs nothing to hold: it is as fast as the other side reads.
    flood(address, &[], repeated(200_000, frame(PING, 0, 0, &[7; 8]))).await;
    flood(address, &[], repeated(100_000, frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]))).await;
    flood(address, &[], repeated(100_000, frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()))).await;
}

/// Does not read what is said.
async fn deaf(address: &str) -> TcpStream {
    let mut stream = connect(address).await;
    stream.write_all(HELLO).await.unwrap();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
    let sending = async {
        for _ in 0..1_000 {
            if stream.write_all(&pings).await.is_err() {
                break;
            }
        }
    };
    // Who is not read to stops reading: this does not come to an end by itself.
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), sending).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection_and_no_other() {
    let attacked = Attacked::start().await;
    let (api, coordinator) = (attacked.dev.api(), attacked.dev.coordinator());
    attack(&api, "/healthz").await;
    attacked.serves().await;
    attack(&coordinator, "/nova.v1.Coordinator/GetShards").await;
    super::grpc::serves(&coordinator).await;
    let deaf = tokio::join!(deaf(&api), deaf(&coordinator));
    attacked.serves().await;
    drop(deaf);
    attacked.end("floods of frames", 100).await;
}
