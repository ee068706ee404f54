//! Logins: the settings that the endpoints act on, and the endpoints themselves as routes.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::diagnostic::{Code, Span, Spanned};
use crate::identity::IssuerName;
use crate::policy::document::{self, Access, AppId, LimitKey, Preset, RouteOptions};
use crate::policy::set::{BrowserLogin, Issuer, Login, LoginPaths, OwnEndpoint, ProviderLink, Via};
use crate::policy::template::{Segment, Template};
use crate::secret::Secret;

use super::Builder;
use super::routes::{Entry, Shared, Tables};

/// What logins are limited to, unless the policy says otherwise.
const LIMITS: [(u32, LimitKey, &str); 2] =
    [(10, LimitKey::Ip, "10/min by ip"), (5, LimitKey::Account, "5/min by account")];

/// What counts as a failed login at an app, unless the policy says otherwise.
const FAILURES: [u16; 4] = [400, 401, 403, 422];

/// The field in which FastAPI's form names the account.
const ACCOUNT_FIELD: &str = "username";

/// The cookie of a session, unless the policy says otherwise.
const COOKIE: &str = "__Host-session";

/// How long a session lives that nobody uses.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// How long a session lives at most.
const EXPIRES: Duration = Duration::from_secs(14 * 24 * 3600);

/// How long before it ends an access token is replaced.
const REFRESH_MARGIN: Duration = Duration::from_secs(90);

/// How many bytes a key that seals has at least.
const SEALING_KEY: usize = 32;

/// Where keys are published.
const JWKS: &str = "/.well-known/jwks.json";

/// Where clients look for metadata and keys (RFC 8414 §3, RFC 9728 §3).
const WELL_KNOWN: [(OwnEndpoint, &str); 3] = [
    (OwnEndpoint::AuthorizationServer, "/.well-known/oauth-authorization-server"),
    (OwnEndpoint::ProtectedResource, "/.well-known/oauth-protected-resource"),
    (OwnEndpoint::Jwks, JWKS),
];

