//! One HTTP/1.1 request at a time on a connection that stays open. The client shares the machine with what it measures,
//! so it does no more than it must, and the same for every system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest wait for an answer: the slowest system needs more than a minute for the last of 1,000 executions.
const PATIENCE: Duration = Duration::from_secs(120);
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1_024) })
    }

    /// Sends a whole request and gives status and body of the answer. After an error the connection is of no more use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        let (status, body) = tokio::time::timeout(PATIENCE, self.answer(request)).await??;
        Ok((status, &self.buffer[body]))
    }

    async fn answer(&mut self, request: &[u8]) -> io::Result<(u16, std::ops::Range<usize>)> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, body)) = frame(&self.buffer)?
                && self.buffer.len() >= body.end
            {
                return Ok((status, body));
            }
        }
    }
}

/// Status and place of the body; none while the head is not whole.
fn frame(bytes: &[u8]) -> io::Result<Option<(u16, std::ops::Range<usize>)>> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
        return if bytes.len() > MAX_ANSWER_BYTES {
            Err(wrong("the head of the answer does not end"))
        } else {
            Ok(None)
        };
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| wrong("the head of the answer is not a text"))?;
    let mut lines = text.lines();
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = first.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(|| wrong("the answer has no status"))?;
    let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // Both apis that are asked send one.
    let length = length.ok_or_else(|| wrong("the answer has no content-length"))?;
    if length > MAX_ANSWER_BYTES {
        Err(wrong("the answer is too long"))
    } else {
        Ok(Some((status, head..head + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_framed_by_its_length() {
        let bytes = b"HTTP/1.1 200 OK\r\nA: b\r\nCONTENT-LENGTH: 3\r\n\r\nabc";
        let (status, body) = frame(bytes).unwrap().unwrap();
        assert_eq!((status, &bytes[body.clone()]), (200, &b"abc"[..]));
        assert_eq!(frame(&bytes[..body.start - 1]).unwrap(), None);
        for wrong in
            ["HTTP/1.1 200 OK\r\n\r\n", "SMTP 200\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n"]
        {
            assert!(frame(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
