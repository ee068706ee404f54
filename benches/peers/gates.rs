//! The gateways, each in processes of its own with one worker thread, set up for the same work.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::client::{self, Upstream};
use crate::gate::{self, Gate, Site};
use crate::peers::{AUDIENCE, ISSUER, Peer, Program, Use};
use crate::servers::family;
use crate::tokens::{Issuer, request, sub};

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bare,
    Portcullis,
    /// With its decision log as by default, which the others have no counterpart of.
    PortcullisLogged,
    Haproxy,
    Envoy,
    /// Without its cache of verified tokens.
    EnvoyUncached,
    /// Without any check of tokens.
    Nginx,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Bare,
        Self::Portcullis,
        Self::PortcullisLogged,
        Self::Haproxy,
        Self::Envoy,
        Self::EnvoyUncached,
        Self::Nginx,
    ];

    /// Its name in the record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Portcullis => "portcullis",
            Self::PortcullisLogged => "portcullis_logged",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::EnvoyUncached => "envoy_uncached",
            Self::Nginx => "nginx",
        }
    }

    const fn program(self) -> Option<Program> {
        match self {
            Self::Haproxy => Some(Program::Haproxy),
            Self::Envoy | Self::EnvoyUncached => Some(Program::Envoy),
            Self::Nginx => Some(Program::Nginx),
            Self::Bare | Self::Portcullis | Self::PortcullisLogged => None,
        }
    }

    /// Whether it is installed here.
    pub fn is_here(self) -> bool {
        self.program().is_none_or(|program| program.path().is_some())
    }

    /// Whether it checks tokens at all.
    pub const fn checks(self) -> bool {
        !matches!(self, Self::Bare | Self::Nginx)
    }

    pub fn start(self, issuer: &Issuer, upstream: SocketAddr) -> Running {
        let (process, address) = match self {
            Self::Bare => Bare::start(upstream),
            Self::Portcullis | Self::PortcullisLogged => {
                let site =
                    site(issuer, upstream, self == Self::PortcullisLogged, ROUTES).env("TOKIO_WORKER_THREADS", "1");
                let gate = site.start();
                let address = gate.address;
                (Process::Portcullis(gate, site), address)
            }
            Self::Haproxy | Self::Envoy | Self::EnvoyUncached | Self::Nginx => {
                let peer = self.program().unwrap().start(&Use {
                    parts: if self == Self::Envoy { &["bench", "cache"] } else { &["bench"] },
                    upstream,
                    checker: None,
                    algorithm: issuer.name(),
                    key: &issuer.key,
                    jwks: &issuer.jwks,
                    admin: "/admin",
                });
                let address = peer.address;
                (Process::Peer(peer), address)
            }
        };
        Running { kind: self, address, process }
    }
}

