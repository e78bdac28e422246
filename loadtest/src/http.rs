//! The smallest HTTP client that does: one request at a time on a connection that stays open. The generator shares the
//! machine with what it measures, so each of its instructions is taken from there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest answer; a batch of 1,000 lines is about 200 KB.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Longest wait for an answer: longer than anything that is waited for on the other side.
const PATIENCE: Duration = Duration::from_secs(75);
const CONNECT: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub status: u16,
    pub head: &'a [u8],
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// When to try again, in seconds, if the answer says so.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let lines = std::str::from_utf8(self.head).ok()?.lines();
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
        value.trim().parse().ok()
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1_024) })
    }

    /// Sends a whole request and reads the whole answer. After an error the connection is of no more use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        let frame = tokio::time::timeout(PATIENCE, self.frame(request)).await??;
        Ok(Answer {
            status: frame.status,
            head: &self.buffer[..frame.head],
            body: &self.buffer[frame.head..frame.end()],
        })
    }

    async fn frame(&mut self, request: &[u8]) -> io::Result<Frame> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let frame = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(frame) = Frame::parse(&self.buffer)? {
                break frame;
            }
        };
        while self.buffer.len() < frame.end() {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(frame)
    }
}

/// Where the parts of an answer are.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    status: u16,
    head: usize,
    body: usize,
}

impl Frame {
    fn end(&self) -> usize {
        self.head + self.body
    }

    /// None while the head is not whole.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let wrong = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            return if bytes.len() > 64 << 10 { Err(wrong("the head of the answer does not end")) } else { Ok(None) };
        };
        let text = std::str::from_utf8(&bytes[..head]).map_err(|_| wrong("the head is not a text"))?;
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = first.and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(|| wrong("no status"))?;
        let length = lines.filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        // Every answer that the generator asks for has one.
        let body = length.ok_or_else(|| wrong("no content-length"))?;
        if body > MAX_ANSWER_BYTES {
            Err(wrong("the answer is too long"))
        } else {
            Ok(Some(Self { status, head, body }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_framed_by_its_length() {
        let bytes = b"HTTP/1.1 201 Created\r\nContent-Type: a/b\r\nCONTENT-LENGTH: 3\r\n\r\nabc";
        let frame = Frame::parse(bytes).unwrap().unwrap();
        assert_eq!((frame.status, &bytes[frame.head..frame.end()]), (201, &b"abc"[..]));
        for cut in 0..frame.head {
            assert_eq!(Frame::parse(&bytes[..cut]).unwrap(), None);
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for wrong in
            ["HTTP/1.1 200 OK\r\n\r\n", "SMTP 200\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n"]
        {
            assert!(Frame::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(Frame::parse(&vec![b'a'; 70_000]).is_err());
    }

    #[tokio::test]
    async fn requests_go_one_after_another_over_one_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                "HTTP/1.1 429 No\r\nRetry-After: 3\r\ncontent-length: 0\r\n\r\n",
            ] {
                let mut request = [0; 4];
                stream.read_exact(&mut request).await.unwrap();
                // In two parts, as a slow network brings it.
                let (first, second) = answer.as_bytes().split_at(20);
                stream.write_all(first).await.unwrap();
                stream.flush().await.unwrap();
                tokio::task::yield_now().await;
                stream.write_all(second).await.unwrap();
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        let first = connection.exchange(b"ping").await.unwrap();
        assert_eq!((first.status, first.body, first.retry_after_seconds()), (200, &b"hi"[..], None));
        let second = connection.exchange(b"ping").await.unwrap();
        assert_eq!((second.status, second.body, second.retry_after_seconds()), (429, &b""[..], Some(3)));
        assert!(connection.exchange(b"ping").await.is_err());
    }
}
