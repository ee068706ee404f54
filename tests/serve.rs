//! `portcullis serve` as a process: what it prints, returns and survives.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[path = "support/idp.rs"]
mod idp;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::token::algorithm::Algorithm;
use portcullis::token::key::Kid;
use portcullis::token::mint::Minter;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn portcullis(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.current_dir(folder).env_clear().env("SECRET_KEY", "5e1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Gateway {
    dir: tempfile::TempDir,
    process: Child,
    address: SocketAddr,
    admin: SocketAddr,
    /// What came on standard error so far.
    log: Arc<Mutex<String>>,
}

impl Gateway {
    fn start(policy: &str) -> Self {
        let gateway = Self::launch(policy);
        gateway.until("ready", |gateway| gateway.admin("GET", "/-/ready").0 == 200);
        gateway
    }

    /// One that listens and may not be ready.
    fn launch(policy: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("policies")).unwrap();
        fs::write(dir.path().join("policies/a.yaml"), policy).unwrap();
        let mut process = portcullis(dir.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (mut lines, seen) = (BufReader::new(process.stderr.take().unwrap()), Arc::clone(&log));
        let (found, addresses) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                seen.lock().unwrap().push_str(&line);
                let value: Value = serde_json::from_str(&line).unwrap_or_default();
                let address = |key: &str| value[key].as_str()?.strip_prefix("http://")?.parse::<SocketAddr>().ok();
                if let (Some(listen), Some(admin)) = (address("listen"), address("admin")) {
                    let _ = found.send((listen, admin));
                }
                line.clear();
            }
        });
        let (address, admin) = addresses.recv_timeout(PATIENCE).expect("the gateway says where it listens");
        Self { dir, process, address, admin, log }
    }

    fn policy(&self) -> PathBuf {
        self.dir.path().join("policies/a.yaml")
    }

    fn get(&self, target: &str) -> (u16, String) {
        Client::to(self.address).ask("GET", target, "")
    }

    fn admin(&self, method: &str, target: &str) -> (u16, String) {
        Client::to(self.admin).ask(method, target, "")
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.admin("GET", "/-/status").1).unwrap()
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: not in time\n{}", self.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let process = self.process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &process]).status().unwrap().success());
    }

    /// What came on standard output, after SIGTERM.
    fn stop(mut self) -> (ExitStatus, String, String) {
        self.signal("TERM");
        let mut output = String::new();
        self.process.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        let status = self.process.wait().unwrap();
        let log = self.log.lock().unwrap().clone();
        (status, output, log)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One keep-alive connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, target: &str, headers: &str) -> (u16, String) {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: 0\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

/// An upstream that answers everything with 200.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut line = String::new();
                    while line != "\r\n" {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn policy(upstream: SocketAddr, open: &str, closed: &str) -> String {
    format!("version: 1\napp: x\nupstream: http://{upstream}\nroutes:\n  GET {open}: public\n  GET {closed}: deny\n")
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

#[test]
fn it_starts_without_settings_and_stops_on_sigterm() {
    let gateway = Gateway::start(&policy(upstream(), "/open", "/closed"));
    // One connection: what it asks is logged in order, while other connections may be logged in between.
    let mut client = Client::to(gateway.address);
    assert_eq!(client.ask("GET", "/open", ""), (200, "ok".into()));
    assert_eq!(client.ask("GET", "/closed", "").0, 403);
    assert_eq!(client.ask("GET", "/nowhere", "").0, 404);
    let status = gateway.status();
    assert_eq!((&status["policy"]["routes"], &status["policy"]["stale"]), (&2.into(), &false.into()));
    let started = Instant::now();
    let (status, output, log) = gateway.stop();
    assert!(status.success(), "{log}");
    assert!(started.elapsed() < Duration::from_secs(5));
    let decisions: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = decisions.iter().map(|line| (line["path"].as_str().unwrap(), line["status"].as_u64())).collect();
    assert_eq!(seen, [("/open", Some(200)), ("/closed", Some(403)), ("/nowhere", Some(404))]);
}

#[test]
fn a_taken_port_is_said_and_ends_the_program() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    fs::write(dir.path().join("policies/a.yaml"), policy(nowhere(), "/a", "/b")).unwrap();
    for arguments in [
        ["--listen", &address, "--admin-listen", "127.0.0.1:0"],
        ["--listen", "127.0.0.1:0", "--admin-listen", &address],
    ] {
        let output = portcullis(dir.path()).arg("serve").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cannot listen on {address}: the port is in use by another program")), "{said}");
    }
}

#[test]
fn a_broken_policy_keeps_the_old_one_serving_and_shows_until_it_is_mended() {
    let good = policy(upstream(), "/open", "/closed");
    let gateway = Gateway::start(&good);
    let running = gateway.status()["policy"]["running"].clone();
    fs::write(gateway.policy(), good.replace("deny", "nobody_defined_this")).unwrap();
    gateway.until("rejected", |gateway| gateway.status()["policy"]["stale"] == true);
    let status = gateway.status();
    assert_eq!(status["policy"]["running"], running);
    assert_eq!(status["policy"]["error"]["diagnostics"][0]["code"], "P102");
    assert_eq!((gateway.get("/open").0, gateway.get("/closed").0), (200, 403));
    assert_eq!(gateway.admin("GET", "/-/ready").0, 200);
    assert_eq!(gateway.admin("GET", "/-/ready?strict=1").0, 503);
    assert!(gateway.admin("GET", "/metrics").1.contains("portcullis_policy_last_reload_success 0"));
    assert_eq!(gateway.admin("POST", "/-/reload").0, 422);
    fs::write(gateway.policy(), &good).unwrap();
    gateway.until("mended", |gateway| gateway.status()["policy"]["stale"] == false);
    assert!(gateway.admin("GET", "/metrics").1.contains("portcullis_policy_last_reload_success 1"));
    // SIGHUP applies a change too.
    fs::write(gateway.policy(), good.replace("/closed", "/shut")).unwrap();
    gateway.signal("HUP");
    gateway.until("changed", |gateway| gateway.get("/shut").0 == 403);
    let (_, _, log) = gateway.stop();
    for text in ["policy reload REJECTED, still serving", "stale cleared", "\"message\":\"policy reload\""] {
        assert!(log.contains(text), "{text}\n{log}");
    }
}

#[test]
fn beside_reloads_every_decision_is_logged_once_and_one_revision_gives_one_answer() {
    let upstream = upstream();
    let (one, two) = (policy(upstream, "/a", "/b"), policy(upstream, "/b", "/a"));
    let mut gateway = Gateway::start(&one);
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (done, address) = (Arc::clone(&done), gateway.address);
            std::thread::spawn(move || {
                let mut client = Client::to(address);
                let mut asked = 0_u32;
                while !done.load(Ordering::Relaxed) {
                    for target in ["/a", "/b"] {
                        let (status, body) = client.ask("GET", target, "");
                        assert!(matches!(status, 200 | 403), "{status} {body}");
                        asked += 1;
                    }
                }
                asked
            })
        })
        .collect();
    let output = {
        let mut stdout = gateway.process.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        })
    };
    for n in 0..40 {
        let (text, expected) = match n % 4 {
            0 => (two.as_str(), "applied"),
            2 => (one.as_str(), "applied"),
            _ => ("version: 1\nroutes: [", "rejected"),
        };
        fs::write(gateway.policy(), text).unwrap();
        let (status, body) = gateway.admin("POST", "/-/reload");
        // A file event or the poll may have come first.
        assert!(body.contains(expected) || (expected == "applied" && body.contains("unchanged")), "{status} {body}");
    }
    done.store(true, Ordering::Relaxed);
    let asked: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
    gateway.signal("TERM");
    let output = output.join().unwrap().unwrap();
    let mut open_in = std::collections::HashMap::new();
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line["decision"] == "allow" {
            let path = line["path"].as_str().unwrap().to_owned();
            let before = open_in.entry(line["rev"].as_str().unwrap().to_owned()).or_insert_with(|| path.clone());
            assert_eq!(*before, path, "one revision, one answer");
        }
    }
    assert_eq!(output.lines().count(), asked as usize, "every decision is logged once");
    assert_eq!(open_in.len(), 2);
}

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let gateway = Gateway::start(&policy(upstream(), "/open", "/closed"));
    let mut client = Client::to(gateway.address);
    // A pipe holds 64 KiB; each of these lines has about 2 KiB.
    let long = format!("/{}", "x".repeat(1900));
    for _ in 0..200 {
        assert_eq!(client.ask("GET", &long, "").0, 404);
    }
    assert_eq!(client.ask("GET", "/open", "").0, 200);
    let (status, output, _) = gateway.stop();
    assert!(status.success());
    assert_eq!(output.lines().count(), 201, "nothing was lost once somebody read");
}

