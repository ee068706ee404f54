//! One JSON line per decision: stable, versioned (`v`), written by hand.
//!
//! A line is made on the thread of the request (about a microsecond) and handed to a bounded queue; a thread
//! of its own writes it. Never in it: tokens, cookies, query strings, header values, claims as a whole; `jti`
//! is hashed.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::{digest, hmac};

use crate::clock::Timestamp;
use crate::config::{DecisionSink, Log, Sample, log_attribute};
use crate::identity::{Fact, Identity};
use crate::random::Random;

use super::escape::{push_json, push_json_capped};
use super::queue::{Queue, Sink};

/// How many bytes of lines wait at most for the writer.
const QUEUE_BYTES: usize = 16 << 20;
/// Texts of the client are cut at this length.
const TEXT_LIMIT: usize = 2048;

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was forwarded, or answered by an own endpoint.
    Allow,
    /// It was refused.
    Deny,
}

/// One decision, borrowed from the request it is about.
#[derive(Clone, Copy, Debug)]
pub struct DecisionRecord<'r> {
    /// When.
    pub at: Timestamp,
    /// The decision id (UUIDv7), also in the refusal.
    pub id: &'r str,
    /// The trace id of `traceparent`.
    pub trace: Option<&'r str>,
    /// The revision of the policy that decided.
    pub revision: &'r str,
    /// The app.
    pub app: Option<&'r str>,
    /// The method.
    pub method: &'r str,
    /// The host, without its port.
    pub host: &'r str,
    /// The path; a query is cut off here too.
    pub path: &'r str,
    /// The route's key.
    pub route: Option<&'r str>,
    /// Where the route stands, e.g. `apps.yaml:13`.
    pub source: Option<&'r str>,
    /// Allowed or refused.
    pub verdict: Verdict,
    /// The status answered: ours, or the upstream's.
    pub status: u16,
    /// The reason's code, for refusals.
    pub code: Option<&'static str>,
    /// What did not hold, e.g. `guard tenant-isolation`.
    pub failed: &'r [String],
    /// Which leaves were known, and which of these were true.
    pub masks: Option<Masks>,
    /// Who asked; `None` is anonymous.
    pub identity: Option<&'r Identity>,
    /// Whether the caller passed a second factor, where the policy asks.
    pub mfa: Option<bool>,
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// Microseconds spent on authentication.
    pub auth_micros: u32,
    /// Microseconds spent on the policy.
    pub policy_micros: u32,
    /// Guards in shadow mode: name and whether they would have let the request pass.
    pub shadow_guards: &'r [(&'r str, bool)],
    /// What the log alone learns about a refusal.
    pub cause: Option<&'r str>,
}

/// Truth values over a route's leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masks {
    /// Leaves that were known.
    pub known: u64,
    /// Leaves that were true.
    pub truth: u64,
}

/// Where decisions go.
#[derive(Debug)]
pub struct DecisionLog {
    queue: Option<Queue>,
    shape: Shape,
    /// `log.audit: required`.
    required: bool,
}

impl DecisionLog {
    /// Opens the sink of `settings` and starts its writer. A random key hashes the attributes of `log.hash`, so
    /// hashes are comparable within one run of the gateway.
    pub fn start(settings: &Log, random: &dyn Random) -> io::Result<Self> {
        let queue = match &settings.decisions {
            DecisionSink::None => None,
            DecisionSink::Stdout => Some(Queue::start(QUEUE_BYTES, Stdout::open()?)?),
            DecisionSink::File { path, size, keep } => {
                Some(Queue::start(QUEUE_BYTES, Rotating::open(path, *size, *keep)?)?)
            }
        };
        Ok(Self { queue, shape: Shape::new(settings, random), required: settings.audit_required })
    }

    /// A log that keeps nothing.
    pub fn none() -> Self {
        Self { queue: None, shape: Shape::default(), required: false }
    }

    /// Writes one decision, unless it is sampled away. Never waits.
    pub fn record(&self, record: &DecisionRecord<'_>) {
        let Some(queue) = &self.queue else { return };
        if !self.shape.is_sampled(record) {
            return;
        }
        let mut line = String::with_capacity(768);
        self.shape.write(&mut line, record);
        queue.push(line.as_bytes());
    }

