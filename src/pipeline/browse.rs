//! The endpoints of browser sessions: the sign-in page, the way to providers and back, and signing out.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};

use super::{About, DecisionId, Pipeline};
use crate::browser::{Browser, Failure, Posted, Visit};
use crate::decision::{Denial, Permit};
use crate::identity::account::AccountName;
use crate::login::error::OAuthError;
use crate::login::form::Form;
use crate::policy::set::{self, BrowserLogin, HostPattern, OwnEndpoint, PolicySet};
use crate::request::forwarded::Origin;
use crate::request::head::RequestHead;
use crate::request::host::Host;
use crate::response::Response;

/// The browser sessions of an app, where one of their endpoints is asked.
pub(super) fn sessions_of(permit: &Permit, own: OwnEndpoint) -> Option<(&set::Login, &Arc<BrowserLogin>)> {
    use OwnEndpoint::{Callback, Login, Logout, Provider};
    let login = permit.app().login.as_deref().filter(|_| matches!(own, Callback | Login | Logout | Provider))?;
    Some((login, login.browser.as_ref()?))
}

/// Makes a page of the refusal of a request that a person at a browser made: of the sign-in page, the way to a provider
/// or the way back.
pub(super) fn as_page(denial: &Denial, policy: &PolicySet, id: &DecisionId, response: &mut Response) {
    use OwnEndpoint::{Callback, Login, Provider};
    let own = denial.route.and_then(|route| policy.route(route)?.own());
    let login = denial.app.and_then(|app| policy.app(app)?.login.as_deref()).filter(|login| login.browser.is_some());
    let (Some(Login | Provider | Callback), Some(login)) = (own, login) else { return };
    let page = Browser::refusal(login, denial.status(), id.as_str());
    response.headers.extend(page.headers);
    response.body = page.body;
}

impl Pipeline {
    /// The answer of one of these endpoints.
    pub(super) async fn browse(
        &self,
        about: &About,
        permit: &Permit,
        own: OwnEndpoint,
        head: &RequestHead<'_>,
        body: Result<Bytes, Denial>,
    ) -> Response {
        let services = &about.active.services;
        let unavailable = || OAuthError::unavailable().respond(false);
        let Some((login, sessions)) = sessions_of(permit, own) else { return unavailable() };
        let reached_at = match Host::of(head) {
            Ok(host) => {
                let origin = Origin::of(head, &host, &self.settings.trusted_proxies);
                format!("{}://{}", origin.scheme(), origin.host().authority())
            }
            Err(_) => String::new(),
        };
        let origin = origin(services.public_url.as_deref(), &permit.app().hosts, &reached_at);
        let visit = Visit {
            policy: about.policy(),
            verifier: about.active.tokens.verifier(),
            app: permit.app(),
            login,
            browser: sessions,
            headers: head.headers,
            query: permit.target().query(),
            origin: &origin,
            reached_at: &reached_at,
            client: about.client,
            user_agent: head.header(USER_AGENT.as_str()).one().unwrap_or_default(),
            decision_id: about.id.as_str(),
            now: self.now(),
        };
        // Until the store is open nothing is known of sessions.
        if !services.has_store {
            return Browser::closed(&visit);
        }
        let browser = &*services.browser;
        match own {
            OwnEndpoint::Login if head.method == "POST" => {
                self.sign_in(about, permit, browser, &visit, head, body).await
            }
            OwnEndpoint::Login => browser.page(&visit).await,
            OwnEndpoint::Provider => {
                let name = permit.target().segments().last().map(|segment| segment.decoded().into_owned());
                browser.begin(&visit, &name.unwrap_or_default()).await
            }
            OwnEndpoint::Callback => browser.callback(&visit).await,
            OwnEndpoint::Logout => browser.logout(&visit).await,
            _ => unavailable(),
        }
    }

