//! One JSON line for whatever happens to logins, sessions, tokens, keys and users.
//!
//! The lines go where decisions go, through the same queue; `event` tells them apart, and `id` is the decision of the
//! same request, so that either leads to the other. Unlike decisions they are never sampled.
//!
//! ```text
//! {"v":1,"event":"login","ts":"2026-11-22T09:40:12.113Z","id":"0193530c-…","app":"items-api","outcome":"failure",
//!  "reason":"wrong_password","sub":"0193…","account":"ada","iss":"local","ip":"203.0.113.9","ua":"curl/8.14.1"}
//! ```
//!
//! | Field | Content |
//! | --- | --- |
//! | `v`, `ts` | version of the form, and when (UTC) |
//! | `event` | [`Event`] |
//! | `id` | the decision's id; absent for what an operator did |
//! | `app` | the app |
//! | `outcome`, `reason` | `success` or `failure`, and why ([`Reason`]) |
//! | `sub` | the user's id, where the user is known |
//! | `account` | the name that was asked for: in clear if there is such an account, else a keyed hash, since people type passwords into the wrong field |
//! | `sid` | the session |
//! | `iss` | the issuer |
//! | `by` | who did it, where that is not `sub` |
//! | `key` | which key: what its kind begins with, at most six characters more, and a part of its SHA-256 |
//! | `ip`, `ua` | from where, and with what (256 bytes of it) |
//!
//! There is no place in an event for a password or a token. `log.erase` and `log.hash` apply to `sub`, `account`, `sid`,
//! `iss`, `ip` and `ua` (that of `sub` also to `by`); the key of hashes is new at each start.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::identity::account::AccountName;

use super::decision_log::{DecisionLog, Shape, plain, push_time};
use super::escape::push_json;
use super::metrics::Metrics;
use super::queue::AUDIT;

/// Names are cut at this length.
const NAME_LIMIT: usize = 256;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody asked for tokens with a password.
    Login,
    /// An account is locked for an address from now on.
    Lockout,
    /// Somebody asked for tokens with a refresh token.
    Refresh,
    /// A refresh token was used again after the window: its session has ended.
    Reuse,
    /// A token was revoked.
    Revoke,
    /// Somebody logged out.
    Logout,
    /// A session was ended by somebody else: an operator, or a change of its user.
    SessionEnd,
    /// Somebody asked what a token is worth.
    Introspect,
    /// A signing key was made, or replaced another.
    KeyRotation,
    /// A key that may do everything at a Supabase project came from outside.
    SecretKey,
    /// A user was added, changed or removed.
    UserChange,
}

impl Event {
    /// Its name in the log and in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Lockout => "lockout",
            Self::Refresh => "refresh",
            Self::Reuse => "reuse",
            Self::Revoke => "revoke",
            Self::Logout => "logout",
            Self::SessionEnd => "session_end",
            Self::Introspect => "introspect",
            Self::KeyRotation => "key_rotation",
            Self::SecretKey => "secret_key",
            Self::UserChange => "user_change",
        }
    }
}

/// Why something failed, or what exactly was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    // A login or refresh that was refused.
    /// There is no such account.
    UnknownAccount,
    /// The account exists, the password is another.
    WrongPassword,
    /// The account has no password.
    NoPassword,
    /// The account is disabled.
    Disabled,
    /// Too many failures for this account from this address.
    Locked,
    /// A limit was reached.
    RateLimited,
    /// Too many passwords are being checked already.
    Busy,
    /// Nobody gave this token out.
    UnknownToken,
    /// The session has ended or expired.
    SessionOver,
    /// The token was used before.
    Reused,
    /// The form cannot be understood.
    InvalidRequest,
    /// Not all scopes that were asked for may be given.
    InvalidScope,
    /// The grant type is none that is offered.
    UnsupportedGrant,
    /// Client credentials that are wrong.
    InvalidClient,
    /// The caller may not do this.
    AccessDenied,
    /// The app refused (`via: upstream`).
    UpstreamRefused,
    /// The identity provider refused; it does not say more.
    ProviderRefused,
    /// A way back from a provider that was not begun in this browser, was used before, or took too long.
    BadState,
    // It could not be decided.
    /// The store cannot be read or written.
    StoreUnavailable,
    /// There is no key to sign with.
    KeysUnavailable,
    /// The stored hash of the password cannot be read.
    UnreadableHash,
    /// The app did not answer (`via: upstream`).
    UpstreamUnavailable,
    /// The identity provider cannot be reached, or wants to be left alone.
    ProviderUnavailable,
    // What was done.
    /// Somebody signed in in the same browser.
    Replaced,
    /// The same successor was given out again, within the window.
    Repeated,
    /// All sessions of the user, not only one.
    AllSessions,
    /// The token was not known, or had expired already.
    Inactive,
    /// An operator did it.
    Operator,
    /// It is due.
    Scheduled,
    /// A user was added.
    Added,
    /// A user was removed.
    Removed,
    /// A user was enabled.
    Enabled,
    /// Roles, scopes or other attributes were changed.
    Changed,
    /// A password was set.
    PasswordSet,
    /// An outdated hash was replaced by a current one.
    HashUpgraded,
}

