//! The fake Supabase of `tests/supabase` as a process of its own.
//!
//! Include it as `#[path = "support/supabase.rs"] mod fake_supabase;`. It ends when its value is dropped, and also when
//! the test process ends in any other way: its standard input is closed then. What the control port takes is in the
//! docstring of `tests/supabase/fake.py`.
#![expect(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: each test binary uses a part, and a failure here is a failed test"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A fake Supabase that is running.
#[derive(Debug)]
pub struct FakeSupabase {
    process: Child,
    /// What it printed: `url`, `control`, `issuer`, `anon_key`, `service_role_key`, `publishable_key`, `secret_key`,
    /// `jwt_secret`, ports.
    pub info: Value,
}

impl FakeSupabase {
    /// Starts one (`--alg=RS256`, `--serve=root`, `--set={"jwt_exp":5}`, …). `None`, told as skipped, where `make
    /// test-env` was never run.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/test-env/venv/bin/python");
        if !python.exists() {
            writeln!(std::io::stderr(), "SKIPPED: the fake Supabase: no Python environment (`make test-env`)").ok();
            return None;
        }
        let mut process = Command::new(python)
            .arg(root.join("tests/supabase/fake.py"))
            .arg("--until-eof")
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let info = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the fake Supabase: {error}: {line:?}"));
        Some(Self { process, info })
    }

    /// A text of `info`.
    pub fn text(&self, name: &str) -> &str {
        self.info[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {}", self.info))
    }

    /// What `createClient` gets, and `url` of the preset.
    pub fn url(&self) -> &str {
        self.text("url")
    }

    /// A command to the control port; its answer.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let address = self.text("control").strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    /// Changes settings (`{"jwt_exp": 5}`).
    pub fn set(&self, settings: &Value) {
        self.ask("POST", "/settings", settings);
    }

    /// Sets a fault (`{"path": "/token", "status": 503, "times": 2}`).
    pub fn fail(&self, fault: &Value) {
        self.ask("POST", "/faults", fault);
    }

    /// How often this was asked for: `POST auth/token?grant_type=refresh_token`.
    pub fn count(&self, name: &str) -> u64 {
        self.ask("GET", "/counters", &Value::Null)[name]["count"].as_u64().unwrap_or(0)
    }

    /// A user without signing up, with a confirmed address.
    pub fn user(&self, email: &str, password: &str) -> Value {
        self.ask("POST", "/users", &serde_json::json!({ "email": email, "password": password }))
    }

    /// A session without signing in, as `/token` would answer.
    pub fn session(&self, email: &str) -> Value {
        self.ask("POST", "/sessions", &serde_json::json!({ "email": email }))
    }
}

impl Drop for FakeSupabase {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}