#[test]
fn secrets_reach_no_log_and_no_metric() {
    let gateway = Gateway::start(
        "version: 1\nupstream: http://127.0.0.1:9\nidentity: { local: { preset: local } }\nroutes: { GET /me: authenticated }\n",
    );
    let mut client = Client::to(gateway.address);
    for headers in [
        "Authorization: Bearer canary.canary.canary\r\n",
        "Authorization: Basic Y2FuYXJ5\r\nAuthorization: Bearer canary\r\n",
        "Cookie: session=canary\r\nX-Canary: canary\r\n",
    ] {
        let (_, body) = client.ask("GET", "/me?access_token=canary", headers);
        assert!(!body.contains("canary"), "{body}");
    }
    let seen = [gateway.admin("GET", "/metrics").1, gateway.admin("GET", "/-/status").1];
    let (_, output, log) = gateway.stop();
    for text in seen.iter().chain([&output, &log]) {
        assert!(!text.contains("canary") && !text.contains("5e1f0c7a9b3d"), "{text}");
    }
}

/// H03: an issuer that starts later than the gateway, goes away and comes back, as operators see it.
#[test]
fn an_issuer_that_cannot_be_reached_is_named_until_it_can() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    drop(listener);
    let app = upstream();
    let policy = format!(
        "version: 1\nupstream: http://{app}\nidentity:\n  company: {{ preset: oidc, issuer: 'http://{at}', audience: api }}\nroutes:\n  GET /open: public\n  GET /me: authenticated\n"
    );
    let (minter, _) = Minter::generate(Algorithm::ES256, &[7; 32]).unwrap();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let claims = serde_json::json!({ "iss": format!("http://{at}"), "aud": "api", "sub": "ada", "exp": now + 600 });
    let (key, kid) = (minter.verifying_key(), Kid::new("k1"));
    let token = minter.mint(claims.as_object().unwrap(), Some(&kid), None).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let gateway = Gateway::launch(&policy);
    let me = || Client::to(gateway.address).ask("GET", "/me", &bearer).0;

    gateway.until("an error", |gateway| gateway.status()["issuers"][0]["error"].is_string());
    assert_eq!((gateway.get("/open").0, gateway.get("/me").0, me()), (200, 401, 503));
    let (status, said) = gateway.admin("GET", "/-/ready");
    assert_eq!((status, &*said), (503, "issuer `company`: its keys could not be fetched yet\n"));
    let issuer = gateway.status()["issuers"][0].clone();
    assert_eq!((&issuer["issuer"], &issuer["keys"], &issuer["fetched"]), (&"company".into(), &0.into(), &Value::Null));
    assert!(issuer["error"].as_str().unwrap().contains("connection refused"), "{issuer}");

    let jwk = Value::Object(key.named(kid).to_jwk().unwrap());
    let idp = idp::Idp::listen(TcpListener::bind(at).unwrap(), vec![jwk]);
    // Nobody asks for it but the gateway itself.
    gateway.until("ready", |gateway| gateway.admin("GET", "/-/ready").0 == 200);
    assert_eq!((me(), gateway.get("/open").0, idp.hits(idp::KEYS)), (200, 200, 1));
    let issuer = gateway.status()["issuers"][0].clone();
    assert_eq!((&issuer["keys"], &issuer["error"]), (&1.into(), &Value::Null));
    assert!(issuer["next_fetch"].is_string() && issuer["age_seconds"].is_number(), "{issuer}");
    let metrics = gateway.admin("GET", "/metrics").1;
    for line in
        ["portcullis_issuer_keys{issuer=\"company\"} 1", "portcullis_issuer_keys_age_seconds{issuer=\"company\"} "]
    {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let (_, _, log) = gateway.stop();
    for (said, times) in [("keys cannot be fetched", 1), ("keys can be fetched again", 1), ("keys were fetched", 1)] {
        assert_eq!(log.matches(said).count(), times, "{said}\n{log}");
    }
}

