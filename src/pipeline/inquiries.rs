//! What issuers are asked about a token: what an opaque one is worth (RFC 7662), and whether a session still lives
//! (`session_check`).
//!
//! An answer is kept under a hash of the token with everything else that it depends on (H07), for as long as the policy
//! says and never longer than the token lives. What the policy demands of a token is checked at each use: an answer that
//! was good for one set of rules is not for another. An issuer that cannot be asked is an outage: 503, and nothing is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};

use super::asked::{Asked, Keep, question};
use super::{Checked, Introspected};
use crate::clock::Timestamp;
use crate::identity::IssuerName;
use crate::identity::claims::seconds;
use crate::policy::set::PolicySet;
use crate::provider::supabase::Liveness;
use crate::provider::{Oidc, Supabase};
use crate::secret::Secret;
use crate::token::verify::{ExpectedAudience, Verifier};

/// How long the answer that a token is worth nothing is used again, at most.
const NO: Duration = Duration::from_secs(10);
/// The largest answer that is kept, in bytes.
const MOST_KEPT: usize = 8 * 1024;
/// How much longer than its token an answer is kept that says that the session has ended: clocks differ.
const LONGER: Duration = Duration::from_secs(3600);
/// How often an outage is said.
const SAID: Duration = Duration::from_secs(10);

/// Asks issuers, and remembers what they said.
#[derive(Debug)]
pub struct Inquiries {
    oidc: Oidc,
    supabase: Supabase,
    tokens: Arc<Asked<Worth>>,
    sessions: Arc<Asked<Checked>>,
    said: Arc<Said>,
}

/// What an issuer said of a token.
#[derive(Clone, Debug)]
enum Worth {
    Active(Arc<Map<String, Value>>),
    Inactive,
    Unknown,
}

/// When an outage was said last, in milliseconds.
#[derive(Debug)]
struct Said(AtomicI64);

impl Said {
    /// Whether to say it (again).
    fn is_due(&self, now: Timestamp) -> bool {
        let (last, now) = (self.0.load(Ordering::Relaxed), now.as_millis());
        let is_due = now.saturating_sub(last) >= SAID.as_millis() as i64 || now < last;
        is_due && self.0.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Inquiries {
    /// Asks through these clients.
    pub fn new(oidc: Oidc, supabase: Supabase) -> Self {
        let said = Arc::new(Said(AtomicI64::new(i64::MIN)));
        Self { oidc, supabase, tokens: Arc::new(Asked::new()), sessions: Arc::new(Asked::new()), said }
    }

    /// What an opaque token is worth.
    pub(super) async fn token(
        &self,
        (policy, verifier): (&PolicySet, &Verifier),
        issuer: &IssuerName,
        token: &Secret<String>,
        now: Timestamp,
    ) -> Introspected {
        let Some(settings) = policy.issuer(issuer).and_then(|issuer| issuer.introspection.clone()) else {
            return Introspected::Unavailable;
        };
        let rules = verifier.issuers().find(|rules| rules.name == *issuer);
        let audiences = match rules.map(|rules| &rules.audience) {
            Some(ExpectedAudience::OneOf(audiences) | ExpectedAudience::ClientOneOf(audiences)) => audiences.as_slice(),
            Some(ExpectedAudience::DangerAny) | None => &[],
        };
        let parts = [issuer.as_str(), &settings.url, &settings.client_id, token.expose()];
        let parts = parts.into_iter().chain(audiences.iter().map(AsRef::as_ref));
        let question = question(parts.map(str::as_bytes));
        let (oidc, said, token, name) = (self.oidc.clone(), Arc::clone(&self.said), token.clone(), issuer.clone());
        let asking = async move {
            match oidc.introspect(&settings, token.expose()).await {
                Ok(Some(claims)) => {
                    let ends = claims.get("exp").and_then(seconds);
                    let until = now.plus(settings.cache);
                    let until = ends.map_or(until, |ends| until.min(ends));
                    let is_small = serde_json::to_vec(&claims).is_ok_and(|text| text.len() <= MOST_KEPT);
                    (Worth::Active(Arc::new(claims)), is_small.then_some(Keep { until, is_yes: true }))
                }
                Ok(None) => (Worth::Inactive, Some(Keep { until: now.plus(settings.cache.min(NO)), is_yes: false })),
                Err(error) => {
                    if said.is_due(now) {
                        tracing::warn!(issuer = %name, %error, "the issuer cannot be asked about a token");
                    }
                    (Worth::Unknown, None)
                }
            }
        };
        match self.tokens.get(question, now, asking).await {
            Some(Worth::Active(claims)) => match verifier.introspected(issuer, &claims, now) {
                Ok(verified) => Introspected::Active(Box::new(verified)),
                Err(error) => Introspected::Inactive(error.name()),
            },
            Some(Worth::Inactive) => Introspected::Inactive("token_inactive"),
            Some(Worth::Unknown) | None => Introspected::Unavailable,
        }
    }

    /// Whether the session of a token that was verified still lives.
    pub(super) async fn session(
        &self,
        (policy, verifier): (&PolicySet, &Verifier),
        issuer: &IssuerName,
        token: &Secret<String>,
        now: Timestamp,
    ) -> Checked {
        let project = policy.issuer(issuer).and_then(|issuer| issuer.supabase.clone());
        let check = project.and_then(|project| Some((project.session_check.as_ref()?.cache, project)));
        let (Some((cache, project)), Ok(verified)) = (check, verifier.verify(token.expose(), now)) else {
            return Checked::Unavailable;
        };
        let question = question([issuer.as_str(), &project.url, token.expose()].map(str::as_bytes));
        let (supabase, said, token, name) =
            (self.supabase.clone(), Arc::clone(&self.said), token.clone(), issuer.clone());
        let asking = async move {
            let whose = verified.claims().get("sub").and_then(Value::as_str);
            let keep = |until: Timestamp, is_yes| {
                let until = verified.expires().filter(|_| is_yes).map_or(until, |ends| until.min(ends));
                Some(Keep { until, is_yes })
            };
            let trouble = match supabase.user(&project, token.expose()).await {
                Ok(Liveness::Live(id)) if Some(&*id) == whose => {
                    return (Checked::Live, keep(now.plus(cache), true));
                }
                Ok(Liveness::Live(_)) => "it named another user".to_owned(),
                Ok(Liveness::Ended(_)) => {
                    // For good: what is accepted a little longer than it lives is remembered so long.
                    let until = verified.expires().map_or(now, |ends| ends).plus(LONGER);
                    return (Checked::Ended, keep(until, false));
                }
                Err(error) => error.to_string(),
            };
            if said.is_due(now) {
                tracing::warn!(issuer = %name, error = %trouble, "the project cannot be asked whether a session lives");
            }
            (Checked::Unavailable, None)
        };
        self.sessions.get(question, now, asking).await.unwrap_or(Checked::Unavailable)
    }
}
