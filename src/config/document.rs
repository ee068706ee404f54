//! Settings as they are written, and what they mean.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::diagnostic::suggest::closest;
use crate::diagnostic::{Code, Diagnostic, Sources, Span};
use crate::policy::document::Source;
use crate::policy::yaml::{self, Node, Value};
use crate::request::forwarded::{TrustedProxies, TrustedProxiesError};

use super::keys::{self, PREFIX};
use super::{
    BadUrl, Config, Database, DecisionSink, LOG_ATTRIBUTES, Listener, LogFormat, LogLevel, RedisUrl, StoreUrl, Tls,
    log_attribute,
};

/// The environment of the process, read once in `cli`. It holds secrets: only its names are ever shown.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment").field(&self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl<const N: usize> From<[(String, String); N]> for Environment {
    fn from(variables: [(String, String); N]) -> Self {
        Self(variables.into())
    }
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// The path and the text of `portcullis.yaml`.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment.
    pub environment: Option<&'a Environment>,
    /// Flags: the key's path, the flag as it is shown, its value.
    pub flags: &'a [(&'static str, &'a str, String)],
}

/// Reads the settings: a [`Config`], unless there is a mistake, and every mistake with its place.
pub fn read(settings: Settings<'_>) -> (Option<Config>, Vec<Diagnostic>, Sources) {
    let mut reader = Reader {
        config: Config::default(),
        sources: Sources::default(),
        diagnostics: Vec::new(),
        folder: PathBuf::new(),
        rotate: (100 << 20, 10),
        decisions: None,
        audit: None,
        set: Vec::new(),
    };
    if let Some((path, text)) = settings.file {
        if let Some(folder) = Path::new(path).parent() {
            reader.config.store.database = Database::Sqlite(folder.join("portcullis.db"));
        }
        reader.folder = Path::new(path).parent().map(Path::to_owned).unwrap_or_default();
        reader.file(path, text);
        reader.folder = PathBuf::new();
    }
    if let Some(environment) = settings.environment {
        reader.known_variables(environment);
        for (name, value) in environment.iter() {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                let path = rest.to_ascii_lowercase().replace("__", ".");
                reader.outside(&format!("environment variable {name}"), &path, value);
            }
        }
    }
    for (path, flag, value) in settings.flags {
        reader.outside(&format!("flag {flag}"), path, value);
    }
    reader.required_audit_has_a_sink();
    let failed = reader.diagnostics.iter().any(Diagnostic::is_error);
    let (diagnostics, sources) = (std::mem::take(&mut reader.diagnostics), std::mem::take(&mut reader.sources));
    ((!failed).then(|| reader.finish()), diagnostics, sources)
}

struct Reader {
    config: Config,
    sources: Sources,
    diagnostics: Vec<Diagnostic>,
    /// Relative paths start here.
    folder: PathBuf,
    rotate: (u64, u32),
    decisions: Option<Option<PathBuf>>,
    /// Where `log.audit` stands.
    audit: Option<Span>,
    /// Keys that were set.
    set: Vec<&'static str>,
}

/// A value that cannot be.
struct Bad {
    code: Code,
    message: String,
    span: Span,
    label: String,
    help: Option<String>,
}

impl Bad {
    fn value(node: &Node, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self { code: Code::P109, message: message.into(), span: node.span, label: label.into(), help: None }
    }

    fn kind(node: &Node, expected: &str) -> Self {
        Self {
            code: Code::P010,
            message: format!("expected {expected}, found {}", node.kind()),
            span: node.span,
            label: format!("{expected} belongs here"),
            help: None,
        }
    }
}

impl Reader {
    fn file(&mut self, path: &str, text: &str) {
        let file = self.sources.add(path, text);
        let documents = yaml::parse(file, text, &mut self.diagnostics);
        let Some((first, more)) = documents.split_first() else { return };
        if let Some(second) = more.first() {
            let message = "settings are one YAML document";
            self.diagnostics.push(Diagnostic::new(Code::P010, message, second.span, "a second one begins here"));
        }
        match &first.value {
            Value::Map(_) => self.group("", first),
            Value::Null => {}
            _ => self.report(Bad::kind(first, "a map")),
        }
    }

