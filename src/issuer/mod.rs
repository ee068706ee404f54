//! With what the gateway signs and verifies: keys that the policy gives, keys that it makes, keeps and rotates itself, and
//! keys that others publish.
//!
//! In: the live policy, the store's signing keys, and what issuers publish. Out: a [`Snapshot`] that says with what each
//! issuer signs and what verifies it, and the JWKS that is published. When a key is made, takes over and is forgotten is
//! in `plan`, which knows only keys and the time; when others' keys are fetched is in `remote`; [`Issuers`] acts on both.
//!
//! It makes no tokens: that is `login`'s.

mod issuers;
mod plan;
mod remote;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::identity::IssuerName;
use crate::policy::set::{Issuer, PolicySet};
use crate::token::algorithm::AlgorithmSet;
use crate::token::key::{KeySet, Kid};
use crate::token::mint::Minter;
use crate::token::verify::{IssuerKeys, Verifier};

pub use self::issuers::{Issuers, RotateError, Rotated};
pub use self::plan::{PUBLISHED_AHEAD, ROTATE_EVERY};
use self::remote::Published;
pub use self::remote::{KeyOutcome, RemoteStatus, max_age};

/// The purpose of the key that signs what apps are told about the caller (`assertion`), beside the names of issuers.
pub const ASSERTION: &str = "assertion";

/// The purpose under which the keys of an issuer are stored: its name, and never that of assertions. With one key for
/// both, what an app was told could be sent back as a token.
pub fn purpose(issuer: &IssuerName) -> String {
    if issuer.as_str() == ASSERTION { format!("issuer {issuer}") } else { issuer.as_str().to_owned() }
}

/// What signs tokens, and the name that their headers give it.
#[derive(Clone, Debug)]
pub struct Signer {
    /// Signs.
    pub minter: Arc<Minter>,
    /// The name of the key; none of a secret.
    pub kid: Option<Kid>,
}

/// All keys at a moment: those of the gateway's own issuers, and those that others publish.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    own: Arc<Own>,
    published: Vec<Published>,
}

/// The keys of the gateway's own issuers.
#[derive(Clone, Debug, Default)]
struct Own {
    issuers: Vec<(IssuerName, Keys)>,
    assertion: Option<Keys>,
    problems: Vec<(Box<str>, &'static str)>,
}

/// The keys of one purpose.
#[derive(Clone, Debug, Default)]
struct Keys {
    signer: Option<Signer>,
    /// What verifies, where the keys are managed; else the policy says it.
    managed: Option<Arc<KeySet>>,
    /// What is published: public keys as JWK.
    published: Vec<Value>,
}

impl Snapshot {
    /// What signs the tokens of an issuer. `None`: its keys are not at hand, so nobody can log in now.
    pub fn signer(&self, issuer: &IssuerName) -> Option<&Signer> {
        self.keys(issuer)?.signer.as_ref()
    }

    /// What signs assertions, where an app asks for them.
    pub fn assertion(&self) -> Option<&Signer> {
        self.own.assertion.as_ref()?.signer.as_ref()
    }

    /// The public keys of these issuers, and of assertions, as a set (RFC 7517): also those that sign soon, or did and
    /// may still verify. Secrets are in no set.
    pub fn jwks(&self, issuers: &[&IssuerName]) -> Value {
        let own = issuers.iter().filter_map(|issuer| self.keys(issuer));
        let mut keys: Vec<&Value> = Vec::new();
        for key in own.chain(&self.own.assertion).flat_map(|keys| &keys.published) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        json!({ "keys": keys })
    }

    /// The policy's verifier with the managed keys put in, and those that others publish.
    pub fn verifier(&self, policy: &PolicySet) -> Verifier {
        let mut verifier = policy.verifier.clone();
        for issuer in policy.issuers.iter().filter(|issuer| is_managed(issuer)) {
            let keys = self.keys(&issuer.name).and_then(|keys| keys.managed.clone());
            verifier = verifier.with_keys(&issuer.name, keys.map_or(IssuerKeys::Unavailable, IssuerKeys::Known));
        }
        for issuer in &policy.issuers {
            let Some(settings) = &issuer.remote else { continue };
            let algorithms = match settings.algorithms {
                none if none.is_empty() => AlgorithmSet::of_key_pairs(),
                stated => stated,
            };
            let published = self.published(issuer).and_then(|published| published.keys.as_ref()?.as_ref());
            verifier = verifier.with_published(&issuer.name, published, algorithms);
        }
        verifier
    }

    /// What should sign or verify and cannot (issuers, [`ASSERTION`]), with the reason: what readiness shows.
    pub fn problems(&self, policy: &PolicySet) -> Vec<(Box<str>, &'static str)> {
        let mut problems = self.own.problems.clone();
        for issuer in policy.issuers.iter().filter(|issuer| issuer.remote.is_some()) {
            let has_own = || {
                let own = policy.verifier.issuers().find(|rules| rules.name == issuer.name);
                own.is_some_and(|rules| matches!(rules.keys, IssuerKeys::Known(_)))
            };
            let problem = match self.published(issuer).map(|published| (&published.keys, published.is_old)) {
                Some((Some(Some(_)), _)) => continue,
                Some((Some(None), _)) if has_own() => continue,
                Some((Some(None), _)) => {
                    "it publishes no keys: a Supabase project that still signs with HS256 needs `jwt_secret`"
                }
                Some((None, true)) => "its keys are too old, and no others can be fetched",
                Some((None, false)) | None => "its keys could not be fetched yet",
            };
            problems.push((issuer.name.as_str().into(), problem));
        }
        problems
    }

    /// What an issuer publishes, fetched with the settings that the policy has now.
    fn published(&self, issuer: &Issuer) -> Option<&Published> {
        let settings = issuer.remote.as_ref()?;
        self.published.iter().find(|published| published.issuer == issuer.name && published.settings == *settings)
    }

    fn keys(&self, issuer: &IssuerName) -> Option<&Keys> {
        self.own.keys(issuer)
    }

    /// Whether it says the same: then nobody need be told of it.
    fn is_same(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.own, &other.own) || self.own.is_same(&other.own))
            && self.published.len() == other.published.len()
            && self.published.iter().zip(&other.published).all(|(a, b)| a.is_same(b))
    }
}

impl Own {
    fn keys(&self, issuer: &IssuerName) -> Option<&Keys> {
        self.issuers.iter().find(|(name, _)| name == issuer).map(|(_, keys)| keys)
    }

    fn is_same(&self, other: &Self) -> bool {
        fn all(snapshot: &Own) -> impl Iterator<Item = &Keys> {
            snapshot.issuers.iter().map(|(_, keys)| keys).chain(&snapshot.assertion)
        }
        let names = |snapshot: &Self| snapshot.issuers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let same = |(a, b): (&Keys, &Keys)| {
            let signers = match (&a.signer, &b.signer) {
                (Some(a), Some(b)) => Arc::ptr_eq(&a.minter, &b.minter),
                (a, b) => a.is_none() && b.is_none(),
            };
            signers && a.published == b.published && a.managed.is_some() == b.managed.is_some()
        };
        names(self) == names(other)
            && self.assertion.is_some() == other.assertion.is_some()
            && self.problems == other.problems
            && all(self).zip(all(other)).all(same)
    }
}

fn is_managed(issuer: &Issuer) -> bool {
    issuer.local.as_ref().is_some_and(|local| local.managed.is_some())
}