impl Reason {
    /// Its name in the log and in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::UnknownAccount => "unknown_account",
            Self::WrongPassword => "wrong_password",
            Self::NoPassword => "no_password",
            Self::Disabled => "disabled",
            Self::Locked => "locked",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
            Self::UnknownToken => "unknown_token",
            Self::SessionOver => "session_over",
            Self::Reused => "reused",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrant => "unsupported_grant",
            Self::InvalidClient => "invalid_client",
            Self::AccessDenied => "access_denied",
            Self::UpstreamRefused => "upstream_refused",
            Self::ProviderRefused => "provider_refused",
            Self::BadState => "bad_state",
            Self::StoreUnavailable => "store_unavailable",
            Self::KeysUnavailable => "keys_unavailable",
            Self::UnreadableHash => "unreadable_hash",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::Replaced => "replaced",
            Self::Repeated => "repeated",
            Self::AllSessions => "all_sessions",
            Self::Inactive => "inactive",
            Self::Operator => "operator",
            Self::Scheduled => "scheduled",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Enabled => "enabled",
            Self::Changed => "changed",
            Self::PasswordSet => "password_set",
            Self::HashUpgraded => "hash_upgraded",
        }
    }
}

/// Whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was.
    Success,
    /// It was refused, or could not be done.
    Failure,
}

