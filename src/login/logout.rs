//! `POST /logout`: ends the caller's session, or all of their sessions.

use crate::identity::{Caller, Identity};
use crate::response::{Challenge, Problem, Response};
use crate::store::{EndedBy, Revocation, Revoked, Session, StoreError};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};

use super::error::{OAuthError, uncached};
use super::form::Form;
use super::refresh::RefreshToken;
use super::{Asking, Login, to_the_end};

/// Whose sessions end, and which.
#[derive(Default)]
struct Ending {
    user: Option<String>,
    /// Ids of sessions.
    sessions: Vec<String>,
    /// The token itself, where it belongs to no session.
    token: Option<String>,
}

impl Login {
    /// Ends the session of the caller's access token, and the one of `refresh_token` if it is the caller's too; with
    /// `all=true` every session of theirs. Whoever has only a refresh token left is known by that. 204, or 401 to whom
    /// nobody knows.
    pub async fn logout(&self, asking: &Asking<'_>, form: Form) -> Response {
        let down = |_: StoreError| {
            self.audit(&asking.event(Event::Logout, Outcome::Failure).because(Reason::StoreUnavailable));
            asking.refuse(&OAuthError::unavailable())
        };
        let done = async {
            let ending = self.ending(asking, &form).await.map_err(down)?;
            let Some(ending) = ending else { return Err(unknown(asking)) };
            let all = form.is_true("all");
            self.end_all(asking, &ending, all).await.map_err(down)?;
            let event = asking.event(Event::Logout, Outcome::Success);
            self.audit(&AuditEvent {
                subject: ending.user.as_deref(),
                session: ending.sessions.first().map(String::as_str),
                reason: all.then_some(Reason::AllSessions),
                ..event
            });
            Ok(uncached(Response::new(204)))
        };
        done.await.unwrap_or_else(|refusal| refusal)
    }

    /// What is to end; `None` if nobody is known.
    async fn ending(&self, asking: &Asking<'_>, form: &Form) -> Result<Option<Ending>, StoreError> {
        let mut ending = match asking.caller {
            Caller::Known(identity) => match of_identity(asking, identity) {
                Some(ending) => ending,
                None => return Ok(None),
            },
            Caller::Anonymous => Ending::default(),
        };
        if let Some(token) = form.get("refresh_token").and_then(RefreshToken::parse)
            && let Some(session) = self.parts.stores.sessions.of_token(&token.hash()).await?
            && asking.login.issuer.as_ref().is_some_and(|issuer| issuer.as_str() == session.issuer)
            && ending.user.as_ref().is_none_or(|user| *user == session.user)
            && (ending.user.is_some() || may_end(asking, &session, form))
        {
            ending.user = Some(session.user);
            if !ending.sessions.contains(&session.id) {
                ending.sessions.push(session.id);
            }
        }
        Ok(ending.user.is_some().then_some(ending))
    }

    /// Ends sessions and revokes their tokens, to the end even if the client goes away meanwhile.
    async fn end_all(&self, asking: &Asking<'_>, ending: &Ending, all: bool) -> Result<(), StoreError> {
        let Ok(ours) = asking.ours() else { return Err(StoreError::Unavailable("no issuer".to_owned())) };
        let (now, until) = (asking.now, ours.last_token_ends(asking.now));
        let issuer = ours.issuer.name.to_string();
        let revocation = move |revoked| Revocation { issuer: issuer.clone(), revoked, until };
        let mut sessions = ending.sessions.clone();
        let mut revoked: Vec<Revoked> = ending.token.clone().map(Revoked::Token).into_iter().collect();
        let user = ending.user.clone().filter(|_| all);
        let parts = self.parts.clone();
        to_the_end(async move {
            for id in &sessions {
                parts.stores.sessions.end(id, EndedBy::Logout, now).await?;
            }
            if let Some(user) = user {
                sessions.extend(parts.stores.sessions.end_all(&user, None, EndedBy::Logout, now).await?);
                // Tokens without a session, too.
                revoked.push(Revoked::Subject(user, now));
            }
            revoked.extend(sessions.into_iter().map(Revoked::Session));
            let revocations: Vec<Revocation> = revoked.into_iter().map(revocation).collect();
            parts.revoke(&revocations, now).await
        })
        .await
    }
}

/// Whether a refresh token alone ends its session. Where the session has ended but its tokens may live, because a store
/// failed in between, it is done again; but a token that lies around must not end all sessions of today.
fn may_end(asking: &Asking<'_>, session: &Session, form: &Form) -> bool {
    let unfinished = || {
        let (Ok(ours), Some((ended, _))) = (asking.ours(), session.ended) else { return false };
        !form.is_true("all") && asking.now < ours.last_token_ends(ended)
    };
    session.is_live(asking.now) || unfinished()
}

/// What the caller's token says, if it is one of this login's issuer.
fn of_identity(asking: &Asking<'_>, identity: &Identity) -> Option<Ending> {
    if Some(&identity.issuer) != asking.login.issuer.as_ref() {
        return None;
    }
    let user = identity.id.known()?.to_string();
    let session = identity.session.known().map(ToString::to_string);
    let token = identity.claims.get("jti").and_then(serde_json::Value::as_str).map(str::to_owned);
    let token = token.filter(|_| session.is_none());
    Some(Ending { user: Some(user), sessions: session.into_iter().collect(), token })
}

fn unknown(asking: &Asking<'_>) -> Response {
    let problem = Problem {
        status: 401,
        code: "unauthenticated",
        detail: "this request needs a valid credential",
        decision_id: asking.decision_id,
    };
    let response = if asking.app.errors_fastapi { problem.respond_like_fastapi() } else { problem.respond() };
    response.with(http::header::WWW_AUTHENTICATE, Challenge::bearer(&asking.app.realm).to_value())
}
