//! One HTTP request at a time, in plain sight: what is sent is what is written here.

use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status; 0 when the connection broke before one came.
    pub status: u16,
    /// Its headers, each `name: value`.
    pub headers: Vec<String>,
    /// What came of its body before the connection ended.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, or an empty text.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().filter_map(|header| header.split_once(": "));
        header
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .next()
            .unwrap_or("")
    }
}

/// Sends a request to an `http://` URL on a connection of its own and reads to the end of it. A
/// `Content-Length` is added unless the headers, each `Name: value`, say how the body is sent.
///
/// # Panics
///
/// When the URL is none or nobody listens there.
#[must_use]
pub fn request(method: &str, url: &str, headers: &[&str], body: &[u8]) -> Answer {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(host).expect("a server");
    let mut head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("transfer-encoding")) {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    // A server may answer and hang up before it has read everything.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    Answer {
        status: status.unwrap_or(0),
        headers: lines.map(str::to_owned).collect(),
        body: answer.get(end + 4..).unwrap_or_default().to_vec(),
    }
}