/// A command that looks at one token asks its issuer for keys once, and says why where there are none.
#[test]
fn commands_look_at_a_token_with_the_keys_that_its_issuer_publishes() {
    let (minter, _) = Minter::generate(Algorithm::ES256, &[7; 32]).unwrap();
    let (key, kid) = (minter.verifying_key(), Kid::new("k1"));
    let jwk = Value::Object(key.named(kid.clone()).to_jwk().unwrap());
    let (idp, other) = (idp::Idp::start(vec![jwk]), idp::Idp::start(vec![]));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("policies")).unwrap();
    let issuers: String = [("company", &idp), ("partner", &other)]
        .map(|(name, idp)| format!("  {name}: {{ preset: oidc, issuer: '{}', audience: api }}\n", idp.issuer()))
        .concat();
    let policy =
        format!("version: 1\nupstream: http://127.0.0.1:9\nidentity:\n{issuers}routes:\n  GET /me: authenticated\n");
    fs::write(dir.path().join("policies/a.yaml"), policy).unwrap();
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let claims = serde_json::json!({ "iss": idp.issuer(), "aud": "api", "sub": "ada", "exp": now + 600 });
    let token = minter.mint(claims.as_object().unwrap(), Some(&kid), None).unwrap();
    let run = |arguments: &[&str]| {
        let output = portcullis(dir.path()).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let inspect = || run(&["token", "inspect", &token]);
    let explain = || run(&["explain", "GET", "/me", "--exit-code", "--token", &token]);
    let (exit, said) = inspect();
    assert!(exit == Some(0) && said.contains("✓ signature  ES256 by key k1"), "{exit:?} {said}");
    let (exit, said) = explain();
    assert!(exit == Some(0) && said.contains("token · ES256"), "{exit:?} {said}");
    assert_eq!((idp.hits(idp::KEYS), other.all_hits()), (2, 0), "each asks once, and nobody else");
    idp.set(idp::Mode::Answer(503, vec![]));
    let why = format!("{}: the answer is 503", idp.issuer() + idp::DISCOVERY);
    let (exit, said) = inspect();
    assert!(exit == Some(1) && said.contains("? signature") && said.contains(&why), "{exit:?} {said}");
    let (exit, said) = explain();
    assert!(exit == Some(4) && said.contains(&why), "{exit:?} {said}");
}

