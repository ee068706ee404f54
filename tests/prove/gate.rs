//! The gateway as people run it: the program, a folder with policies and settings, real sockets.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::Value;

/// How long anything may take to start.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder from which gateways start.
pub struct Site {
    pub folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
    through: Vec<String>,
    unread: bool,
}

impl Site {
    /// With one policy file.
    pub fn new(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        let site = Self { folder, environment: Vec::new(), through: Vec::new(), unread: false };
        site.write("policies/policy.yaml", policy);
        site
    }

    /// Writes a file of the folder (`portcullis.yaml`, a key, another policy), in one step.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.folder.path().join(name);
        let beside = path.with_extension("new");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, path).unwrap();
    }

    /// An environment variable of the gateways; they have no others.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Gives the gateways a TLS listener beside the plain one, with a certificate for `localhost`.
    pub fn tls(&self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        self.write("cert.pem", made.cert.pem());
        self.write("key.pem", made.signing_key.serialize_pem());
        std::fs::set_permissions(self.path().join("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let tls = "tls: { cert: file:cert.pem, key: file:key.pem }";
        let listeners = format!("[127.0.0.1:0, {{ address: 127.0.0.1:0, {tls} }}]");
        self.write("portcullis.yaml", format!("listen: {listeners}\nadmin: {{ listen: 127.0.0.1:0 }}\n"));
        made.cert.der().clone()
    }

    /// Starts the program through another one that becomes it, given by its whole path.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Gives the gateways a standard output that is a pipe and that nobody reads.
    pub const fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The program with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_portcullis").to_owned();
        let words: Vec<&String> = self.through.iter().chain([&program]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.current_dir(self.path()).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        let output = if self.unread { Stdio::piped() } else { Stdio::null() };
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
        command
    }

    /// Starts a gateway on free ports. Listeners are those of `portcullis.yaml` where the site has one.
    pub fn start(&self) -> Gate {
        let arguments: &[&str] = if self.path().join("portcullis.yaml").exists() {
            &["serve"]
        } else {
            &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        };
        let mut process = self.command(arguments).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut lines, kept) = (BufReader::new(process.stderr.take().unwrap()), Arc::clone(&log));
        let held = Arc::new(AtomicBool::new(false));
        let holds = Arc::clone(&held);
        let (found, addresses) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line);
                kept.lock().unwrap().push_str(&text);
                let value: Value = serde_json::from_str(&text).unwrap_or_default();
                let of = |name: &str| -> Vec<(bool, SocketAddr)> {
                    let all = value[name].as_str().unwrap_or_default().split(", ");
                    all.filter_map(|url| url.split_once("://").map(|(scheme, at)| (scheme == "https", at)))
                        .filter_map(|(tls, address)| Some((tls, address.parse().ok()?)))
                        .collect()
                };
                if !of("listen").is_empty() {
                    let _ = found.send((of("listen"), of("admin")));
                }
                line.clear();
                while holds.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        let Ok((listeners, admin)) = addresses.recv_timeout(PATIENCE) else {
            let _ = process.kill();
            panic!("the gateway does not say where it listens: {}", log.lock().unwrap());
        };
        let of = |tls: bool| listeners.iter().find(|(is, _)| *is == tls).map(|(_, address)| *address);
        Gate {
            address: of(false).or_else(|| of(true)).unwrap(),
            tls: of(true),
            admin: admin.first().map(|(_, address)| *address),
            process,
            log,
            held,
        }
    }
}

/// A running gateway; it is killed when its value goes.
pub struct Gate {
    /// The first plain listener, else the TLS one.
    pub address: SocketAddr,
    /// The first TLS listener.
    pub tls: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    process: Child,
    log: Arc<Mutex<String>>,
    held: Arc<AtomicBool>,
}

impl Gate {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Leaves unread what it writes to standard error, or reads on.
    pub fn hold_log(&self, hold: bool) {
        self.held.store(hold, Ordering::SeqCst);
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        memory(self.pid(), "VmRSS:")
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Sends a signal by name (`TERM`, `STOP`, `KILL`).
    pub fn signal(&self, name: &str) {
        Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A line of `/proc/PID/status`, in KiB.
pub fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