/// The routes of Portcullis in the comparison.
const ROUTES: &str = "  GET /v1/items/{id:int}: { scope: items:read }
  GET /v1/items: { scope: items:read }
  GET /v1/public/**: public
";

/// A folder for Portcullis as an operator would write it.
pub fn site(issuer: &Issuer, upstream: SocketAddr, logged: bool, routes: &str) -> Site {
    let key = issuer.portcullis();
    let policy = format!(
        "version: 1\nupstream: http://{upstream}\ndefaults: {{ forward_token: false }}\nidentity:\n  bench: {{ preset: jwt, {key}, issuer: {ISSUER}, audience: \
         {AUDIENCE} }}\nroles: {{ reader: {{}} }}\nroutes:\n{routes}"
    );
    let site = Site::new(&policy).env("KEY", &issuer.key);
    let log = if logged { "" } else { "log: { decisions: none }\n" };
    site.write("portcullis.yaml", format!("listen: 127.0.0.1:0\nadmin: {{ listen: 127.0.0.1:0 }}\n{log}"));
    site
}

/// One that runs.
pub struct Running {
    pub kind: Kind,
    pub address: SocketAddr,
    process: Process,
}

enum Process {
    Bare(Bare),
    Portcullis(Gate, #[expect(dead_code, reason = "the folder lives as long as the program in it")] Site),
    Peer(Peer),
}

/// The bench itself, started again as a bare Pingora.
struct Bare(Child);

impl Bare {
    fn start(upstream: SocketAddr) -> (Process, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listen = listener.local_addr().unwrap();
        drop(listener);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["bare", &listen.to_string(), &upstream.to_string()]).stdin(Stdio::piped());
        let bare = Self(command.spawn().unwrap());
        let deadline = std::time::Instant::now() + gate::PATIENCE;
        while std::net::TcpStream::connect(listen).is_err() {
            assert!(std::time::Instant::now() < deadline, "bare Pingora does not listen");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        (Process::Bare(bare), listen)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Bare(bare) => bare.0.id(),
            Process::Portcullis(gate, _) => gate.pid(),
            Process::Peer(peer) => peer.pid(),
        }
    }

    /// The processor time of all its threads so far, in microseconds, as the scheduler counts it.
    pub fn processor_time(&self) -> f64 {
        let mut nanoseconds = 0u64;
        for pid in family(self.pid()) {
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
                let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                nanoseconds += text.split_whitespace().next().map_or(0, |spent| spent.parse::<u64>().unwrap());
            }
        }
        nanoseconds as f64 / 1e3
    }

    /// Resident memory of all its processes, in MiB.
    pub fn memory(&self) -> f64 {
        family(self.pid()).into_iter().map(|pid| gate::memory(pid, "VmRSS:")).sum::<u64>() as f64 / 1024.0
    }

    /// Ends the bench unless the gateway does the work that is measured.
    pub fn check(&self, issuer: &Issuer, upstream: &Upstream) {
        let name = self.kind.name();
        let good = issuer.token(0, &[]);
        let mut forged = String::from_utf8(request(&good).to_vec()).unwrap();
        forged = forged.replace("X-Trace:", "X-Auth-User: mallory\r\nX-Trace:");
        let seen = upstream.keep(|| assert_eq!(client::ask(self.address, forged.as_bytes()), 200, "{name}"));
        let [head] = seen.as_slice() else { panic!("{name}: the upstream saw {seen:?}") };
        assert!(head.starts_with("GET /v1/items/4711?page=2 HTTP/1.1\r\n"), "{name} forwards {head}");
        if !self.kind.checks() {
            return;
        }
        let mut users = head.lines().filter_map(|line| line.split_once(": "));
        let users: Vec<_> = users.by_ref().filter(|(name, _)| name.eq_ignore_ascii_case("x-auth-user")).collect();
        assert!(matches!(users.as_slice(), [(_, user)] if *user == sub(0)), "{name} forwards {head}");
        assert!(!head.contains("mallory") && !head.contains(&good), "{name} forwards {head}");
        let (body, signature) = good.rsplit_once('.').unwrap();
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        let other = Issuer::new(issuer.algorithm);
        let bad: &[(&str, String)] = &[
            ("a changed signature", format!("{body}.{flipped}{}", signature.get(1..).unwrap())),
            ("no token", String::new()),
            ("an ended token", issuer.token(0, &[("exp", json!(1_700_000_001))])),
            ("a token without an end", issuer.token(0, &[("exp", Value::Null)])),
            ("another issuer", issuer.token(0, &[("iss", json!("https://other.test"))])),
            ("another audience", issuer.token(0, &[("aud", json!("other"))])),
            ("no scope", issuer.token(0, &[("scope", json!("profile"))])),
            ("another key", if issuer.name() == "HS256" { "a.b.c".to_owned() } else { other.token(0, &[]) }),
        ];
        for (what, token) in bad {
            let seen = upstream.keep(|| {
                let status = client::ask(self.address, &request(token));
                assert!(matches!(status, 400 | 401 | 403), "{name}: {status} with {what}");
            });
            assert!(seen.is_empty(), "{name} forwards with {what}");
        }
    }
}
