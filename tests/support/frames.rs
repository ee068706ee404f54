//! HTTP/2 by hand: any frame in any order, header blocks byte by byte (RFC 9113, RFC 7541), over TLS with ALPN `h2`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a server does to a client, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A head of an answer; the first byte of its block tells the common statuses.
    Answer(u8),
    /// A stream was reset, with this code.
    Reset(u32),
    /// The connection ends, with this code.
    GoAway(u32),
    /// A frame that is neither.
    Other(u8),
    /// The connection has ended.
    Closed,
    /// Nothing came in the given time.
    Silent,
}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// SETTINGS of these pairs.
pub fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        pairs.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// WINDOW_UPDATE.
pub fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A field that is not kept in the table (RFC 7541 §6.2.2), without Huffman coding.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    field(0, name, value)
}

/// A field that is added to the table (§6.2.1).
pub fn kept(name: &str, value: &str) -> Vec<u8> {
    field(0x40, name, value)
}

fn field(first: u8, name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![first];
    for text in [name, value] {
        block.extend(integer(0, 7, text.len()));
        block.extend(text.as_bytes());
    }
    block
}

/// A field of the tables (§6.1); the newest of the connection's own is 62.
pub fn indexed(number: usize) -> Vec<u8> {
    integer(0x80, 7, number)
}

/// A change of the table's size (§6.3).
pub fn table_size(size: usize) -> Vec<u8> {
    integer(0x20, 5, size)
}

/// An integer in the low `bits` of its first byte (§5.1).
fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1usize << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![first | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A header block of literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// The four pseudo-header fields of a request.
pub fn pseudo(method: &str, path: &str) -> Vec<u8> {
    block(&[(":method", method), (":scheme", "https"), (":authority", "localhost"), (":path", path)])
}

/// A whole GET.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &pseudo("GET", path))
}

/// The head of a POST whose body follows.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &pseudo("POST", path))
}

/// How a client reaches a server.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Server {
    /// Trusts this certificate, which is for `localhost`.
    pub fn new(address: SocketAddr, certificate: &CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    /// A connection on which nothing was sent, from an address of the loopback.
    pub async fn connect(&self, from: Ipv4Addr) -> std::io::Result<Connection> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
        let (read, write) = tokio::io::split(stream);
        Ok(Connection { read: Reading { read, received: Vec::new() }, write })
    }

    /// A connection with the client's preface and these settings.
    pub async fn open(&self, pairs: &[(u16, u32)]) -> std::io::Result<Connection> {
        let mut connection = self.connect(Ipv4Addr::LOCALHOST).await?;
        connection.send(&[PREFACE, &settings(pairs)].concat()).await;
        Ok(connection)
    }
}

/// A connection, of which both directions can be used at the same time.
pub struct Connection {
    pub read: Reading,
    pub write: WriteHalf<TlsStream<TcpStream>>,
}

impl Connection {
    /// Sends bytes; whether the other side still takes them.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok() && self.write.flush().await.is_ok()
    }

    /// What is said next.
    pub async fn said(&mut self, patience: Duration) -> Said {
        self.read.said(patience).await
    }
}

/// What comes from the server.
pub struct Reading {
    read: ReadHalf<TlsStream<TcpStream>>,
    received: Vec<u8>,
}

impl Reading {
    pub async fn said(&mut self, patience: Duration) -> Said {
        let next = async {
            loop {
                if let Some(said) = self.take() {
                    return said;
                }
                if !matches!(self.read.read_buf(&mut self.received).await, Ok(1..)) {
                    return Said::Closed;
                }
            }
        };
        timeout(patience, next).await.unwrap_or(Said::Silent)
    }

    fn take(&mut self) -> Option<Said> {
        let head = self.received.get(..9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let kind = head[3];
        let payload = self.received.get(9..9 + length)?;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        let said = match kind {
            HEADERS => Said::Answer(payload[0]),
            RST_STREAM => Said::Reset(number(0)),
            GOAWAY => Said::GoAway(number(4)),
            other => Said::Other(other),
        };
        self.received.drain(..9 + length);
        Some(said)
    }
}
