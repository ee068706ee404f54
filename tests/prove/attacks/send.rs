//! Sends a case over plain TCP, over TLS, or as HTTP/2 frames, and says what came back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::corpus::{H2, Request, Wire};
use super::framing::{self, Framing};
use crate::h2raw;

/// How a case is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Plain,
    Tls,
    H2,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Back {
    /// The status of the first answer.
    pub status: Option<u16>,
    /// How many answers came.
    pub answers: usize,
    /// Whether the other side ended the connection or the stream.
    pub ended: bool,
}

/// How long a request that is whole may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request that may be waiting for more is waited for.
const SHORT: Duration = Duration::from_millis(500);
/// How long after an answer another one may come.
const QUIET: Duration = Duration::from_millis(60);

/// The name under which TLS connections are opened.
pub const SNI: &str = "api.test";

/// Sends a case, if it has this form.
pub async fn send(address: SocketAddr, over: Over, wire: &Wire, whole: bool) -> Option<Back> {
    match (wire, over) {
        (Wire::Request(request), Over::H2) => Some(h2(address, &request.h2()).await),
        (Wire::H2(stream), Over::H2) => Some(h2(address, stream).await),
        (Wire::Request(request), _) => {
            let head = request.method == b"HEAD";
            Some(h1(address, over, &of_scheme(request, over).bytes(), !head && whole).await)
        }
        (Wire::Raw(bytes), Over::Plain | Over::Tls) => Some(h1(address, over, bytes, false).await),
        (Wire::H2(_), _) | (Wire::Raw(_), Over::H2) => None,
    }
}

/// An absolute form names the scheme of its connection, or the other one: over TLS these two change places.
fn of_scheme(request: &Request, over: Over) -> Request {
    let mut request = request.clone();
    if over == Over::Tls {
        if let Some(rest) = request.target.strip_prefix(b"http://") {
            request.target = [b"https://", rest].concat();
        } else if let Some(rest) = request.target.strip_prefix(b"https://") {
            request.target = [b"http://", rest].concat();
        }
    }
    request
}

async fn h1(address: SocketAddr, over: Over, bytes: &[u8], one: bool) -> Back {
    let Ok(stream) = TcpStream::connect(address).await else { return Back { ended: true, ..Back::default() } };
    let _ = stream.set_nodelay(true);
    if over == Over::Tls {
        let Ok(stream) = tls(stream, b"http/1.1").await else { return Back { ended: true, ..Back::default() } };
        return talk(stream, bytes, one).await;
    }
    talk(stream, bytes, one).await
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8], one: bool) -> Back {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        // What was answered and closed already cannot be written to, and the answer is what counts.
        let _ = writer.write_all(bytes).await;
        let _ = writer.flush().await;
        writer
    };
    let read = async {
        let mut back = Back::default();
        let mut received = Vec::new();
        let began = Instant::now();
        let mut patience = if one { PATIENCE } else { SHORT };
        loop {
            match timeout(patience, reader.read_buf(&mut received)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => back.ended = true,
                Err(_) => return (back, false),
            }
            let (first, answers) = answers(&received);
            (back.status, back.answers) = (first, answers);
            if back.ended || (one && first.is_some()) || began.elapsed() > PATIENCE {
                return (back, true);
            }
            if first.is_some() {
                patience = QUIET;
            }
        }
    };
    let (mut writer, (back, _)) = tokio::join!(write, read);
    let _ = writer.shutdown().await;
    back
}

/// The status of the first final answer, and how many final answers there are.
fn answers(received: &[u8]) -> (Option<u16>, usize) {
    let all = framing::all(Framing::Strict, received);
    let statuses: Vec<u16> = all
        .iter()
        .filter(|answer| answer.method.starts_with(b"HTTP/"))
        .filter_map(|answer| std::str::from_utf8(&answer.target).ok()?.parse().ok())
        .filter(|status| *status >= 200 || *status == 101)
        .collect();
    (statuses.first().copied(), statuses.len())
}

async fn h2(address: SocketAddr, stream: &H2) -> Back {
    let ended = Back { ended: true, ..Back::default() };
    let Ok(tcp) = TcpStream::connect(address).await else { return ended };
    let _ = tcp.set_nodelay(true);
    let Ok(tls) = tls(tcp, b"h2").await else { return ended };
    let mut connection = h2raw::Connection::over(tls).await;
    if !stream.frames.is_empty() {
        for (kind, flags, id, payload) in &stream.frames {
            connection.frame(*kind, *flags, *id, payload).await;
        }
    } else {
        let block = |fields: &[(Vec<u8>, Vec<u8>)]| {
            let fields: Vec<h2raw::Field<'_>> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            h2raw::block(&fields)
        };
        let bodyless = stream.data.is_empty() && stream.trailers.is_empty();
        connection.headers(1, &block(&stream.fields), bodyless).await;
        for (number, piece) in stream.data.iter().enumerate() {
            let last = number + 1 == stream.data.len() && stream.trailers.is_empty();
            connection.data(1, piece, last).await;
        }
        if !stream.trailers.is_empty() {
            connection.headers(1, &block(&stream.trailers), true).await;
        }
    }
    match timeout(if stream.frames.is_empty() { PATIENCE } else { SHORT }, connection.outcome(1)).await {
        Ok(h2raw::Outcome::Status(status)) => Back { status: Some(status), answers: 1, ended: false },
        Ok(h2raw::Outcome::Reset | h2raw::Outcome::Closed) => ended,
        Err(_) => Back::default(),
    }
}

async fn tls(stream: TcpStream, protocol: &[u8]) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(SNI).unwrap(), stream).await
}

/// Who is attacked need not be who they say.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
