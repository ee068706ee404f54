//! What happens to the process, as lines on standard error.
//!
//! Events of `tracing` and records of `log` (Pingora's) become one line each: text on a terminal, JSON
//! elsewhere. Only our own targets follow `log.level`; libraries may write request lines, headers or
//! keys when asked for detail, so they stay at `warn`, Pingora at `info` at most.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::clock::Clock;
use crate::config::{LogFormat, LogLevel};

use super::decision_log::push_time;
use super::escape::{push_json_capped, push_text};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether levels are coloured; text only.
    pub color: bool,
}

/// Sends every event of the process to standard error from now on. A second call changes nothing.
pub fn init(level: LogLevel, style: Style, clock: std::sync::Arc<dyn Clock>) {
    let lines =
        Lines { style, clock, write: Box::new(|line| drop(std::io::stderr().lock().write_all(line.as_bytes()))) };
    let _ = tracing_subscriber::registry().with(targets(level)).with(lines).try_init();
}

/// Our own targets at `level`; others never below what they may be trusted with.
fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let pingora = if level > LevelFilter::INFO { LevelFilter::INFO } else { level.min(LevelFilter::WARN) };
    // What clients do wrong (a head that never ends, a handshake that fails) these call errors, one line each: an
    // attacker could write our log. The decision log has the requests, and an upstream's failure is a line of ours.
    let about_clients = if level > LevelFilter::INFO { pingora } else { LevelFilter::OFF };
    // Warns whenever a watched folder is replaced, as Kubernetes does at every change; the watcher looks again anyway.
    let notify = if level > LevelFilter::INFO { LevelFilter::WARN } else { level.min(LevelFilter::ERROR) };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("pingora", pingora)
        .with_target("pingora_proxy", about_clients)
        .with_target("pingora_core::apps", about_clients)
        .with_target("notify", notify)
        .with_target("portcullis", level)
}

type Write = Box<dyn Fn(&str) + Send + Sync>;

struct Lines {
    style: Style,
    clock: std::sync::Arc<dyn Clock>,
    write: Write,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields { json: self.style.format == LogFormat::Json, ..Fields::default() };
        event.record(&mut fields);
        let metadata = event.metadata();
        let target = fields.target.as_deref().unwrap_or_else(|| metadata.target());
        let mut line = String::with_capacity(160 + fields.rest.len());
        match self.style.format {
            LogFormat::Json => {
                line.push_str("{\"ts\":\"");
                push_time(&mut line, self.clock.now());
                let _ = write!(line, "\",\"level\":\"{}\",\"target\":", metadata.level());
                push_json_capped(&mut line, target, LIMIT);
                line.push_str(",\"message\":");
                push_json_capped(&mut line, &fields.message, LIMIT);
                line.push_str(&fields.rest);
                line.push_str("}\n");
            }
            LogFormat::Text => {
                let mut time = String::new();
                push_time(&mut time, self.clock.now());
                line.push_str(time.get(11..23).unwrap_or(&time));
                let (on, off) = if self.style.color { (color(*metadata.level()), "\u{1b}[0m") } else { ("", "") };
                let _ = write!(line, " {on}{:<5}{off} ", metadata.level());
                if !target.starts_with("portcullis") {
                    push_text(&mut line, target);
                    line.push_str(": ");
                }
                push_text(&mut line, &fields.message);
                line.push_str(&fields.rest);
                line.push('\n');
            }
        }
        (self.write)(&line);
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        Level::DEBUG => "\u{1b}[34m",
        Level::TRACE => "\u{1b}[35m",
    }
}

/// Longer texts are cut.
const LIMIT: usize = 8192;

/// The fields of one event, escaped as they come.
#[derive(Default)]
struct Fields {
    json: bool,
    message: String,
    /// The target of a `log` record.
    target: Option<String>,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str, is_text: bool) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            "log.target" => self.target = Some(value.to_owned()),
            name if name.starts_with("log.") => {}
            name if self.json => {
                self.rest.push(',');
                push_json_capped(&mut self.rest, name, LIMIT);
                self.rest.push(':');
                if is_text { push_json_capped(&mut self.rest, value, LIMIT) } else { self.rest.push_str(value) }
            }
            name => {
                let _ = write!(self.rest, "  {name} ");
                push_text(&mut self.rest, value.get(..LIMIT).unwrap_or(value));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"), true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value, true);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string(), false);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string(), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, if value { "true" } else { "false" }, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use parking_lot::Mutex;
    use std::sync::Arc;

    fn lines(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_795_340_412_113)));
        let layer = Lines {
            style: Style { format, color: false },
            clock,
            write: Box::new(move |line| sink.lock().push(line.to_owned())),
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(targets(level)).with(layer), log);
        std::mem::take(&mut *lines.lock())
    }

    #[test]
    fn an_event_is_one_line_in_either_form() {
        let log = || tracing::info!(rev = "9d21f00b", routes = 32, "policy\nreload \u{202e}\u{1b}[2J");
        assert_eq!(
            lines(LogLevel::Info, LogFormat::Text, log),
            ["09:40:12.113 INFO  policy\\u000areload \\u202e\\u001b[2J  rev 9d21f00b  routes 32\n"]
        );
        let json = lines(LogLevel::Info, LogFormat::Json, log);
        let value: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
        assert_eq!(
            (&value["level"], &value["rev"], &value["routes"]),
            (&"INFO".into(), &"9d21f00b".into(), &32.into())
        );
        assert_eq!(value["message"], "policy\nreload \u{202e}\u{1b}[2J");
        assert_eq!(json[0].matches('\n').count(), 1);
    }

    #[test]
    fn libraries_are_quiet_at_every_level_of_ours() {
        for (target, level, at, shown) in [
            ("portcullis::reload", Level::TRACE, LogLevel::Trace, true),
            ("portcullis::reload", Level::DEBUG, LogLevel::Info, false),
            ("pingora_core::server", Level::INFO, LogLevel::Info, false),
            ("pingora_core::connectors", Level::WARN, LogLevel::Info, true),
            ("pingora_proxy", Level::ERROR, LogLevel::Info, false),
            ("pingora_proxy", Level::WARN, LogLevel::Error, false),
            ("pingora_proxy", Level::INFO, LogLevel::Trace, true),
            ("pingora_proxy", Level::DEBUG, LogLevel::Trace, false),
            ("notify::inotify", Level::WARN, LogLevel::Info, false),
            ("notify::inotify", Level::ERROR, LogLevel::Info, true),
            ("h2::codec", Level::INFO, LogLevel::Trace, false),
            ("rustls", Level::WARN, LogLevel::Trace, true),
        ] {
            assert_eq!(targets(at).would_enable(target, &level), shown, "{target} {level} at {at:?}");
        }
    }
}
