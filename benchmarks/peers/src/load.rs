//! Load by HTTP: so many requests in flight, each on a connection of its own, every answer compared.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::case::Amount;
use crate::http::Connection;

/// What a load found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Completed, with the right result.
    pub executions: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// From a request to its answer.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Figures {
    fn of(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        let at = |share: f64| {
            let place = (latencies.len().saturating_sub(1) as f64 * share) as usize;
            latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        let executions = latencies.len() as u64;
        let seconds = took.as_secs_f64();
        Self { executions, seconds, p50_ms: at(0.5), p90_ms: at(0.9), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// How an execution is asked for, and what its right answer is.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// Request line and headers, without length and host.
    pub head: String,
    /// The body around the number of the execution.
    pub body: (String, String),
    /// Whether this is the right answer for the right result.
    pub is_right: fn(status: u16, body: &[u8], result: u64) -> bool,
    /// The right result for a number.
    pub work: crate::case::Work,
}

impl Question {
    fn request(&self, host: SocketAddr, number: u64) -> String {
        let body = format!("{}{number}{}", self.body.0, self.body.1);
        format!("{}host: {host}\r\ncontent-length: {}\r\n\r\n{body}", self.head, body.len())
    }

    async fn ask(&self, connection: &mut Connection, host: SocketAddr, number: u64) -> Result<(), String> {
        let request = self.request(host, number);
        let (status, body) = connection.exchange(request.as_bytes()).await.map_err(|error| error.to_string())?;
        if (self.is_right)(status, body, self.work.result(number)) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&body[..body.len().min(300)]);
        Err(format!("execution {number} was answered with {status} {}", said.trim()))
    }

    /// Asks once, on a new connection.
    pub(crate) async fn once(&self, host: SocketAddr, number: u64) -> Result<(), String> {
        let mut connection = Connection::open(host).await.map_err(|error| error.to_string())?;
        self.ask(&mut connection, host, number).await
    }

    /// Puts load on `hosts` in turn; numbers of executions come from `next`. The first answer that is not right ends it.
    pub(crate) async fn load(
        &self,
        hosts: &[SocketAddr],
        in_flight: u32,
        amount: Amount,
        next: &Arc<AtomicU64>,
    ) -> Result<Figures, String> {
        // Open before the clock starts: what is compared is work, not connecting.
        let mut connections = Vec::new();
        for host in hosts.iter().cycle().take(in_flight as usize) {
            let opened = Connection::open(*host).await;
            connections.push((*host, opened.map_err(|error| format!("cannot connect to {host}: {error}"))?));
        }
        let begun = Instant::now();
        let from = next.load(Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        for (host, mut connection) in connections {
            let (question, next) = (self.clone(), next.clone());
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let more = match amount {
                        Amount::For(time) => begun.elapsed() < time,
                        Amount::Count(count) => next.load(Ordering::Relaxed) < from + count,
                    };
                    if !more {
                        return Ok(latencies);
                    }
                    // One thread: nobody came between the look and this.
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let asked = Instant::now();
                    question.ask(&mut connection, host, number).await?;
                    latencies.push(asked.elapsed());
                }
            });
        }
        let mut all = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            all.extend(ended.map_err(|error| error.to_string()).flatten()?);
        }
        Ok(Figures::of(all, begun.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::case::Work;

    /// Answers every request with the number in its body and `more`.
    async fn server(more: u64) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 4_096];
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        let number: u64 = text.rsplit(['<', '>']).nth(1).unwrap().parse().unwrap();
                        let body = (number + more).to_string();
                        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }

    fn question() -> Question {
        Question {
            head: "POST /x HTTP/1.1\r\n".into(),
            body: ("<".into(), ">".into()),
            is_right: |status, body, result| status == 200 && body == result.to_string().as_bytes(),
            work: Work::Chain { steps: 1 },
        }
    }

    #[tokio::test]
    async fn so_many_are_asked_for_and_counted() {
        let hosts = [server(1).await, server(1).await];
        let next = Arc::new(AtomicU64::new(100));
        let figures = question().load(&hosts, 7, Amount::Count(50), &next).await.unwrap();
        assert_eq!((figures.executions, next.load(Ordering::Relaxed)), (50, 150));
        assert!(figures.p50_ms <= figures.p99_ms && figures.p99_ms <= figures.max_ms && figures.max_ms > 0.0);
        let figures = question().load(&hosts, 3, Amount::For(Duration::from_millis(50)), &next).await.unwrap();
        assert!(figures.executions >= 3 && figures.seconds >= 0.05, "{figures:?}");
    }

    #[tokio::test]
    async fn a_wrong_answer_leaves_no_figures() {
        let hosts = [server(2).await];
        let next = Arc::new(AtomicU64::new(100));
        let error = question().load(&hosts, 1, Amount::Count(5), &next).await.unwrap_err();
        assert!(error.contains("execution 100") && error.ends_with("200 102"), "{error}");
    }
}
