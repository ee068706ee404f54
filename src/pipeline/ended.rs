//! What ends at a Supabase project ends here too, at once.
//!
//! Supabase Auth deletes sessions at a logout, and their access tokens stay valid until they end. So where a logout passed
//! through the gateway and succeeded, the tokens are revoked here before the client hears of it, for all gateways.

use std::time::Duration;

use http::header::{AUTHORIZATION, USER_AGENT};
use serde_json::{Map, Value};

use super::{About, Pipeline, Verdict};
use crate::clock::Timestamp;
use crate::identity::IssuerName;
use crate::request::head::RequestHead;
use crate::store::{Revocation, Revoked};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};
use crate::token::error::TokenError;

use super::Active;

/// For tokens that are on their way while their session ends.
const MARGIN: Duration = Duration::from_secs(60);

impl Pipeline {
    /// A logout that was forwarded (`Edge::Logout`) has succeeded: the project answered 204, and so has vouched for the
    /// bearer. Nothing is vouched for by answers to other methods: any bearer may come with an `OPTIONS`. Ends when the revocation is known everywhere, or it is written down that it is not; what the client is
    /// told stays the same, since its session has ended at the project.
    pub async fn logged_out(&self, about: &About, head: &RequestHead<'_>) {
        let Verdict::Permitted(permit) = &about.verdict else { return };
        if head.method != "POST" {
            return;
        }
        // The first counts, as for the project.
        let scope = permit.target().query_values("scope").next().flatten();
        let bearer = head.header(AUTHORIZATION.as_str()).one().and_then(bearer);
        let Some((issuer, claims)) = bearer.and_then(|token| vouched(&about.active, token, about.at)) else {
            tracing::warn!(decision = about.id.as_str(), "a logout has succeeded, and its token cannot be read");
            return;
        };
        let leeway = about.active.policy.verifier.leeway(&issuer);
        let revocations = revocations(&issuer, &claims, scope.as_deref(), about.at, leeway);
        let (revoked, now) = (std::sync::Arc::clone(&about.active.services.revoked), self.now());
        // To the end, also if the client goes away meanwhile.
        let done = tokio::spawn(async move { revoked.revoke(&revocations, now).await }).await;
        let failed = !matches!(done, Ok(Ok(())));
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let outcome = if failed { Outcome::Failure } else { Outcome::Success };
        let all = scope.as_deref() != Some("local");
        about.active.services.audit.record(&AuditEvent {
            decision_id: Some(about.id.as_str()),
            app: Some(&permit.app().name),
            subject: text("sub"),
            session: text("session_id"),
            issuer: Some(issuer.as_str()),
            address: Some(about.client.ip()),
            user_agent: head.header(USER_AGENT.as_str()).one(),
            reason: match failed {
                true => Some(Reason::StoreUnavailable),
                false => all.then_some(Reason::AllSessions),
            },
            ..AuditEvent::new(now, Event::Logout, outcome)
        });
    }
}

/// The token of an `Authorization` header.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What a token says that a project has vouched for. What the gateway knows to be forged is not believed all the same; what
/// it cannot know, the only project is believed. With several that is not enough: one could vouch for the users of another.
fn vouched(active: &Active, token: &str, at: Timestamp) -> Option<(IssuerName, Map<String, Value>)> {
    let is_project = |issuer: &&crate::policy::set::Issuer| issuer.db_roles.is_some();
    let (name, claims) = active.tokens.verifier().vouched(token)?;
    active.policy.issuer(&name).filter(is_project)?;
    let is_only_one = active.policy.issuers.iter().filter(is_project).count() == 1;
    match active.tokens.verifier().verify(token, at) {
        Ok(_) | Err(TokenError::Expired) => Some((name, claims)),
        Err(TokenError::KeysUnavailable | TokenError::UnknownKey) if is_only_one => Some((name, claims)),
        Err(_) => None,
    }
}

