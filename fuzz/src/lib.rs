//! What reads bytes of the network or of a policy, each with what must hold of it whatever the bytes are.
//!
//! A target is a function of bytes that panics where something does not hold. `fuzz_targets/` gives each to libFuzzer;
//! `tests/prove/fuzz.rs` includes this file and replays the corpora, with mutations, as an ordinary test. Only the
//! library's public interface is used.

use std::borrow::Cow;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use portcullis::browser::return_to::return_to as checked_place;
use portcullis::browser::{Kept, Query, SealingKey};
use portcullis::cli::{Dotenv, UsersFrom, read_users};
use portcullis::clock::Timestamp;
use portcullis::config;
use portcullis::decision::facts::Environment;
use portcullis::decision::{Decision, Presented, Question, decide};
use portcullis::diagnostic::{Diagnostic, FileId, Sources, Span, json, text};
use portcullis::identity::claims::{Claims, Strict};
use portcullis::identity::credential::Credential;
use portcullis::identity::ssr::{self, Encoding, Held};
use portcullis::identity::{IssuerName, Transport};
use portcullis::login::form::Form;
use portcullis::openapi::{View, rewrite};
use portcullis::password::{PasswordHash, dummy, kind};
use portcullis::policy;
use portcullis::policy::document::{AppId, Source};
use portcullis::policy::references::References;
use portcullis::policy::set::{PolicySet, Revision};
use portcullis::provider::supabase::Session;
use portcullis::provider::{Discovery, Tokens, introspected};
use portcullis::random::SeededRandom;
use portcullis::request::Asked;
use portcullis::request::cookie;
use portcullis::request::forwarded::{ClientAddr, Origin, REMOVED, TrustedProxies};
use portcullis::request::framing::{self, Body};
use portcullis::request::head::RequestHead;
use portcullis::request::host::Host;
use portcullis::request::target::{CanonicalPath, Irregular, Target};
use portcullis::secret::Secret;
use portcullis::token::algorithm::{Algorithm, AlgorithmSet};
use portcullis::token::compact::Compact;
use portcullis::token::jwks::{self, Jwks};
use portcullis::token::key::{Key, KeySet};
use portcullis::token::mint::Minter;
use portcullis::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerRules, Verifier};
use serde_json::{Map, Value};

