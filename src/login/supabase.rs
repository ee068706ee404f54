//! Logging in to a Supabase project (`via: supabase`): a form comes in, its password grant goes out, and its tokens come
//! back in the form of RFC 6749. Nothing is kept here: sessions are the project's.
//!
//! Attempts are counted as for accounts of our own, before the project is asked: it sees no more guesses from one address
//! than it must. Whoever is locked gets the answer to a wrong password, and the project is not asked.
//!
//! What the project's tokens may do is not narrowed by the scopes that are asked for. Those that the user has are named
//! in the answer, since clients compare; where none is left, or with `scope_mode: strict` not all, there is no login.

use std::time::Duration;

use serde::Serialize;

use crate::identity::account::AccountName;
use crate::identity::scope::ScopeSet;
use crate::identity::{Fact, Identity, Transport};
use crate::policy::set::{Admission, Issuer, SupabaseProject};
use crate::provider::ProviderError;
use crate::provider::supabase::{Account as Name, Session};
use crate::response::Response;
use crate::telemetry::audit::{Account, AuditEvent, Event, Outcome, Reason};

use super::error::OAuthError;
use super::form::Form;
use super::throttle::{Attempting, Ticket};
use super::{Asking, Login, grant};

/// The wait that is proposed where the project says none.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest refresh token that Supabase Auth gives out.
const MOST_REFRESH: usize = 512;

/// The issuer whose tokens are given out, and its project.
#[derive(Clone, Copy)]
struct Theirs<'a> {
    issuer: &'a Issuer,
    project: &'a SupabaseProject,
}

impl Login {
    /// `grant_type=password`.
    pub(super) async fn supabase_password(&self, asking: &Asking<'_>, form: &Form) -> Result<Response, OAuthError> {
        let failed = |reason| asking.event(Event::Login, Outcome::Failure).because(reason);
        let refused = |error, event: AuditEvent<'_>| {
            self.audit(&event);
            error
        };
        let theirs = theirs(asking)?;
        let bad_request = |what| refused(OAuthError::InvalidRequest(what), failed(Reason::InvalidRequest));
        let username = form.get("username").ok_or_else(|| bad_request("username is missing"))?;
        let password = form.get("password").ok_or_else(|| bad_request("password is missing"))?;
        if crate::password::check_length(password.as_bytes()).is_err() {
            return Err(bad_request("The password is too long"));
        }
        let requested = form.scopes().map_err(|error| refused(error, failed(Reason::InvalidScope)))?;

        let account = AccountName::parse(username).ok();
        let session = self.supabase_session(asking, username, password).await?;
        let failed = |reason| AuditEvent { account: account.as_ref().map(Account::Asked), ..failed(reason) };