    /// Whether anybody reads the records, so that making one can be left out.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// How many lines were lost because the writer could not follow.
    pub fn dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, Queue::dropped)
    }

    /// How many lines of the audit log were lost.
    pub fn audit_dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, Queue::audit_dropped)
    }

    /// Whether requests must be refused (503): records are required, and the last write failed or there is no room for
    /// more. While it is so, the lines of those refusals are what the writer is tried with again.
    pub fn is_blocked(&self) -> bool {
        self.required && self.queue.as_ref().is_some_and(Queue::is_failing)
    }

    /// Writes a line of the audit log. It is never sampled away.
    pub(super) fn audit(&self, write: impl FnOnce(&mut String, &Shape)) {
        let Some(queue) = &self.queue else { return };
        let mut line = String::with_capacity(512);
        write(&mut line, &self.shape);
        queue.push(line.as_bytes());
    }

    /// Waits until everything recorded so far is written, at most `patience`. Whether it was.
    pub fn flush(&self, patience: Duration) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.flush(patience))
    }
}

// === The line ===

/// What of a record is written, and how.
pub(super) struct Shape {
    erase: Vec<&'static str>,
    hash: Vec<&'static str>,
    key: hmac::Key,
    sample: Sample,
    /// `"erased":[…]`, ready to be written.
    erased: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            erase: Vec::new(),
            hash: Vec::new(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]),
            sample: Sample { allow: 1.0, deny: 1.0 },
            erased: String::new(),
        }
    }
}

impl Shape {
    pub(super) fn new(settings: &Log, random: &dyn Random) -> Self {
        let names =
            |names: &[String]| -> Vec<&'static str> { names.iter().filter_map(|name| log_attribute(name)).collect() };
        let mut key = [0; 32];
        random.fill(&mut key);
        let erase = names(&settings.erase);
        let mut erased = String::new();
        if !erase.is_empty() {
            erased.push_str(",\"erased\":");
            push_list(&mut erased, erase.iter().copied());
        }
        Self {
            erase,
            hash: names(&settings.hash),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            sample: settings.sample,
            erased,
        }
    }

