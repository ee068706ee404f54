//! A gateway as a process with a store for logins, and a client of it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const PASSWORD: &str = "a long walk in the rain";

pub const SECRET: &str = "5e1f0c7a9b3d8e2f4a6c1b0d9e8f7a6b5c4d3e2f1a0b9c8d5e1f0c7a9b3d8e2f";

/// Login without throttle, an app that answers whatever comes.
pub const POLICY: &str = r"
version: 1
app: items
upstream: env:APP
login: { via: local, limit: none, lockout: none }
scopes: { items: Everything on items }
routes:
  GET /public: public
  GET /items: { scope: items }
";

/// A folder with policy and settings, and what gateways in it share.
pub struct Site {
    pub folder: tempfile::TempDir,
    environment: HashMap<String, String>,
    _app: App,
}

impl Site {
    pub fn new(policy: &str, environment: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("policies")).unwrap();
        std::fs::write(folder.path().join("policies/a.yaml"), policy).unwrap();
        let app = App::start();
        let mut all: HashMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        all.insert("SECRET_KEY".into(), SECRET.into());
        all.insert("APP".into(), format!("http://{}", app.address));
        Self { folder, environment: all, _app: app }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(self.folder.path()).env_clear().envs(&self.environment).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Adds a user with the scope `items`.
    pub fn user(&self, name: &str) {
        self.user_with(name, PASSWORD);
    }

    /// The same, with a password of their own.
    pub fn user_with(&self, name: &str, password: &str) {
        let mut add = self.command(&["user", "add", name, "--scope", "items", "--password-stdin"]).spawn().unwrap();
        writeln!(add.stdin.take().unwrap(), "{password}").unwrap();
        let output = add.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn node(&self) -> Node {
        Node::start(self)
    }
}

/// A running gateway.
pub struct Node {
    process: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Node {
    fn start(site: &Site) -> Self {
        // Listeners are those of `portcullis.yaml` where the site has one.
        let arguments: &[&str] = if site.folder.path().join("portcullis.yaml").exists() {
            &["serve"]
        } else {
            &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
        };
        let mut process = site.command(arguments).spawn().unwrap();
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
        let (address, admin) = addresses
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("the gateway does not say where it listens: {}", log.lock().unwrap()));
        Self { process, address, admin, log }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a token endpoint answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
}

impl Answer {
    pub fn text(&self, name: &str) -> String {
        self.json[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {self:?}")).to_owned()
    }
}

/// A client that opens as many connections as it needs.
pub fn client() -> reqwest::Client {
    portcullis::server::crypto::install();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

pub async fn post(client: &reqwest::Client, url: &str, form: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
    let response = request.send().await?;
    let status = response.status().as_u16();
    let body = response.text().await?;
    Ok(Answer { status, json: serde_json::from_str(&body).unwrap_or_default() })
}

pub async fn login(client: &reqwest::Client, node: &Node, user: &str) -> Answer {
    let form = [("grant_type", "password"), ("username", user), ("password", PASSWORD)];
    let answer = post(client, &node.url("/token"), &form).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}\n{}", node.log());
    answer
}

pub async fn refresh(client: &reqwest::Client, url: &str, token: &str) -> Result<Answer, reqwest::Error> {
    post(client, url, &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
}

pub async fn get(client: &reqwest::Client, url: &str, token: &str) -> Result<u16, reqwest::Error> {
    Ok(client.get(url).bearer_auth(token).send().await?.status().as_u16())
}

/// Waits, by asking, until something holds.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

/// An upstream that says `ok` to everything.
struct App {
    address: SocketAddr,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                        if line == "\r\n"
                            && reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err()
                        {
                            break;
                        }
                        line.clear();
                    }
                });
            }
        });
        Self { address }
    }
}
