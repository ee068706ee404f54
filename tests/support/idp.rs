//! An identity provider on the loopback that publishes keys, as well or as badly as a test says, and counts who asks.
//!
//! Include it as `#[path = "support/idp.rs"] mod idp;`. It knows nothing of the gateway: keys are JSON.
#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "helpers of tests: each test binary uses a part, and a failure here is a failed test"
)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// Where the key set is.
pub const KEYS: &str = "/keys";
/// Where the discovery document is.
pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// How it behaves.
#[derive(Clone, Debug)]
pub enum Mode {
    /// As it should.
    Fine,
    /// It answers every request with this status and body.
    Answer(u16, Vec<u8>),
    /// It answers every request with these headers, lines with their ends, and no body.
    Redirect(String),
    /// It closes connections without an answer.
    HangUp,
    /// It answers nothing until the mode changes.
    Hold,
    /// It begins an answer and sends it byte by byte, without end.
    Drip,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    keys: Vec<Value>,
    max_age: Option<u64>,
    /// Members of the discovery document that are not as they should be.
    discovery: Value,
    hits: HashMap<String, usize>,
}

/// A provider. Its thread ends with the process.
#[derive(Clone, Debug)]
pub struct Idp {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Idp {
    /// Publishes these keys (JWKs).
    pub fn start(keys: Vec<Value>) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), keys)
    }

    /// The same, where somebody chose the address.
    pub fn listen(listener: TcpListener, keys: Vec<Value>) -> Self {
        let state = State { mode: Mode::Fine, keys, max_age: Some(600), discovery: json!({}), hits: HashMap::new() };
        let idp = Self { address: listener.local_addr().unwrap(), state: Arc::new(Mutex::new(state)) };
        let serving = idp.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        idp
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of its key set.
    pub fn keys_url(&self) -> String {
        format!("{}{KEYS}", self.issuer())
    }

    /// Behaves like this from now on.
    pub fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    /// Publishes these keys from now on.
    pub fn publish(&self, keys: Vec<Value>) {
        self.state.lock().unwrap().keys = keys;
    }

    /// Says how long answers may be used.
    pub fn max_age(&self, seconds: Option<u64>) {
        self.state.lock().unwrap().max_age = seconds;
    }

    /// Members of the discovery document in place of the right ones.
    pub fn discovery(&self, members: Value) {
        self.state.lock().unwrap().discovery = members;
    }

    /// How often a path was asked for.
    pub fn hits(&self, path: &str) -> usize {
        self.state.lock().unwrap().hits.get(path).copied().unwrap_or(0)
    }

    /// How often anything was asked for.
    pub fn all_hits(&self) -> usize {
        self.state.lock().unwrap().hits.values().sum()
    }

    fn mode(&self) -> Mode {
        self.state.lock().unwrap().mode.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok();
        let Some(path) = path(&mut stream) else { return };
        *self.state.lock().unwrap().hits.entry(path.clone()).or_default() += 1;
        while matches!(self.mode(), Mode::Hold) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (status, headers, body) = match self.mode() {
            Mode::HangUp | Mode::Hold => return,
            Mode::Drip => return drip(&mut stream),
            Mode::Answer(status, body) => (status, String::new(), body),
            Mode::Redirect(to) => (302, format!("location: {to}\r\n"), Vec::new()),
            Mode::Fine => self.right(&path),
        };
        let length = body.len();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).ok();
    }

    fn right(&self, path: &str) -> (u16, String, Vec<u8>) {
        let state = self.state.lock().unwrap();
        let cache = state.max_age.map_or_else(String::new, |age| format!("cache-control: public, max-age={age}\r\n"));
        let document = match path {
            DISCOVERY => {
                let mut document = json!({ "issuer": self.issuer(), "jwks_uri": self.keys_url() });
                for (name, value) in state.discovery.as_object().unwrap() {
                    document[name] = value.clone();
                }
                document
            }
            path if path.ends_with("keys") || path.ends_with("jwks.json") => json!({ "keys": state.keys }),
            _ => return (404, String::new(), Vec::new()),
        };
        (200, format!("content-type: application/json\r\n{cache}"), document.to_string().into_bytes())
    }
}

/// The path that is asked for.
fn path(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    // A connection that is closed with a form unread is reset, and the answer lost.
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
    head.split(' ').nth(1).map(str::to_owned)
}

fn drip(stream: &mut TcpStream) {
    let mut sent = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\n");
    while sent.is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        sent = stream.write_all(b" ");
    }
}