        let identity = self.identity(asking, theirs, &session);
        let known = identity.as_ref();
        let event = |event: AuditEvent<'_>| {
            let account = account.as_ref().map(Account::Known);
            let subject = known.and_then(|identity| identity.id.known());
            let sid = known.and_then(|identity| identity.session.known());
            self.audit(&AuditEvent {
                account,
                subject: subject.map(|id| &**id),
                session: sid.map(|id| &**id),
                ..event
            });
        };
        let allowed = scopes(known);
        let (defaults, strict) = (asking.login.default_scopes.as_deref(), asking.login.strict_scopes);
        let granted = match grant::granted(&requested, &allowed, defaults, theirs.issuer.hierarchy, strict) {
            Ok(granted) => granted,
            Err(error) => {
                event(failed(Reason::InvalidScope));
                // Nobody will use it.
                drop(self.parts.supabase.logout(theirs.project, session.tokens.access.expose(), "local").await);
                return Err(error);
            }
        };
        event(asking.event(Event::Login, Outcome::Success));
        Ok(asking.answer(answer(&session, &granted)))
    }

    /// The session that a password opens at the project. Failures are counted and written down here; what becomes of the
    /// session, its owner does.
    pub async fn supabase_session(
        &self,
        asking: &Asking<'_>,
        username: &str,
        password: &str,
    ) -> Result<Session, OAuthError> {
        let failed = |reason| asking.event(Event::Login, Outcome::Failure).because(reason);
        let refused = |error, event: AuditEvent<'_>| {
            self.audit(&event);
            error
        };
        if self.parts.audit.is_blocked() {
            return Err(refused(OAuthError::unavailable(), failed(Reason::StoreUnavailable)));
        }
        let theirs = theirs(asking)?;
        let account = AccountName::parse(username).ok();
        let asked = account.as_ref().map(Account::Asked);
        let failed = |reason| AuditEvent { account: asked, ..failed(reason) };
        let attempting = Attempting {
            realm: &format!("issuer {}", theirs.issuer.name),
            account: account.as_ref(),
            client: asking.client,
            password: Some(password.as_bytes()),
        };
        let attempts = &*self.parts.stores.attempts;
        let ticket = self.throttle.begin(attempts, &attempting, asking.login.lockout.as_ref(), asking.now).await;
        let ticket = ticket.map_err(|_| refused(OAuthError::unavailable(), failed(Reason::StoreUnavailable)))?;
        if ticket.is_new_lock() {
            self.audit(&AuditEvent { event: Event::Lockout, ..failed(Reason::Locked) });
        }
        if ticket.locked().is_some() {
            return Err(refused(OAuthError::BadCredentials, failed(Reason::Locked)));
        }
        // A name that is neither an address nor a number is nobody's.
        let Some(name) = account.as_ref().and_then(|_| Name::parse(username)) else {
            return Err(refused(OAuthError::BadCredentials, failed(Reason::UnknownAccount)));
        };
        let from = Some(asking.client.ip());
        let session = match self.parts.supabase.password(theirs.project, from, name, password).await {
            Ok(session) => session,
            Err(error) => {
                let (error, reason) = self.no_session(asking, theirs, ticket, &error).await;
                return Err(refused(error, failed(reason)));
            }
        };
        self.throttle.clear(attempts, ticket).await;
        Ok(session)
    }

    /// `grant_type=refresh_token`. What the project cannot decide now is 503: whoever gets a 429 or 409 here believes
    /// that the session is over.
    pub(super) async fn supabase_refresh(&self, asking: &Asking<'_>, form: &Form) -> Result<Response, OAuthError> {
        let failed = |reason| asking.event(Event::Refresh, Outcome::Failure).because(reason);
        let refused = |error, event: AuditEvent<'_>| {
            self.audit(&event);
            error
        };
        let theirs = theirs(asking)?;
        let presented = form.get("refresh_token").ok_or_else(|| {
            refused(OAuthError::InvalidRequest("refresh_token is missing"), failed(Reason::InvalidRequest))
        })?;
        let requested = form.scopes().map_err(|error| refused(error, failed(Reason::InvalidScope)))?;
        if presented.len() > MOST_REFRESH || !presented.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refused(OAuthError::InvalidGrant, failed(Reason::UnknownToken)));
        }
        let session = match self.parts.supabase.refresh(theirs.project, Some(asking.client.ip()), presented).await {
            Ok(session) => session,
            Err(error) => {
                let (error, reason) = not_renewed(theirs, &error);
                let event = match reason {
                    Reason::Reused => AuditEvent { event: Event::Reuse, ..failed(reason) },
                    reason => failed(reason),
                };
                return Err(refused(error, event));
            }
        };
        let identity = self.identity(asking, theirs, &session);
        let known = identity.as_ref();
        // The old token is used up: whatever is asked for, the new ones must reach their owner.
        let allowed = scopes(known);
        let granted = grant::granted(&requested, &allowed, None, theirs.issuer.hierarchy, false).unwrap_or_default();
        self.audit(&AuditEvent {
            subject: known.and_then(|identity| identity.id.known()).map(|id| &**id),
            session: known.and_then(|identity| identity.session.known()).map(|id| &**id),
            ..asking.event(Event::Refresh, Outcome::Success)
        });
        Ok(asking.answer(answer(&session, &granted)))
    }

    /// What a login is told that the project did not let in. An attempt that was none does not count.
    async fn no_session(
        &self,
        asking: &Asking<'_>,
        theirs: Theirs<'_>,
        ticket: Ticket,
        error: &ProviderError,
    ) -> (OAuthError, Reason) {
        let said = refusal(error);
        if said.as_ref().is_none_or(|(_, _, is_guess)| !is_guess) {
            self.throttle.forgive(&*self.parts.stores.attempts, ticket, asking.now).await;
        }
        match (said, error) {
            (Some((error, reason, _)), _) => (error, reason),
            (None, ProviderError::Busy(wait)) => {
                (OAuthError::RateLimited(wait.unwrap_or(AGAIN)), Reason::ProviderUnavailable)
            }
            (None, error) => {
                tracing::warn!(issuer = %theirs.issuer.name, %error, "a login could not be checked");
                (OAuthError::unavailable(), Reason::ProviderUnavailable)
            }
        }
    }

    /// Whom the new access token is of, by the rules that every request is checked with.
    fn identity(&self, asking: &Asking<'_>, theirs: Theirs<'_>, session: &Session) -> Option<Identity> {
        let verifier = self.parts.issuers.snapshot().verifier(asking.policy);
        let name = &theirs.issuer.name;
        match verifier.verify(session.tokens.access.expose(), asking.now) {
            Ok(token) if token.issuer() == name && theirs.issuer.admit(token.claims()) == Admission::Accepted => {
                Some(token.identity(Transport::Bearer))
            }
            Ok(_) => {
                tracing::warn!(issuer = %name, "the project gives out a token that is not accepted here");
                None
            }
            Err(error) => {
                tracing::warn!(issuer = %name, %error, "the project gives out a token that cannot be verified here");
                None
            }
        }
    }
}

