//! A client that sends the bytes it is told to, over plain TCP or TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::upstream::Io;

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One answer as it arrived.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The values of a field, in order; the name without case.
    pub fn values(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }

    /// The only value of a field.
    pub fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "`{name}` came {} times:\n{}", values.len(), self.head);
        values.first().copied()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A member of the body, which is JSON.
    pub fn json(&self, member: &str) -> serde_json::Value {
        serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))[member]
            .clone()
    }

    /// The problem's code.
    pub fn code(&self) -> String {
        self.json("code").as_str().unwrap_or_default().to_owned()
    }
}

pub struct Client {
    io: Io,
    buffered: Vec<u8>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { io: Box::new(stream), buffered: Vec::new() }
    }

    /// Over TLS, trusting only `certificate`.
    pub async fn connect_tls(address: SocketAddr, certificate: &CertificateDer<'static>) -> Self {
        Self { io: Box::new(tls(address, certificate, &[b"http/1.1"]).await), buffered: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A gateway that already answered and closed makes this fail, and the answer is what counts.
        let _ = self.io.write_all(bytes.as_ref()).await;
        let _ = self.io.flush().await;
    }

    /// The next final answer, or `None` where the connection ends without one.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.read_answer(false).await
    }

    /// The answer to a HEAD request.
    pub async fn answer_to_head(&mut self) -> Option<Answer> {
        self.read_answer(true).await
    }

    async fn read_answer(&mut self, no_body: bool) -> Option<Answer> {
        timeout(PATIENCE, async {
            loop {
                let answer = self.head().await?;
                if answer.status == 101 || answer.status >= 200 {
                    return self.body(answer, no_body).await;
                }
            }
        })
        .await
        .expect("an answer or the end of the connection")
    }

    /// The next head, also of an interim answer.
    pub async fn head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.buffered.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let rest = self.buffered.split_off(end);
        let head = String::from_utf8_lossy(&self.buffered).into_owned();
        self.buffered = rest;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: Vec::new() })
    }

    async fn body(&mut self, mut answer: Answer, no_body: bool) -> Option<Answer> {
        if no_body || matches!(answer.status, 101 | 204 | 304) {
            return Some(answer);
        }
        if answer.value("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
                let mut chunk = self.bytes(size + 2).await?;
                chunk.truncate(size);
                answer.body.append(&mut chunk);
                if size == 0 {
                    return Some(answer);
                }
            }
        }
        match answer.value("content-length") {
            Some(length) => answer.body = self.bytes(length.parse().unwrap()).await?,
            None => answer.body = self.rest().await,
        }
        Some(answer)
    }

    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffered.windows(2).position(|window| window == b"\r\n") {
                let rest = self.buffered.split_off(at + 2);
                let mut line = std::mem::replace(&mut self.buffered, rest);
                line.truncate(at);
                return String::from_utf8(line).ok();
            }
            if !self.more().await {
                return None;
            }
        }
    }

    pub async fn bytes(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.buffered.len() < size {
            if !self.more().await {
                return None;
            }
        }
        let rest = self.buffered.split_off(size);
        Some(std::mem::replace(&mut self.buffered, rest))
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        timeout(PATIENCE, async { while self.more().await {} }).await.expect("the connection's end");
        std::mem::take(&mut self.buffered)
    }

    /// Whether the connection ends without another byte.
    pub async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    async fn more(&mut self) -> bool {
        matches!(self.io.read_buf(&mut self.buffered).await, Ok(n) if n > 0)
    }
}

/// Sends one request on a connection of its own and reads the answer.
pub async fn once(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<Answer> {
    let request = request.as_ref();
    let mut client = Client::connect(address).await;
    client.send(request).await;
    if request.starts_with(b"HEAD ") { client.answer_to_head().await } else { client.answer().await }
}

/// A TLS connection that trusts only `certificate`.
pub async fn tls(
    address: SocketAddr,
    certificate: &CertificateDer<'static>,
    protocols: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}