    fn group(&mut self, path: &str, node: &Node) {
        let Value::Map(entries) = &node.value else {
            self.report(Bad::kind(node, "a map"));
            return;
        };
        for (key, value) in entries {
            let below = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
            if keys::find(&below).is_some() {
                self.setting(&below, value);
            } else if below == "policies" && value.is_scalar() {
                self.setting("policies.path", value);
            } else if keys::is_group(&below) {
                self.group(&below, value);
            } else {
                let names = keys::names_below(path);
                let mut diagnostic =
                    Diagnostic::new(Code::P004, format!("unknown key `{}`", key.text), key.span, "not a setting");
                if let Some(name) = closest(&key.text, names.iter().copied()) {
                    diagnostic = diagnostic.fix("a key with a similar name exists", key.span, name);
                } else {
                    diagnostic = diagnostic.help(format!("the keys here are: {}", names.join(", ")));
                }
                self.diagnostics.push(diagnostic);
            }
        }
    }

    /// A setting from the environment or a flag. Lists and maps are written as in YAML's flow form; a list of
    /// words may also be separated by commas.
    fn outside(&mut self, origin: &str, path: &str, text: &str) {
        let path = if path == "policies" { "policies.path" } else { path };
        // Diagnostics show the text of their source; these may hold a secret.
        let shown = if matches!(path, "admin.token" | "store" | "redis") { "" } else { text };
        let file = self.sources.add(origin, shown);
        let span = Span { file, start: 0, end: u32::try_from(shown.len()).unwrap_or(u32::MAX) };
        if keys::find(path).is_none() {
            let paths: Vec<&str> = keys::KEYS.iter().map(|key| key.path).collect();
            let mut diagnostic = Diagnostic::new(Code::P004, format!("unknown setting in {origin}"), span, "");
            if let Some(near) = closest(path, paths).and_then(keys::find) {
                diagnostic = diagnostic.help(format!("a setting with a similar name is {}", near.variable()));
            }
            self.diagnostics.push(diagnostic);
            return;
        }
        let text = text.trim();
        if text.starts_with(['[', '{']) {
            let documents = yaml::parse(file, text, &mut self.diagnostics);
            if let Some(node) = documents.first() {
                self.setting(path, node);
            }
            return;
        }
        let scalar = |text: &str| Node {
            value: Value::String(text.to_owned()),
            span,
            style: yaml::Style::Plain,
            text: text.to_owned(),
        };
        let is_list = matches!(path, "listen" | "trusted_proxies" | "log.erase" | "log.hash");
        if is_list && text.contains(',') {
            let items = text.split(',').map(|item| scalar(item.trim())).collect();
            self.setting(path, &Node { value: Value::List(items), ..scalar(text) });
        } else {
            self.setting(path, &scalar(text));
        }
    }

    /// What apps have in their environment counts where the settings do not say otherwise.
    fn known_variables(&mut self, environment: &Environment) {
        let value = |name, path: &str| {
            let overridden =
                self.set.contains(&path) || environment.get(&format!("{PREFIX}{}", path.to_uppercase())).is_some();
            environment.get(name).map(str::trim).filter(|value| !value.is_empty() && !overridden)
        };
        let store = value("DATABASE_URL", "store").map(|url| StoreUrl::parse(url, Path::new(""), "DATABASE_URL"));
        let redis = value("REDIS_URL", "redis").map(|url| RedisUrl::parse(url, "REDIS_URL"));
        match store {
            None => {}
            Some(Ok(store)) => self.config.store = store,
            Some(Err(bad)) => self.bad_variable("DATABASE_URL", "store", bad),
        }
        match redis {
            None => {}
            Some(Ok(redis)) => self.config.redis = Some(redis),
            Some(Err(bad)) => self.bad_variable("REDIS_URL", "redis", bad),
        }
    }

    fn bad_variable(&mut self, name: &str, key: &str, bad: BadUrl) {
        let file = self.sources.add(&format!("environment variable {name}"), "");
        let span = Span { file, start: 0, end: 0 };
        let diagnostic = Diagnostic::new(Code::P109, format!("{name}: {}", bad.message), span, "");
        let help = format!("expected {}; the setting `{key}` goes before {name}", bad.help);
        self.diagnostics.push(diagnostic.help(help));
    }