impl Outcome {
    fn code(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// The account that was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Account<'e> {
    /// There is such an account: it is named.
    Known(&'e AccountName),
    /// There is none, or nobody has looked: a keyed hash stands for it.
    Asked(&'e AccountName),
}

/// One event, borrowed from the request it is about.
#[derive(Clone, Copy, Debug)]
pub struct AuditEvent<'e> {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
    /// Whether it was done.
    pub outcome: Outcome,
    /// Why not, or what exactly.
    pub reason: Option<Reason>,
    /// The id of the request's decision.
    pub decision_id: Option<&'e str>,
    /// The app.
    pub app: Option<&'e str>,
    /// The user's id.
    pub subject: Option<&'e str>,
    /// The account that was asked for.
    pub account: Option<Account<'e>>,
    /// The session's id.
    pub session: Option<&'e str>,
    /// The issuer.
    pub issuer: Option<&'e str>,
    /// Who did it, where that is not the subject.
    pub by: Option<&'e str>,
    /// Which key it is about, as far as it may be shown.
    pub key: Option<&'e str>,
    /// From where.
    pub address: Option<IpAddr>,
    /// With what, as the client says.
    pub user_agent: Option<&'e str>,
}

impl<'e> AuditEvent<'e> {
    /// An event of which only this is known.
    pub fn new(at: Timestamp, event: Event, outcome: Outcome) -> Self {
        Self {
            at,
            event,
            outcome,
            reason: None,
            decision_id: None,
            app: None,
            subject: None,
            account: None,
            session: None,
            issuer: None,
            by: None,
            key: None,
            address: None,
            user_agent: None,
        }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    fn write(&self, out: &mut String, shape: &Shape) {
        // INVARIANT: the queue knows lines of the audit log by this beginning.
        out.push_str(AUDIT);
        push_json(out, self.event.code());
        out.push_str(",\"ts\":\"");
        push_time(out, self.at);
        out.push('"');
        plain(out, "id", self.decision_id);
        plain(out, "app", self.app);
        plain(out, "outcome", Some(self.outcome.code()));
        plain(out, "reason", self.reason.map(Reason::code));
        let named = |out: &mut String, name, value: Option<&str>| {
            if let Some(value) = value {
                shape.short_text(out, name, value, NAME_LIMIT);
            }
        };
        named(out, "sub", self.subject);
        match self.account {
            Some(Account::Known(account)) => named(out, "account", Some(account.as_str())),
            Some(Account::Asked(account)) => shape.hidden(out, "account", account.as_str()),
            None => {}
        }
        named(out, "sid", self.session);
        named(out, "iss", self.issuer);
        if let Some(by) = self.by {
            shape.attribute(out, ("by", "sub"), by, NAME_LIMIT);
        }
        plain(out, "key", self.key);
        named(out, "ip", self.address.map(|address| address.to_string()).as_deref());
        named(out, "ua", self.user_agent);
        shape.end(out);
    }
}

/// Where audit records go.
#[derive(Debug)]
pub struct Audit {
    log: Arc<DecisionLog>,
    metrics: Option<Arc<Metrics>>,
}

impl Audit {
    /// An audit log beside the decisions of `log`, counted in `metrics`.
    pub fn new(log: Arc<DecisionLog>, metrics: Arc<Metrics>) -> Self {
        Self { log, metrics: Some(metrics) }
    }

    /// A log that keeps nothing.
    pub fn none() -> Self {
        Self { log: Arc::new(DecisionLog::none()), metrics: None }
    }

    /// Counts one event and writes it. Never waits.
    pub fn record(&self, event: &AuditEvent<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.audit_event(event.event.code(), event.outcome.code());
            if event.reason == Some(Reason::StoreUnavailable) {
                metrics.store_error();
            }
            if event.event == Event::Login {
                metrics.login(match event.outcome {
                    Outcome::Success => "success",
                    Outcome::Failure => event.reason.map_or("failure", Reason::code),
                });
            }
        }
        self.log.audit(|line, shape| event.write(line, shape));
    }

    /// See [`DecisionLog::is_blocked`].
    pub fn is_blocked(&self) -> bool {
        self.log.is_blocked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DecisionSink, Log};
    use crate::random::SeededRandom;
    use serde_json::Value;
    use std::time::Duration;

    fn line(settings: &Log, event: &AuditEvent<'_>) -> String {
        let mut out = String::new();
        event.write(&mut out, &Shape::new(settings, &SeededRandom::new(1)));
        out
    }

    fn failed_login(account: Account<'_>) -> AuditEvent<'_> {
        AuditEvent {
            decision_id: Some("0193530c-7e21-7c44-9d0e-3f1a5b2c8d90"),
            app: Some("items-api"),
            subject: Some("u-ada"),
            account: Some(account),
            session: Some("s-1"),
            issuer: Some("local"),
            address: Some(IpAddr::from([203, 0, 113, 9])),
            user_agent: Some("curl/8.14.1"),
            ..AuditEvent::new(Timestamp::from_millis(1_795_340_412_113), Event::Login, Outcome::Failure)
                .because(Reason::WrongPassword)
        }
    }

    #[test]
    fn a_line_has_the_documented_form() {
        let ada = AccountName::parse("Ada").unwrap();
        assert_eq!(
            line(&Log::default(), &AuditEvent { by: Some("u-root"), ..failed_login(Account::Known(&ada)) }),
            concat!(
                r#"{"v":1,"event":"login","ts":"2026-11-22T09:40:12.113Z","id":"0193530c-7e21-7c44-9d0e-3f1a5b2c8d90","#,
                r#""app":"items-api","outcome":"failure","reason":"wrong_password","sub":"u-ada","account":"ada","sid":"s-1","#,
                r#""iss":"local","by":"u-root","ip":"203.0.113.9","ua":"curl/8.14.1"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_name_that_is_no_account_is_not_written_since_it_may_be_a_password() {
        let typed = AccountName::parse("canary horse battery staple").unwrap();
        let written = line(&Log::default(), &failed_login(Account::Asked(&typed)));
        assert!(!written.contains("canary") && written.contains(r#""account":"hmac:"#), "{written}");
        let other = AccountName::parse("another").unwrap();
        assert_ne!(written, line(&Log::default(), &failed_login(Account::Asked(&other))));
    }

    #[test]
    fn attributes_are_erased_or_hashed() {
        let ada = AccountName::parse("ada").unwrap();
        let settings = Log {
            erase: vec!["client.ip".into(), "account".into(), "ua".into()],
            hash: vec!["sub".into(), "sid".into()],
            ..Log::default()
        };
        for account in [Account::Known(&ada), Account::Asked(&ada)] {
            let value: Value = serde_json::from_str(&line(&settings, &failed_login(account))).unwrap();
            for erased in ["ip", "account", "ua"] {
                assert_eq!(value[erased], Value::Null, "{erased}");
            }
            for hashed in ["sub", "sid"] {
                assert!(value[hashed].as_str().unwrap().starts_with("hmac:"), "{hashed}");
            }
            assert_eq!(value["erased"], serde_json::json!(["ip", "account", "ua"]));
        }
    }

    #[test]
    fn hostile_text_stays_within_one_short_line() {
        let name = AccountName::parse(&"x".repeat(200)).unwrap();
        for text in [
            "\u{1b}[2J\u{1b}]0;owned\u{7}",
            "a\r\n{\"v\":1,\"event\":\"login\",\"outcome\":\"success\"}",
            "\u{202e}evil\u{2028}\u{2029}\u{feff}",
            "\0\u{7f}\u{9b}",
            "<script>alert(1)</script>\"\\",
            "😀é",
            &"\u{1}".repeat(10_240),
        ] {
            let hostile = AuditEvent {
                user_agent: Some(text),
                subject: Some(text),
                session: Some(text),
                by: Some(text),
                app: Some(text),
                ..failed_login(Account::Known(&name))
            };
            let written = line(&Log::default(), &hostile);
            assert_eq!(written.find('\n'), Some(written.len() - 1), "{written}");
            assert!(written.trim_end().chars().all(|c| !c.is_control() && !('\u{2028}'..='\u{202e}').contains(&c)));
            assert!(written.len() < 24_000, "{}", written.len());
            let value: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(value["outcome"], "failure");
        }
    }

    #[test]
    fn events_are_counted_even_where_nothing_is_written() {
        let ada = AccountName::parse("ada").unwrap();
        let (log, metrics) = (Arc::new(DecisionLog::none()), Arc::new(Metrics::new()));
        let audit = Audit::new(Arc::clone(&log), Arc::clone(&metrics));
        audit.record(&failed_login(Account::Known(&ada)));
        audit.record(&AuditEvent::new(Timestamp::from_seconds(0), Event::Login, Outcome::Success));
        audit.record(&AuditEvent::new(Timestamp::from_seconds(0), Event::Reuse, Outcome::Failure));
        let text = metrics.encode(Timestamp::from_seconds(0), &log);
        for line in [
            "portcullis_logins_total{outcome=\"wrong_password\"} 1",
            "portcullis_logins_total{outcome=\"success\"} 1",
            "portcullis_audit_events_total{event=\"reuse\",outcome=\"failure\"} 1",
            "portcullis_audit_dropped_total 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn required_records_block_while_they_cannot_be_written() {
        let event = AuditEvent::new(Timestamp::from_seconds(0), Event::Logout, Outcome::Success);
        // A device that is always full.
        let full = DecisionSink::File { path: "/dev/full".into(), size: 1 << 20, keep: 1 };
        for (required, decisions, blocks) in
            [(true, full.clone(), true), (false, full, false), (true, DecisionSink::None, false)]
        {
            let settings = Log { audit_required: required, decisions, ..Log::default() };
            let log = Arc::new(DecisionLog::start(&settings, &SeededRandom::new(1)).unwrap());
            let audit = Audit::new(Arc::clone(&log), Arc::new(Metrics::new()));
            assert!(!audit.is_blocked());
            audit.record(&event);
            let deadline = std::time::Instant::now() + Duration::from_secs(if blocks { 20 } else { 1 });
            while !audit.is_blocked() && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(audit.is_blocked(), blocks, "{settings:?}");
        }
    }

    #[test]
    fn records_stand_among_the_decisions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let decisions = DecisionSink::File { path: path.clone(), size: 1 << 20, keep: 1 };
        let settings = Log { decisions, audit_required: true, ..Log::default() };
        let log = Arc::new(DecisionLog::start(&settings, &SeededRandom::new(1)).unwrap());
        let audit = Audit::new(Arc::clone(&log), Arc::new(Metrics::new()));
        for _ in 0..100 {
            audit.record(&AuditEvent::new(Timestamp::from_seconds(0), Event::Refresh, Outcome::Success));
        }
        assert!(log.flush(Duration::from_secs(20)));
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 100);
        assert!(!audit.is_blocked());
    }
}
