//! The settings of the process: `portcullis.yaml`, the environment, and flags.
//!
//! Texts and maps go in ([`read`]), a [`Config`] comes out, or diagnostics with places. Flags beat the
//! environment, the environment beats the file; [`keys`] is the one table of all keys. What decides a request is
//! not here but in `policies/`, and settings are not reloaded.
//!
//! Nothing here opens a file or reads the environment: `cli` passes both in.

mod document;
pub mod keys;
mod store;

pub use document::{Environment, Settings, read};
pub use store::{BadUrl, Database, RedisUrl, StoreUrl};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::policy::document::Source;
use crate::policy::references::PUBLIC_URL;
use crate::request::forwarded::TrustedProxies;

/// The settings of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `listen`.
    pub listeners: Vec<Listener>,
    /// `public_url`: how clients reach the gateway.
    pub public_url: Option<String>,
    /// `admin.*`.
    pub admin: Admin,
    /// `policies.*`.
    pub policies: Policies,
    /// `store`, else `DATABASE_URL`, else a SQLite file beside the settings.
    pub store: StoreUrl,
    /// `redis`, else `REDIS_URL`.
    pub redis: Option<RedisUrl>,
    /// `trusted_proxies`: whose `X-Forwarded-*` are believed.
    pub trusted_proxies: TrustedProxies,
    /// `country_header`, lower case.
    pub country_header: Option<String>,
    /// `log.*`.
    pub log: Log,
    /// Keys that are set and that this build does not act on.
    pub not_acted_on: Vec<&'static str>,
}

/// Where the gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// The certificate, where the listener speaks TLS.
    pub tls: Option<Tls>,
}

/// Where a listener's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, PEM.
    pub cert: Source,
    /// The private key, PEM.
    pub key: Source,
}

/// `admin.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// `admin.enabled`.
    pub enabled: bool,
    /// `admin.listen`.
    pub listen: SocketAddr,
    /// `admin.token`.
    pub token: Option<Source>,
}

/// `policies.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// `policies.path`.
    pub path: PathBuf,
    /// `policies.watch`: file events.
    pub watch: bool,
    /// `policies.debounce`: how long it must be quiet before the folder is read.
    pub debounce: Duration,
    /// `policies.poll`: how often the content is compared where no events come.
    pub poll: Duration,
    /// `policies.test_gate`: failing tests reject a set.
    pub test_gate: bool,
    /// `policies.start_closed`: serve 503 instead of exiting when the first set is bad.
    pub start_closed: bool,
    /// `policies.shadow`.
    pub shadow: Option<PathBuf>,
}

/// `log.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `log.format`; unset is text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// `log.level`.
    pub level: LogLevel,
    /// `log.decisions`.
    pub decisions: DecisionSink,
    /// `log.audit: required`: nothing is answered while audit records cannot be written.
    pub audit_required: bool,
    /// `log.erase`: attributes that are left out.
    pub erase: Vec<String>,
    /// `log.hash`: attributes that are replaced by a keyed hash.
    pub hash: Vec<String>,
    /// `log.sample`: the share of decisions that is logged.
    pub sample: Sample,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the format of its name")]
pub enum LogFormat {
    Json,
    Text,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the level of its name")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// `log.decisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DecisionSink {
    /// One line per decision on standard output.
    #[default]
    Stdout,
    /// A file that is replaced when it is full.
    File {
        /// The file.
        path: PathBuf,
        /// The size in bytes at which a new file begins.
        size: u64,
        /// How many full files are kept beside it.
        keep: u32,
    },
    /// Nowhere.
    None,
}

/// `log.sample`: from 0 (none) to 1 (all).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Of allowed requests.
    pub allow: f64,
    /// Of refused requests.
    pub deny: f64,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            listeners: vec![Listener { address: loopback(8080), tls: None }],
            public_url: None,
            admin: Admin { enabled: true, listen: loopback(9901), token: None },
            policies: Policies {
                path: PathBuf::from("policies"),
                watch: true,
                debounce: Duration::from_millis(200),
                poll: Duration::from_secs(5),
                test_gate: true,
                start_closed: false,
                shadow: None,
            },
            store: StoreUrl { database: Database::Sqlite(PathBuf::from("portcullis.db")), setting: "store" },
            redis: None,
            trusted_proxies: TrustedProxies::default(),
            country_header: None,
            log: Log::default(),
            not_acted_on: Vec::new(),
        }
    }
}

impl Config {
    /// The environment as policies see it: with what they read of these settings.
    pub fn policy_environment(&self, environment: &Environment) -> Environment {
        let url = self.public_url.iter().map(|url| (PUBLIC_URL.to_owned(), url.clone()));
        environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).chain(url).collect()
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: None,
            level: LogLevel::Info,
            decisions: DecisionSink::Stdout,
            audit_required: false,
            erase: Vec::new(),
            hash: Vec::new(),
            sample: Sample { allow: 1.0, deny: 1.0 },
        }
    }
}

/// The attributes that may be erased or hashed, as they are named in the log.
pub const LOG_ATTRIBUTES: &[&str] = &[
    "trace", "host", "path", "sub", "iss", "tenant", "roles", "scopes", "mfa", "jti", "ip", "cause", "account", "sid",
    "ua",
];

/// The log's name of an attribute that may also be named as policies name it.
pub fn log_attribute(name: &str) -> Option<&'static str> {
    let name = match name {
        "user.id" | "token.sub" => "sub",
        "user.issuer" | "token.iss" => "iss",
        "user.session" => "sid",
        "user.tenant" => "tenant",
        "user.roles" => "roles",
        "user.scopes" | "token.scope" => "scopes",
        "token.jti" => "jti",
        "client.ip" => "ip",
        "request.host" => "host",
        other => other,
    };
    LOG_ATTRIBUTES.iter().copied().find(|attribute| *attribute == name)
}