#[test]
fn the_settings_file_is_followed_and_what_is_not_acted_on_is_said() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("rules")).unwrap();
    fs::write(dir.path().join("rules/a.yaml"), policy(nowhere(), "/open", "/closed")).unwrap();
    fs::write(dir.path().join("cert.pem"), key.cert.pem()).unwrap();
    fs::write(dir.path().join("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let settings = "listen: [{ address: 127.0.0.1:0, tls: { cert: file:cert.pem, key: file:key.pem } }]\n\
                    admin: { listen: 127.0.0.1:0 }\npolicies: { path: rules, start_closed: false }\nstore: sqlite:x.db\n\
                    log: { format: json, decisions: file:decisions.jsonl }\n";
    fs::write(dir.path().join("portcullis.yaml"), settings).unwrap();
    let mut process = portcullis(dir.path()).arg("serve").spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|_| panic!("{line}"))
    };
    let listens = next();
    assert!(listens["listen"].as_str().unwrap().starts_with("https://127.0.0.1:"), "{listens}");
    assert_eq!(next()["routes"], 2);
    let warning = next();
    assert_eq!((&warning["level"], &warning["key"]), (&"WARN".into(), &"policies.start_closed".into()));
    // Who answers listens to signals, too.
    let admin = listens["admin"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(Client::to(admin).ask("GET", "/-/ready", "").0, 200);
    let stopped = Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
    assert!(stopped.success() && process.wait().unwrap().success());
    assert!(dir.path().join("decisions.jsonl").exists());

    for (settings, expected) in [
        ("lisen: x", "error[P004]: unknown key `lisen`"),
        ("trusted_proxies: ['::/0']", "error[P109]: `::/0` trusts everybody"),
        (
            "listen: [{ address: 127.0.0.1:0, tls: { cert: file:none.pem, key: file:key.pem } }]",
            "none.pem` cannot be read",
        ),
        ("admin: { token: env:SHORT }", "fewer than 16 characters"),
    ] {
        fs::write(dir.path().join("portcullis.yaml"), format!("{settings}\npolicies: rules\n")).unwrap();
        let output = portcullis(dir.path()).arg("serve").env("SHORT", "canary").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 3)), "{said}");
        assert!(said.contains(expected) && !said.contains("canary"), "{said}");
    }
}
