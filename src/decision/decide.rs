//! A whole decision in one call: for the policy's own tests and for explanations. The pipeline takes the same steps,
//! with limits and the credential between them.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::identity::{Caller, Identity};
use crate::policy::set::PolicySet;
use crate::request::Asked;
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;

use super::authorize::authorize_in;
use super::facts::{Environment, RequestFacts};
use super::headers::{HeaderEdits, headers_in};
use super::permit::Permit;
use super::reason::{Denial, Reason};
use super::route::{preflight, route};

/// A request whose credential was looked at already.
#[derive(Clone, Debug)]
pub struct Question<'q> {
    /// The policy set that is asked.
    pub policy: &'q Arc<PolicySet>,
    /// The request.
    pub head: &'q RequestHead<'q>,
    /// The client's address.
    pub client: ClientAddr,
    /// The client's country.
    pub country: Option<&'q str>,
    /// The credential.
    pub presented: Presented,
    /// The time.
    pub now: Timestamp,
    /// Where `env.NAME` comes from.
    pub environment: Environment,
}

/// What came of the credential.
#[derive(Clone, Debug)]
pub enum Presented {
    /// There is none.
    Nothing,
    /// It is bad, for this reason.
    Invalid(String),
    /// It is good.
    Identity(Arc<Identity>),
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It is forwarded, with these header edits.
    Allow(Box<(Permit, HeaderEdits)>),
    /// It is refused.
    Deny(Box<Denial>),
    /// The gateway answers it as a CORS preflight.
    Preflight,
}

impl Decision {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(denial) => Some(denial.status()),
            Self::Preflight => Some(204),
        }
    }
}

/// Decides.
pub fn decide(question: &Question<'_>) -> Decision {
    match try_decide(question) {
        Ok(decision) => decision,
        Err(denial) => Decision::Deny(Box::new(denial)),
    }
}

fn try_decide(question: &Question<'_>) -> Result<Decision, Denial> {
    let Asked { target, host, .. } = Asked::parse(question.head)?;
    if preflight(question.policy, &target, &host, question.head).is_some() {
        return Ok(Decision::Preflight);
    }
    let routed = route(question.policy, target, &host, question.head)?;
    let caller = match &question.presented {
        _ if !routed.needs_credential() => Caller::Anonymous,
        Presented::Nothing => Caller::Anonymous,
        Presented::Identity(identity) => Caller::Known(identity.clone()),
        Presented::Invalid(cause) => {
            let denial = Denial::new(Reason::InvalidToken, "the credential is not valid").because(cause.as_str());
            return Err(routed.refuse(denial));
        }
    };
    let facts = RequestFacts { head: question.head, host: &host, client: question.client, country: question.country };
    let permit = authorize_in(routed, caller, &facts, question.now, question.environment)?;
    let edits = headers_in(&permit, &facts, question.now, question.environment)?;
    permit.forwarded_target()?;
    Ok(Decision::Allow(Box::new((permit, edits))))
}
