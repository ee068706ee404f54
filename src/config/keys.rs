//! The one table of the keys of `portcullis.yaml`.
//!
//! Reading, "did you mean", the names of environment variables and the reference come from it.

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path with dots, e.g. `admin.listen`.
    pub path: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it means; text of the reference.
    pub doc: &'static str,
    /// Whether this build acts on it.
    pub acted_on: bool,
}

impl Key {
    /// The environment variable that sets it: `PORTCULLIS_ADMIN__LISTEN`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.to_ascii_uppercase().replace('.', "__"))
    }
}

/// How the environment variables of settings begin.
pub const PREFIX: &str = "PORTCULLIS_";

const fn key(path: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { path, default, doc, acted_on: true }
}

const fn later(path: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { path, default, doc, acted_on: false }
}

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("listen", "127.0.0.1:8080", "address, or list of `{ address, tls: { cert: file:…, key: file:… } }`"),
    key("public_url", "none", "how clients reach the gateway, e.g. `https://api.example.com`"),
    key("admin.enabled", "true", "whether there is an admin listener"),
    key("admin.listen", "127.0.0.1:9901", "the admin listener: probes, status, metrics, reload"),
    key("admin.token", "none", "`env:` or `file:` reference; status and reload then need it as a bearer token"),
    later("admin.console", "true", "the web console"),
    key("policies.path", "policies", "the policies folder; `policies: DIR` is the short form"),
    key("policies.watch", "true", "whether file events are watched"),
    key("policies.debounce", "200ms", "how long the folder must be quiet before it is read"),
    key("policies.poll", "5s", "how often contents are compared, for file systems that send no events"),
    key("policies.test_gate", "true", "whether a failing test rejects a policy set"),
    later("policies.start_closed", "false", "at first start with a bad set: answer 503 instead of exiting with 3"),
    later("policies.shadow", "none", "folder of a second set, evaluated and never enforced"),
    key("store", "DATABASE_URL, else sqlite:portcullis.db", "`sqlite:PATH` or `postgres://…`: users, sessions, keys"),
    key("redis", "REDIS_URL, else none", "`redis://…`: what gateways share (revocations, limits, failed logins)"),
    key("trusted_proxies", "[]", "networks whose `X-Forwarded-*` are believed; `0.0.0.0/0` and `::/0` are refused"),
    key("country_header", "none", "header that a trusted proxy sets, read by `client.country`"),
    key("log.format", "text on a terminal, else json", "`text` or `json`"),
    key("log.level", "info", "`error`, `warn`, `info`, `debug` or `trace`"),
    key("log.decisions", "stdout", "`stdout`, `file:PATH` or `none`"),
    key("log.rotate.size", "100MiB", "size at which a new decision log file begins"),
    key("log.rotate.keep", "10", "how many full files are kept"),
    key("log.audit", "best_effort", "`required`: 503 while audit records cannot be written"),
    key("log.erase", "[]", "attributes that are left out of the decision log"),
    key("log.hash", "[]", "attributes that are replaced by a keyed hash; the key is new at each start"),
    key("log.sample.allow", "1", "share of allowed requests that are logged, 0 to 1"),
    key("log.sample.deny", "1", "share of refused requests that are logged, 0 to 1"),
];

/// A key by its path.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether other keys stand below this path.
pub fn is_group(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may stand directly below `group`; the top is the empty text.
pub fn names_below(group: &str) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = KEYS
        .iter()
        .filter_map(|key| match group {
            "" => Some(key.path),
            group => key.path.strip_prefix(group)?.strip_prefix('.'),
        })
        .filter_map(|rest| rest.split('.').next())
        .collect();
    names.dedup();
    names
}
