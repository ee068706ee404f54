//! What must be found out before a request can be decided, and what was.
//!
//! Deciding is synchronous and pure but for counters. Where it lacks something that only somebody else can say, it stops
//! with a [`Need`]; [`Pipeline::find_out`] asks, and the request is decided again from the start with the answer in
//! [`Found`]. Each need is asked once for a request: an answer that could not be had is an answer too, and means 503.

use std::net::IpAddr;
use std::sync::Arc;

use super::Pipeline;
use super::ssr::Refresh;
use crate::browser::SessionFound;
use crate::identity::IssuerName;
use crate::issuer::KeyOutcome;
use crate::policy::set::BrowserLogin;
use crate::secret::Secret;
use crate::token::key::Kid;
use crate::token::verify::VerifiedToken;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Need {
    /// A key of an issuer that is not known: it may be new. `kid: None` where its keys were never seen.
    Key {
        /// Whose.
        issuer: IssuerName,
        /// Which.
        kid: Option<Kid>,
    },
    /// What an opaque token is worth (RFC 7662).
    Introspection {
        /// Who is asked.
        issuer: IssuerName,
        /// About what.
        token: Secret<String>,
    },
    /// The session of a browser.
    Session {
        /// Of which app's login.
        login: Arc<BrowserLogin>,
        /// The value of the session's cookie.
        cookie: Secret<String>,
    },
    /// Whether the session of a token still lives (`session_check`).
    SessionCheck {
        /// Who is asked.
        issuer: IssuerName,
        /// The token of the session.
        token: Secret<String>,
    },
    /// New tokens for a cookie of `@supabase/ssr` (`on_expired: refresh_and_set_cookie`).
    SsrRefresh {
        /// Whose session.
        issuer: IssuerName,
        /// The whole session in it, as JSON.
        session: Secret<String>,
        /// Who wants to go on with it.
        client: IpAddr,
    },
}

/// What was found out for a request.
#[derive(Debug, Default)]
pub struct Found {
    /// Whether anything was asked: limits by address were taken then.
    pub(super) asked: bool,
    /// What came of asking for a key.
    pub(super) key: Option<KeyFound>,
    /// What an opaque token is worth.
    pub(super) introspected: Option<Introspected>,
    /// The session of the browser.
    pub(super) session: Option<SessionFound>,
    /// Whether the session of the token lives.
    pub(super) checked: Option<Checked>,
    /// New tokens.
    pub(super) refreshed: Option<Refreshed>,
}

/// What came of asking for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFound {
    /// The keys are as new as they may be: if it is there, it is in the snapshot of keys now.
    UpToDate,
    /// They could not be fetched, so nothing can be said about a key that is not known.
    Unavailable,
}

/// What an opaque token is worth.
#[derive(Clone, Debug)]
pub enum Introspected {
    /// Its issuer vouches for it.
    Active(Box<VerifiedToken>),
    /// Nothing, for this reason.
    Inactive(&'static str),
    /// It could not be found out.
    Unavailable,
}

/// Whether the session of a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It does.
    Live,
    /// It has ended.
    Ended,
    /// It could not be found out.
    Unavailable,
}

/// What became of a cookie of `@supabase/ssr` whose token had expired.
#[derive(Clone, Debug)]
pub enum Refreshed {
    /// Here is a new session.
    New {
        /// The new access token.
        token: Secret<String>,
        /// The whole session, as JSON.
        session: Secret<String>,
    },
    /// The session has ended.
    Over,
    /// It could not be found out.
    Unavailable,
}

impl Found {
    /// Notes that something could not be had.
    pub fn give_up(&mut self, need: &Need) {
        self.asked = true;
        match need {
            Need::Key { .. } => self.key = Some(KeyFound::Unavailable),
            Need::Introspection { .. } => self.introspected = Some(Introspected::Unavailable),
            Need::Session { .. } => self.session = Some(SessionFound::Unavailable),
            Need::SessionCheck { .. } => self.checked = Some(Checked::Unavailable),
            Need::SsrRefresh { .. } => self.refreshed = Some(Refreshed::Unavailable),
        }
    }
}

impl Pipeline {
    /// Asks for what a request needs. However that ends, it is not asked again.
    pub async fn find_out(&self, need: &Need, found: &mut Found) {
        found.give_up(need);
        let (policy, services) = (self.policy.snapshot(), self.settings.services.snapshot());
        match need {
            Need::Key { issuer, kid } => {
                found.key = Some(match services.issuers.find_key(&policy, issuer, kid.as_ref()).await {
                    KeyOutcome::UpToDate => KeyFound::UpToDate,
                    KeyOutcome::Unavailable => KeyFound::Unavailable,
                });
            }
            Need::Session { login, cookie } => {
                if services.has_store {
                    found.session = Some(services.browser.find(&policy, login, cookie.expose()).await);
                }
            }
            Need::Introspection { issuer, token } => {
                let (active, now) = (self.active(), self.now());
                let with = (&*active.policy, active.tokens.verifier());
                found.introspected = Some(services.inquiries.token(with, issuer, token, now).await);
            }
            Need::SessionCheck { issuer, token } => {
                let (active, now) = (self.active(), self.now());
                let with = (&*active.policy, active.tokens.verifier());
                found.checked = Some(services.inquiries.session(with, issuer, token, now).await);
            }
            Need::SsrRefresh { issuer, session, client } => {
                let project = policy.issuer(issuer).and_then(|issuer| issuer.supabase.clone());
                if let Some(project) = project {
                    let refresh = Refresh {
                        supabase: services.supabase.clone(),
                        project,
                        issuer: issuer.clone(),
                        client: *client,
                        audit: Arc::clone(&services.audit),
                        now: self.now(),
                    };
                    found.refreshed = Some(self.ssr.refresh(refresh, session).await);
                }
            }
        }
    }
}