    fn setting(&mut self, path: &str, node: &Node) {
        let Some(key) = keys::find(path) else { return };
        self.set.push(key.path);
        if let Err(bad) = self.apply(path, node) {
            self.report(bad);
        }
    }

    fn report(&mut self, bad: Bad) {
        let mut diagnostic = Diagnostic::new(bad.code, bad.message, bad.span, bad.label);
        diagnostic.help.extend(bad.help);
        self.diagnostics.push(diagnostic);
    }

    fn apply(&mut self, path: &str, node: &Node) -> Result<(), Bad> {
        match path {
            "listen" => self.config.listeners = self.listeners(node)?,
            "public_url" => self.config.public_url = Some(public_url(node)?),
            "admin.enabled" => self.config.admin.enabled = boolean(node)?,
            "admin.listen" => self.config.admin.listen = address(node)?,
            "admin.token" => self.config.admin.token = Some(self.reference(node)?),
            "policies.path" => self.config.policies.path = self.path(node)?,
            "policies.watch" => self.config.policies.watch = boolean(node)?,
            "policies.debounce" => self.config.policies.debounce = duration(node)?,
            "policies.poll" => self.config.policies.poll = duration(node)?,
            "policies.test_gate" => self.config.policies.test_gate = boolean(node)?,
            "policies.start_closed" => self.config.policies.start_closed = boolean(node)?,
            "policies.shadow" => self.config.policies.shadow = Some(self.path(node)?),
            "store" => {
                self.config.store =
                    StoreUrl::parse(text(node)?, &self.folder, "store").map_err(|bad| url(node, bad))?;
            }
            "redis" => {
                self.config.redis = Some(RedisUrl::parse(text(node)?, "redis").map_err(|bad| url(node, bad))?);
            }
            "trusted_proxies" => {
                let networks = list(node, network)?;
                self.config.trusted_proxies = TrustedProxies::parse(networks).unwrap_or_default();
            }
            "country_header" => self.config.country_header = Some(header_name(node)?),
            "log.format" => {
                let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
                self.config.log.format = Some(word(node, &formats)?);
            }
            "log.level" => {
                let levels = [
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ];
                self.config.log.level = word(node, &levels)?;
            }
            "log.decisions" => self.decisions(node)?,
            "log.rotate.size" => self.rotate.0 = size(node)?,
            "log.rotate.keep" => self.rotate.1 = number(node, 0.0, 10_000.0)? as u32,
            "log.audit" => {
                self.config.log.audit_required = word(node, &[("best_effort", false), ("required", true)])?;
                self.audit = Some(node.span);
            }
            "log.erase" => self.config.log.erase = list(node, attribute)?,
            "log.hash" => self.config.log.hash = list(node, attribute)?,
            "log.sample.allow" => self.config.log.sample.allow = number(node, 0.0, 1.0)?,
            "log.sample.deny" => self.config.log.sample.deny = number(node, 0.0, 1.0)?,
            "admin.console" => drop(boolean(node)?),
            _ => drop(text(node)?),
        }
        Ok(())
    }

    /// Records that must be kept and go nowhere would refuse everything, or nothing.
    fn required_audit_has_a_sink(&mut self) {
        if let (true, Some(None), Some(span)) = (self.config.log.audit_required, &self.decisions, self.audit) {
            let message = "audit records are required, and `log.decisions` is `none`";
            let diagnostic = Diagnostic::new(Code::P109, message, span, "they have nowhere to go");
            self.diagnostics.push(diagnostic.help("audit records are written to the sink of `log.decisions`"));
        }
    }

    fn finish(mut self) -> Config {
        let (size, keep) = self.rotate;
        self.config.log.decisions = match self.decisions {
            None => DecisionSink::Stdout,
            Some(None) => DecisionSink::None,
            Some(Some(path)) => DecisionSink::File { path, size, keep },
        };
        self.config.not_acted_on =
            keys::KEYS.iter().filter(|key| !key.acted_on && self.set.contains(&key.path)).map(|key| key.path).collect();
        self.config
    }