fn theirs<'a>(asking: &Asking<'a>) -> Result<Theirs<'a>, OAuthError> {
    let issuer = asking.login.issuer.as_ref().and_then(|name| asking.policy.issuer(name));
    let theirs = issuer.and_then(|issuer| Some(Theirs { issuer, project: issuer.supabase.as_deref()? }));
    theirs.ok_or_else(OAuthError::unavailable)
}

/// What a refused password means, and whether it counts as a guess; `None` where nothing was refused.
fn refusal(error: &ProviderError) -> Option<(OAuthError, Reason, bool)> {
    const OFF: OAuthError = OAuthError::InvalidRequest("The project does not let anybody log in like this");
    let ProviderError::Refused { code, .. } = error else { return None };
    Some(match &**code {
        // Said only to who knows the password.
        "email_not_confirmed" => (OAuthError::NotConfirmed("Email not confirmed"), Reason::ProviderRefused, false),
        "phone_not_confirmed" => (OAuthError::NotConfirmed("Phone not confirmed"), Reason::ProviderRefused, false),
        "user_banned" => (OAuthError::Refused("User is banned"), Reason::Disabled, true),
        "captcha_failed" => {
            (OAuthError::InvalidRequest("The project asks for a captcha"), Reason::ProviderRefused, false)
        }
        "email_provider_disabled" | "phone_provider_disabled" | "provider_disabled" => {
            (OFF, Reason::ProviderRefused, false)
        }
        _ => (OAuthError::BadCredentials, Reason::ProviderRefused, true),
    })
}

/// What a refresh token is told that gave nothing (A3.1 of the wire contract).
fn not_renewed(theirs: Theirs<'_>, error: &ProviderError) -> (OAuthError, Reason) {
    let name = &theirs.issuer.name;
    match error {
        ProviderError::Refused { code, .. } => {
            let reason = match &**code {
                "refresh_token_already_used" => Reason::Reused,
                "session_not_found" | "session_expired" => Reason::SessionOver,
                "user_banned" => Reason::Disabled,
                "refresh_token_not_found" | "validation_failed" => Reason::UnknownToken,
                "invalid_client" => {
                    tracing::warn!(issuer = %name, "a refresh token belongs to an OAuth client of the project");
                    Reason::InvalidClient
                }
                _ => Reason::ProviderRefused,
            };
            (OAuthError::InvalidGrant, reason)
        }
        ProviderError::Busy(wait) => (OAuthError::Unavailable(wait.unwrap_or(AGAIN)), Reason::ProviderUnavailable),
        error => {
            tracing::warn!(issuer = %name, %error, "a session could not be renewed");
            (OAuthError::unavailable(), Reason::ProviderUnavailable)
        }
    }
}

fn scopes(identity: Option<&Identity>) -> Vec<String> {
    let Some(Fact::Known(scopes)) = identity.map(|identity| &identity.scopes) else { return Vec::new() };
    ScopeSet::iter(scopes).map(str::to_owned).collect()
}

/// The successful answer (RFC 6749 §5.1): no user, and nothing null.
fn answer(session: &Session, scopes: &[String]) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        access_token: &'a str,
        token_type: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        scope: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        refresh_token: Option<&'a str>,
    }
    let tokens = &session.tokens;
    let body = Body {
        access_token: tokens.access.expose(),
        token_type: "bearer",
        expires_in: tokens.expires_in.map(|duration| duration.as_secs().max(1)),
        scope: scopes.join(" "),
        refresh_token: tokens.refresh.as_ref().map(|token| token.expose().as_str()),
    };
    Response::json(200, &body)
}
