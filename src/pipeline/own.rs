//! What needs a store or a body: limits that gateways share, and the endpoints of logins.
//!
//! All of it comes after the decision, and only for requests that were permitted: [`Pipeline::answer`] finds the
//! permit in [`About`].

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};

use super::limit::{Keys, SharedTake};
use super::{About, Active, Decided, Outcome, Pipeline, Verdict, browse, cors, outcome};
use crate::decision::{Denial, Permit, Reason};
use crate::identity::Caller;
use crate::identity::account::AccountName;
use crate::login::error::OAuthError;
use crate::login::form::Form;
use crate::login::upstream::{Attempted, Forwarded};
use crate::login::{Asking, Login, metadata};
use crate::policy::set::{self, OwnEndpoint, Via};
use crate::request::forwarded::Origin;
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::response::Response;

impl Pipeline {
    /// Takes from the limits that gateways share; where one has no room, the request is refused after all.
    pub async fn share(&self, mut decided: Decided, head: &RequestHead<'_>) -> Decided {
        let takes = std::mem::take(&mut decided.shared);
        let about = &decided.about;
        let Verdict::Permitted(permit) = &about.verdict else { return decided };
        let Err(denial) = self.take_shared(about, permit, &takes).await else { return decided };
        let mut response = outcome::respond(&denial, None, about.policy(), &about.id, head, None);
        if let Outcome::Forward(forward) = &decided.outcome {
            forward.set_cookies(&mut response);
        }
        decided.outcome = Outcome::Respond(response);
        decided.about.verdict = Verdict::Refused(Box::new(denial));
        decided
    }

    async fn take_shared(&self, about: &About, permit: &Permit, takes: &[SharedTake]) -> Result<(), Denial> {
        let Some(limits) = &about.active.services.limits else { return Ok(()) };
        for take in takes {
            // A store that can share nothing at the moment is no reason to refuse: this process has counted, too.
            let wait = limits.take(&take.key, take.rate, self.now()).await.unwrap_or_default();
            if let Some(wait) = wait {
                let route = permit.route();
                self.settings.metrics.limited(route.name.as_deref().unwrap_or(&route.key));
                let mut denial = Denial::new(Reason::RateLimited, "too many requests").retry_after(wait);
                (denial.route, denial.app, denial.caller) = (Some(route.id), Some(route.app), permit.caller().clone());
                return Err(denial);
            }
        }
        Ok(())
    }

    /// The answer of one of our own endpoints. `body` is the whole body, or why there is none.
    pub async fn answer(
        &self,
        about: &About,
        own: OwnEndpoint,
        head: &RequestHead<'_>,
        body: Result<Bytes, Denial>,
    ) -> Response {
        let Verdict::Permitted(permit) = &about.verdict else { return OAuthError::unavailable().respond(false) };
        if browse::sessions_of(permit, own).is_some() {
            return self.browse(about, permit, own, head, body).await;
        }
        let mut response = match login_of(about, permit) {
            // Also apps without a login publish what their assertions are verified with.
            _ if own == OwnEndpoint::Jwks => metadata::jwks(about.policy(), &about.active.keys),
            None => OAuthError::unavailable().respond(permit.app().errors_fastapi),
            Some((login, settings)) => {
                let asking = self.asking(about, permit, settings, head);
                let answered = self.endpoint(about, permit, login, &asking, own, head, body).await;
                answered.unwrap_or_else(|error| login.refused(&asking, own, &error))
            }
        };
        if let Some(settings) = permit.app().cors.as_ref()
            && let Some(origin) = cors::allowed_origin(settings, head)
        {
            cors::mark(settings, origin, |name, value| {
                response.headers.insert(name, value);
            });
        }
        response
    }

    #[expect(clippy::too_many_arguments, reason = "the request, what was decided about it, and who answers")]
    async fn endpoint(
        &self,
        about: &About,
        permit: &Permit,
        login: &Login,
        asking: &Asking<'_>,
        own: OwnEndpoint,
        head: &RequestHead<'_>,
        body: Result<Bytes, Denial>,
    ) -> Result<Response, OAuthError> {
        let Asking { policy, app, login: settings, .. } = *asking;
        match own {
            OwnEndpoint::AuthorizationServer => {
                let document = metadata::authorization_server(policy, app, settings, &self.origin(about, head));
                return document.ok_or_else(OAuthError::unavailable);
            }
            OwnEndpoint::ProtectedResource => {
                return Ok(metadata::protected_resource(policy, app, &self.origin(about, head)));
            }
            OwnEndpoint::Jwks | OwnEndpoint::Login | OwnEndpoint::Provider | OwnEndpoint::Callback => {
                return Err(OAuthError::unavailable());
            }
            OwnEndpoint::Token | OwnEndpoint::Logout | OwnEndpoint::Revoke | OwnEndpoint::Introspect => {}
        }
        let body = body.map_err(|denial| match denial.reason {
            Reason::ContentTooLarge => OAuthError::TooLarge,
            _ => OAuthError::InvalidRequest("The request body is malformed"),
        })?;
        let (content_type, query) = (head.header(CONTENT_TYPE.as_str()).one(), permit.target().query());
        // Also without a body: `/logout?all=true` would end one session and look as if it ended all.
        let form = Form::parse(content_type, query, body).await?;
        Ok(match own {
            OwnEndpoint::Revoke => login.revoke(asking, form).await,
            OwnEndpoint::Introspect => login.introspect(asking, form).await,
            OwnEndpoint::Logout => login.logout(asking, form).await,
            _ => {
                let account = form.account().and_then(Result::ok);
                self.account_limit(about, permit, settings, head, account.as_ref()).await?;
                login.token(asking, form).await
            }
        })
    }

