//! Signing out: here at once, at the provider as far as it can be reached.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, COOKIE, RETRY_AFTER};
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::identity::IssuerName;
use crate::policy::set::PolicySet;
use crate::provider::Oidc;
use crate::response::{Problem, Response};
use crate::store::{BrowserSession, Revocation, Revoked, StoreError};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};

use super::kept::Kept;
use super::{Browser, Inner, Visit, hash_of, page};

/// For tokens that are on their way while their session ends.
const MARGIN: Duration = Duration::from_secs(60);

/// What browsers shall forget of this origin (W3C Clear Site Data).
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// So many sessions are ended at once.
const MOST_COOKIES: usize = 8;

impl Browser {
    /// `POST /logout`: ends the session of the browser. 303 to the provider, where it has a place to sign out, and from
    /// there or at once to where a login would end; 204 to a script that asks for JSON; 403 to a form from elsewhere.
    pub async fn logout(&self, visit: &Visit<'_>) -> Response {
        let refuse = |status, code, detail, reason| {
            self.inner.audit(&visit.event(Event::Logout, Outcome::Failure).because(reason));
            Problem { status, code, detail, decision_id: visit.decision_id }.respond()
        };
        if !visit.is_same_origin() {
            let detail = "the request comes from another origin";
            return refuse(403, "access_denied", detail, Reason::AccessDenied);
        }
        // Of several cookies each ends: somebody wants out.
        let hashes: Vec<_> = values(visit).into_iter().filter_map(hash_of).collect();
        let (inner, policy, login) = (Arc::clone(&self.inner), Arc::clone(visit.policy), Arc::clone(visit.browser));
        // To the end, also if the browser goes away meanwhile: half of a logout is none.
        let ended = tokio::spawn(async move {
            let mut ended = Vec::new();
            for hash in hashes {
                let Some((row, kept)) = inner.read(&login, &hash).await? else {
                    // Also what cannot be opened now: its key may come back.
                    inner.parts.stores.browser.end(&hash).await?;
                    continue;
                };
                inner.log_out(&policy, &row, &kept).await?;
                ended.push((row, kept));
            }
            Ok::<_, StoreError>(ended)
        });
        let ended = ended.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the work was stopped".to_owned())));
        let Ok(ended) = ended else {
            let detail = "the session cannot be ended now";
            let response = refuse(503, "unavailable", detail, Reason::StoreUnavailable);
            return response.with(RETRY_AFTER, HeaderValue::from_static("5"));
        };
        for (row, _) in &ended {
            self.inner.audit(&AuditEvent {
                issuer: Some(&row.issuer),
                subject: Some(&row.user),
                session: Some(&row.id),
                ..visit.event(Event::Logout, Outcome::Success)
            });
        }
        let wants_json = visit.headers.get(ACCEPT).is_some_and(|accept| accept == "application/json");
        let elsewhere = match ended.first() {
            Some((row, kept)) if !wants_json => self.inner.sign_out_at(visit, &row.issuer, kept).await,
            _ => None,
        };
        let (inner, policy) = (Arc::clone(&self.inner), Arc::clone(visit.policy));
        tokio::spawn(async move {
            for (row, kept) in ended {
                inner.revoke_at_provider(&policy, &row.issuer, &kept).await;
            }
        });
        let cookies = vec![visit.browser.clearing()];
        let response = match wants_json {
            true => page::with_cookies(page::uncached(Response::new(204)), cookies),
            false => page::redirect(elsewhere.as_deref().unwrap_or(&visit.browser.return_to), cookies),
        };
        // The back button shows no page of who has left.
        response.with(CLEAR_SITE_DATA, HeaderValue::from_static("\"cache\""))
    }
}

/// The values of the session's cookie: one, unless somebody tossed in others.
fn values<'a>(visit: &Visit<'a>) -> Vec<&'a str> {
    let pairs = visit.headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = pairs.flat_map(|field| field.split(';')).filter_map(|pair| pair.split_once('='));
    let ours = pairs.filter(|(name, _)| name.trim() == &*visit.browser.cookie);
    ours.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).take(MOST_COOKIES).collect()
}

impl Inner {
    /// Ends a session and what its tokens are worth here.
    async fn log_out(&self, policy: &PolicySet, row: &BrowserSession, kept: &Kept) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let until = kept.ends.max(now).plus(MARGIN).plus(MARGIN);
        let revocations: Vec<Revocation> = self
            .named(policy, row, kept)
            .map(|revoked| Revocation { issuer: row.issuer.clone(), revoked, until })
            .into_iter()
            .collect();
        let mut result = Ok(());
        for store in &self.parts.stores.revocations {
            if !revocations.is_empty()
                && let Err(error) = store.add(&revocations, now).await
            {
                result = Err(error);
            }
        }
        // Here also where a store fails: refusing is the safe side.
        self.parts.revoked.add(&revocations);
        result?;
        self.parts.stores.browser.end(&row.hash).await.map(drop)
    }

    /// What names the tokens of this login alone. An OpenID provider's `sid` may be that of a session at the provider
    /// that goes on: whoever signs in again has the same.
    fn named(&self, policy: &PolicySet, row: &BrowserSession, kept: &Kept) -> Option<Revoked> {
        let issuer = IssuerName::new(row.issuer.as_str());
        let verifier = self.parts.issuers.live().snapshot().verifier(policy);
        // As of when it was good for sure.
        let at = self.parts.clock.now().min(kept.ends.minus(Duration::from_secs(1)));
        let verified = verifier.verify(kept.access.expose(), at).ok().filter(|token| *token.issuer() == issuer)?;
        let text = |name: &str| verified.claims().get(name).and_then(Value::as_str).map(str::to_owned);
        let supabase = policy.issuer(&issuer).is_some_and(|issuer| issuer.supabase.is_some());
        match text("session_id").filter(|_| supabase) {
            Some(session) => Some(Revoked::Session(session)),
            None => text("jti").map(Revoked::Token),
        }
    }

    /// Where the browser signs out at an OpenID provider too: it has a session of its own there, and the next login would
    /// end without a question (OpenID Connect RP-Initiated Logout). `None`: there is no such place, or it is not known.
    async fn sign_out_at(&self, visit: &Visit<'_>, issuer: &str, kept: &Kept) -> Option<String> {
        let issuer = visit.policy.issuers.iter().find(|known| known.name.as_str() == issuer)?;
        let client = issuer.oidc.as_deref().filter(|_| !visit.origin.is_empty())?;
        let discovery = self.discovery(&client.issuer).await.ok()?;
        let back = format!("{}{}", visit.origin.trim_end_matches('/'), visit.browser.return_to);
        Oidc::end_session_url(&discovery, client, kept.id.as_ref().map(|token| token.expose().as_str()), &back)
    }

    /// Tells the provider that tokens are not needed any more. Best effort: here they are worth nothing already.
    pub(super) async fn revoke_at_provider(&self, policy: &PolicySet, issuer: &str, kept: &Kept) {
        let issuer = policy.issuers.iter().find(|known| known.name.as_str() == issuer);
        let Some(project) = issuer.and_then(|issuer| issuer.supabase.as_deref()) else { return };
        if let Err(error) = self.parts.supabase.logout(project, kept.access.expose(), "local").await {
            tracing::info!(%error, "a session may go on at its provider");
        }
    }
}