/// A target by its name.
pub type Named = (&'static str, fn(&[u8]));

/// All targets. Those that build a policy or a document at each input come last.
pub const TARGETS: &[Named] = &[
    ("request_target", request_target),
    ("host", host),
    ("credential", credential),
    ("cookies", cookies),
    ("ssr_session", ssr_session),
    ("forwarded", forwarded),
    ("request_head", request_head),
    ("header_edits", header_edits),
    ("decision", decision),
    ("token", token),
    ("claims", claims),
    ("jwks", jwks),
    ("pem", pem),
    ("discovery", discovery),
    ("provider_answer", provider_answer),
    ("login_form", login_form),
    ("return_to", return_to),
    ("query", query),
    ("sealed", sealed),
    ("password_hash", password_hash),
    ("dotenv", dotenv),
    ("user_import", user_import),
    ("settings", settings),
    ("openapi", openapi),
    ("policy", policy),
];

/// The time of every target.
const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const ISSUER: &str = "https://issuer.test";
const AUDIENCE: &str = "api";
const SECRET: &[u8] = b"a secret of the fuzz targets, longer than 64 bytes so that all hashes fit";

/// A policy with most of what a request can meet.
const POLICY: &str = "version: 1
upstream: http://127.0.0.1:9000
identity: { local: { preset: local, secret: env:SECRET, audience: api } }
roles: { admin: { can: \"*\" }, reader: {} }
headers: { X-Tenant: user.tenant }
routes:
  GET /public/**: public
  GET /open: optional
  /items/{id:int}: { scope: items:read }
  /items: { scope: items:read }
  /admin/**: { role: admin }
";

// === Requests ===

/// The request target: refused, or canonical, and then the same bytes are matched and forwarded.
pub fn request_target(data: &[u8]) {
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("api.test"))]);
    let Ok(target) = Target::parse(&RequestHead::new("GET", data, &headers)) else { return };
    let forwarded = target.forwarded();
    assert!(forwarded.starts_with('/') && forwarded.bytes().all(|byte| byte.is_ascii_graphic()), "{forwarded:?}");
    let again = Target::parse(&RequestHead::new("GET", forwarded, &headers)).expect("a canonical target is accepted");
    assert_eq!(again, target, "canonical once is canonical");
    let path = target.path();
    assert_eq!(target.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}")), forwarded);
    let alone = CanonicalPath::parse(path).expect("its path is accepted alone");
    assert_eq!((alone.as_str(), alone.irregular()), (path, target.irregular()));
    // Whoever joins the segments gets the path that was matched.
    let segments: Vec<&str> = target.segments().map(|segment| segment.encoded()).collect();
    let slash = if target.has_trailing_slash() || (path.ends_with("//") && path.len() == 2) { "/" } else { "" };
    assert_eq!(format!("/{}{slash}", segments.join("/")), path, "{segments:?}");
    for segment in target.segments() {
        let decoded = segment.decoded();
        assert_eq!(decoded.as_bytes(), percent_decoded(segment.encoded().as_bytes()));
        assert!(!decoded.chars().any(char::is_control) && !decoded.contains('\\'), "{decoded:?}");
        let parts = || decoded.split('/').flat_map(|part| [part, part.split(';').next().unwrap_or_default()]);
        assert!(!parts().any(|part| matches!(part, "." | "..")), "{path}");
        if target.irregular() == Irregular::NONE {
            assert!(!decoded.contains(['/', ';']) && !path.contains("//"), "{path}");
            let twice = percent_decoded(decoded.as_bytes());
            assert_eq!(twice, decoded.as_bytes(), "{path} decodes twice");
        }
    }
    if data.first() == Some(&b'/') {
        // Origin-form: nothing but spelling changes.
        let (path_sent, query_sent) = match data.iter().position(|byte| *byte == b'?') {
            Some(at) => (&data[..at], Some(&data[at + 1..])),
            None => (data, None),
        };
        assert_eq!(percent_decoded(path_sent), percent_decoded(path.as_bytes()));
        assert_eq!(query_sent, target.query().map(str::as_bytes));
    }
    for name in ["a", "token", ""] {
        let values: Vec<_> = target.query_values(name).collect();
        let one = target.query_value(name);
        assert_eq!(one.one().is_some(), values.len() == 1 && values[0].is_some());
    }
}

/// `Host` and `:authority`: lower-cased names and addresses, and nothing that other headers would take apart.
pub fn host(data: &[u8]) {
    let Ok(lines) = std::str::from_utf8(data) else { return };
    let (first, second) = lines.split_once('\n').unwrap_or((lines, ""));
    if let Ok(host) = Host::parse(first) {
        let name = host.as_str();
        assert_eq!(host.authority(), first);
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b)),
            "{name}"
        );
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()) && host.port() != Some(0));
        let again = Host::parse(name).expect("a canonical host is accepted");
        assert_eq!(again.as_str(), name);
        assert!(host.agrees_with(&host, true) && host.agrees_with(&host, false));
    }
    let Ok(value) = HeaderValue::from_bytes(first.as_bytes()) else { return };
    let headers = HeaderMap::from_iter([(http::header::HOST, value)]);
    let head = RequestHead::new("GET", "/", &headers).version(Version::HTTP_2).authority(second);
    if let Ok(host) = Host::of(&head) {
        let (one, other) = (Host::parse(first).expect("read above"), Host::parse(second).expect("read above"));
        assert!(one.agrees_with(&other, false) && host.as_str() == one.as_str());
    }
}

/// `Authorization` and cookies with tokens: at most one credential, and it was sent as it is.
pub fn credential(data: &[u8]) {
    let headers = header_lines(data);
    let cookie = cookie::find(&headers, "session").ok().flatten().map(Cow::Borrowed);
    let Ok(Some(found)) = Credential::single(&headers, cookie.clone()) else { return };
    let token = found.token();
    assert!(!token.is_empty());
    let authorizations: Vec<_> = headers.get_all(http::header::AUTHORIZATION).iter().collect();
    assert!(authorizations.len() <= 1, "several are none");
    match found.transport() {
        Transport::Bearer => {
            let sent = authorizations[0].to_str().expect("text");
            assert!(sent.len() > 7 && sent[..6].eq_ignore_ascii_case("bearer") && sent.ends_with(token), "{sent}");
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)), "{token}");
            let other = cookie.filter(|cookie| !cookie.is_empty());
            assert!(found.is_ignored() || other.is_none_or(|cookie| cookie == token), "two credentials");
        }
        Transport::Cookie => assert_eq!(Some(token), cookie.as_deref()),
        Transport::Session => panic!("no session was sent"),
    }
}

/// `Cookie`: one value of a name or none; what is removed is gone, and nothing else is.
pub fn cookies(data: &[u8]) {
    let headers = cookie_lines(data);
    let is_removed = |name: &[u8]| cookie::is_piece(name, "sid");
    let rest = cookie::without(&headers, is_removed);
    let left = HeaderMap::from_iter(rest.map(|value| (http::header::COOKIE, value)));
    assert_eq!(cookie::find(&left, "sid"), Ok(None));
    assert!(cookie::pieces(&left, "sid").is_empty());
    for name in ["keep", "a", "sid0"] {
        match cookie::find(&headers, name) {
            Ok(before) => assert_eq!(cookie::find(&left, name), Ok(before), "{name}"),
            Err(error) => assert_eq!(cookie::find(&left, name), Err(error)),
        }
    }
    let again = cookie::without(&left, is_removed);
    assert_eq!(again.as_ref(), left.get(http::header::COOKIE), "removed once is removed");
    for name in cookie::pieces(&headers, "sid") {
        assert!(cookie::is_piece(name.as_bytes(), "sid") && name.starts_with("sid"));
    }
    if let Ok(Some(value)) = cookie::find_in_pieces(&headers, "sid") {
        assert!(!value.is_empty() && value.len() <= 64 * 1024);
    }
}

/// Sessions of `@supabase/ssr` in cookies: read as they were written.
pub fn ssr_session(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Held::Session(session) = Held::read(Cow::Borrowed(text)) {
        let (json, access) = (session.json.expose(), session.access.expose());
        let value: Value = serde_json::from_str(json).expect("a session is JSON");
        assert_eq!(value.get("access_token").and_then(Value::as_str), Some(access.as_str()));
        for encoding in [Encoding::Base64Url, Encoding::Raw] {
            let written = written(json, encoding);
            let Ok(Some(whole)) = cookie::find_in_pieces(&written, "sid") else {
                assert!(json.len() > 12_000, "a written session is found");
                return;
            };
            let Held::Session(again) = Held::read(whole) else { panic!("a written session is read") };
            assert_eq!((again.encoding, again.access.expose()), (encoding, access));
            if encoding == Encoding::Base64Url {
                assert_eq!(again.json.expose(), json);
            }
        }
    }
}

fn written(json: &str, encoding: Encoding) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in ssr::cookies("sid", json, encoding) {
        assert!(value.len() <= 3180, "{} bytes", value.len());
        let pair = HeaderValue::try_from(format!("{name}={value}")).expect("a cookie can be sent");
        headers.append(http::header::COOKIE, pair);
    }
    headers
}

/// `X-Forwarded-*` and `Forwarded`: believed of trusted proxies alone. The first line lists them, the second is the peer.
pub fn forwarded(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (networks, peer) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let headers = header_lines(lines.next().unwrap_or_default().as_bytes());
    if let Some(address) = ClientAddr::parse(peer) {
        assert_eq!(ClientAddr::parse(&address.to_string()), Some(address), "an address is read as it is shown");
    }
    let Ok(trusted) = TrustedProxies::parse(networks.split(',').filter(|network| !network.is_empty())) else { return };
    let everyone = ["0.0.0.0", "255.255.255.255", "127.0.0.1", "::", "ffff::1", "8000::"];
    let addresses = everyone.iter().filter_map(|address| ClientAddr::parse(address));
    if networks.split(',').filter(|network| !network.is_empty()).count() <= 1 {
        assert!(!addresses.into_iter().all(|address| trusted.contains(address)), "{networks} trusts everyone");
    }
    let peer: IpAddr = peer.parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let own = Host::parse("api.test").expect("a host");
    let head = RequestHead::new("GET", "/", &headers).peer(peer);
    let origin = Origin::of(&head, &own, &trusted);
    let peer = ClientAddr::new(peer);
    if !trusted.contains(peer) {
        assert!(origin.client() == peer && !origin.is_secure() && origin.host().as_str() == "api.test");
    }
    let written = origin.headers();
    for (name, value) in &written {
        assert!(REMOVED.contains(&name.as_str()) || name == "x-real-ip", "{name} would not be removed first");
        assert!(value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~')));
    }
    let value = |name: &str| written.iter().find(|(own, _)| own == name).and_then(|(_, value)| value.to_str().ok());
    let chain = value("x-forwarded-for").expect("a chain");
    assert_eq!(ClientAddr::parse(chain.split(',').next().unwrap_or_default()), Some(origin.client()));
    // The chain read again by a proxy that trusts the same ends at the same client.
    let told = HeaderMap::from_iter(written.iter().cloned());
    if trusted.contains(peer) {
        let head = RequestHead::new("GET", "/", &told).peer(peer.ip());
        assert_eq!(Origin::of(&head, &own, &trusted).client(), origin.client());
    }
}

/// The head as it came: accepted only where every parser frames it alike.
pub fn request_head(data: &[u8]) {
    let (method, target, headers) = taken_apart(data);
    for version in [Version::HTTP_11, Version::HTTP_10] {
        let head = RequestHead::new(method, target, &headers).raw(data).version(version);
        let Ok(body) = framing::check(&head) else { continue };
        // A plain second reading.
        let whole = std::str::from_utf8(data).map_or_else(|_| String::from_utf8_lossy(data), Cow::Borrowed);
        assert!(whole.ends_with("\r\n\r\n"));
        assert_eq!(whole.matches('\n').count(), whole.matches("\r\n").count(), "bare LF");
        assert_eq!(whole.matches('\r').count(), whole.matches("\r\n").count(), "bare CR");
        let lines: Vec<&str> =
            whole.trim_start_matches("\r\n").trim_end_matches("\r\n").split("\r\n").skip(1).collect();
        let values = |name: &str| -> Vec<String> {
            let pairs = lines.iter().filter_map(|line| line.split_once(':'));
            pairs.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
        };
        for line in &lines {
            let (name, _) = line.split_once(':').expect("a colon in every line");
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()), "{name:?}");
        }
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        match body {
            Body::None => assert!(lengths.is_empty() && codings.is_empty()),
            Body::Length(length) => assert_eq!((lengths, codings), (vec![lengths_as_sent(data, length)], Vec::new())),
            Body::Chunked => assert_eq!((lengths.len(), codings), (0, vec!["chunked".to_owned()])),
            Body::Stream => panic!("not of this version"),
        }
        assert!(matches!(body, Body::Length(length) if length > 5) == body.within(5).is_err());
    }
    // Without the raw head, as of HTTP/2.
    let head = RequestHead::new(method, target, &headers).version(Version::HTTP_2);
    if let Ok(body) = framing::check(&head) {
        assert!(body != Body::Chunked && headers.get_all("content-length").iter().count() <= 1);
    }
    let _ = Asked::parse(&RequestHead::new(method, target, &headers).raw(data));
}

/// A length with the zeros it was sent with.
fn lengths_as_sent(data: &[u8], length: u64) -> String {
    let text = String::from_utf8_lossy(data).to_ascii_lowercase();
    let sent = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or_default();
    assert_eq!(sent.trim().parse(), Ok(length));
    sent.trim().to_owned()
}

/// Header fields on their way upstream: nothing of ours that the client wrote is left, in any spelling.
pub fn header_edits(data: &[u8]) {
    let mut headers = header_lines(data);
    headers.insert(http::header::HOST, HeaderValue::from_static("api.test"));
    let head = RequestHead::new("GET", "/open", &headers);
    let Decision::Allow(allowed) = decide(&question(&head)) else { return };
    let (_, edits) = &*allowed;
    let mut sent = headers.clone();
    edits.apply(&mut sent);
    let ours: HeaderMap = edits.request().iter().cloned().collect();
    let marks = |name: &str| name.replace(|mark: char| !mark.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
    for name in sent.keys() {
        let is_ours = OURS.iter().any(|own| marks(name.as_str()) == marks(own));
        assert!(!is_ours || ours.contains_key(name), "{name} came through");
    }
    for (name, value) in &ours {
        assert!(sent.get_all(name).iter().eq([value]), "{name}");
    }
    let mut twice = sent.clone();
    edits.apply(&mut twice);
    assert_eq!(twice, sent, "applied twice is applied once");
    let before = headers.iter().filter(|(name, _)| sent.contains_key(*name) && !ours.contains_key(*name));
    for (name, value) in before {
        assert!(sent.get_all(name).iter().any(|kept| kept == value), "{name} was changed");
    }
}

/// What the policy of the targets sends, and names of presets that it does not use.
const OURS: &[&str] = &[
    "X-Auth-User",
    "X-Auth-Email",
    "X-Auth-Roles",
    "X-Auth-Scopes",
    "X-Auth-Permissions",
    "X-Auth-Issuer",
    "X-Auth-Method",
    "X-Auth-Session",
    "X-Auth-Anonymous",
    "X-Tenant",
    "Remote-User",
    "X-Forwarded-User",
    "X-Auth-Request-User",
    "X-Hasura-Role",
];

/// A whole decision about a raw head, as nobody: what is let through is public, and goes on as it was matched.
pub fn decision(data: &[u8]) {
    let (method, target, headers) = taken_apart(data);
    let head = RequestHead::new(method, target, &headers).raw(data);
    let Decision::Allow(allowed) = decide(&question(&head)) else { return };
    let (permit, _) = &*allowed;
    let sent = permit.forwarded_target().expect("checked by the decision");
    assert_eq!(sent, permit.target().forwarded(), "matched is forwarded");
    let path = sent.split('?').next().unwrap_or_default();
    // However often it is decoded, and whatever is cut off.
    let mut read = path.to_owned();
    for _ in 0..3 {
        let is_open = ["/public", "/open"].iter().any(|open| read.starts_with(open));
        assert!(is_open && !read.contains("/../") && !read.ends_with("/.."), "{read} of {sent}");
        read = String::from_utf8_lossy(&percent_decoded(read.as_bytes())).into_owned();
    }
}

// === Tokens ===

/// A token: accepted only where we signed these bytes.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys = keys();
    if let Ok(compact) = Compact::parse(text) {
        let signature = URL_SAFE_NO_PAD.encode(compact.signature());
        let signed = std::str::from_utf8(compact.signed()).expect("ASCII");
        assert_eq!(format!("{signed}.{signature}"), text, "one token has one spelling");
        if let Ok(payload) = compact.payload() {
            assert!(signed.ends_with(&URL_SAFE_NO_PAD.encode(&payload)));
        }
    }
    if let Ok(verified) = keys.verifier.verify(text, NOW) {
        // ECDSA has many signatures for one text, of which nobody but us can make any.
        let signed = text.rsplit_once('.').map(|(signed, _)| signed);
        let known = keys.tokens.iter().find(|token| token.rsplit_once('.').map(|(signed, _)| signed) == signed);
        assert!(known.is_some(), "accepted a token that nobody signed");
        assert_eq!(verified.claims().get("sub").and_then(Value::as_str), Some("ada"));
    }
    let _ = keys.verifier.named(text);
    let _ = keys.verifier.vouched(text);
}

/// Claims below a good signature: strict JSON, and those of the rules.
pub fn claims(data: &[u8]) {
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(data));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    match Claims::parse(data) {
        Ok(claims) => {
            // What our strict pass reads is what the usual reader reads: one meaning.
            let plain: Map<String, Value> = serde_json::from_slice(data).expect("strict JSON is JSON");
            assert_eq!(plain, Strict::object(data).expect("read above"));
            assert!(claims.iter().count() == plain.len());
        }
        Err(_) => assert!(hs256().verify(&token, NOW).is_err()),
    }
    let Ok(verified) = hs256().verify(&token, NOW) else { return };
    let claims = verified.claims();
    assert_eq!(claims.get("iss").and_then(Value::as_str), Some(ISSUER));
    let is_ours = |audience: &Value| audience.as_str() == Some(AUDIENCE);
    let audience = claims.get("aud").expect("an audience");
    assert!(is_ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_ours)));
    let expires = verified.expires().expect("an end");
    assert!(expires.plus(portcullis::token::verify::DEFAULT_LEEWAY) > NOW);
    assert!(claims.get("exp").is_some_and(Value::is_number));
    for transport in [Transport::Bearer, Transport::Cookie] {
        let _ = verified.identity(transport);
    }
}

/// Key sets: secrets come of no publisher, names are unique, and a key that is shown is the key that was read.
pub fn jwks(data: &[u8]) {
    for origin in [jwks::Origin::Local, jwks::Origin::Published] {
        for algorithms in [AlgorithmSet::default(), AlgorithmSet::of(&[Algorithm::RS256, Algorithm::ES256])] {
            let Ok(read) = Jwks::parse(data, origin, algorithms) else { continue };
            let mut names = Vec::new();
            for key in read.keys.iter() {
                assert!(!key.algorithms().is_empty(), "a key for nothing");
                let symmetric = key.algorithms().iter().any(Algorithm::is_symmetric);
                assert!(!(symmetric && origin == jwks::Origin::Published), "a secret was published");
                assert!(!(symmetric && key.to_jwk().is_some()), "a secret is shown");
                names.extend(key.kid().cloned());
                shown_again(key);
            }
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "one name, two keys");
        }
    }
}

fn shown_again(key: &Key) {
    let Some(shown) = key.to_jwk() else { return };
    let text = serde_json::to_vec(&shown).expect("JSON");
    let again = Jwks::parse(&text, jwks::Origin::Published, AlgorithmSet::default()).expect("a shown key is read");
    let again = again.keys.iter().next().expect("a key").thumbprint();
    assert_eq!(again, key.thumbprint());
}

/// PEM: a public key or a private one, never both, and always the same.
pub fn pem(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = Key::from_pem(text, AlgorithmSet::default(), None) {
        assert!(!key.algorithms().iter().any(Algorithm::is_symmetric), "a public key that is a secret");
        shown_again(&key);
    }
    if let Ok(minter) = Minter::from_pem(text, None) {
        assert!(Key::from_pem(text, AlgorithmSet::default(), None).is_err(), "a private key taken for a public one");
        let claims = Map::from_iter([("sub".to_owned(), Value::from("ada"))]);
        if let Ok(token) = minter.mint(&claims, None, None) {
            let keys = KeySet::from(minter.verifying_key());
            let compact = Compact::parse(&token).expect("ours");
            assert!(keys.verify(&compact, keys.algorithms()).is_ok(), "a key verifies what it signs");
        }
    }
    let _ = Key::from_secret(data, AlgorithmSet::of(&[Algorithm::HS256]), None);
}

// === Providers and logins ===

/// Discovery documents: of their issuer, and leading nowhere that they may not.
pub fn discovery(data: &[u8]) {
    let Ok(found) = Discovery::parse(ISSUER, data) else { return };
    assert_eq!(&*found.issuer, ISSUER);
    if let Some(keys) = &found.jwks_uri {
        let keys = keys.to_ascii_lowercase(); // as scheme and host are compared
        let rest = keys.strip_prefix("https://issuer.test").expect("keys are at home");
        assert!(rest.is_empty() || rest.starts_with(['/', ':', '?']), "{keys}");
    }
    for endpoint in [&found.authorization_endpoint, &found.token_endpoint, &found.end_session_endpoint] {
        let Some(endpoint) = endpoint else { continue };
        assert!(endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")), "{endpoint}");
        let host = endpoint[8..].split(['/', '?', '#']).next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _port)| name).trim_matches(['[', ']']);
        assert!(
            !host.contains(['@', '\\']) && name.parse::<IpAddr>().is_err() && !name.eq_ignore_ascii_case("localhost"),
            "{endpoint}"
        );
    }
}

/// Answers of token endpoints, of introspection and of Supabase.
pub fn provider_answer(data: &[u8]) {
    if let Ok(tokens) = Tokens::parse(data) {
        for token in [Some(&tokens.access), tokens.refresh.as_ref(), tokens.id.as_ref()].into_iter().flatten() {
            let token = token.expose();
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        assert!(tokens.expires_in.is_none_or(|life| life.as_secs() <= 3_200_000_000));
    }
    if let Ok(session) = Session::parse(data) {
        assert_eq!(session.json.expose().as_bytes(), data);
    }
    if let Ok(Some(claims)) = introspected(data) {
        assert_eq!(claims.get("active"), Some(&Value::Bool(true)));
        if let Ok(verified) = hs256().introspected(&IssuerName::new("hs256"), &claims, NOW) {
            assert!(claims.get("iss").is_none_or(|issuer| issuer.as_str() == Some(ISSUER)));
            assert!(verified.expires().is_some() && verified.algorithm().is_none());
        }
    }
}

/// Bodies of the login: the first line is the content type. Each field once, and without NUL.
pub fn login_form(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(at);
    let body = Bytes::copy_from_slice(body.get(1..).unwrap_or_default());
    let Ok(kind) = std::str::from_utf8(kind) else { return };
    let peeked = ready(Form::peek(Some(kind), &body));
    let Ok(form) = ready(Form::parse(Some(kind), None, body)) else { return };
    let names = ["grant_type", "username", "password", "scope", "refresh_token", "token", "client_id", "email", "all"];
    let mut rendered = Vec::new();
    for name in names {
        assert_eq!(form.get(name), peeked.get(name), "looked at is read");
        let Some(value) = form.get(name) else { continue };
        assert!(!value.is_empty() && !value.contains('\0'));
        let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        rendered.push(format!("{name}={escaped}"));
    }
    let plain = Some("application/x-www-form-urlencoded");
    let again = ready(Form::parse(plain, None, Bytes::from(rendered.join("&"))));
    if let Ok(again) = again {
        names.iter().for_each(|name| assert_eq!(again.get(name), form.get(name)));
    }
    let _ = form.account();
    if let Ok(scopes) = form.scopes() {
        assert!(scopes.iter().all(|scope| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic())));
    }
}

/// Where a login ends: a path of the same origin for every reader.
pub fn return_to(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(place) = checked_place(text) else { return };
    assert_eq!(place, text);
    let end = place.find(['?', '#']).unwrap_or(place.len());
    let mut path = place[..end].to_owned();
    for _ in 0..3 {
        assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains("//"), "{place}");
        assert!(!path.contains(['\\', ';']) && !path.chars().any(|c| c.is_control()), "{place}");
        assert!(path.split('/').all(|segment| !matches!(segment, "." | "..")), "{place}");
        path = String::from_utf8(percent_decoded(path.as_bytes())).expect("UTF-8");
    }
    assert!(place.bytes().all(|byte| byte.is_ascii_graphic()));
}

/// Queries of the way back from a provider: each parameter once.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(query) = Query::parse(Some(text)) else { return };
    for name in ["code", "state", "iss", "error"] {
        let Some(value) = query.get(name) else { continue };
        let escaped: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let again = Query::parse(Some(&format!("{name}={escaped}")));
        assert!(escaped.len() > 8000 || again.is_ok_and(|again| again.get(name) == Some(value)));
        let target = HeaderValue::try_from(format!("/?{text}"));
        let read = target.ok().and_then(|target| {
            let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("api.test"))]);
            let target = Target::parse(&RequestHead::new("GET", target.as_bytes(), &headers)).ok()?;
            Some(target.query_value(name).one()?.into_owned())
        });
        assert!(read.is_none_or(|read| read == value), "two readers of one query agree");
    }
}

/// Sealed cookies and sessions: nothing opens but what was sealed, for what it was sealed for.
pub fn sealed(data: &[u8]) {
    static KEY: OnceLock<SealingKey> = OnceLock::new();
    let key = KEY.get_or_init(|| SealingKey::derive(SECRET).expect("a key"));
    assert!(key.open(b"session", data).is_none(), "opened what nobody sealed");
    let sealed = key.seal(b"session", data, &SeededRandom::new(7)).expect("sealed");
    assert_eq!(key.open(b"session", &sealed).as_deref().map(Vec::as_slice), Some(data));
    assert!(key.open(b"other", &sealed).is_none(), "opened for something else");
    let at = data.iter().fold(0_usize, |at, byte| at.wrapping_mul(31).wrapping_add(usize::from(*byte))) % sealed.len();
    let mut changed = sealed.clone();
    changed[at] ^= 1 << (data.len() % 8);
    assert!(key.open(b"session", &changed).is_none(), "opened although changed at {at}");
    assert!(key.open(b"session", &sealed[..at]).is_none());
    if let Some(kept) = Kept::read(data) {
        assert_eq!(&*kept.write(), data, "kept as it is read");
    }
}

/// Stored password hashes: whatever checking one costs is bounded before it begins.
pub fn password_hash(data: &[u8]) {
    let Ok(stored) = std::str::from_utf8(data) else { return };
    let Ok(hash) = PasswordHash::parse(stored) else {
        assert_eq!(kind(stored), "unknown");
        return;
    };
    let kind = kind(stored);
    let dummy = dummy(&kind);
    let stand_in = PasswordHash::parse(&dummy).expect("a hash of no password");
    assert_eq!(stand_in.format(), hash.format(), "{kind}");
    assert!(stored.len() <= 1024 && !format!("{hash:?}").contains(stored));
    let number = |name: &str| -> Option<u64> {
        let rest = stored.split(name).nth(1)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let format = hash.format();
    if format.starts_with("argon2") {
        let (memory, passes, lanes) = (number("$m=").or_else(|| number(",m=")), number(",t="), number(",p="));
        assert!(memory.is_some_and(|m| m <= 256 * 1024) && passes.is_some_and(|t| t <= 20), "{stored}");
        assert!(lanes.is_some_and(|p| p <= 16), "{stored}");
    }
    if let Some(rounds) = number("rounds=").filter(|_| stored.starts_with(['$'])) {
        assert!(rounds <= 1_000_000, "{stored}");
    }
    if format.contains("pbkdf2") {
        let rounds = stored.split(['$', ':']).filter_map(|part| part.parse::<u64>().ok()).next();
        assert!(rounds.is_some_and(|rounds| rounds <= 5_000_000), "{stored}");
    }
    if let Some(cost) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| number(prefix))
        && format.contains("bcrypt")
    {
        assert!(cost <= 15, "{stored}");
    }
}

// === Files ===

/// `.env`: what there is to say about a line never says its value.
pub fn dotenv(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = Dotenv::parse(text);
    assert!(read.variables.len() + read.notes.len() <= text.lines().count() * 2 + 1);
    for (name, value) in &read.variables {
        let last = read.get(name).expect("a name that was read");
        assert!(!name.is_empty());
        // A word that is none of ours.
        let value = value.expose();
        let is_word = value.len() > 15 && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let shown = |note: &String| is_word && !name.contains(value.as_str()) && note.contains(value.as_str());
        assert!(!read.notes.iter().any(shown), "a note shows a value");
        assert!(read.variables.iter().any(|(other, value)| other == name && value.expose() == last));
    }
}

/// Exports of users: every row is a user, is left out, or is named as bad with its line.
pub fn user_import(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let from = [
        None,
        Some(UsersFrom::Csv),
        Some(UsersFrom::Json),
        Some(UsersFrom::Django),
        Some(UsersFrom::Supabase),
        Some(UsersFrom::Fastapi),
        Some(UsersFrom::Auth0),
    ];
    let lines = text.split(['\n', '\r']).count();
    for from in from {
        let Ok(reading) = read_users(text, from, NOW) else { continue };
        for record in &reading.records {
            assert!((1..=lines).contains(&record.line), "line {} of {lines}", record.line);
            assert!(!record.name.is_empty() || record.email.is_some());
        }
        for bad in &reading.bad {
            assert!(bad.line <= lines && !bad.why.is_empty(), "{bad:?} of {lines}");
        }
    }
}

/// `portcullis.yaml` and the environment: settings, or every mistake with its place.
pub fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment: config::Environment = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for given in [
        config::Settings { file: Some(("portcullis.yaml", text)), ..config::Settings::default() },
        config::Settings { environment: Some(&environment), ..config::Settings::default() },
    ] {
        let (read, diagnostics, sources) = config::read(given);
        assert_eq!(read.is_none(), diagnostics.iter().any(Diagnostic::is_error), "{diagnostics:?}");
        shown(&diagnostics, &sources);
        if let Some(config) = read {
            let all = ["0.0.0.0", "255.255.255.255", "10.0.0.1", "::", "ffff::1", "8000::1"];
            let everyone = all.iter().filter_map(|address| ClientAddr::parse(address));
            assert!(
                text.matches(',').count() > 1 || !everyone.into_iter().all(|one| config.trusted_proxies.contains(one))
            );
            assert!((0.0..=1.0).contains(&config.log.sample.allow) && (0.0..=1.0).contains(&config.log.sample.deny));
        }
    }
}

/// OpenAPI documents: what is shown is served, and what was said about security elsewhere is gone.
pub fn openapi(data: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(data) else { return };
    let view = View { policy: policy_set(), app: AppId(0), host: "api.test" };
    let Ok(shown) = rewrite(document, view) else { return };
    assert!(shown.get("servers").is_none() && shown.get("security").is_none());
    assert!(shown.pointer("/components/securitySchemes").is_some_and(Value::is_object));
    let paths = shown.get("paths").and_then(Value::as_object);
    for (path, item) in paths.into_iter().flatten().filter(|(path, _)| !path.starts_with("x-")) {
        let served =
            ["/public", "/open", "/items", "/admin"].iter().any(|open| path.starts_with(open)) || path.contains('{');
        assert!(served, "{path} is not served");
        assert!(item.get("servers").is_none() && item.get("trace").is_none(), "{path}");
    }
}

/// Policies: a document, checked and compiled, or every mistake with its place. No panic, and no stall.
pub fn policy(data: &[u8]) {
    let (sources, document, mut diagnostics) = policy::read_bytes(&[("a.yaml".to_owned(), data.to_vec())]);
    let mut references = References::none();
    for reference in document.references() {
        references = match &reference.value {
            Source::Env(name) => {
                references.with_env(name, Secret::new("https://a.example/0123456789abcdef".to_owned()))
            }
            Source::File(path) => references.with_file(FileId(0), path, b"0123456789abcdef0123456789abcdef".to_vec()),
            Source::Literal(_) => references,
        };
    }
    let (checked, found) = policy::check(document, &sources, &policy::Options::default());
    diagnostics.extend(found);
    shown(&diagnostics, &sources);
    assert_eq!(checked.is_none(), diagnostics.iter().any(Diagnostic::is_error), "{diagnostics:?}");
    let Some(checked) = checked else { return };
    let candidate = match policy::compile::compile(&checked, &sources, &references, Revision::of(&sources)) {
        Ok(candidate) => candidate,
        Err(found) => {
            assert!(!found.is_empty());
            return shown(&found, &sources);
        }
    };
    // Nobody comes to what asks for somebody.
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("api.test"))]);
    for target in ["/", "/a", "/public/a", "/items/1", "/api/v1/items", "/%C3%A4/"] {
        for method in ["GET", "POST", "DELETE"] {
            let head = RequestHead::new(method, target, &headers);
            let asked = Question { policy: candidate.policy(), ..question(&head) };
            if let Decision::Allow(allowed) = decide(&asked) {
                let access = allowed.0.route().access;
                let open = matches!(access, policy::document::Access::Public | policy::document::Access::Optional);
                assert!(open, "{method} {target} of {access:?} by nobody");
            }
        }
    }
}

/// Every place is within the text, and every form of output can be made.
fn shown(diagnostics: &[Diagnostic], sources: &Sources) {
    for found in diagnostics {
        let edits = found.fixes.iter().flat_map(|fix| &fix.edits).map(|edit| edit.span);
        let spans = found.secondary.iter().map(|label| label.span).chain(edits);
        for Span { file, start, end } in spans.chain([found.primary.span]) {
            let Some(source) = sources.get(file) else { continue };
            assert!(source.text.get(start as usize..end as usize).is_some(), "{start}..{end} in {:?}", source.text);
        }
        assert!(!found.message.is_empty() && !found.message.contains(char::is_control), "{found:?}");
    }
    let _ = text::render(diagnostics, sources, false);
    let _ = json::render(diagnostics, sources);
}

// === What targets share ===

fn question<'q>(head: &'q RequestHead<'q>) -> Question<'q> {
    Question {
        policy: policy_set(),
        head,
        client: ClientAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        country: None,
        presented: Presented::Nothing,
        now: NOW,
        environment: Environment::Resolved,
    }
}

fn policy_set() -> &'static Arc<PolicySet> {
    static SET: OnceLock<Arc<PolicySet>> = OnceLock::new();
    SET.get_or_init(|| {
        let (sources, document, found) = policy::read_bytes(&[("a.yaml".to_owned(), POLICY.into())]);
        let (checked, more) = policy::check(document, &sources, &policy::Options::default());
        let checked = checked.unwrap_or_else(|| panic!("{found:#?} {more:#?}"));
        let secret = Secret::new(String::from_utf8_lossy(SECRET).into_owned());
        let references = References::none().with_env("SECRET", secret);
        let set = policy::compile::compile(&checked, &sources, &references, Revision::of(&sources));
        Arc::clone(set.unwrap_or_else(|found| panic!("{found:#?}")).policy())
    })
}

struct Keys {
    verifier: Verifier,
    /// One of each key, which seeds begin from.
    tokens: Vec<String>,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let seed = [7; 32];
        let minters = [
            Minter::from_secret(SECRET, Algorithm::HS256),
            Minter::generate(Algorithm::ES256, &seed).map(|(minter, _)| minter),
            Minter::generate(Algorithm::EdDSA, &seed).map(|(minter, _)| minter),
        ];
        let minters = minters.map(|minter| minter.expect("a minter"));
        let issuer = |algorithm: Algorithm| format!("https://{}.test", algorithm.as_str().to_ascii_lowercase());
        let rules = minters.iter().map(|minter| {
            let name = minter.algorithm().as_str().to_ascii_lowercase();
            let issuer = ExpectedIssuer::Exact(issuer(minter.algorithm()).into());
            let audience = ExpectedAudience::OneOf(vec![AUDIENCE.into()]);
            IssuerRules::new(IssuerName::new(&name), issuer, audience, KeySet::from(minter.verifying_key()))
        });
        let tokens = minters.iter().map(|minter| {
            let claims = serde_json::json!({ "iss": issuer(minter.algorithm()), "aud": AUDIENCE, "sub": "ada", "exp": 4_000_000_000_u64 });
            minter.mint(claims.as_object().expect("an object"), None, Some("JWT")).expect("a token")
        });
        Keys { verifier: Verifier::new(rules.collect()).expect("three issuers"), tokens: tokens.collect() }
    })
}

/// Tokens that the target `token` accepts: what its mutations begin from.
pub fn good_tokens() -> &'static [String] {
    &keys().tokens
}

fn hs256() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let key = Key::from_secret(SECRET, AlgorithmSet::of(&[Algorithm::HS256]), None).expect("a key");
        let (issuer, audience) = (ExpectedIssuer::Exact(ISSUER.into()), ExpectedAudience::OneOf(vec![AUDIENCE.into()]));
        let rules = IssuerRules::new(IssuerName::new("hs256"), issuer, audience, KeySet::from(key));
        Verifier::new(vec![rules]).expect("one issuer")
    })
}

/// Lines `Name: value` as header fields; what cannot be one is left out, as the HTTP library would refuse it.
fn header_lines(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            let _ = headers.try_append(name, value);
        }
    }
    headers
}

/// Each line as one `Cookie` field.
fn cookie_lines(data: &[u8]) -> HeaderMap {
    let values = data.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(http::header::COOKIE, value);
    }
    headers
}

/// Method, target and header fields of a raw head, read leniently.
fn taken_apart(data: &[u8]) -> (&str, &[u8], HeaderMap) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().and_then(|method| std::str::from_utf8(method).ok()).unwrap_or("GET");
    (method, words.next().unwrap_or_default(), header_lines(rest))
}

/// Every escape decoded once; a broken one stays.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match tail {
            [high, low, after @ ..] if byte == b'%' && digit(*high).is_some() && digit(*low).is_some() => {
                decoded.push(digit(*high).unwrap_or(0) << 4 | digit(*low).unwrap_or(0));
                rest = after;
            }
            _ => decoded.push(byte),
        }
    }
    decoded
}

/// What a future gives that waits for nothing.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it waits for ever");
}
