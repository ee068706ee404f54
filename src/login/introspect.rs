//! `POST /introspect` (RFC 7662): what an access token of ours is worth. Who may ask is the route's requirement.

use serde_json::{Map, Value, json};

use crate::policy::set::Admission;
use crate::response::Response;
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};
use crate::token::error::TokenError;
use crate::token::verify::VerifiedToken;

use super::error::{OAuthError, uncached};
use super::form::Form;
use super::{Asking, Login};

/// The claims that are told (RFC 7662 §2.2, and what our tokens have beside).
const TOLD: &[&str] = &[
    "scope",
    "iss",
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "jti",
    "client_id",
    "sid",
    "auth_time",
    "roles",
    "email",
    "tenant",
];

impl Login {
    /// Tells what the token of the form is worth. Whatever is wrong with it, the answer is `{"active": false}`. So it is
    /// for refresh tokens: they are no credential for a resource server.
    pub async fn introspect(&self, asking: &Asking<'_>, form: Form) -> Response {
        let told = self.told(asking, &form);
        let event = asking.event(Event::Introspect, if told.is_ok() { Outcome::Success } else { Outcome::Failure });
        let reason = match &told {
            Ok(Some(_)) => None,
            Ok(None) => Some(Reason::Inactive),
            Err(OAuthError::InvalidRequest(_)) => Some(Reason::InvalidRequest),
            Err(_) => Some(Reason::StoreUnavailable),
        };
        let by = match asking.caller {
            crate::identity::Caller::Known(identity) => identity.id.known().map(AsRef::as_ref),
            crate::identity::Caller::Anonymous => None,
        };
        let text = |name: &str| told.as_ref().ok()?.as_ref()?.get(name)?.as_str();
        self.audit(&AuditEvent { reason, by, subject: text("sub"), session: text("sid"), ..event });
        match told {
            Ok(Some(claims)) => uncached(Response::json(200, &claims)),
            Ok(None) => uncached(Response::json(200, &json!({"active": false}))),
            Err(error) => asking.refuse(&error),
        }
    }

    fn told(&self, asking: &Asking<'_>, form: &Form) -> Result<Option<Map<String, Value>>, OAuthError> {
        let token = form.get("token").ok_or(OAuthError::InvalidRequest("token is missing"))?;
        let verifier = self.parts.issuers.snapshot().verifier(asking.policy);
        let verified = match verifier.verify(token, asking.now) {
            Ok(verified) => verified,
            Err(TokenError::KeysUnavailable) => return Err(OAuthError::unavailable()),
            Err(_) => return Ok(None),
        };
        if !self.is_active(asking, &verified)? {
            return Ok(None);
        }
        let claims = verified.claims();
        let mut told = Map::new();
        told.insert("active".to_owned(), json!(true));
        told.insert("token_type".to_owned(), json!("Bearer"));
        if let Some(name) = claims.get("name") {
            told.insert("username".to_owned(), name.clone());
        }
        for name in TOLD {
            if let Some(value) = claims.get(name) {
                told.insert((*name).to_owned(), value.clone());
            }
        }
        Ok(Some(told))
    }

    /// Whether a valid token is one of ours that nobody has revoked.
    fn is_active(&self, asking: &Asking<'_>, token: &VerifiedToken) -> Result<bool, OAuthError> {
        let Some(issuer) = asking.policy.issuer(token.issuer()).filter(|issuer| issuer.local.is_some()) else {
            return Ok(false);
        };
        if issuer.admit(token.claims()) != Admission::Accepted {
            return Ok(false);
        }
        let text = |name: &str| token.claims().get(name).and_then(Value::as_str);
        let issued = token.claims().get("iat").and_then(crate::identity::claims::seconds);
        let issued = issued.map(crate::clock::Timestamp::as_seconds);
        let revoked = &self.parts.revoked;
        if revoked.is_revoked(token.issuer().as_str(), text("jti"), text("sid"), text("sub"), issued) {
            return Ok(false);
        }
        if !revoked.is_current() && !asking.app.allow_on_store_error {
            return Err(OAuthError::unavailable());
        }
        Ok(true)
    }
}
