//! The recording upstream: keeps the raw bytes of each request and answers what the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The head with its last empty line, as received.
    pub head: String,
    /// The body, without its framing.
    pub body: Vec<u8>,
}

impl Recorded {
    /// The target of the request line.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

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
        assert!(values.len() <= 1, "`{name}` arrived {} times:\n{}", values.len(), self.head);
        values.first().copied()
    }
}

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}
pub type Io = Box<dyn Duplex>;

/// Answers one request; returns the connection if it may serve another.
pub type Answering = Arc<dyn Fn(Recorded, Io) -> Pin<Box<dyn Future<Output = Option<Io>> + Send>> + Send + Sync>;

pub struct Upstream {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
    connections: Arc<Mutex<usize>>,
}

impl Upstream {
    /// Answers 200 `ok` to everything.
    pub async fn start() -> Self {
        Self::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok".to_vec())
            .await
    }

    /// Answers these bytes and keeps the connection, unless they say `Connection: close`.
    pub async fn answering(answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serving(move |recorded, mut io| {
            let bytes = answer(&recorded);
            Box::pin(async move {
                io.write_all(&bytes).await.ok()?;
                io.flush().await.ok()?;
                let close = bytes.windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
                if close { None } else { Some(io) }
            })
        })
        .await
    }

    /// Whatever the test wants.
    pub async fn serving(
        answer: impl Fn(Recorded, Io) -> Pin<Box<dyn Future<Output = Option<Io>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        Self::listening(None, Arc::new(answer)).await
    }

    /// Over TLS with this certificate and key.
    pub async fn tls(
        certificate: CertificateDer<'static>,
        key: &str,
        answer: impl Fn(Recorded, Io) -> Pin<Box<dyn Future<Output = Option<Io>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
        Self::listening(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(answer)).await
    }

    async fn listening(tls: Option<TlsAcceptor>, answer: Answering) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let (records, counter) = (requests.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counter.lock().unwrap() += 1;
                let (answer, records, tls) = (answer.clone(), records.clone(), tls.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let mut io: Io = match tls {
                        None => Box::new(stream),
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => Box::new(stream),
                            Err(_) => return,
                        },
                    };
                    let mut buffered = Vec::new();
                    while let Some(recorded) = read(&mut io, &mut buffered).await {
                        records.lock().unwrap().push(recorded.clone());
                        match answer(recorded, io).await {
                            Some(back) => io = back,
                            None => return,
                        }
                    }
                });
            }
        });
        Self { address, requests, connections }
    }

    /// What arrived since the last call.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }

    /// The only request that arrived since the last call.
    #[track_caller]
    pub fn one(&self) -> Recorded {
        let mut requests = self.take();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn read(io: &mut Io, buffered: &mut Vec<u8>) -> Option<Recorded> {
    let end = loop {
        if let Some(at) = buffered.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if io.read_buf(buffered).await.ok()? == 0 {
            return None;
        }
    };
    let rest = buffered.split_off(end);
    let head = String::from_utf8_lossy(buffered).into_owned();
    *buffered = rest;
    let mut recorded = Recorded { head, body: Vec::new() };
    if recorded.value("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        loop {
            let line = read_line(io, buffered).await?;
            let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
            fill(io, buffered, size + 2).await?;
            let rest = buffered.split_off(size + 2);
            buffered.truncate(size);
            recorded.body.append(buffered);
            *buffered = rest;
            if size == 0 {
                return Some(recorded);
            }
        }
    }
    let length = recorded.value("content-length").map_or(0, |length| length.parse().unwrap());
    fill(io, buffered, length).await?;
    let rest = buffered.split_off(length);
    recorded.body = std::mem::replace(buffered, rest);
    Some(recorded)
}

async fn fill(io: &mut Io, buffered: &mut Vec<u8>, size: usize) -> Option<()> {
    while buffered.len() < size {
        if io.read_buf(buffered).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}

async fn read_line(io: &mut Io, buffered: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = buffered.windows(2).position(|window| window == b"\r\n") {
            let rest = buffered.split_off(at + 2);
            let mut line = std::mem::replace(buffered, rest);
            line.truncate(at);
            return Some(line);
        }
        if io.read_buf(buffered).await.ok()? == 0 {
            return None;
        }
    }
}
