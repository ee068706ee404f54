//! Servers for tests that stand for a provider.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// A server that answers as it is told, and keeps what it was asked.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request, as text, with these bytes, after a while.
    pub(crate) fn with(answer: impl Fn(&str) -> (Vec<u8>, Duration) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let mut request = Vec::new();
                    while !is_whole(&request) {
                        let mut part = [0; 4096];
                        let Ok(length @ 1..) = stream.read(&mut part) else { break };
                        request.extend_from_slice(&part[..length]);
                    }
                    let request = String::from_utf8(request).unwrap();
                    let (answer, after) = answer(&request);
                    seen.lock().push(request);
                    std::thread::sleep(after);
                    let _ = stream.write_all(&answer);
                });
            }
        });
        Self { url, asked }
    }

    /// Answers everything with these bytes.
    pub(crate) fn raw(answer: impl Into<Vec<u8>>, after: Duration) -> Self {
        let answer = answer.into();
        Self::with(move |_| (answer.clone(), after))
    }

    pub(crate) fn answering(status: u16, headers: &str, body: &str) -> Self {
        Self::raw(answer(status, headers, body), Duration::ZERO)
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::answering(status, "content-type: application/json\r\n", &body.to_string())
    }

    /// How often it was asked.
    pub(crate) fn times(&self) -> usize {
        self.asked.lock().len()
    }
}

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}").into()
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}