    /// Decided by the decision id alone, so that every gateway that sees an id decides alike.
    fn is_sampled(&self, record: &DecisionRecord<'_>) -> bool {
        let share = match record.verdict {
            Verdict::Allow => self.sample.allow,
            Verdict::Deny => self.sample.deny,
        };
        if share >= 1.0 {
            return true;
        }
        let hash = record
            .id
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) < share * f64::from(u32::MAX)
    }

    fn write(&self, out: &mut String, record: &DecisionRecord<'_>) {
        out.push_str("{\"v\":1,\"ts\":\"");
        push_time(out, record.at);
        out.push_str("\",\"id\":");
        push_json(out, record.id);
        if let Some(trace) = record.trace {
            self.text(out, "trace", trace);
        }
        out.push_str(",\"rev\":");
        push_json(out, record.revision);
        plain(out, "app", record.app);
        out.push_str(",\"method\":");
        push_json_capped(out, record.method, 64);
        self.text(out, "host", record.host);
        let path = record.path.split(['?', '#']).next().unwrap_or("");
        self.text(out, "path", path);
        plain(out, "route", record.route);
        plain(out, "src", record.source);
        let _ = write!(
            out,
            ",\"decision\":\"{}\",\"status\":{}",
            match record.verdict {
                Verdict::Allow => "allow",
                Verdict::Deny => "deny",
            },
            record.status
        );
        plain(out, "code", record.code);
        if !record.failed.is_empty() {
            out.push_str(",\"failed\":");
            push_list(out, record.failed.iter().map(String::as_str));
        }
        if let Some(masks) = record.masks {
            let _ = write!(out, ",\"true\":\"0x{:02x}\",\"known\":\"0x{:02x}\"", masks.truth, masks.known);
        }
        if let Some(identity) = record.identity {
            self.identity(out, identity);
        }
        if let (Some(mfa), false) = (record.mfa, self.erase.contains(&"mfa")) {
            let _ = write!(out, ",\"mfa\":{mfa}");
        }
        if let Some(ip) = record.ip {
            self.text(out, "ip", &ip.to_string());
        }
        let _ = write!(out, ",\"us\":{{\"auth\":{},\"policy\":{}}}", record.auth_micros, record.policy_micros);
        if !record.shadow_guards.is_empty() {
            out.push_str(",\"shadow_guards\":{");
            for (at, (guard, passes)) in record.shadow_guards.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                push_json(out, guard);
                out.push_str(if *passes { ":\"allow\"" } else { ":\"deny\"" });
            }
            out.push('}');
        }
        if let Some(cause) = record.cause {
            self.text(out, "cause", cause);
        }
        self.end(out);
    }

    /// What every line ends with.
    pub(super) fn end(&self, out: &mut String) {
        out.push_str(&self.erased);
        out.push_str("}\n");
    }

    fn identity(&self, out: &mut String, identity: &Identity) {
        if let Fact::Known(id) = &identity.id {
            self.text(out, "sub", id);
        }
        self.text(out, "iss", identity.issuer.as_str());
        if let Fact::Known(tenant) = &identity.tenant {
            self.text(out, "tenant", tenant);
        }
        if let Fact::Known(roles) = &identity.roles {
            self.list(out, "roles", &mut roles.iter().map(AsRef::as_ref));
        }
        if let Fact::Known(scopes) = &identity.scopes {
            self.list(out, "scopes", &mut scopes.iter());
        }
        if let (Some(jti), false) =
            (identity.claims.get("jti").and_then(|jti| jti.as_str()), self.erase.contains(&"jti"))
        {
            out.push_str(",\"jti\":\"sha256:");
            push_hex(out, digest::digest(&digest::SHA256, jti.as_bytes()).as_ref());
            out.push('"');
        }
    }

    /// `,"name":"value"`, erased or hashed where the settings say so.
    fn text(&self, out: &mut String, name: &'static str, value: &str) {
        self.short_text(out, name, value, TEXT_LIMIT);
    }

    /// The same, cut at `limit` bytes.
    pub(super) fn short_text(&self, out: &mut String, name: &'static str, value: &str, limit: usize) {
        self.attribute(out, (name, name), value, limit);
    }

    /// The same of a field that is erased or hashed where another attribute is.
    pub(super) fn attribute(
        &self,
        out: &mut String,
        (name, attribute): (&'static str, &'static str),
        value: &str,
        limit: usize,
    ) {
        if self.erase.contains(&attribute) {
            return;
        }
        let _ = write!(out, ",\"{name}\":");
        if self.hash.contains(&attribute) {
            self.hashed(out, value);
        } else {
            push_json_capped(out, value, limit);
        }
    }

    /// `,"name":"hmac:…"`, whatever the settings say, unless it is erased.
    pub(super) fn hidden(&self, out: &mut String, name: &'static str, value: &str) {
        if self.erase.contains(&name) {
            return;
        }
        let _ = write!(out, ",\"{name}\":");
        self.hashed(out, value);
    }

    fn list(&self, out: &mut String, name: &'static str, values: &mut dyn Iterator<Item = &str>) {
        if self.erase.contains(&name) {
            return;
        }
        let _ = write!(out, ",\"{name}\":[");
        for (at, value) in values.take(64).enumerate() {
            if at > 0 {
                out.push(',');
            }
            if self.hash.contains(&name) {
                self.hashed(out, value);
            } else {
                push_json_capped(out, value, 256);
            }
        }
        out.push(']');
    }

    fn hashed(&self, out: &mut String, value: &str) {
        out.push_str("\"hmac:");
        push_hex(out, hmac::sign(&self.key, value.as_bytes()).as_ref());
        out.push('"');
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shape").field("erase", &self.erase).field("hash", &self.hash).finish_non_exhaustive()
    }
}

pub(super) fn plain(out: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let _ = write!(out, ",\"{name}\":");
        push_json_capped(out, value, TEXT_LIMIT);
    }
}

