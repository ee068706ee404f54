//! HTTP/2 frame by frame, to the gateway of a test.

use tokio::time::timeout;

use crate::client::{PATIENCE, tls};
pub use crate::frames::{Connection, Field, Outcome};
use crate::frames::{END_HEADERS, END_STREAM, HEADERS, block, frame};
use crate::harness::Harness;

impl Outcome {
    /// One of these statuses, or no answer at all.
    pub fn is_refused(&self, statuses: &[u16]) -> bool {
        match self {
            Self::Status(status) => statuses.contains(status),
            Self::Reset | Self::Closed => true,
        }
    }
}

/// A connection to the gateway's TLS listener.
pub async fn open(gateway: &Harness) -> Connection {
    Connection::over(tls(gateway.tls, &gateway.certificate, &[b"h2"]).await).await
}

async fn outcome(mut connection: Connection) -> Outcome {
    timeout(PATIENCE, connection.outcome(1)).await.expect("an answer, a reset or the end")
}

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
    let mut connection = open(gateway).await;
    connection.headers(1, &block(fields), data.is_empty()).await;
    for (number, piece) in data.iter().enumerate() {
        connection.data(1, piece, number + 1 == data.len()).await;
    }
    outcome(connection).await
}

/// A request whose body is on the way before anybody has looked at its head.
pub async fn at_once(gateway: &Harness, fields: &[Field<'_>], data: &[&[u8]]) -> Outcome {
    let mut connection = open(gateway).await;
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(fields));
    for (number, piece) in data.iter().enumerate() {
        let end = if number + 1 == data.len() { END_STREAM } else { 0 };
        let whole = piece.chunks(16 * 1024).count().max(1);
        for at in 0..whole {
            let part = piece.chunks(16 * 1024).nth(at).unwrap_or_default();
            bytes.extend(frame(0, if at + 1 == whole { end } else { 0 }, 1, part));
        }
    }
    connection.send(&bytes).await;
    outcome(connection).await
}

/// A request with trailers.
pub async fn with_trailers(gateway: &Harness, fields: &[Field<'_>], data: &[u8], trailers: &[Field<'_>]) -> Outcome {
    let mut connection = open(gateway).await;
    connection.headers(1, &block(fields), false).await;
    connection.frame(0, 0, 1, data).await;
    connection.headers(1, &block(trailers), true).await;
    outcome(connection).await
}
