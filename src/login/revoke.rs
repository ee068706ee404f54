//! `POST /revoke` (RFC 7009): whoever holds a token may end it.

use crate::response::Response;
use crate::store::{EndedBy, Revocation, Revoked, Session};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};
use crate::token::error::TokenError;

use super::error::OAuthError;
use super::form::Form;
use super::refresh::RefreshToken;
use super::{Asking, Login, to_the_end};

impl Login {
    /// Ends the token of the form. A refresh token ends its session with all access tokens; an access token ends alone.
    /// What nobody gave out, or has expired, needs no ending (200). `token_type_hint` is not needed.
    pub async fn revoke(&self, asking: &Asking<'_>, form: Form) -> Response {
        match self.revoke_token(asking, &form).await {
            // RFC 7009 §2.2 leaves the body open; simple-oauth2 wants one of JSON.
            Ok(()) => asking.answer(Response::json(200, &serde_json::json!({}))),
            Err(error) => asking.refuse(&error),
        }
    }

    async fn revoke_token(&self, asking: &Asking<'_>, form: &Form) -> Result<(), OAuthError> {
        let event = |outcome| asking.event(Event::Revoke, outcome);
        let down = |_| {
            self.audit(&event(Outcome::Failure).because(Reason::StoreUnavailable));
            OAuthError::unavailable()
        };
        let token = form.get("token").ok_or(OAuthError::InvalidRequest("token is missing"))?;
        if let Some(token) = RefreshToken::parse(token) {
            let Some(session) = self.parts.stores.sessions.of_token(&token.hash()).await.map_err(down)? else {
                self.audit(&event(Outcome::Success).because(Reason::Inactive));
                return Ok(());
            };
            self.end_of(asking, &session, EndedBy::Revoked).await.map_err(down)?;
            self.audit(&AuditEvent {
                subject: Some(&session.user),
                session: Some(&session.id),
                issuer: Some(&session.issuer),
                ..event(Outcome::Success)
            });
            return Ok(());
        }
        let verifier = self.parts.issuers.snapshot().verifier(asking.policy);
        let verified = match verifier.verify(token, asking.now) {
            Ok(verified) => verified,
            Err(TokenError::KeysUnavailable) => {
                self.audit(&event(Outcome::Failure).because(Reason::KeysUnavailable));
                return Err(OAuthError::unavailable());
            }
            Err(_) => {
                self.audit(&event(Outcome::Success).because(Reason::Inactive));
                return Ok(());
            }
        };
        let text = |name: &str| verified.claims().get(name).and_then(serde_json::Value::as_str);
        let ours = asking.policy.issuer(verified.issuer()).is_some_and(|issuer| issuer.local.is_some());
        let (true, Some(jti), Some(expires)) = (ours, text("jti"), verified.expires()) else {
            // Saying 200 would be untrue: the token is good, and stays so.
            return Err(OAuthError::UnsupportedTokenType);
        };
        let revocation = Revocation {
            issuer: verified.issuer().to_string(),
            revoked: Revoked::Token(jti.to_owned()),
            until: expires.plus(verifier.leeway(verified.issuer())),
        };
        let (parts, now) = (self.parts.clone(), asking.now);
        to_the_end(async move { parts.revoke(&[revocation], now).await }).await.map_err(down)?;
        self.audit(&AuditEvent {
            subject: text("sub"),
            session: text("sid"),
            issuer: Some(verified.issuer().as_str()),
            ..event(Outcome::Success)
        });
        Ok(())
    }

    /// Ends a session of whatever issuer gave it out.
    pub(super) async fn end_of(
        &self,
        asking: &Asking<'_>,
        session: &Session,
        by: EndedBy,
    ) -> Result<(), crate::store::StoreError> {
        let issuer = asking.policy.issuers.iter().find(|issuer| issuer.name.as_str() == session.issuer);
        let ours = issuer.and_then(|issuer| {
            let local = issuer.local.as_ref()?;
            Some(super::Ours { issuer, local, leeway: asking.policy.verifier.leeway(&issuer.name) })
        });
        match ours {
            Some(ours) => self.end(ours, session, by, asking.now).await,
            // Nobody accepts tokens of an issuer that the policy does not have, and if it comes back, not for longer
            // than the session would have lasted.
            None => {
                let (parts, session, now) = (self.parts.clone(), session.clone(), asking.now);
                to_the_end(async move { parts.end_session(&session, by, session.expires, now).await }).await
            }
        }
    }
}