    /// Before a login is forwarded to the app: `Err` is the answer instead.
    pub async fn attempt(&self, about: &About, head: &RequestHead<'_>, body: &Bytes) -> Result<Forwarded, Response> {
        let Verdict::Permitted(permit) = &about.verdict else { return Err(OAuthError::unavailable().respond(false)) };
        let Some((login, settings)) = login_of(about, permit) else {
            return Err(OAuthError::unavailable().respond(permit.app().errors_fastapi));
        };
        let asking = self.asking(about, permit, settings, head);
        let attempted = Attempted::read(settings, head.header(CONTENT_TYPE.as_str()).one(), body).await;
        let limited = self.account_limit(about, permit, settings, head, attempted.account.as_ref()).await;
        limited.map_err(|error| login.refused(&asking, OwnEndpoint::Token, &error))?;
        login.upstream_attempt(&asking, attempted).await
    }

    /// What the app said to a login that was forwarded; `None` where it did not answer.
    pub async fn attempted(&self, about: &About, head: &RequestHead<'_>, login: Forwarded, status: Option<u16>) {
        let Verdict::Permitted(permit) = &about.verdict else { return };
        let Some((endpoint, settings)) = login_of(about, permit) else { return };
        endpoint.upstream_result(&self.asking(about, permit, settings, head), login, status).await;
    }

    /// Where clients find out who gives tokens for what they were refused, for a challenge (RFC 9728 §5.1).
    pub(super) fn resource_metadata(&self, denial: &Denial, active: &Active, head: &RequestHead<'_>) -> Option<String> {
        let app = denial.app.and_then(|app| active.policy.app(app)).filter(|_| denial.status() == 401)?;
        app.login.as_ref().filter(|login| matches!(login.via, Via::Local | Via::Supabase))?;
        Some(metadata::resource_metadata(app, &self.origin_of(active, head)))
    }

    pub(super) async fn account_limit(
        &self,
        about: &About,
        permit: &Permit,
        settings: &set::Login,
        head: &RequestHead<'_>,
        account: Option<&AccountName>,
    ) -> Result<(), OAuthError> {
        let (limits, uses) = (&about.active.limits, &settings.account_limits);
        if account.is_none() || uses.is_empty() {
            return Ok(()); // no account, no login
        }
        let keys = Keys { client: about.client, head, caller: &Caller::Anonymous, token: None, account };
        limits.take(uses, &keys).map_err(|limited| OAuthError::RateLimited(limited.wait))?;
        let shared = self.take_shared(about, permit, &limits.shared(uses, &keys)).await;
        shared.map_err(|denial| OAuthError::RateLimited(denial.retry_after.unwrap_or_default()))
    }

    pub(super) fn asking<'a>(
        &self,
        about: &'a About,
        permit: &'a Permit,
        login: &'a set::Login,
        head: &'a RequestHead<'_>,
    ) -> Asking<'a> {
        Asking {
            policy: about.policy(),
            app: permit.app(),
            login,
            client: about.client,
            user_agent: head.header(USER_AGENT.as_str()).one().unwrap_or_default(),
            caller: permit.caller(),
            decision_id: about.id.as_str(),
            now: self.now(),
        }
    }

    fn origin(&self, about: &About, head: &RequestHead<'_>) -> String {
        self.origin_of(&about.active, head)
    }

    /// How clients reach the gateway: as it is configured, or as this one did.
    fn origin_of(&self, active: &Active, head: &RequestHead<'_>) -> String {
        match (&active.services.public_url, Host::of(head)) {
            (Some(url), _) => url.to_string(),
            (None, Ok(host)) => {
                let origin = Origin::of(head, &host, &self.settings.trusted_proxies);
                format!("{}://{}", origin.scheme(), origin.host().authority())
            }
            (None, Err(_)) => String::new(),
        }
    }
}

/// What answers for a login; `None` while the store is not open that it needs.
fn login_of<'a>(about: &'a About, permit: &'a Permit) -> Option<(&'a Login, &'a set::Login)> {
    let settings = permit.app().login.as_deref()?;
    let services = &about.active.services;
    (settings.via != Via::Local || services.has_store).then_some((&*services.login, settings))
}
