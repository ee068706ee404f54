//! What issuers are asked about a token: what an opaque one is worth (RFC 7662), and whether a session still lives
//! (`session_check`).
//!
//! An answer is kept under a hash of the token with everything else that it depends on (H07), for as long as the policy
//! says and never longer than the token lives. What the policy demands of a token is checked at each use: an answer that
//! was good for one set of rules is not for another. An issuer that cannot be asked is an outage: 503, and nothing is kept;
//! it stands in log, metrics and status.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
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
use crate::telemetry::metrics::Metrics;
use crate::token::verify::{ExpectedAudience, Verifier};

/// How long the answer that a token is worth nothing is used again, at most.
const NO: Duration = Duration::from_secs(10);
/// The largest answer that is kept, in bytes.
const MOST_KEPT: usize = 8 * 1024;
/// How much longer than its token an answer is kept that says that the session has ended: clocks differ.
const LONGER: Duration = Duration::from_secs(3600);

/// Asks issuers, and remembers what they said.
#[derive(Debug)]
pub struct Inquiries {
    oidc: Oidc,
    supabase: Supabase,
    tokens: Arc<Asked<Worth>>,
    sessions: Arc<Asked<Checked>>,
    outages: Arc<Outages>,
}

/// What an issuer said of a token.
#[derive(Clone, Debug)]
enum Worth {
    Active(Arc<Map<String, Value>>),
    Inactive,
    Unknown,
}

/// An issuer that cannot be asked at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Which issuer.
    pub issuer: IssuerName,
    /// About what: `introspection`, `session_check`.
    pub about: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// What went wrong last.
    pub error: String,
}

/// Outages, for log, metrics and status: what begins and ends is said once.
#[derive(Debug, Default)]
struct Outages {
    metrics: Option<Arc<Metrics>>,
    now: Mutex<Vec<Outage>>,
}

impl Outages {
    fn note(&self, issuer: &IssuerName, about: &'static str, now: Timestamp, error: Option<String>) {
        if let Some(metrics) = &self.metrics {
            metrics.issuer_asked(issuer.as_str(), about, error.is_none());
        }
        let mut outages = self.now.lock();
        let known = outages.iter().position(|outage| outage.issuer == *issuer && outage.about == about);
        match (known, error) {
            (None, None) => {}
            (None, Some(error)) => {
                tracing::warn!(issuer = %issuer, about, error, "the issuer cannot be asked");
                outages.push(Outage { issuer: issuer.clone(), about, since: now, error });
            }
            (Some(at), Some(error)) => {
                if let Some(outage) = outages.get_mut(at) {
                    outage.error = error;
                }
            }
            (Some(at), None) => {
                tracing::info!(issuer = %issuer, about, "the issuer can be asked again");
                outages.swap_remove(at);
            }
        }
    }
}

impl Inquiries {
    /// Asks through these clients.
    pub fn new(oidc: Oidc, supabase: Supabase, metrics: Option<Arc<Metrics>>) -> Self {
        let outages = Arc::new(Outages { metrics, now: Mutex::default() });
        Self { oidc, supabase, tokens: Arc::new(Asked::new()), sessions: Arc::new(Asked::new()), outages }
    }

    /// Issuers that could not be asked when they were last asked.
    pub fn outages(&self) -> Vec<Outage> {
        self.outages.now.lock().clone()
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
        let (oidc, outages, token, name) =
            (self.oidc.clone(), Arc::clone(&self.outages), token.clone(), issuer.clone());
        let asking = async move {
            let answer = oidc.introspect(&settings, token.expose()).await;
            outages.note(&name, "introspection", now, answer.as_ref().err().map(ToString::to_string));
            match answer {
                Ok(Some(claims)) => {
                    let ends = claims.get("exp").and_then(seconds);
                    let until = now.plus(settings.cache);
                    let until = ends.map_or(until, |ends| until.min(ends));
                    let is_small = serde_json::to_vec(&claims).is_ok_and(|text| text.len() <= MOST_KEPT);
                    (Worth::Active(Arc::new(claims)), is_small.then_some(Keep { until, is_yes: true }))
                }
                Ok(None) => (Worth::Inactive, Some(Keep { until: now.plus(settings.cache.min(NO)), is_yes: false })),
                Err(_) => (Worth::Unknown, None),
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
        let (supabase, outages, token, name) =
            (self.supabase.clone(), Arc::clone(&self.outages), token.clone(), issuer.clone());
        let asking = async move {
            let whose = verified.claims().get("sub").and_then(Value::as_str);
            let keep = |until: Timestamp, is_yes| {
                let until = verified.expires().filter(|_| is_yes).map_or(until, |ends| until.min(ends));
                Some(Keep { until, is_yes })
            };
            let answer = supabase.user(&project, token.expose()).await;
            let trouble = match &answer {
                Ok(Liveness::Live(id)) if Some(&**id) != whose => Some("it named another user".to_owned()),
                Ok(_) => None,
                Err(error) => Some(error.to_string()),
            };
            outages.note(&name, "session_check", now, trouble.clone());
            match answer {
                _ if trouble.is_some() => (Checked::Unavailable, None),
                Err(_) => (Checked::Unavailable, None),
                Ok(Liveness::Live(_)) => (Checked::Live, keep(now.plus(cache), true)),
                Ok(Liveness::Ended(_)) => {
                    // For good: what is accepted a little longer than it lives is remembered so long.
                    let until = verified.expires().map_or(now, |ends| ends).plus(LONGER);
                    (Checked::Ended, keep(until, false))
                }
            }
        };
        self.sessions.get(question, now, asking).await.unwrap_or(Checked::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::decision_log::DecisionLog;

    #[test]
    fn an_outage_is_known_from_its_first_failure_to_the_next_answer() {
        let metrics = Arc::new(Metrics::new());
        let outages = Outages { metrics: Some(Arc::clone(&metrics)), now: Mutex::default() };
        let (issuer, at) = (IssuerName::new("company"), Timestamp::from_seconds);
        outages.note(&issuer, "introspection", at(1), Some("timed out".to_owned()));
        outages.note(&issuer, "introspection", at(2), Some("status 500".to_owned()));
        outages.note(&issuer, "session_check", at(3), None);
        let known = outages.now.lock().clone();
        let outage =
            Outage { issuer: issuer.clone(), about: "introspection", since: at(1), error: "status 500".to_owned() };
        assert_eq!(known, [outage]);
        outages.note(&issuer, "introspection", at(4), None);
        assert!(outages.now.lock().is_empty());
        let text = metrics.encode(at(5), &DecisionLog::none());
        for line in [
            r#"issuer_asked_total{issuer="company",about="introspection",result="unavailable"} 2"#,
            r#"issuer_asked_total{issuer="company",about="introspection",result="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