fn push_list<'a>(out: &mut String, values: impl Iterator<Item = &'a str>) {
    out.push('[');
    for (at, value) in values.enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_json_capped(out, value, 256);
    }
    out.push(']');
}

/// The first eight bytes: enough to tell values apart, too little to be a fingerprint of more than this log.
fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes.iter().take(8) {
        let _ = write!(out, "{byte:02x}");
    }
}

/// Appends a moment as RFC 3339 in UTC with milliseconds.
pub(crate) fn push_time(out: &mut String, at: Timestamp) {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(at) => {
            let _ = write!(out, "{at:.3}");
        }
        Err(_) => {
            let _ = write!(out, "{}", at.as_millis());
        }
    }
}

// === Sinks ===

/// Standard output, written without the lock that `println!` takes: a blocked pipe blocks nobody else.
struct Stdout(File);

impl Stdout {
    fn open() -> io::Result<Self> {
        Ok(Self(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

impl Sink for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
}

/// A file that is renamed to `.1` when it is full; older ones move on to `.2` and so forth.
struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    size: u64,
    keep: u32,
    /// The last write ended within a line; nothing may come between its parts.
    torn: bool,
}

impl Rotating {
    fn open(path: &Path, size: u64, keep: u32) -> io::Result<Self> {
        let file = Self::append(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written, size, keep, torn: false })
    }

    fn append(path: &Path) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            let _ = fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        if self.keep > 0 {
            fs::rename(&self.path, self.numbered(1))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        self.file = Self::append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Sink for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.size.saturating_sub(self.written);
        if room == 0 && !self.torn && self.written > 0 {
            self.rotate()?;
        }
        // Whole lines up to the size, and at least one.
        let room = usize::try_from(self.size.saturating_sub(self.written)).unwrap_or(usize::MAX).max(1);
        let end = match bytes.get(room.saturating_sub(1)..) {
            Some(rest) => rest.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| room + at),
            None => bytes.len(),
        };
        let written = self.file.write(bytes.get(..end).unwrap_or(bytes))?;
        self.written = self.written.saturating_add(written.try_into().unwrap_or(u64::MAX));
        self.torn = written.checked_sub(1).and_then(|at| bytes.get(at)).is_some_and(|byte| *byte != b'\n');
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::claims::Claims;
    use crate::identity::scope::ScopeSet;
    use crate::identity::{IssuerName, Kind, Transport};
    use crate::random::SeededRandom;
    use serde_json::{Value, json};

    fn identity() -> Identity {
        let Value::Object(claims) = json!({"jti": "canary-jti", "email": "canary@mail", "secret": "canary"}) else {
            panic!()
        };
        Identity {
            issuer: IssuerName::new("supabase"),
            kind: Kind::User,
            counts_as_authenticated: true,
            id: Fact::Known("u-eve".into()),
            email: Fact::Known("canary@mail".into()),
            name: Fact::Known("canary name".into()),
            tenant: Fact::Known("evil".into()),
            session: Fact::Known("canary-session".into()),
            roles: Fact::Known(vec!["owner".into()]),
            scopes: Fact::Known(ScopeSet::default()),
            permissions: Fact::Missing,
            auth_time: Fact::Missing,
            mfa: None,
            expires: None,
            transport: Transport::Bearer,
            claims: Claims::new(claims),
        }
    }

    fn record(identity: &Identity) -> DecisionRecord<'_> {
        DecisionRecord {
            at: Timestamp::from_millis(1_795_340_412_113),
            id: "0193530c-7e21-7c44-9d0e-3f1a5b2c8d90",
            trace: None,
            revision: "c04e17aa",
            app: Some("projects"),
            method: "DELETE",
            host: "api.acme.example",
            path: "/v1/t/acme?token=canary",
            route: Some("DELETE /v1/t/{tenant}"),
            source: Some("apps.yaml:13"),
            verdict: Verdict::Deny,
            status: 403,
            code: Some("access_denied"),
            failed: &[],
            masks: Some(Masks { known: 0x3f, truth: 0x0f }),
            identity: Some(identity),
            mfa: Some(true),
            ip: Some(IpAddr::from([203, 0, 113, 9])),
            auth_micros: 61,
            policy_micros: 1,
            shadow_guards: &[("office-hours", false)],
            cause: None,
        }
    }