    fn listeners(&self, node: &Node) -> Result<Vec<Listener>, Bad> {
        let listeners = list(node, |node| match &node.value {
            Value::Map(_) => self.listener(node),
            _ => Ok(Listener { address: address(node)?, tls: None }),
        })?;
        if listeners.is_empty() {
            return Err(Bad::value(node, "no address to listen on", "at least one"));
        }
        Ok(listeners)
    }

    fn listener(&self, node: &Node) -> Result<Listener, Bad> {
        let [address_node, tls] = entries(node, ["address", "tls"])?;
        let Some(address_node) = address_node else {
            return Err(Bad::value(node, "a listener needs an `address`", "no `address` here"));
        };
        let tls = match tls {
            None => None,
            Some(tls) => {
                let [cert, key] = entries(tls, ["cert", "key"])?;
                let (Some(cert), Some(key)) = (cert, key) else {
                    return Err(Bad::value(tls, "`tls` needs `cert` and `key`", "one of them is missing"));
                };
                Some(Tls { cert: self.reference(cert)?, key: self.reference(key)? })
            }
        };
        Ok(Listener { address: address(address_node)?, tls })
    }

    fn decisions(&mut self, node: &Node) -> Result<(), Bad> {
        self.decisions = match text(node)? {
            "stdout" => None,
            "none" => Some(None),
            "otlp" => return Err(Bad::value(node, "`otlp` is not in this build", "not available")),
            other => match other.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Some(Some(self.folder.join(path))),
                _ => {
                    let message = format!("unknown sink `{other}`");
                    return Err(Bad::value(node, message, "`stdout`, `file:PATH` or `none`"));
                }
            },
        };
        Ok(())
    }

    fn path(&self, node: &Node) -> Result<PathBuf, Bad> {
        match text(node)? {
            "" => Err(Bad::value(node, "an empty path", "a folder belongs here")),
            path => Ok(self.folder.join(path)),
        }
    }

    /// `env:NAME` or `file:PATH`; nothing written out.
    fn reference(&self, node: &Node) -> Result<Source, Bad> {
        let text = text(node)?;
        if let Some(name) = text.strip_prefix("env:") {
            return Ok(Source::Env(name.to_owned()));
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Source::File(self.folder.join(path).to_string_lossy().into_owned()));
        }
        // The code keeps the text from being shown.
        let message = "secrets and keys are not written out";
        Err(Bad { code: Code::P403, ..Bad::value(node, message, "`env:NAME` or `file:PATH` belongs here") })
    }
}

// === Values ===

/// The nodes of the named keys of a map; other keys are mistakes.
fn entries<'n, const N: usize>(node: &'n Node, names: [&'static str; N]) -> Result<[Option<&'n Node>; N], Bad> {
    let Value::Map(map) = &node.value else { return Err(Bad::kind(node, "a map")) };
    let mut found = [None; N];
    for (key, value) in map {
        match names.iter().position(|name| *name == key.text).and_then(|at| found.get_mut(at)) {
            Some(slot) => *slot = Some(value),
            None => {
                return Err(Bad {
                    code: Code::P004,
                    message: format!("unknown key `{}`", key.text),
                    span: key.span,
                    label: "not a setting".to_owned(),
                    help: Some(format!("the keys here are: {}", names.join(", "))),
                });
            }
        }
    }
    Ok(found)
}

fn text(node: &Node) -> Result<&str, Bad> {
    if node.is_scalar() { Ok(&node.text) } else { Err(Bad::kind(node, "a text")) }
}

/// A URL that cannot be. It may hold a password: then its code keeps it from being shown.
fn url(node: &Node, bad: BadUrl) -> Bad {
    let code = if node.text.contains('@') { Code::P403 } else { Code::P109 };
    Bad {
        code,
        help: Some(format!("expected {}", bad.help)),
        ..Bad::value(node, bad.message, "not a URL that is known here")
    }
}

fn boolean(node: &Node) -> Result<bool, Bad> {
    match text(node)? {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Bad::value(node, format!("`{other}` is not a Boolean"), "`true` or `false`")),
    }
}

fn word<T: Copy>(node: &Node, words: &[(&'static str, T)]) -> Result<T, Bad> {
    let text = text(node)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        Bad::value(node, format!("unknown word `{text}`"), format!("one of {}", all.join(", ")))
    })
}

