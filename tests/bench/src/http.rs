//! Just enough HTTP/1.1 over one kept connection that sending costs little beside what is measured.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use catchment_harness::{Failure, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of an answer that are taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One connection.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    read: BytesMut,
    request: Vec<u8>,
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: BytesMut,
}

impl Http {
    /// Connects to `http://host:port`.
    pub(crate) async fn connect(url: &str) -> Result<Http> {
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.map_err(Failure::at(url))?;
        stream.set_nodelay(true).map_err(Failure::at(url))?;
        Ok(Http { stream, read: BytesMut::with_capacity(4_096), request: Vec::new() })
    }

    /// The head of a POST to a target; `headers` are whole lines.
    pub(crate) fn head(target: &str, headers: &str) -> String {
        format!("POST {target} HTTP/1.1\r\nhost: bench\r\n{headers}")
    }

    /// Sends a body behind a [`head`](Self::head), and reads the answer.
    pub(crate) async fn post(&mut self, head: &str, body: &[u8]) -> Result<Answer> {
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        self.request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        self.request.extend_from_slice(body);
        self.stream.write_all(&self.request).await.map_err(Failure::at("sending a request"))?;
        loop {
            if let Some(answer) = take_answer(&mut self.read)? {
                return Ok(answer);
            }
            if self.stream.read_buf(&mut self.read).await.map_err(Failure::at("reading an answer"))? == 0 {
                return Err(Failure("the connection was closed before the answer".into()));
            }
        }
    }
}

/// Takes one answer from the front, once all of it is there.
fn take_answer(read: &mut BytesMut) -> Result<Option<Answer>> {
    let unreadable = || Failure("an answer that is no HTTP/1.1 with a length".into());
    let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if read.len() > ANSWER_BYTES_MAX { Err(unreadable()) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&read[..end]).map_err(|_| unreadable())?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(unreadable)?;
    let header = |wanted: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .and_then(|(_, value)| value.trim().parse::<u64>().ok())
    };
    let length = header("content-length").filter(|&n| n <= ANSWER_BYTES_MAX as u64).ok_or_else(unreadable)? as usize;
    let retry_after = header("retry-after").map(Duration::from_secs);
    if read.len() < end + 4 + length {
        return Ok(None);
    }
    read.advance(end + 4);
    Ok(Some(Answer { status, retry_after, body: read.split_to(length) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_whole_and_one_by_one() {
        let two = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
        let mut read = BytesMut::new();
        let mut answers = Vec::new();
        for byte in two {
            read.extend_from_slice(&[*byte]);
            answers.extend(take_answer(&mut read).unwrap());
        }
        let answer = |status, retry_after: Option<u64>, body: &[u8]| Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            body: body.into(),
        };
        assert_eq!(answers, [answer(202, None, b"ok"), answer(503, Some(3), b"")]);
        assert!(read.is_empty());
        for bad in [
            &b"SSH-2.0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        ] {
            assert!(take_answer(&mut bad.into()).is_err());
        }
    }
}
