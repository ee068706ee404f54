//! The same attacks against HAProxy, nginx and Envoy, each set up as its own documents recommend
//! (`tests/support/peers`) for the same two policies.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::corpus::{Corpus, Policy};
use super::send::Over;
use super::{Lane, Tally, Target, Upstream, run_against};
use crate::peers::{Peer, Program, Use, checker};
use crate::run::Run;

/// How many instances of a peer are attacked at a time.
const LANES: usize = 3;

/// Attacks every peer that is installed; what came out, in words for the table.
pub fn compare(run: &mut Run, runtime: &Runtime, corpus: &Corpus) -> String {
    let mut words = Vec::new();
    for program in Program::ALL {
        let Some(version) = program.version() else {
            run.skip(format!("{} is not installed (tests/setup-peers.sh)", program.name()));
            continue;
        };
        let name = format!("{} {version}", program.name());
        let mut total = Tally::default();
        for policy in [Policy::P0, Policy::P1] {
            let (lanes, peers): (Vec<Lane>, Vec<Peer>) =
                (0..LANES).map(|_| start(program, policy, runtime, corpus)).unzip();
            protects(peers[0].address, policy, program, corpus);
            let target = Target {
                name: name.clone(),
                policy,
                lanes,
                guards: guards(program),
                tokens: true,
                exact: false,
                over: vec![Over::Plain],
                every_form: true,
            };
            total.add(run_against(runtime, &target, corpus, &mut |done, of| run.progress(&name, done, of)));
        }
        let (mut passed, mut tokens) = (Vec::new(), Vec::new());
        let mut by_kind = BTreeMap::<String, u64>::new();
        for (id, how) in &total.bypassed {
            match Kind::of(id, how) {
                Kind::Passed(reader) => {
                    *by_kind.entry(reader).or_default() += 1;
                    passed.push((id, how));
                }
                Kind::Token => tokens.push((id, how)),
                Kind::Harmless => {}
            }
        }
        let rows = |found: &[(&String, &String)]| {
            let mut rows = BTreeMap::<&str, u64>::new();
            for (id, _) in found {
                *rows.entry(id.split('/').next().unwrap()).or_default() += 1;
            }
            rows.iter().map(|(row, number)| format!("{row} {number}")).collect::<Vec<_>>().join(", ")
        };
        let kinds: Vec<String> = by_kind.iter().map(|(kind, number)| format!("{kind} {number}")).collect();
        run.count(&format!("{name}: cases"), total.cases);
        run.count(&format!("{name}: bypasses"), passed.len() as u64);
        run.count(&format!("{name}: tokens taken that a standard refuses"), tokens.len() as u64);
        run.measure(&format!("{name}: bypasses by who reads what arrived"), kinds.join(", "));
        run.measure(&format!("{name}: bypasses by row"), rows(&passed));
        run.measure(&format!("{name}: tokens by row"), rows(&tokens));
        std::fs::create_dir_all("target/proof").unwrap();
        let details: Vec<&str> = passed.iter().chain(&tokens).map(|(_, how)| how.as_str()).collect();
        std::fs::write(format!("target/proof/attacks-{}.txt", program.name()), details.join("\n")).unwrap();
        words.push(format!("{} {}", program.name(), passed.len()));
    }
    if !words.is_empty() {
        run.measure(
            "a bypass of a peer",
            "the app got a path that a server of the named kind reads as the closed one, or a header by which the \
             client is somebody else; each spelling is a case",
        );
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

/// One instance, with a recording upstream of its own.
fn start(program: Program, policy: Policy, runtime: &Runtime, corpus: &Corpus) -> (Lane, Peer) {
    let upstream = Arc::new(runtime.block_on(Upstream::start(0)));
    let checker = runtime.block_on(checker::start(&corpus.keys.pem));
    let peer = program.start(&Use {
        parts: &[policy.name()],
        upstream: upstream.address,
        checker: Some(checker),
        algorithm: "RS256",
        key: &corpus.keys.pem,
        jwks: &corpus.keys.jwks,
        admin: admin(policy),
    });
    (Lane { plain: peer.address, tls: None, upstream }, peer)
}

/// What a case that got through a peer is.
enum Kind {
    /// A bypass, and who reads what arrived.
    Passed(String),
    /// A token of the issuer's that a standard says to refuse: nobody who has none gets in by it.
    Token,
    /// Nothing that the peers' policies forbid, although Portcullis refuses it.
    Harmless,
}

impl Kind {
    fn of(id: &str, how: &str) -> Self {
        if ["G", "I", "A28", "C08", "C09"].iter().any(|row| id.starts_with(row)) {
            return Self::Token;
        }
        let (_, what) = how.split_once(" over Plain: ").unwrap_or(("", how));
        let what = what.lines().next().unwrap_or_default();
        if let Some((reader, path)) = what.split_once(" takes ") {
            // The root is closed to nobody by name.
            return if path.ends_with(" for /") { Self::Harmless } else { Self::Passed(reader.to_owned()) };
        }
        if let Some(path) = what.strip_suffix(" reached the upstream as it stands") {
            let is_closed = ["/admin", "/api/"].iter().any(|tree| path.starts_with(tree));
            return if is_closed { Self::Passed("any".to_owned()) } else { Self::Harmless };
        }
        if let Some((name, _)) = what.strip_prefix("the client's ").and_then(|what| what.split_once(": ")) {
            // Names that no program folds into others, and settings for an upgrade that does not come.
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let is_harmless = !plain || name.eq_ignore_ascii_case("http2-settings");
            return if is_harmless { Self::Harmless } else { Self::Passed("headers".to_owned()) };
        }
        Self::Passed("requests in a request".to_owned())
    }
}

/// The tree that is for admins alone.
const fn admin(policy: Policy) -> &'static str {
    match policy {
        Policy::P0 => "/api/admin",
        Policy::P1 | Policy::Options => "/admin",
    }
}

/// What a peer sets or removes, by its configuration.
fn guards(program: Program) -> Vec<String> {
    let own: &[&str] = match program {
        // Families, which nginx cannot name.
        Program::Haproxy | Program::Envoy => &["x-auth-*", "remote-*"],
        Program::Nginx => &[
            "x-auth-user",
            "x-auth-email",
            "x-auth-roles",
            "x-auth-scopes",
            "x-auth-permissions",
            "x-auth-issuer",
            "x-auth-method",
            "x-auth-session",
            "x-auth-anonymous",
            "remote-user",
            "remote-groups",
            "remote-name",
            "remote-email",
        ],
    };
    let all = [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "forwarded",
        "x-real-ip",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-forwarded-method",
        "x-forwarded-user",
        "x-forwarded-groups",
        "x-forwarded-email",
        "x-forwarded-server",
    ];
    own.iter().chain(&all).map(|name| (*name).to_owned()).collect()
}

/// Ends the run unless the peer does what its policy says in the plain cases: without that, bypasses would say nothing.
fn protects(address: SocketAddr, policy: Policy, program: Program, corpus: &Corpus) {
    let tree = admin(policy);
    for (target, credential, good) in [
        ("/public/x", "", &[200][..]),
        (tree, "", &[401, 403]),
        (&format!("{tree}/x"), "", &[401, 403]),
        (&format!("{tree}/x"), "Authorization: Bearer a.b.c\r\n", &[401, 403]),
        (&format!("{tree}/x"), "Authorization: Bearer {user}\r\n", &[401, 403]),
        (&format!("{tree}/x"), "Authorization: Bearer {admin}\r\n", &[200]),
        (tree, "Authorization: Bearer {admin}\r\n", &[200]),
    ] {
        let credential = corpus.keys.fill(credential);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: api.test\r\n{credential}Connection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
        assert!(good.contains(&status), "{} answers {status} to {target} under {}", program.name(), policy.name());
    }
}