/// A list, or a single item.
fn list<'n, T>(node: &'n Node, item: impl Fn(&'n Node) -> Result<T, Bad>) -> Result<Vec<T>, Bad> {
    match &node.value {
        Value::List(items) => items.iter().map(item).collect(),
        _ => Ok(vec![item(node)?]),
    }
}

fn address(node: &Node) -> Result<SocketAddr, Bad> {
    let text = text(node)?;
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| {
        Bad::value(node, format!("`{text}` is not an address with a port"), "like `127.0.0.1:8080` or `[::1]:8080`")
    })
}

/// A network, checked: the whole list is read once each of it is fine.
fn network(node: &Node) -> Result<&str, Bad> {
    let text = text(node)?;
    match TrustedProxies::parse([text]) {
        Ok(_) => Ok(text),
        Err(TrustedProxiesError::Invalid(_)) => {
            Err(Bad::value(node, format!("`{text}` is not a network"), "like `10.0.0.0/8` or `2001:db8::/32`"))
        }
        Err(TrustedProxiesError::Everyone(_)) => {
            let mut bad =
                Bad::value(node, format!("`{text}` trusts everybody"), "every client could choose its address");
            bad.help = Some("name the networks of your own proxies".to_owned());
            Err(bad)
        }
    }
}

fn header_name(node: &Node) -> Result<String, Bad> {
    let text = text(node)?;
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(Bad::value(node, format!("`{text}` is not a header name"), "")),
    }
}

