//! Whatever a common upstream takes a forwarded path to be, that reading's rule was satisfied too.
//!
//! Hostile targets go through the very functions the gateway uses; what an anonymous caller gets forwarded is
//! then read by twelve models of upstream path readers. No reading may be a protected path. Four kinds of
//! folding (letter case, suffix, path-info, trailing dot) cannot be seen in a request: there the app declares
//! `case: insensitive`, or `check` names the hole (P312).
#![expect(clippy::panic, reason = "a failure here is a failed test")]

mod support;

use std::sync::Arc;

use portcullis::clock::Timestamp;
use portcullis::diagnostic::{Code, Sources};
use portcullis::identity::Caller;
use portcullis::policy::set::PolicySet;

/// Default deny: everything but one tree needs something.
const P0: &str = "version: 1
upstream: http://127.0.0.1:9000
identity: { local: { preset: local, secret: env:SECRET_KEY, audience: items } }
roles: { admin: { can: \"*\" } }
routes:
  GET /public/**: public
  GET /api/items: { scope: items:read }
  POST /api/items: { scope: items:write }
  /api/admin/**: { role: admin }
";

/// The worst case: all open but one tree.
const P1: &str = "version: 1
upstream: http://127.0.0.1:9000
identity: { local: { preset: local, secret: env:SECRET_KEY, audience: items } }
roles: { admin: { can: \"*\" } }
routes:
  /**: public
  /admin/**: { role: admin }
";

/// A model of how an upstream reads a path.
type Reader = (&'static str, fn(&str) -> String);

/// Readings that the request itself decides.
const READERS: &[Reader] = &[
    ("RFC 3986 dot segments", |path| clean(path, false)),
    ("nginx: decode, merge slashes, resolve dots", |path| clean(&decode(path), true)),
    ("Tomcat: cut parameters, decode, resolve dots", |path| clean(&decode(&cut_parameters(path)), true)),
    ("Spring PathPattern: cut parameters, decode each segment", |path| decode(&cut_parameters(path))),
    ("Go path.Clean", |path| clean(&decode(path), true)),
    ("WSGI: decode", decode),
    ("double decoding", |path| clean(&decode(&decode(path)), true)),
    ("backslash is a slash", |path| clean(&decode(path).replace('\\', "/"), true)),
];

/// Readings that no request check can see.
const FOLDING_READERS: &[Reader] = &[
    ("IIS: backslash and letter case", |path| clean(&decode(path).replace('\\', "/"), true).to_ascii_lowercase()),
    ("Express: letter case and trailing slash", |path| decode(path).trim_end_matches('/').to_ascii_lowercase()),
    ("Rails: suffix", |path| {
        let path = decode(path);
        match path.rsplit_once('.') {
            Some((stem, suffix)) if !suffix.contains('/') => stem.to_owned(),
            _ => path,
        }
    }),
    ("Windows: trailing dots and blanks", |path| {
        decode(path).split('/').map(|segment| segment.trim_end_matches(['.', ' '])).collect::<Vec<_>>().join("/")
    }),
];

fn decode(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

fn cut_parameters(path: &str) -> String {
    path.split('/').map(|segment| segment.split(';').next().unwrap_or("")).collect::<Vec<_>>().join("/")
}

/// Resolves `.` and `..`, and merges slashes where asked to.
fn clean(path: &str, merge: bool) -> String {
    let mut out: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(out.pop()),
            "" if merge => {}
            _ => out.push(segment),
        }
    }
    format!("/{}", out.join("/"))
}

/// The path that an anonymous `GET target` is forwarded with, if it is.
fn forwarded(policy: &Arc<PolicySet>, target: &str) -> Option<String> {
    let permit =
        support::decide(policy, "GET", target, Caller::Anonymous, Timestamp::from_seconds(1_900_000_000)).ok()?;
    let target = permit.forwarded_target().ok()?;
    Some(target.split('?').next().unwrap_or("").to_owned())
}

/// Every target of up to `depth` pieces of the alphabet.
fn targets(pieces: &[&str], depth: usize) -> Vec<String> {
    let mut all = vec![String::from("/")];
    let mut last = all.clone();
    for _ in 0..depth {
        last = last.iter().flat_map(|start| pieces.iter().map(move |piece| format!("{start}{piece}"))).collect();
        all.extend(last.iter().cloned());
    }
    all
}

const PIECES: &[&str] = &[
    "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", ";", "%3b", "%25", "2e", "%00", "%20", "admin", "Admin",
    "%61dmin", "public", "api", "items", "x", ".json", "?", "#",
];

#[test]
fn no_anonymous_request_reaches_a_protected_path_under_any_reading() {
    let policies = [("P0", P0), ("P1", P1)].map(|(name, text)| (name, support::policy(text)));
    let targets = targets(PIECES, 4);
    let mut read = 0_u32;
    for (name, policy) in &policies {
        for target in &targets {
            let Some(path) = forwarded(policy, target) else { continue };
            for (reader, reading) in READERS {
                let seen = reading(&path);
                read += 1;
                assert!(
                    open(name, &seen),
                    "{name}: `{target}` is forwarded as `{path}`, which {reader} reads as `{seen}`"
                );
            }
        }
    }
    assert!(read > 100_000, "the generator reached only {read} readings");
}

/// Whether a reading of a path is one that the policy leaves open, said without the product's code.
fn open(policy: &str, path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    match policy {
        "P0" => segments.next() == Some("public"),
        _ => segments.next() != Some("admin"),
    }
}

#[test]
fn what_no_request_check_can_see_is_declared_or_named_by_check() {
    let targets = targets(PIECES, 3);
    let folding = support::policy(P1);
    let reached = |policy: &Arc<PolicySet>, reading: fn(&str) -> String| {
        targets.iter().filter_map(|target| forwarded(policy, target)).any(|path| !open("P1", &reading(&path)))
    };
    assert!(FOLDING_READERS.iter().any(|(_, reading)| reached(&folding, *reading)), "P1 has such holes");
    let mut sources = Sources::default();
    sources.add("policies/p1.yaml", P1);
    let (document, _) = portcullis::policy::read(&sources);
    let (_, diagnostics) = portcullis::policy::check(document, &sources, &portcullis::policy::Options::default());
    assert!(
        diagnostics.iter().any(|diagnostic| diagnostic.code == Code::P312),
        "and check names them: {diagnostics:?}"
    );

    let declared = support::policy(&P1.replace("routes:", "case: insensitive\nroutes:"));
    for (reader, reading) in FOLDING_READERS.iter().take(2) {
        assert!(!reached(&declared, *reading), "{reader} reaches the protected tree although the case is declared");
    }
}
