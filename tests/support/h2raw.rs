//! HTTP/2 frame by frame, for requests that no library lets anybody send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

pub const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const GOAWAY: u8 = 7;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset,
    /// The connection ended.
    Closed,
}

/// A field: name and value as bytes, sent as they are.
pub type Field<'a> = (&'a [u8], &'a [u8]);

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A connection on which frames are sent one by one.
pub struct Connection(TlsStream<TcpStream>);

impl Connection {
    /// Begins HTTP/2 on a stream that has agreed to it.
    pub async fn over(mut stream: TlsStream<TcpStream>) -> Self {
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut connection = Self(stream);
        connection.frame(4, 0, 0, &[]).await; // SETTINGS
        connection
    }

    pub async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload)).await;
    }

    /// Bytes as they are, in one write.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await; // the other side may have closed already
        let _ = self.0.flush().await;
    }

    /// A header block in as many frames as it needs.
    pub async fn headers(&mut self, stream: u32, block: &[u8], end: bool) {
        let mut pieces = block.chunks(16 * 1024).peekable();
        let mut kind = (HEADERS, if end { END_STREAM } else { 0 });
        while let Some(piece) = pieces.next() {
            let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.frame(kind.0, kind.1 | last, stream, piece).await;
            kind = (CONTINUATION, 0);
        }
    }

    /// A body, or a part of one, in as many frames as it needs.
    pub async fn data(&mut self, stream: u32, data: &[u8], end: bool) {
        let mut pieces = data.chunks(16 * 1024).peekable();
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            self.frame(0, u8::from(end && last), stream, piece).await;
            if last {
                return;
            }
        }
    }

    /// Waits for an answer's head, a reset, or the end.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
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
    let sizes = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count(); // of the dynamic table
    let block = &block[sizes..];
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