fn public_url(node: &Node) -> Result<String, Bad> {
    let text = text(node)?;
    let is_url = text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    if !is_url || text.contains(['@', '#']) {
        let message = format!("`{text}` is not the URL of a site");
        return Err(Bad::value(node, message, "like `https://api.example.com`"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn attribute(node: &Node) -> Result<String, Bad> {
    let text = text(node)?;
    // Claims and facts of the user that the log never has may be named too: they stay out.
    let never_logged = ["token.", "user."].iter().any(|start| text.len() > start.len() && text.starts_with(start));
    if log_attribute(text).is_none() && !never_logged {
        let mut bad = Bad::value(node, format!("`{text}` is not an attribute of the decision log"), "not logged");
        bad.help = Some(format!("the attributes are: {}", LOG_ATTRIBUTES.join(", ")));
        return Err(bad);
    }
    Ok(text.to_owned())
}

fn number(node: &Node, least: f64, most: f64) -> Result<f64, Bad> {
    let text = text(node)?;
    let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| Bad::value(node, format!("`{text}` is out of range"), format!("from {least} to {most}")))
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

fn duration(node: &Node) -> Result<Duration, Bad> {
    let text = text(node)?;
    let parsed = split_unit(text).and_then(|(number, unit)| {
        let unit = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    match parsed {
        Some(millis @ 1..=86_400_000) => Ok(Duration::from_millis(millis)),
        _ => Err(Bad::value(node, format!("`{text}` is not a duration"), "like `200ms`, `5s` or `1h`, up to a day")),
    }
}

fn size(node: &Node) -> Result<u64, Bad> {
    let text = text(node)?;
    let parsed = split_unit(text).and_then(|(number, unit)| {
        let unit: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.checked_mul(unit)
    });
    match parsed {
        Some(bytes) if bytes >= 1024 => Ok(bytes),
        _ => Err(Bad::value(node, format!("`{text}` is not a size"), "like `100MiB`, at least `1KiB`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sample;

    fn file(text: &str) -> Result<Config, String> {
        checked(Settings { file: Some(("conf/portcullis.yaml", text)), ..Settings::default() })
    }

    fn checked(settings: Settings<'_>) -> Result<Config, String> {
        let (config, diagnostics, sources) = read(settings);
        config.ok_or_else(|| {
            let lines: Vec<String> = diagnostics
                .iter()
                .map(|d| {
                    let (line, column) = sources.position(d.primary.span);
                    format!("{} {line}:{column} {} [{}]", d.code, d.message, sources.text(d.primary.span))
                })
                .collect();
            lines.join("\n")
        })
    }

    #[test]
    fn nothing_needs_to_be_set() {
        let config = file("").unwrap();
        assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
        assert_eq!(config.policies.path, Path::new("policies"));
        assert!(config.admin.enabled && config.policies.test_gate && config.not_acted_on.is_empty());
    }

    #[test]
    fn every_key_is_read() {
        let config = file(
            "listen:
  - 0.0.0.0:80
  - { address: '[::]:443', tls: { cert: file:cert.pem, key: env:TLS_KEY } }
public_url: https://api.example.com/
admin: { enabled: false, listen: localhost:1, token: env:ADMIN, console: false }
policies: { path: p, watch: false, debounce: 1s, poll: 1m, test_gate: false, start_closed: true, shadow: next }
store: sqlite:x.db
redis: redis://localhost
trusted_proxies: [10.0.0.0/8, 192.0.2.1]
country_header: CF-IPCountry
log:
  format: json
  level: debug
  decisions: file:decisions.jsonl
  rotate: { size: 1MiB, keep: 3 }
  audit: required
  erase: [token.email]
  hash: sub
  sample: { allow: 0.1, deny: 1 }
",
        )
        .unwrap();
        assert_eq!(
            config.listeners[1].tls,
            Some(Tls { cert: Source::File("conf/cert.pem".into()), key: Source::Env("TLS_KEY".into()) })
        );
        assert_eq!(config.public_url.as_deref(), Some("https://api.example.com"));
        assert_eq!(config.policies.path, Path::new("conf/p"));
        let trusted = TrustedProxies::parse(["10.0.0.0/8", "192.0.2.1"]).unwrap();
        assert_eq!(config.trusted_proxies, trusted);
        assert_eq!(config.country_header.as_deref(), Some("cf-ipcountry"));
        assert_eq!(
            config.log.decisions,
            DecisionSink::File { path: "conf/decisions.jsonl".into(), size: 1 << 20, keep: 3 }
        );
        assert!(config.log.audit_required);
        assert_eq!(config.log.sample, Sample { allow: 0.1, deny: 1.0 });
        assert_eq!(config.store.to_string(), "sqlite:conf/x.db");
        assert_eq!(config.redis.unwrap().to_string(), "redis://localhost");
        assert_eq!(config.not_acted_on, ["admin.console", "policies.start_closed", "policies.shadow"]);
    }

    #[test]
    fn mistakes_have_places_and_come_together() {
        for (text, expected) in [
            ("lisen: 127.0.0.1:1", "P004 1:1 unknown key `lisen` [lisen]"),
            ("admin: { tokn: env:X }", "P004 1:10 unknown key `tokn` [tokn]"),
            ("admin: { token: hunter2 }", "P403 1:17 secrets and keys are not written out [hunter2]"),
            ("trusted_proxies: [0.0.0.0/0]", "P109 1:19 `0.0.0.0/0` trusts everybody [0.0.0.0/0]"),
            ("trusted_proxies: '::ffff:0:0/96'", "P109 1:18 `::ffff:0:0/96` trusts everybody ['::ffff:0:0/96']"),
            ("trusted_proxies: '::/0'", "P109 1:18 `::/0` trusts everybody ['::/0']"),
            ("admin: true", "P010 1:8 expected a map, found a Boolean [true]"),
            (
                "policies: { watch: yes, poll: 0s }",
                "P109 1:20 `yes` is not a Boolean [yes]\nP109 1:31 `0s` is not a duration [0s]",
            ),
            ("listen: 8080", "P109 1:9 `8080` is not an address with a port [8080]"),
            (
                "listen: [{ tls: { cert: file:x } }]",
                "P109 1:10 a listener needs an `address` [{ tls: { cert: file:x } }]",
            ),
            ("log: { erase: [sbu] }", "P109 1:16 `sbu` is not an attribute of the decision log [sbu]"),
            (
                "log: { decisions: none, audit: required }",
                "P109 1:32 audit records are required, and `log.decisions` is `none` [required]",
            ),
            ("log: { decisions: otlp }", "P109 1:19 `otlp` is not in this build [otlp]"),
            ("public_url: api.example.com", "P109 1:13 `api.example.com` is not the URL of a site [api.example.com]"),
            ("- listen", "P010 1:1 expected a map, found a list [- listen]"),
            ("store: mysql://db/app", "P109 1:8 unknown kind of store [mysql://db/app]"),
            ("store: mysql://ada:hunter2@db/app", "P403 1:8 unknown kind of store [mysql://ada:hunter2@db/app]"),
            ("redis: localhost", "P109 1:8 it is not the URL of a Redis server [localhost]"),
        ] {
            assert_eq!(file(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn flags_beat_the_environment_and_the_environment_beats_the_file() {
        let environment = Environment::from([
            ("PORTCULLIS_LISTEN".into(), "127.0.0.1:2".into()),
            ("PORTCULLIS_ADMIN__LISTEN".into(), "127.0.0.1:3".into()),
            ("PORTCULLIS_TRUSTED_PROXIES".into(), "10.0.0.0/8, 192.0.2.0/24".into()),
            ("PORTCULLIS_POLICIES".into(), "there".into()),
            ("PATH".into(), "/bin".into()),
        ]);
        let config = checked(Settings {
            file: Some(("portcullis.yaml", "listen: 127.0.0.1:1\npolicies: here\nlog: { level: warn }")),
            environment: Some(&environment),
            flags: &[("listen", "--listen", "127.0.0.1:4".into())],
        })
        .unwrap();
        assert_eq!(config.listeners[0].address.port(), 4);
        assert_eq!(config.admin.listen.port(), 3);
        assert_eq!((config.policies.path.as_path(), config.log.level), (Path::new("there"), LogLevel::Warn));
        assert_eq!(config.trusted_proxies, TrustedProxies::parse(["10.0.0.0/8", "192.0.2.0/24"]).unwrap());
    }

    #[test]
    fn the_store_is_beside_the_settings_unless_somebody_says_otherwise() {
        let store = |text: &str, variables: &[(&str, &str)]| {
            let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let file = Some(("conf/portcullis.yaml", text)).filter(|_| text != "no file");
            checked(Settings { file, environment: Some(&environment), ..Settings::default() })
                .map(|config| format!("{} ({})", config.store, config.store.setting))
        };
        let (ours, theirs) = (("PORTCULLIS_STORE", "sqlite:ours.db"), ("DATABASE_URL", "postgres://u:canary@db/app"));
        for (text, variables, expected) in [
            ("no file", &[][..], "sqlite:portcullis.db (store)"),
            ("", &[], "sqlite:conf/portcullis.db (store)"),
            ("", &[theirs], "postgres://db/app (DATABASE_URL)"),
            ("store: sqlite:x.db", &[theirs], "sqlite:conf/x.db (store)"),
            ("store: sqlite:x.db", &[theirs, ours], "sqlite:ours.db (store)"),
            ("store: sqlite:x.db", &[("DATABASE_URL", "mysql://u:canary@db/app")], "sqlite:conf/x.db (store)"),
        ] {
            assert_eq!(store(text, variables).unwrap(), expected, "{text} {variables:?}");
        }
        let error = store("", &[("DATABASE_URL", "mysql://u:canary@db/app")]).unwrap_err();
        assert!(error.contains("DATABASE_URL: unknown kind of store") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn values_of_variables_are_not_shown() {
        let environment = Environment::from([("SECRET_KEY".into(), "canary".into())]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("SECRET_KEY") && !shown.contains("canary"), "{shown}");
    }

    #[test]
    fn an_unknown_variable_is_an_error() {
        let environment = Environment::from([("PORTCULLIS_ADMIN__LISEN".into(), "127.0.0.1:3".into())]);
        let error = checked(Settings { environment: Some(&environment), ..Settings::default() }).unwrap_err();
        assert!(error.contains("unknown setting in environment variable PORTCULLIS_ADMIN__LISEN"), "{error}");
    }

    #[test]
    fn each_key_has_a_place_in_the_reader() {
        for key in keys::KEYS {
            let text = format!("{}: {{ not: a value }}", key.path.replace('.', ": { "));
            let text = format!("{text}{}", " }".repeat(key.path.matches('.').count()));
            assert!(file(&text).is_err(), "{text}");
        }
    }
}