    /// `POST /login`.
    async fn sign_in(
        &self,
        about: &About,
        permit: &Permit,
        browser: &Browser,
        visit: &Visit<'_>,
        head: &RequestHead<'_>,
        body: Result<Bytes, Denial>,
    ) -> Response {
        if !browser.admits(visit) {
            return browser.refused(visit, None, Failure::CrossSite);
        }
        let content_type = head.header(CONTENT_TYPE.as_str()).one();
        let form = match body {
            Ok(body) => Form::parse(content_type, visit.query, body).await.ok(),
            Err(_) => None,
        };
        let field = |name: &str| form.as_ref().and_then(|form| form.get(name));
        let posted = Posted {
            account: field("username").unwrap_or_default().trim(),
            password: field("password").unwrap_or_default(),
            return_to: field("return_to"),
            signing_up: field("action") == Some("sign_up"),
        };
        let is_too_long = crate::password::check_length(posted.password.as_bytes()).is_err();
        if posted.account.is_empty() || posted.password.is_empty() || is_too_long {
            return browser.refused(visit, Some(&posted), Failure::Invalid);
        }
        let account = AccountName::parse(posted.account).ok();
        if let Err(error) = self.account_limit(about, permit, visit.login, head, account.as_ref()).await {
            return browser.refused(visit, Some(&posted), failure(&error));
        }
        if posted.signing_up {
            return browser.sign_up(visit, &posted).await;
        }
        let asking = self.asking(about, permit, visit.login, head);
        match about.active.services.login.supabase_session(&asking, posted.account, posted.password).await {
            Ok(session) => browser.signed_in(visit, &posted, session).await,
            // It was written down where it was found out.
            Err(error) => browser.again(visit, &posted, failure(&error)),
        }
    }
}

/// How browsers reach an app: by `public_url`, unless the app answers on other hosts; then as this one did, with that
/// scheme: a proxy in front may speak TLS without saying so.
fn origin<'o>(public_url: Option<&'o str>, hosts: &[String], reached_at: &'o str) -> Cow<'o, str> {
    let Some((scheme, authority)) = public_url.and_then(|url| url.split_once("://")) else { return reached_at.into() };
    let authority = authority.split('/').next().unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host);
    let is_theirs =
        hosts.is_empty() || hosts.iter().any(|own| HostPattern::new(own).matches(&host.to_ascii_lowercase()));
    match reached_at.split_once("://") {
        Some((_, reached)) if !is_theirs => format!("{scheme}://{reached}").into(),
        _ => format!("{scheme}://{authority}").into(),
    }
}

fn failure(error: &OAuthError) -> Failure {
    match error {
        OAuthError::RateLimited(wait) => Failure::RateLimited(*wait),
        OAuthError::Unavailable(wait) => Failure::Unavailable(*wait),
        OAuthError::NotConfirmed(_) => Failure::Unconfirmed,
        OAuthError::TooLarge | OAuthError::InvalidRequest(_) => Failure::Invalid,
        _ => Failure::Credentials,
    }
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn an_app_is_reached_where_it_answers() {
        let none: &[&str] = &[];
        for (public_url, hosts, reached_at, expected) in [
            (None, none, "http://a.example:81", "http://a.example:81"),
            (Some("https://a.example"), none, "http://10.0.0.7:8080", "https://a.example"),
            (Some("https://A.example:8443/"), &["a.example"], "http://10.0.0.7", "https://A.example:8443"),
            (Some("https://a.example"), &["*.example"], "http://b.example", "https://a.example"),
            (Some("http://[::1]:8080"), &["[::1]"], "http://b.example", "http://[::1]:8080"),
            // Another app of the same gateway.
            (Some("https://a.example"), &["b.example"], "http://b.example", "https://b.example"),
            (Some("https://a.example"), &["b.example"], "", "https://a.example"),
        ] {
            let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
            assert_eq!(origin(public_url, &hosts, reached_at), expected, "{public_url:?} {hosts:?} {reached_at}");
        }
    }
}