impl Builder<'_> {
    /// The endpoints of `login`, as routes.
    pub(super) fn login(&mut self, login: &Spanned<document::Login>, shared: &Shared<'_>, tables: &mut Tables) {
        let (login, span) = (&login.value, login.span);
        let via = match login.via.value.as_str() {
            "local" => Via::Local,
            "supabase" => Via::Supabase,
            "oidc" => Via::Oidc,
            _ => Via::Upstream,
        };
        let first = self.policy.routes.len();
        for (endpoint, path) in endpoints(login, via) {
            match endpoint {
                // The page is for whoever comes; the form on it is a login like that at the token endpoint.
                OwnEndpoint::Login => {
                    self.own(endpoint, &[Method::GET], path, login, via, shared, tables);
                    if via == Via::Supabase {
                        self.own(endpoint, &[Method::POST], path, login, via, shared, tables);
                    }
                    for provider in self.document.providers(login) {
                        let path =
                            Spanned::new(format!("{}/{}", path.value.trim_end_matches('/'), provider.value), path.span);
                        let endpoint = OwnEndpoint::Provider;
                        self.own(endpoint, endpoint.methods(), &path, login, via, shared, tables);
                    }
                }
                _ => self.own(endpoint, endpoint.methods(), path, login, via, shared, tables),
            }
        }
        let public = document::Requirement::Word(Spanned::new(Access::Public, span));
        let issuer = self.issuer_of(login, via);
        let browser = login.has_sessions().then(|| self.browser(login, via, issuer.map(|issuer| &issuer.name)));
        let issuer_path = issuer.and_then(|issuer| Some(url_path(&issuer.local.as_ref()?.iss)));
        let (issuer, issuer_path) = (issuer.map(|issuer| issuer.name.clone()), issuer_path.unwrap_or_default());
        if matches!(via, Via::Local | Via::Supabase) {
            for (endpoint, path) in WELL_KNOWN {
                if via == Via::Supabase && endpoint == OwnEndpoint::Jwks {
                    continue; // the project publishes its own
                }
                let mut template = segments(path);
                match endpoint {
                    // What is described has a path of its own: it follows (RFC 8414 §3.1, RFC 9728 §3.1).
                    OwnEndpoint::ProtectedResource => {
                        template.extend(self.policy.app(shared.app).map_or(&[][..], |app| &app.base).iter().cloned());
                    }
                    OwnEndpoint::AuthorizationServer => template.extend(issuer_path.iter().cloned()),
                    _ => {}
                }
                // The policy's own route, or another app's on the same host: keys and metadata are the same there.
                if self.is_taken(shared.app, &template) {
                    continue;
                }
                let path = Spanned::new(path.to_owned(), span);
                let options = RouteOptions { limit: vec![document::LimitUse::None(span)], ..RouteOptions::default() };
                self.endpoint(endpoint, endpoint.methods(), &path, template, &public, &options, shared, tables);
            }
        }
        let browser = match browser.transpose() {
            Ok(browser) => browser.map(Arc::new),
            Err(key) => {
                self.problem(
                    Code::P402,
                    key,
                    "a key that seals sessions has at least 32 bytes: `portcullis secret` makes one",
                );
                None
            }
        };
        let added = self.policy.routes.get_mut(first..).unwrap_or_default();
        let mut account_limits = Vec::new();
        let mut paths = LoginPaths::default();
        let mut limits = None;
        for route in added {
            let path = crate::policy::specificity::render(&route.template).into_boxed_str();
            match (route.own(), via) {
                (Some(OwnEndpoint::Token), _) | (None, Via::Upstream) => {
                    // Who logs in is known when the form is read; all other keys are known before.
                    let by_account = |used: &crate::policy::set::LimitUse| used.by == LimitKey::Account;
                    account_limits.extend(route.limits_by_identity.extract_if(.., |used| by_account(used)));
                    route.login = true;
                    paths.token = Some(path);
                    limits = Some((route.limits_by_address.clone(), route.limits_by_identity.clone()));
                }
                (Some(OwnEndpoint::Login), _) => {
                    paths.login = Some(path);
                    // One limit for one guess, whichever way it comes.
                    if let Some((by_address, by_identity)) = limits.clone().filter(|_| route.methods == [Method::POST])
                    {
                        (route.limits_by_address, route.limits_by_identity) = (by_address, by_identity);
                    }
                }
                (Some(OwnEndpoint::Callback), _) => paths.callback = Some(path),
                (Some(OwnEndpoint::Logout), _) => paths.logout = Some(path),
                (Some(OwnEndpoint::Revoke), _) => paths.revoke = Some(path),
                (Some(OwnEndpoint::Introspect), _) => paths.introspect = Some(path),
                _ => {}
            }
        }
        let texts = |texts: &Vec<Spanned<String>>| texts.iter().map(|text| text.value.as_str().into()).collect();
        let compiled = Login {
            via,
            issuer,
            paths,
            account_limits,
            lockout: login.lockout,
            strict_scopes: login.strict_scopes,
            default_scopes: login.default_scopes.as_ref().map(texts),
            to: login.to.as_ref().map(|to| to.value.as_str().into()),
            account_field: login.account_field.as_ref().map_or(ACCOUNT_FIELD, |field| &field.value).into(),
            failures: if login.failures.is_empty() { FAILURES.to_vec() } else { login.failures.clone() },
            browser,
        };
        if let Some(app) = self.policy.apps.get_mut(shared.app.0) {
            app.login = Some(Arc::new(compiled));
        }
    }

    /// Whoever gets assertions must be able to verify them, also where there is no login.
    pub(super) fn assertion_keys(&mut self, span: Span, shared: &Shared<'_>, tables: &mut Tables) {
        let path = Spanned::new(JWKS.to_owned(), span);
        if self.is_taken(shared.app, &segments(JWKS)) {
            return;
        }
        let public = document::Requirement::Word(Spanned::new(Access::Public, span));
        let options = RouteOptions { limit: vec![document::LimitUse::None(span)], ..RouteOptions::default() };
        let endpoint = OwnEndpoint::Jwks;
        self.endpoint(endpoint, endpoint.methods(), &path, segments(JWKS), &public, &options, shared, tables);
    }

    /// The issuer of the tokens that a login gives out, where there is one alone.
    fn issuer_of(&self, login: &document::Login, via: Via) -> Option<&Issuer> {
        let named = |issuer: &&Issuer| {
            login.issuers.is_empty() || login.issuers.iter().any(|name| name.value == issuer.name.as_str())
        };
        let of = |preset| self.policy.issuers.iter().filter(move |issuer| issuer.preset == preset).find(named);
        match via {
            Via::Local => of(Preset::Local),
            Via::Supabase => of(Preset::Supabase),
            Via::Oidc => match self.document.providers(login).as_slice() {
                [only] => self.policy.issuer(&IssuerName::new(&only.value)),
                _ => None,
            },
            Via::Upstream => None,
        }
    }

    /// Sessions of browsers.
    fn browser(&self, login: &document::Login, via: Via, issuer: Option<&IssuerName>) -> Result<BrowserLogin, Span> {
        let document::Session { cookie, idle, expires, refresh_margin, keys } = &login.session;
        let time = |stated: &Option<Spanned<Duration>>, default| stated.as_ref().map_or(default, |time| time.value);
        let mut sealing = Vec::new();
        for key in keys {
            let Some(bytes) = self.resolve(key) else { continue };
            let bytes = super::issuers::without_newline(&bytes);
            if bytes.len() < SEALING_KEY {
                return Err(key.span);
            }
            sealing.push(Secret::new(bytes.to_vec()));
        }
        let link = |name: &Spanned<String>| ProviderLink {
            name: name.value.as_str().into(),
            issuer: match (via, issuer) {
                (Via::Supabase, Some(issuer)) => issuer.clone(),
                (Via::Supabase, None) => IssuerName::new("supabase"),
                _ => IssuerName::new(&name.value),
            },
        };
        Ok(BrowserLogin {
            cookie: cookie.as_ref().map_or(COOKIE, |cookie| &cookie.value).into(),
            idle: time(idle, IDLE),
            expires: time(expires, EXPIRES),
            refresh_margin: time(refresh_margin, REFRESH_MARGIN),
            keys: sealing,
            providers: self.document.providers(login).into_iter().map(link).collect(),
            passwords: via == Via::Supabase,
            return_to: login.return_to.as_ref().map_or("/", |path| &path.value).into(),
        })
    }

    /// Whether something answers there already.
    fn is_taken(&self, app: AppId, template: &[Segment]) -> bool {
        let hosts = |app| self.policy.app(app).map(|app| &app.hosts);
        self.policy.routes.iter().any(|route| route.template == template && hosts(route.app) == hosts(app))
    }

    #[expect(clippy::too_many_arguments, reason = "a route is made of all of these")]
    fn own(
        &mut self,
        endpoint: OwnEndpoint,
        methods: &[Method],
        path: &Spanned<String>,
        login: &document::Login,
        via: Via,
        shared: &Shared<'_>,
        tables: &mut Tables,
    ) {
        let word = |access| document::Requirement::Word(Spanned::new(access, path.span));
        let requirement = match endpoint {
            OwnEndpoint::Introspect => login.introspect.clone().unwrap_or_else(|| word(Access::Deny)),
            // Who has no access token any more may still end a session by its refresh token.
            OwnEndpoint::Logout if via == Via::Local => word(Access::Optional),
            _ => word(Access::Public),
        };
        let mut options = RouteOptions::default();
        if endpoint == OwnEndpoint::Token {
            options.limit = if login.limit.is_empty() { default_limits(login.via.span) } else { login.limit.clone() };
            if let Some(to) = login.to.as_ref().filter(|_| via == Via::Upstream) {
                options.rewrite =
                    Some(Template { text: to.value.clone(), segments: segments(&to.value), span: to.span });
            }
        }
        // A throttle of logins is not one of the app's other limits.
        options.limit.push(document::LimitUse::None(path.span));
        let base = self.policy.app(shared.app).map_or(&[][..], |app| &app.base);
        let template = base.iter().cloned().chain(segments(&path.value)).collect();
        self.endpoint(endpoint, methods, path, template, &requirement, &options, shared, tables);
    }

    #[expect(clippy::too_many_arguments, reason = "a route is made of all of these")]
    fn endpoint(
        &mut self,
        endpoint: OwnEndpoint,
        methods: &[Method],
        path: &Spanned<String>,
        template: Vec<Segment>,
        requirement: &document::Requirement,
        options: &RouteOptions,
        shared: &Shared<'_>,
        tables: &mut Tables,
    ) {
        let mut served = methods.to_vec();
        if methods.contains(&Method::GET) {
            served.insert(1, Method::HEAD);
        }
        let via_upstream = shared.header.login.as_ref().is_some_and(|login| login.value.via.value == "upstream");
        let entry = Entry {
            written: &format!("{} {}", methods.iter().map(Method::as_str).collect::<Vec<_>>().join("|"), path.value),
            span: path.span,
            named: methods.to_vec(),
            methods: served,
            any_method: false,
            template,
            requirement,
            options,
            // The app's own endpoint answers.
            own: (!via_upstream || endpoint != OwnEndpoint::Token).then_some(endpoint),
            generated: false,
        };
        self.route(entry, shared, tables);
    }
}

