//! The gateways that ours is compared with, started as their own documents recommend: HAProxy, Envoy, nginx.
//!
//! The files beside this one are their configurations, each line with the page that it follows. A line `#if NAME …`
//! keeps what comes up to its `#end` for those uses alone; `{{name}}` is a value. A peer listens on the loopback only,
//! has a folder of its own, and ends with its value. `tests/setup-peers.sh` installs them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests and benches: a failure here is a failed test")]

pub mod checker;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::Place;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Haproxy,
    Nginx,
    Envoy,
}

/// What a peer is set up for.
#[derive(Clone, Debug)]
pub struct Use<'a> {
    /// `bench`, `p0` or `p1`, and `cache` for Envoy's cache of verified tokens.
    pub parts: &'a [&'a str],
    pub upstream: SocketAddr,
    /// What checks tokens for nginx.
    pub checker: Option<SocketAddr>,
    /// The name of the algorithm (`RS256`).
    pub algorithm: &'a str,
    /// The shared secret, else the public key in PEM.
    pub key: &'a str,
    /// The same as a JWKS.
    pub jwks: &'a str,
    /// The tree that is for admins alone.
    pub admin: &'a str,
}

/// The issuer of every token.
pub const ISSUER: &str = "https://issuer.test";
/// The audience of every token.
pub const AUDIENCE: &str = "api";

impl Program {
    pub const ALL: [Self; 3] = [Self::Haproxy, Self::Nginx, Self::Envoy];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        }
    }

    /// Where it is installed.
    pub fn path(self) -> Option<PathBuf> {
        let system = |name: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
            folders.map(|folder| folder.join(name)).find(|path| path.is_file())
        };
        match self {
            Self::Haproxy => system("haproxy"),
            Self::Nginx => system("nginx"),
            Self::Envoy => {
                // The package has a small program in `bin` that starts this one.
                let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-env/peers-venv/lib");
                let pythons = std::fs::read_dir(library).ok()?.flatten();
                let mut found = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
                found.find(|path| path.is_file())
            }
        }
    }

    /// What it says of its version.
    pub fn version(self) -> Option<String> {
        let argument = if self == Self::Envoy { "--version" } else { "-v" };
        let output = Command::new(self.path()?).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let version = text
            .split(|c: char| c.is_whitespace() || c == '/')
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.split('.').count() >= 3)?;
        Some(version.split('-').next().unwrap_or(version).to_owned())
    }

    /// Starts it; ends the test when it does not listen.
    pub fn start(self, how: &Use<'_>) -> Peer {
        let program = self.path().unwrap_or_else(|| panic!("{} is not installed", self.name()));
        let place = Place::new("TERM", None);
        let folder = place.folder().to_owned();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let key = if how.key.starts_with("-----") {
            let path = folder.join("key.pem");
            std::fs::write(&path, how.key).unwrap();
            path.to_string_lossy().into_owned()
        } else {
            how.key.to_owned()
        };
        std::fs::write(folder.join("jwks.json"), how.jwks).unwrap();
        let mut values = vec![
            ("folder", folder.to_string_lossy().into_owned()),
            ("listen", address.to_string()),
            ("port", port.to_string()),
            ("upstream", how.upstream.to_string()),
            ("upstream_port", how.upstream.port().to_string()),
            ("checker", how.checker.map_or_else(String::new, |checker| checker.to_string())),
            ("algorithm", how.algorithm.to_owned()),
            ("issuer", ISSUER.to_owned()),
            ("audience", AUDIENCE.to_owned()),
            ("admin", how.admin.to_owned()),
            ("key", key),
        ];
        let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
        let parts: Vec<&str> = how.parts.iter().copied().chain(root.then_some("root")).collect();
        let token = render(include_str!("haproxy-token.cfg"), &parts, &values);
        values.push(("token", token.trim_end().to_owned()));
        let (file, template) = match self {
            Self::Haproxy => ("haproxy.cfg", include_str!("haproxy.cfg")),
            Self::Nginx => ("nginx.conf", include_str!("nginx.conf")),
            Self::Envoy => ("envoy.yaml", include_str!("envoy.yaml")),
        };
        let configuration = folder.join(file);
        std::fs::write(&configuration, render(template, &parts, &values)).unwrap();
        let mut command = Command::new(program);
        match self {
            Self::Haproxy => command.args(["-db", "-f"]).arg(&configuration),
            Self::Nginx => command.arg("-p").arg(&folder).arg("-c").arg(&configuration).args(["-e", "stderr"]),
            Self::Envoy => {
                command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error", "-c"]);
                command.arg(&configuration)
            }
        };
        let said = std::fs::File::create(folder.join("said")).unwrap();
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        let process = command.spawn().unwrap();
        place.note(&process);
        let mut peer = Peer { program: self, address, process, place };
        peer.wait_until_it_listens();
        peer
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    pub program: Program,
    pub address: SocketAddr,
    process: Child,
    place: Place,
}

impl Peer {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(self.address).is_err() {
            let ended = self.process.try_wait().unwrap();
            let said = || std::fs::read_to_string(self.place.folder().join("said")).unwrap_or_default();
            assert!(ended.is_none(), "{} ended: {}", self.program.name(), said());
            assert!(Instant::now() < deadline, "{} does not listen: {}", self.program.name(), said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // nginx's worker ends with its master, which must be asked for it.
        let _ = Command::new("kill").args(["-TERM", &self.pid().to_string()]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.process.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A configuration for some parts alone, with values in their places.
fn render(template: &str, parts: &[&str], values: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut kept = true;
    for line in template.lines() {
        if let Some(names) = line.strip_prefix("#if ") {
            kept = names.split(' ').any(|name| parts.contains(&name));
        } else if line == "#end" {
            kept = true;
        } else if kept {
            text.push_str(line);
            text.push('\n');
        }
    }
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}