    fn line(settings: &Log, record: &DecisionRecord<'_>) -> String {
        let mut out = String::new();
        Shape::new(settings, &SeededRandom::new(1)).write(&mut out, record);
        out
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let (identity, failed) = (identity(), ["guard tenant-isolation".to_owned()]);
        let line = line(&Log::default(), &DecisionRecord { failed: &failed, ..record(&identity) });
        assert_eq!(
            line,
            concat!(
                r#"{"v":1,"ts":"2026-11-22T09:40:12.113Z","id":"0193530c-7e21-7c44-9d0e-3f1a5b2c8d90","rev":"c04e17aa","app":"projects","#,
                r#""method":"DELETE","host":"api.acme.example","path":"/v1/t/acme","route":"DELETE /v1/t/{tenant}","src":"apps.yaml:13","#,
                r#""decision":"deny","status":403,"code":"access_denied","failed":["guard tenant-isolation"],"true":"0x0f","known":"0x3f","#,
                r#""sub":"u-eve","iss":"supabase","tenant":"evil","roles":["owner"],"scopes":[],"jti":"sha256:205c60b74b468363","mfa":true,"#,
                r#""ip":"203.0.113.9","us":{"auth":61,"policy":1},"shadow_guards":{"office-hours":"deny"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn canaries_reach_no_line() {
        let identity = identity();
        assert!(!line(&Log::default(), &record(&identity)).contains("canary"));
    }

    #[test]
    fn attributes_are_erased_or_hashed_by_either_name() {
        let identity = identity();
        let settings =
            Log { erase: vec!["user.tenant".into(), "ip".into()], hash: vec!["sub".into()], ..Log::default() };
        let value: Value = serde_json::from_str(&line(&settings, &record(&identity))).unwrap();
        assert!(value["sub"].as_str().unwrap().starts_with("hmac:"));
        assert_eq!((&value["tenant"], &value["ip"]), (&Value::Null, &Value::Null));
        assert_eq!(value["erased"], json!(["tenant", "ip"]));
    }

    #[test]
    fn hostile_text_stays_within_one_line() {
        let identity = identity();
        let path = format!("/{}\r\n{{\"v\":1}}\u{202e}\u{1b}[2J", "x".repeat(10_000));
        let line = line(&Log::default(), &DecisionRecord { path: &path, ..record(&identity) });
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.len() < 4096);
        serde_json::from_str::<Value>(&line).unwrap();
    }

    #[test]
    fn sampling_keeps_about_its_share() {
        let identity = identity();
        let settings = Log { sample: Sample { allow: 0.1, deny: 1.0 }, ..Log::default() };
        let shape = Shape::new(&settings, &SeededRandom::new(1));
        let kept = (0..10_000)
            .filter(|n| {
                shape.is_sampled(&DecisionRecord {
                    id: &format!("id-{n}"),
                    verdict: Verdict::Allow,
                    ..record(&identity)
                })
            })
            .count();
        assert!((800..1200).contains(&kept), "{kept}");
        assert!(shape.is_sampled(&record(&identity)));
    }

    #[test]
    fn a_full_file_is_replaced_and_only_some_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("decisions.jsonl");
        let settings =
            Log { decisions: DecisionSink::File { path: path.clone(), size: 1000, keep: 2 }, ..Log::default() };
        let log = DecisionLog::start(&settings, &SeededRandom::new(1)).unwrap();
        let identity = identity();
        for _ in 0..20 {
            log.record(&record(&identity));
            assert!(log.flush(Duration::from_secs(20)));
        }
        let mut files: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2"]);
        for file in files {
            let text = fs::read_to_string(dir.path().join(file)).unwrap();
            assert!(text.len() < 1600);
            for line in text.lines() {
                serde_json::from_str::<Value>(line).unwrap();
            }
        }
        assert_eq!(log.dropped(), 0);
    }
}