/// What is revoked by a logout. `iat` strictly less than the second of the request: who logs in anew within it must not
/// be shut out for as long as tokens live.
fn revocations(
    issuer: &IssuerName,
    claims: &Map<String, Value>,
    scope: Option<&str>,
    at: Timestamp,
    leeway: Duration,
) -> Vec<Revocation> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
    // Other tokens of these sessions live as long as this one does, and the last was given out just now.
    let (exp, iat) = (seconds("exp").unwrap_or(0), seconds("iat"));
    let life = iat.map_or(0, |iat| exp.saturating_sub(iat)).max(0);
    let last = exp.max(at.as_seconds().saturating_add(life));
    let until = Timestamp::from_seconds(last).plus(leeway).plus(MARGIN);
    let before = Timestamp::from_seconds(at.as_seconds());
    let (session, subject) = (text("session_id"), text("sub"));
    let mut revoked = Vec::new();
    match scope {
        Some("local") => revoked.extend(session.map(|id| Revoked::Session(id.to_owned()))),
        Some("others") => revoked.extend(subject.map(|subject| match session {
            Some(but) => Revoked::Others { subject: subject.to_owned(), before, but: but.to_owned() },
            None => Revoked::Subject(subject.to_owned(), before),
        })),
        _ => {
            revoked.extend(session.map(|id| Revoked::Session(id.to_owned())));
            revoked.extend(subject.map(|subject| Revoked::Subject(subject.to_owned(), before)));
        }
    }
    let revocation = |revoked| Revocation { issuer: issuer.to_string(), revoked, until };
    revoked.into_iter().map(revocation).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bearer_is_read_in_any_case() {
        for (value, expected) in
            [("Bearer a.b.c", Some("a.b.c")), ("bearer  a.b.c ", Some("a.b.c")), ("Basic a.b.c", None), ("a.b.c", None)]
        {
            assert_eq!(bearer(value), expected, "{value}");
        }
    }

    /// F4: what each scope of a logout revokes, and until when.
    #[test]
    fn each_scope_revokes_what_it_ended() {
        let issuer = IssuerName::new("project");
        let claims = json!({ "sub": "u", "session_id": "s", "iat": 1000, "exp": 4600 });
        let at = Timestamp::from_millis(2_000_900);
        let session = || Revoked::Session("s".to_owned());
        let before = Timestamp::from_seconds(2000);
        let subject = || Revoked::Subject("u".to_owned(), before);
        let others = Revoked::Others { subject: "u".to_owned(), before, but: "s".to_owned() };
        for (scope, expected) in [
            (None, vec![session(), subject()]),
            (Some("global"), vec![session(), subject()]),
            (Some(""), vec![session(), subject()]),
            (Some("local"), vec![session()]),
            (Some("others"), vec![others]),
        ] {
            let found = revocations(&issuer, claims.as_object().unwrap(), scope, at, Duration::from_secs(30));
            let revoked: Vec<Revoked> = found.iter().map(|revocation| revocation.revoked.clone()).collect();
            assert_eq!(revoked, expected, "{scope:?}");
            // Not only until this one ends: another of its session may have been given out just now.
            let until = Timestamp::from_seconds(2000 + 3600 + 30 + 60);
            assert!(found.iter().all(|revocation| revocation.until == until && revocation.issuer == "project"));
        }
    }

    #[test]
    fn claims_of_any_shape_revoke_what_they_name_and_no_more() {
        let issuer = IssuerName::new("project");
        for (claims, expected) in [
            (json!({}), 0),
            (json!({ "sub": 7, "session_id": "" }), 0),
            (json!({ "sub": "u", "exp": "x", "iat": -1e300 }), 1),
            (json!({ "session_id": "s", "exp": 1e300, "iat": -1e300 }), 1),
            (json!({ "session_id": "s", "exp": -5, "iat": 5 }), 1),
        ] {
            let claims = claims.as_object().unwrap();
            let found = revocations(&issuer, claims, None, Timestamp::from_seconds(2000), Duration::ZERO);
            assert_eq!(found.len(), expected, "{claims:?}");
        }
    }
}