/// The endpoints of a login, and their paths below the app's base.
fn endpoints(login: &document::Login, via: Via) -> Vec<(OwnEndpoint, &Spanned<String>)> {
    let mut endpoints = Vec::new();
    if via != Via::Oidc {
        endpoints.push((OwnEndpoint::Token, &login.path));
    }
    for (purpose, path) in &login.paths {
        let endpoint = match (purpose.as_str(), via) {
            ("login", Via::Supabase | Via::Oidc) => OwnEndpoint::Login,
            ("callback", Via::Supabase | Via::Oidc) => OwnEndpoint::Callback,
            ("logout", Via::Local | Via::Supabase | Via::Oidc) => OwnEndpoint::Logout,
            ("revoke", Via::Local) => OwnEndpoint::Revoke,
            ("introspect", Via::Local) => OwnEndpoint::Introspect,
            _ => continue,
        };
        endpoints.push((endpoint, path));
    }
    endpoints
}

fn default_limits(span: Span) -> Vec<document::LimitUse> {
    let limit = |(count, by, text): (u32, LimitKey, &str)| {
        document::LimitUse::Inline(document::Limit {
            count,
            per: std::time::Duration::from_secs(60),
            by: Some(by),
            burst: None,
            text: Spanned::new(text.to_owned(), span),
        })
    };
    LIMITS.map(limit).into()
}

/// The path of a URL, in segments.
fn url_path(url: &str) -> Vec<Segment> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or_else(Vec::new, |(_, path)| segments(path))
}

fn segments(path: &str) -> Vec<Segment> {
    path.split('/').filter(|part| !part.is_empty()).map(|part| Segment::Literal(part.to_owned())).collect()
}
