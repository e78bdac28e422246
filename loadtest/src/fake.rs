//! An api that makes mistakes, for tests of the generator and of the verification.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::request::FIRST;
use crate::workflow::Workflow;

/// The number with which the mistake is made.
const VICTIM: u64 = FIRST + 2;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answered as completed, and not in the list.
    Lost,
    /// Twice in the list.
    Doubled,
    /// With another output in the list than in the answer.
    WrongInHistory,
    /// Answered with the output of another number.
    WrongAnswer,
    /// Turned away.
    Busy,
    /// Turned away the first time.
    BusyOnce,
    /// The connection ends without an answer.
    Gone,
    /// It does so the first time.
    GoneOnce,
}

/// The api: what it knows, newest last.
pub(crate) struct Fake {
    fault: Fault,
    events: u64,
    rows: Mutex<Vec<String>>,
    asked: AtomicBool,
}

impl Fake {
    /// Starts one that ends with the runtime.
    pub(crate) async fn start(fault: Fault, workflow: &Workflow) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let fake =
            Arc::new(Self { fault, events: workflow.events, rows: Mutex::default(), asked: AtomicBool::default() });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&fake).serve(stream));
            }
        });
        address
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            let (head, end) = loop {
                let text = String::from_utf8_lossy(&bytes);
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.map_or(0, |length| length.parse::<usize>().expect("a number"));
                    if body.len() >= length {
                        break (head.len() + 4, head.len() + 4 + length);
                    }
                }
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            };
            let request = String::from_utf8(bytes.drain(..end).collect()).ok()?;
            let (status, body) = if request.starts_with("GET") {
                (200, self.page(&request))
            } else {
                let lines: Option<Vec<_>> = request[head..].lines().map(|line| self.line(line)).collect();
                let lines = lines?;
                match &lines[..] {
                    [(status, body)] => (*status, body.clone()),
                    all => (200, all.iter().map(|(_, body)| format!("{body}\n")).collect()),
                }
            };
            let retry = if status == 429 { "retry-after: 2\r\n" } else { "" };
            let answer = format!("HTTP/1.1 {status} X\r\n{retry}content-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }

    /// Runs one execution; none when the connection is to end.
    fn line(&self, line: &str) -> Option<(u16, String)> {
        let request: serde_json::Value = serde_json::from_str(line).expect("a submission is JSON");
        let number = request["input"]["n"].as_u64().expect("a number");
        let fault = if number == VICTIM { self.fault } else { Fault::None };
        let answer = |output| {
            format!(r#"{{"line":1,"id":"{number:032x}","state":"COMPLETED","repeated":false,"output":{output}}}"#)
        };
        let row = |id, output| {
            let events = self.events;
            format!(
                r#"{{"id":"{id:032x}","state":"COMPLETED","input":{{"n":{number}}},"output":{output},"events":{events}}}"#
            )
        };
        let once = matches!(fault, Fault::BusyOnce | Fault::GoneOnce);
        let again = once && self.asked.swap(true, Ordering::Relaxed);
        let mut rows = self.rows.lock();
        match fault {
            Fault::BusyOnce | Fault::GoneOnce if again => rows.push(row(number, number)),
            Fault::Gone | Fault::GoneOnce => return None,
            Fault::Busy | Fault::BusyOnce => return Some((429, r#"{"line":1,"problem":{"status":429}}"#.into())),
            Fault::Lost => {}
            Fault::WrongInHistory => rows.push(row(number, number + 1)),
            Fault::Doubled => rows.extend([row(number, number), row(7, number)]),
            Fault::None | Fault::WrongAnswer => rows.push(row(number, number)),
        }
        Some((201, answer(if fault == Fault::WrongAnswer { number + 1 } else { number })))
    }

    /// Pages of ten: the cursor is where the next one begins.
    fn page(&self, request: &str) -> String {
        let cursor = request.split_once("cursor=").and_then(|(_, rest)| rest.split(' ').next());
        let from: usize = cursor.map_or(0, |cursor| cursor.parse().expect("a cursor of ours"));
        let rows = self.rows.lock();
        let page: Vec<_> = rows.iter().skip(from).take(10).cloned().collect();
        let next = if page.len() == 10 { format!("\"{}\"", from + 10) } else { "null".into() };
        format!(r#"{{"executions":[{}],"cursor":{next},"ageMs":0}}"#, page.join(","))
    }
}
