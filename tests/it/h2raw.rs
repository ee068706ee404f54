//! HTTP/2 frame by frame, for requests that no library lets anybody send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{PATIENCE, tls};
use crate::harness::Harness;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset,
    /// The connection ended.
    Closed,
}

impl Outcome {
    /// One of these statuses, or no answer at all.
    pub fn is_refused(&self, statuses: &[u16]) -> bool {
        match self {
            Self::Status(status) => statuses.contains(status),
            Self::Reset | Self::Closed => true,
        }
    }
}

/// A field: name and value as bytes, sent as they are.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// A GET of this target with further fields.
pub async fn get(gateway: &Harness, target: &str, more: &[Field<'_>]) -> Outcome {
    let mut fields: Vec<Field<'_>> = vec![
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", target.as_bytes()),
    ];
    fields.extend(more);
    request(gateway, &fields, &[]).await
}

/// One request of these fields, then these DATA frames, the last of which ends the stream.
pub async fn request(gateway: &Harness, fields: &[Field<'_>], data: &[&[u8]]) -> Outcome {
    let mut connection = Connection::open(gateway).await;
    let end = if data.is_empty() { END_STREAM } else { 0 };
    connection.frame(HEADERS, END_HEADERS | end, 1, &block(fields)).await;
    for (number, piece) in data.iter().enumerate() {
        let end = if number + 1 == data.len() { END_STREAM } else { 0 };
        connection.frame(0, end, 1, piece).await;
    }
    connection.outcome(1).await
}

/// A request whose body is on the way before anybody has looked at its head.
pub async fn at_once(gateway: &Harness, fields: &[Field<'_>], data: &[&[u8]]) -> Outcome {
    let mut connection = Connection::open(gateway).await;
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(fields));
    for (number, piece) in data.iter().enumerate() {
        let end = if number + 1 == data.len() { END_STREAM } else { 0 };
        let whole = piece.chunks(16 * 1024).count().max(1);
        for at in 0..whole {
            let part = piece.chunks(16 * 1024).nth(at).unwrap_or_default();
            bytes.extend(frame(0, if at + 1 == whole { end } else { 0 }, 1, part));
        }
    }
    let _ = connection.0.write_all(&bytes).await;
    let _ = connection.0.flush().await;
    connection.outcome(1).await
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request with trailers.
pub async fn with_trailers(gateway: &Harness, fields: &[Field<'_>], data: &[u8], trailers: &[Field<'_>]) -> Outcome {
    let mut connection = Connection::open(gateway).await;
    connection.frame(HEADERS, END_HEADERS, 1, &block(fields)).await;
    connection.frame(0, 0, 1, data).await;
    connection.frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers)).await;
    connection.outcome(1).await
}

pub struct Connection(TlsStream<TcpStream>);

impl Connection {
    pub async fn open(gateway: &Harness) -> Self {
        let mut stream = tls(gateway.tls, &gateway.certificate, &[b"h2"]).await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut connection = Self(stream);
        connection.frame(4, 0, 0, &[]).await; // SETTINGS
        connection
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.0.write_all(&frame(kind, flags, stream, payload)).await; // the other side may have closed already
        let _ = self.0.flush().await;
    }

    /// Waits for an answer's head, a reset, or the end.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        timeout(PATIENCE, async {
            loop {
                let mut head = [0; 9];
                if self.0.read_exact(&mut head).await.is_err() {
                    return Outcome::Closed;
                }
                let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
                let mut payload = vec![0; length];
                if self.0.read_exact(&mut payload).await.is_err() {
                    return Outcome::Closed;
                }
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match head[3] {
                    HEADERS if id == stream => return Outcome::Status(status(&payload)),
                    RST_STREAM if id == stream => return Outcome::Reset,
                    GOAWAY => return Outcome::Closed,
                    _ => {}
                }
            }
        })
        .await
        .expect("an answer, a reset or the end")
    }
}

/// A header block of literals without indexing and without Huffman coding (RFC 7541 §6.2.2).
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(*text);
        }
    }
    block
}

fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    block.push(u8::try_from(value).unwrap());
}

/// `:status`, the first field of the first answer on a connection (RFC 7541, appendix A).
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8a => 206,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        _ => {
            let length = usize::from(block[1] & 0x7f);
            let value = &block[2..2 + length];
            let text = if block[1] & 0x80 == 0 { String::from_utf8(value.to_vec()).unwrap() } else { digits(value) };
            text.parse().unwrap()
        }
    }
}

/// Huffman-coded digits (RFC 7541, appendix B): five bits for 0 to 2, six for the others.
fn digits(bytes: &[u8]) -> String {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0, |value: u8, bit| value << 1 | bit);
    let mut text = String::new();
    let mut rest = &*bits;
    while text.len() < 3 {
        let short = value(&rest[..5]);
        let (digit, length) = if short <= 2 { (short, 5) } else { (value(&rest[..6]) - 0b01_1001 + 3, 6) };
        text.push(char::from(b'0' + digit));
        rest = &rest[length..];
    }
    text
}
