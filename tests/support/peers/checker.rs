//! What nginx asks whether a request may pass (`auth_request`): a small server that verifies the token and answers 200
//! with the user's name, 401, or 403 where the role or scope is missing that its path names (`/role/admin`,
//! `/scope/items:read`).

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis::clock::Clock as _;
use portcullis::identity::IssuerName;
use portcullis::server::SystemClock;
use portcullis::token::algorithm::Algorithm;
use portcullis::token::key::{Key, KeySet};
use portcullis::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules, Verifier};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Starts it in the current runtime, for tokens signed with this key (RS256).
pub async fn start(public_key: &str) -> SocketAddr {
    let key = Key::from_pem(public_key, Algorithm::RS256.into(), None).unwrap();
    let rules = IssuerRules::new(
        IssuerName::new("tests"),
        ExpectedIssuer::Exact(super::ISSUER.into()),
        ExpectedAudience::OneOf(vec![super::AUDIENCE.into()]),
        KeySet::new(vec![key]).unwrap(),
    );
    let verifier = Arc::new(Verifier::new(vec![rules]).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&verifier)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, verifier: Arc<Verifier>) {
    let mut received = Vec::new();
    loop {
        while let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            let answer = answer(&String::from_utf8_lossy(&received), &verifier);
            received = rest;
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
        if !stream.read_buf(&mut received).await.is_ok_and(|read| read > 0) {
            return;
        }
    }
}

fn answer(head: &str, verifier: &Verifier) -> String {
    match check(head, verifier) {
        Ok(user) => format!("HTTP/1.1 200 OK\r\nX-Auth-User: {user}\r\nContent-Length: 0\r\n\r\n"),
        Err(status) => format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\n\r\n"),
    }
}

fn check(head: &str, verifier: &Verifier) -> Result<String, u16> {
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or(401u16)?;
    let mut fields = lines.filter_map(|line| line.split_once(": "));
    let mut credentials = fields.by_ref().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let (Some((_, credential)), None) = (credentials.next(), credentials.next()) else { return Err(401) };
    let (scheme, token) = credential.split_once(' ').ok_or(401u16)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(401);
    }
    let verified = verifier.verify(token, SystemClock.now()).map_err(|_| 401u16)?;
    let claims = verified.claims();
    let (claim, wanted) = match path.trim_start_matches('/').split_once('/') {
        Some(("role", role)) => ("roles", role),
        Some(("scope", scope)) => ("scope", scope),
        _ => return Err(403),
    };
    let has = match claims.get(claim) {
        Some(Value::Array(all)) => all.iter().any(|one| one == wanted),
        Some(Value::String(all)) => all.split(' ').any(|one| one == wanted),
        _ => false,
    };
    let user = claims.get("sub").and_then(Value::as_str).ok_or(401u16)?;
    let plain = user.bytes().all(|byte| byte.is_ascii_graphic());
    if has && plain { Ok(user.to_owned()) } else { Err(403) }
}
