//! Signing in: the page, the way to a provider and back, and the session at the end.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::RETRY_AFTER;
use parking_lot::Mutex;
use serde_json::Value;

use crate::clock::Timestamp;
use crate::identity::IssuerName;
use crate::identity::claims::Claims;
use crate::issuer::KeyOutcome;
use crate::policy::set::{self, Admission, BrowserLogin, Issuer, OidcClient, PolicySet, SupabaseProject};
use crate::provider::supabase::{Liveness, Session, SignedUp};
use crate::provider::{Authorization, Discovery, Oidc, Pkce, ProviderError, Supabase, Tokens};
use crate::request::cookie;
use crate::response::Response;
use crate::secret::Secret;
use crate::store::revoked::RevokedList;
use crate::store::{BrowserSession, StoreError};
use crate::telemetry::audit::{AuditEvent, Event, Outcome, Reason};
use crate::token::algorithm::Algorithm;
use crate::token::error::TokenError;
use crate::token::verify::{VerifiedToken, Verifier};

use super::flow::{self, Flow, FlowError};
use super::kept::{Kept, random_text};
use super::page::{self, Notice, SignIn};
use super::query::{Query, encode};
use super::return_to::return_to;
use super::{Browser, Inner, SessionFound, Visit, hash_of};

/// When to come back while something is missing.
const RETRY: Duration = Duration::from_secs(5);
/// How long a discovery document is used.
const DISCOVERY: Duration = Duration::from_secs(600);
/// How long it goes on while no other is to be had.
const STALE_DISCOVERY: Duration = Duration::from_secs(24 * 3600);
/// How long after a failure no document is asked for.
const DISCOVER_AGAIN: Duration = Duration::from_secs(2);
/// How long tokens are taken for good whose provider does not say it.
const UNSTATED_LIFE: Duration = Duration::from_secs(300);

/// What was found for an issuer, and when.
type Dated<T> = HashMap<Box<str>, (Timestamp, T)>;

/// Discovery documents, by issuer.
#[derive(Default)]
pub(super) struct Discovered {
    found: Mutex<Dated<Arc<Discovery>>>,
    /// Where there was none a moment ago.
    missing: Mutex<Dated<ProviderError>>,
}

impl fmt::Debug for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.found.lock().keys()).finish()
    }
}

/// What a form of the sign-in page says.
#[derive(Clone, Copy)]
pub struct Posted<'a> {
    /// The account.
    pub account: &'a str,
    /// The password.
    pub password: &'a str,
    /// Where the login ends.
    pub return_to: Option<&'a str>,
    /// Whether there is no account yet.
    pub signing_up: bool,
}

impl fmt::Debug for Posted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Posted").field("signing_up", &self.signing_up).finish_non_exhaustive()
    }
}

/// Why a form of the sign-in page leads to the page again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Account or password are wrong; which of them is not said.
    Credentials,
    /// The address must be confirmed first.
    Unconfirmed,
    /// No account is made of this.
    SignUp,
    /// The password is too easily guessed.
    WeakPassword,
    /// The form is not whole.
    Invalid,
    /// It comes from a page elsewhere.
    CrossSite,
    /// Too many tries.
    RateLimited(Duration),
    /// It cannot be told now.
    Unavailable(Duration),
}

impl Failure {
    fn status(self) -> u16 {
        match self {
            Self::Credentials | Self::Unconfirmed | Self::SignUp | Self::WeakPassword | Self::Invalid => 400,
            Self::CrossSite => 403,
            Self::RateLimited(_) => 429,
            Self::Unavailable(_) => 503,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Credentials => "Email or password is not right.",
            Self::Unconfirmed => "Please confirm your address first: we have sent you a mail with a link.",
            Self::SignUp => "No account can be made of this. If you have one already, sign in above.",
            Self::WeakPassword => "This password is too easily guessed. Please choose a longer one.",
            Self::Invalid => "Please fill in email and password.",
            Self::CrossSite => "This form was sent from another page. Please use the one below.",
            Self::RateLimited(_) => "There were too many tries. Please wait a moment, then try again.",
            Self::Unavailable(_) => "Signing in is not possible right now. Please try again in a moment.",
        }
    }

    fn reason(self) -> Reason {
        match self {
            Self::Credentials | Self::SignUp | Self::Unconfirmed | Self::WeakPassword => Reason::ProviderRefused,
            Self::Invalid => Reason::InvalidRequest,
            Self::CrossSite => Reason::AccessDenied,
            Self::RateLimited(_) => Reason::RateLimited,
            Self::Unavailable(_) => Reason::ProviderUnavailable,
        }
    }

    /// What a provider's error means for who signs in or up.
    pub fn of(error: &ProviderError, signing_up: bool) -> Self {
        match error {
            ProviderError::Busy(wait) => Self::RateLimited(wait.unwrap_or(RETRY)),
            ProviderError::Unavailable(_) | ProviderError::Misconfigured(_) => Self::Unavailable(RETRY),
            ProviderError::Refused { code, .. } => match (&**code, signing_up) {
                ("email_not_confirmed" | "phone_not_confirmed", _) => Self::Unconfirmed,
                ("weak_password", true) => Self::WeakPassword,
                (_, true) => Self::SignUp,
                (_, false) => Self::Credentials,
            },
        }
    }
}

/// Why a login did not end in a session.
#[derive(Debug)]
enum Failed {
    /// The way back is not one that was begun in this browser.
    Unknown,
    /// The user or the provider said no.
    Refused,
    /// What the provider gave is not good: why, for the log.
    NotGood(Box<str>),
    /// The user may not sign in here.
    NotAdmitted(&'static str),
    /// It cannot be told now.
    Unavailable,
    /// The store cannot be read or written.
    Store,
}

impl From<ProviderError> for Failed {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Refused { .. } => Self::Refused,
            ProviderError::Busy(_) | ProviderError::Unavailable(_) => Self::Unavailable,
            ProviderError::Misconfigured(why) => Self::NotGood(why),
        }
    }
}

impl From<StoreError> for Failed {
    fn from(_: StoreError) -> Self {
        Self::Store
    }
}

impl From<FlowError> for Failed {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Unknown => Self::Unknown,
            FlowError::Store(_) => Self::Store,
        }
    }
}

impl Failed {
    fn status(&self) -> u16 {
        match self {
            Self::Unknown | Self::Refused => 400,
            Self::NotAdmitted(_) => 403,
            Self::NotGood(_) => 502,
            Self::Unavailable | Self::Store => 503,
        }
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Unknown => {
                "This login was begun in another browser, has been used, or took too long; or this browser keeps no \
                 cookies of this site. Please begin again."
            }
            Self::Refused => "The provider did not confirm it, or you changed your mind.",
            Self::NotGood(_) => "The answer of the provider cannot be trusted.",
            Self::NotAdmitted(_) => "This account may not be used here.",
            Self::Unavailable | Self::Store => "Signing in is not possible right now. Please try again in a moment.",
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Unknown => Reason::BadState,
            Self::Refused | Self::NotGood(_) => Reason::ProviderRefused,
            Self::NotAdmitted(_) => Reason::AccessDenied,
            Self::Unavailable => Reason::ProviderUnavailable,
            Self::Store => Reason::StoreUnavailable,
        }
    }
}

/// The tokens of a login, verified.
struct Proven {
    issuer: IssuerName,
    subject: String,
    kept: Kept,
}

/// Who a token speaks of.
pub(super) fn subject(claims: &Claims) -> &str {
    claims.get("sub").and_then(Value::as_str).unwrap_or_default()
}

/// When tokens end: the first of what the one that speaks says, and what was stated about the access token.
pub(super) fn ends(verified: Option<&VerifiedToken>, stated: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let expires = verified.and_then(VerifiedToken::expires);
    [expires, stated].into_iter().flatten().min().unwrap_or_else(|| now.plus(UNSTATED_LIFE))
}

impl Browser {
    /// `GET /login`: the page, or on to where the login would end for who is signed in.
    pub async fn page(&self, visit: &Visit<'_>) -> Response {
        let asked = asked(visit);
        if let Some(there) = under_its_name(visit, login_path(visit), asked.as_deref()) {
            return there;
        }
        match self.is_signed_in(visit).await {
            true => page::redirect(asked.as_deref().unwrap_or(&visit.browser.return_to), Vec::new()),
            false => sign_in(visit, asked.as_deref(), None),
        }
    }

    /// `POST /login` that did not work: the page again, with the reason.
    pub fn refused(&self, visit: &Visit<'_>, posted: Option<&Posted<'_>>, failure: Failure) -> Response {
        self.inner.audit(&visit.event(Event::Login, Outcome::Failure).because(failure.reason()));
        again(visit, posted, failure)
    }

    /// The same, where somebody else has written it down.
    pub fn again(&self, visit: &Visit<'_>, posted: &Posted<'_>, failure: Failure) -> Response {
        again(visit, Some(posted), failure)
    }

    /// The page that says that a request to one of the endpoints was refused before it got there.
    pub fn refusal(login: &set::Login, status: u16, decision_id: &str) -> Response {
        let text = match status {
            429 => "There were too many tries. Please wait a moment, then try again.",
            405 => "This address is not meant to be used like that.",
            500.. => "Signing in is not possible right now. Please try again in a moment.",
            _ => "This request cannot be answered.",
        };
        let way_on = Some((login.paths.login.as_deref().unwrap_or("/"), "To the sign-in page"));
        Notice { title: "You are not signed in", text, way_on, reference: decision_id }.respond(status)
    }

    /// The answer of all endpoints while nothing is known of sessions.
    pub fn closed(visit: &Visit<'_>) -> Response {
        let way_on = Some((login_path(visit), "Try again"));
        let text = "Signing in and out is not possible right now. Please try again in a moment.";
        let notice = Notice { title: "Not now", text, way_on, reference: visit.decision_id };
        with_retry(notice.respond(503), RETRY)
    }

    /// Whether a form comes from our own page.
    pub fn admits(&self, visit: &Visit<'_>) -> bool {
        visit.is_same_origin()
    }

    /// Whose passwords the form takes.
    pub fn project<'a>(&self, visit: &Visit<'a>) -> Option<(&'a Issuer, &'a SupabaseProject)> {
        let issuer = visit.login.issuer.as_ref().and_then(|name| visit.policy.issuer(name))?;
        Some((issuer, issuer.supabase.as_deref().filter(|_| visit.browser.passwords)?))
    }

    /// `POST /login` with a password that was checked.
    pub async fn signed_in(&self, visit: &Visit<'_>, posted: &Posted<'_>, session: Session) -> Response {
        let Some((issuer, _)) = self.project(visit) else { return not_found(visit) };
        let place = posted.return_to.and_then(return_to).unwrap_or(&visit.browser.return_to);
        let proven = self.inner.prove_access(visit, &issuer.name, session.tokens).await;
        let ended = match proven {
            Ok(proven) => self.inner.establish(visit, proven).await,
            Err(failed) => Err(failed),
        };
        match ended {
            Ok(cookie) => page::redirect(place, vec![cookie]),
            Err(failed) => {
                self.inner.failed(visit, &issuer.name, &failed, posted.return_to.and_then(return_to), Vec::new())
            }
        }
    }

    /// `POST /login` of somebody who has no account yet.
    pub async fn sign_up(&self, visit: &Visit<'_>, posted: &Posted<'_>) -> Response {
        let Some((issuer, project)) = self.project(visit) else { return not_found(visit) };
        let inner = &self.inner;
        let id = flow::new_id(&*inner.parts.random);
        let pkce = Pkce::generate(&*inner.parts.random);
        let place = posted.return_to.and_then(return_to);
        let redirect_to = callback(visit).map(|url| format!("{url}?flow={id}"));
        let back = redirect_to.as_deref().map(|url| (url, &pkce));
        let from = Some(visit.client.ip());
        match inner.parts.supabase.sign_up(project, from, (posted.account, posted.password), back).await {
            Ok(SignedUp::Session(session)) => self.signed_in(visit, posted, *session).await,
            Ok(SignedUp::Confirm) => {
                let flow = inner.new_flow(visit, &issuer.name, &pkce, place);
                let cookies = match redirect_to {
                    Some(_) => inner.begin_flow(visit.browser, visit.headers, &id, &flow, visit.now).await,
                    None => Ok(Vec::new()),
                };
                let text = "We have sent you a mail. Open the link in it in this browser to confirm your address and to \
                            sign in. If no mail comes, you may have an account already.";
                let way_on = Some((login_path(visit), "Back to the sign-in page"));
                let notice = Notice { title: "Check your mail", text, way_on, reference: visit.decision_id };
                page::with_cookies(notice.respond(200), cookies.unwrap_or_default())
            }
            Err(error) => {
                tracing::info!(%error, app = &*visit.app.name, "nobody signed up");
                self.refused(visit, Some(posted), Failure::of(&error, true))
            }
        }
    }

    /// `GET /login/<name>`: to the provider.
    pub async fn begin(&self, visit: &Visit<'_>, name: &str) -> Response {
        let asked = asked(visit);
        let link = visit.browser.providers.iter().find(|link| *link.name == *name);
        let issuer = link.and_then(|link| visit.policy.issuer(&link.issuer));
        let (Some(issuer), Some(callback)) = (issuer, callback(visit)) else { return not_found(visit) };
        let path = format!("{}/{name}", login_path(visit).trim_end_matches('/'));
        if let Some(there) = under_its_name(visit, &path, asked.as_deref()) {
            return there;
        }
        let inner = &self.inner;
        let begun = async {
            let id = flow::new_id(&*inner.parts.random);
            let pkce = Pkce::generate(&*inner.parts.random);
            let flow = inner.new_flow(visit, &issuer.name, &pkce, asked.as_deref());
            let url = match (&issuer.supabase, &issuer.oidc) {
                (Some(project), _) => {
                    Supabase::authorize_url(project, name, &format!("{callback}?flow={id}"), &pkce.challenge, None)
                }
                (None, Some(client)) => {
                    let discovery = inner.discovery(&client.issuer).await?;
                    let (state, nonce) = (&format!("{id}.{}", flow.state), &flow.nonce);
                    let challenge = &pkce.challenge;
                    let login = Authorization { redirect_uri: &callback, state, nonce, challenge };
                    Oidc::authorize_url(&discovery, client, &login)?
                }
                (None, None) => return Err(Failed::NotGood("the issuer is no provider".into())),
            };
            let cookies = inner.begin_flow(visit.browser, visit.headers, &id, &flow, visit.now).await?;
            Ok(page::redirect(&url, cookies))
        };
        begun.await.unwrap_or_else(|failed| inner.failed(visit, &issuer.name, &failed, asked.as_deref(), Vec::new()))
    }

    /// `GET /auth/callback`: back from the provider.
    pub async fn callback(&self, visit: &Visit<'_>) -> Response {
        let inner = &self.inner;
        let unknown = |failed: Failed| {
            let issuer = IssuerName::new("");
            inner.failed(visit, &issuer, &failed, None, Vec::new())
        };
        let Ok(query) = Query::parse(visit.query) else { return unknown(Failed::Unknown) };
        // OpenID providers bring the state back, Supabase our own parameter.
        let (id, state) = match (query.get("state").and_then(|state| state.split_once('.')), query.get("flow")) {
            (Some((id, state)), None) => (id, Some(state)),
            (None, Some(id)) => (id, None),
            _ => return unknown(Failed::Unknown),
        };
        let flow = match inner.flow(visit.browser, visit.headers, id, visit.now).await {
            Ok(flow) if flow.app == *visit.app.name => flow,
            Ok(_) => return unknown(Failed::Unknown),
            Err(error) => return unknown(error.into()),
        };
        let Some(issuer) = visit.policy.issuers.iter().find(|issuer| issuer.name.as_str() == flow.issuer) else {
            return unknown(Failed::Unknown);
        };
        let place = return_to(&flow.return_to);
        // Whatever comes of it, it was used; only where nobody could say anything it may be tried again.
        let clear = |failed: &Failed| match failed {
            Failed::Unavailable | Failed::Store => Vec::new(),
            _ => flow::clearing(id).into_iter().collect(),
        };
        match inner.come_back(visit, issuer, &flow, state, &query).await {
            Ok(cookie) => {
                let cookies = [Some(cookie), flow::clearing(id)].into_iter().flatten().collect();
                page::redirect(place.unwrap_or(&visit.browser.return_to), cookies)
            }
            Err(failed) => inner.failed(visit, &issuer.name, &failed, place, clear(&failed)),
        }
    }

    /// Whether the cookie of the browser leads to a session whose token is good: otherwise the app would send it back
    /// here at once.
    async fn is_signed_in(&self, visit: &Visit<'_>) -> bool {
        let cookie = cookie::find(visit.headers, &visit.browser.cookie).ok().flatten();
        let Some(cookie) = cookie.filter(|cookie| !cookie.is_empty()) else { return false };
        let SessionFound::Live(live) = self.find(visit.policy, visit.browser, cookie).await else { return false };
        if !visit.login.signs_in_at(&live.issuer) {
            return false;
        }
        let token = live.token.expose();
        let verified = match &live.client_id {
            Some(client) => visit.verifier.verify_id_token(&live.issuer, client, token, visit.now),
            None => visit.verifier.verify(token, visit.now),
        };
        let Ok(verified) = verified else { return false };
        let Some(issuer) = visit.policy.issuer(&live.issuer).filter(|issuer| issuer.name == *verified.issuer()) else {
            return false;
        };
        let is_taken = subject(verified.claims()) == &*live.user
            && issuer.admit(verified.claims()) == Admission::Accepted
            && !is_revoked(&self.inner.parts.revoked, &verified);
        match issuer.supabase.as_deref().filter(|project| is_taken && project.session_check.is_some()) {
            Some(project) => !matches!(self.inner.parts.supabase.user(project, token).await, Ok(Liveness::Ended(_))),
            None => is_taken,
        }
    }
}

fn is_revoked(list: &RevokedList, verified: &VerifiedToken) -> bool {
    let text = |name: &str| verified.claims().get(name).and_then(Value::as_str);
    let issued = verified.claims().get("iat").and_then(Value::as_f64).map(|seconds| seconds as i64);
    let session = text("sid").or_else(|| text("session_id"));
    list.is_revoked(verified.issuer().as_str(), text("jti"), session, text("sub"), issued)
}

impl Inner {
    fn new_flow(&self, visit: &Visit<'_>, issuer: &IssuerName, pkce: &Pkce, place: Option<&str>) -> Flow {
        Flow {
            at: visit.now.as_millis(),
            app: visit.app.name.to_string(),
            issuer: issuer.to_string(),
            state: random_text::<32>(&*self.parts.random).to_string(),
            nonce: random_text::<32>(&*self.parts.random).to_string(),
            verifier: pkce.verifier.expose().clone(),
            return_to: place.unwrap_or_default().to_owned(),
        }
    }

    /// Checks what came back, redeems the code, and begins the session: its cookie.
    async fn come_back(
        &self,
        visit: &Visit<'_>,
        issuer: &Issuer,
        flow: &Flow,
        state: Option<&str>,
        query: &Query,
    ) -> Result<HeaderValue, Failed> {
        let pkce = Pkce::of(Secret::new(flow.verifier.clone()));
        let code = |query: &'_ Query| match (query.get("error"), query.get("code")) {
            (Some(_), _) => Err(Failed::Refused),
            (None, Some(code)) => Ok(code.to_owned()),
            (None, None) => Err(Failed::Unknown),
        };
        let proven = match (&issuer.supabase, &issuer.oidc) {
            (Some(project), _) if state.is_none() => {
                let code = code(query)?;
                let session = self.parts.supabase.pkce(project, Some(visit.client.ip()), &code, &pkce).await?;
                self.prove_access(visit, &issuer.name, session.tokens).await?
            }
            (None, Some(client)) => {
                if !state.is_some_and(|state| flow::is_same(state, &flow.state)) {
                    return Err(Failed::Unknown);
                }
                let discovery = self.discovery(&client.issuer).await?;
                // RFC 9207: an answer of another provider is not redeemed at this one.
                match query.get("iss") {
                    Some(named) if *named == *discovery.issuer => {}
                    None if !discovery.names_itself => {}
                    _ => return Err(Failed::Unknown),
                }
                let code = code(query)?;
                let redirect_uri = callback(visit).ok_or(Failed::Unknown)?;
                let tokens = self.parts.oidc.exchange(&discovery, client, &code, &pkce, &redirect_uri).await?;
                self.prove_id(visit, &issuer.name, client, &flow.nonce, tokens).await?
            }
            _ => return Err(Failed::Unknown),
        };
        self.establish(visit, proven).await
    }

    /// The tokens of a login whose access token speaks.
    async fn prove_access(&self, visit: &Visit<'_>, issuer: &IssuerName, tokens: Tokens) -> Result<Proven, Failed> {
        let token = tokens.access.expose();
        let verified = self
            .verified(visit.policy, issuer, token, |verifier| verifier.verify(token, visit.now))
            .await?
            .map_err(|error| not_good("the access token", &error))?;
        self.proven(visit, issuer, tokens, &verified, None)
    }

    /// The tokens of a login at an OpenID provider: the ID token says who it was (OpenID Connect Core §3.1.3.7); the
    /// access token speaks afterwards, if it is one of the issuer's that this gateway accepts.
    async fn prove_id(
        &self,
        visit: &Visit<'_>,
        issuer: &IssuerName,
        client: &OidcClient,
        nonce: &str,
        tokens: Tokens,
    ) -> Result<Proven, Failed> {
        let id = tokens.id.clone().ok_or_else(|| Failed::NotGood("there is no ID token".into()))?;
        let verify = |verifier: &Verifier| verifier.verify_id_token(issuer, &client.client_id, id.expose(), visit.now);
        let verified = self.verified(visit.policy, issuer, id.expose(), verify).await?;
        let verified = verified.map_err(|error| not_good("the ID token", &error))?;
        check_id_token(&verified, client, nonce, tokens.access.expose())?;
        let access = tokens.access.expose();
        let speaks = self.verified(visit.policy, issuer, access, |verifier| verifier.verify(access, visit.now)).await?;
        match speaks {
            Ok(speaks) if speaks.issuer() == issuer && !subject(speaks.claims()).is_empty() => {
                self.proven(visit, issuer, tokens, &speaks, None)
            }
            _ => self.proven(visit, issuer, tokens, &verified, Some(&client.client_id)),
        }
    }

    fn proven(
        &self,
        visit: &Visit<'_>,
        name: &IssuerName,
        tokens: Tokens,
        verified: &VerifiedToken,
        client: Option<&str>,
    ) -> Result<Proven, Failed> {
        let gone = || Failed::NotGood("the issuer is gone".into());
        let issuer = visit.policy.issuer(name).ok_or_else(gone)?;
        if verified.issuer() != name {
            return Err(Failed::NotGood("the token is of another issuer".into()));
        }
        match issuer.admit(verified.claims()) {
            Admission::Accepted => {}
            Admission::NoCredential => return Err(Failed::NotAdmitted("nobody signed in")),
            Admission::Refused(cause) => return Err(Failed::NotAdmitted(cause)),
        }
        let subject = subject(verified.claims()).to_owned();
        if subject.is_empty() {
            return Err(Failed::NotGood("the token has no `sub`".into()));
        }
        let stated = tokens.expires_in.map(|life| visit.now.plus(life));
        let kept = Kept {
            access: tokens.access,
            refresh: tokens.refresh,
            id: tokens.id,
            client: client.map(Into::into),
            ends: ends(Some(verified), stated, visit.now),
        };
        Ok(Proven { issuer: name.clone(), subject, kept })
    }

    /// Verifies with the newest keys there are; where the key is not known, it may be new and is looked for once.
    /// `Err` where that cannot be told now.
    async fn verified(
        &self,
        policy: &PolicySet,
        issuer: &IssuerName,
        token: &str,
        verify: impl Fn(&Verifier) -> Result<VerifiedToken, TokenError>,
    ) -> Result<Result<VerifiedToken, TokenError>, Failed> {
        let keys = self.parts.issuers.live();
        let verifier = keys.snapshot().verifier(policy);
        let unknown = |error: &TokenError| matches!(error, TokenError::KeysUnavailable | TokenError::UnknownKey);
        match verify(&verifier) {
            Err(error) if unknown(&error) => {}
            known => return Ok(known),
        }
        let named = verifier.named(token).filter(|(named, _)| named == issuer);
        let kid = named.and_then(|(_, kid)| kid);
        if self.parts.issuers.find_key(policy, issuer, kid.as_ref()).await == KeyOutcome::Unavailable {
            return Err(Failed::Unavailable);
        }
        match verify(&keys.snapshot().verifier(policy)) {
            Err(TokenError::KeysUnavailable) => Err(Failed::Unavailable),
            known => Ok(known),
        }
    }

    /// Begins the session of a login: the cookie that leads to it. The one that the browser had before ends.
    async fn establish(&self, visit: &Visit<'_>, proven: Proven) -> Result<HeaderValue, Failed> {
        if self.parts.audit.is_blocked() {
            return Err(Failed::Store); // what must be written down cannot be
        }
        let random = &*self.parts.random;
        let value = random_text::<32>(random);
        let hash = hash_of(&value).ok_or(Failed::Store)?;
        let login: &BrowserLogin = visit.browser;
        let sealed = self.sealer.seal(&login.keys, &hash.0, &proven.kept.write()).await?;
        let session = BrowserSession {
            hash,
            id: id(visit.now, random),
            app: visit.app.name.to_string(),
            issuer: proven.issuer.to_string(),
            user: proven.subject,
            sealed,
            version: 0,
            started: visit.now,
            expires: visit.now.plus(login.expires),
            used: visit.now,
            refresh_from: visit.now,
            lease: None,
            address: Some(visit.client.ip()),
            user_agent: visit.user_agent.chars().filter(|char| !char.is_control()).take(200).collect(),
        };
        self.parts.stores.browser.start(&session).await?;
        let event = AuditEvent {
            issuer: Some(&session.issuer),
            subject: Some(&session.user),
            session: Some(&session.id),
            ..visit.event(Event::Login, Outcome::Success)
        };
        self.audit(&event);
        let before = cookie::find(visit.headers, &login.cookie).ok().flatten().and_then(hash_of);
        if let Some(before) = before
            && let Ok(Some(row)) = self.parts.stores.browser.get(&before).await
        {
            self.end(&row, Reason::Replaced).await;
        }
        let cookie = format!(
            "{}={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax",
            login.cookie,
            *value,
            login.expires.as_secs()
        );
        HeaderValue::try_from(cookie).map_err(|_| Failed::Store)
    }

    /// The page that says why nobody was signed in. What the provider said stays in the log.
    fn failed(
        &self,
        visit: &Visit<'_>,
        issuer: &IssuerName,
        failed: &Failed,
        place: Option<&str>,
        cookies: Vec<HeaderValue>,
    ) -> Response {
        let issuer = Some(issuer.as_str()).filter(|issuer| !issuer.is_empty());
        let event = AuditEvent { issuer, ..visit.event(Event::Login, Outcome::Failure).because(failed.reason()) };
        self.audit(&event);
        match failed {
            Failed::NotGood(why) => {
                tracing::warn!(decision.id = visit.decision_id, issuer, why = &**why, "nobody was signed in");
            }
            Failed::NotAdmitted(why) => {
                tracing::info!(decision.id = visit.decision_id, issuer, why, "nobody was signed in");
            }
            _ => {}
        }
        let path = format!("{}{}", login_path(visit), back_to(place));
        let way_on = Some((path.as_str(), "Back to the sign-in page"));
        let notice =
            Notice { title: "You are not signed in", text: failed.text(), way_on, reference: visit.decision_id };
        let response = notice.respond(failed.status());
        let response = if failed.status() == 503 { with_retry(response, RETRY) } else { response };
        page::with_cookies(response, cookies)
    }

    /// The discovery document of an OpenID provider.
    pub(super) async fn discovery(&self, issuer: &str) -> Result<Arc<Discovery>, ProviderError> {
        let now = self.parts.clock.now();
        let known = self.discovered.found.lock().get(issuer).cloned();
        let fresh = |(read, _): &&(Timestamp, Arc<Discovery>)| *read <= now && now.since(*read) < DISCOVERY;
        if let Some((_, document)) = known.as_ref().filter(fresh) {
            return Ok(Arc::clone(document));
        }
        // Strangers can ask for this as often as they like: a provider that is down is not asked each time.
        let missing = self.discovered.missing.lock().get(issuer).cloned();
        let missing = missing.filter(|(tried, _)| *tried <= now && now.since(*tried) < DISCOVER_AGAIN);
        let found = match missing {
            Some((_, error)) => Err(error),
            None => {
                let found = self.parts.oidc.discover(issuer).await;
                if let Err(error) = &found {
                    self.discovered.missing.lock().insert(issuer.into(), (now, error.clone()));
                }
                found
            }
        };
        match (found, known) {
            (Ok(document), _) => {
                let document = Arc::new(document);
                self.discovered.found.lock().insert(issuer.into(), (now, Arc::clone(&document)));
                Ok(document)
            }
            (Err(ProviderError::Unavailable(_) | ProviderError::Busy(_)), Some((read, document)))
                if now.since(read) < STALE_DISCOVERY =>
            {
                Ok(document)
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// What an ID token must say beside what every token must (OpenID Connect Core §3.1.3.7).
fn check_id_token(verified: &VerifiedToken, client: &OidcClient, nonce: &str, access: &str) -> Result<(), Failed> {
    let claims = verified.claims();
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let bad = |why: &str| Err(Failed::NotGood(format!("the ID token: {why}").into()));
    if !text("nonce").is_some_and(|found| flow::is_same(found, nonce)) {
        return bad("another nonce");
    }
    // With several audiences the one that it was made for must be named.
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|audiences| audiences.len() > 1);
    match claims.get("azp") {
        None if !several => {}
        Some(Value::String(party)) if **party == *client.client_id => {}
        _ => return bad("made for another client"),
    }
    match claims.get("at_hash") {
        None => Ok(()),
        Some(Value::String(hash))
            if verified.algorithm().is_some_and(|algorithm| at_hash(algorithm, access) == *hash) =>
        {
            Ok(())
        }
        Some(_) => bad("another access token"),
    }
}

/// The left half of the hash of an access token (OpenID Connect Core §3.1.3.6).
fn at_hash(algorithm: Algorithm, access: &str) -> String {
    let hash = match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256 => &digest::SHA256,
        Algorithm::HS384 | Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 => &digest::SHA384,
        Algorithm::HS512 | Algorithm::RS512 | Algorithm::PS512 | Algorithm::EdDSA => &digest::SHA512,
    };
    let hash = digest::digest(hash, access.as_bytes());
    let half = hash.as_ref().get(..hash.as_ref().len() / 2).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(half)
}

fn not_good(what: &str, error: &TokenError) -> Failed {
    Failed::NotGood(format!("{what}: {error}").into())
}

/// Where the request asks the login to end, if that is somewhere it may.
fn asked(visit: &Visit<'_>) -> Option<String> {
    let query = Query::parse(visit.query).ok()?;
    query.get("return_to").and_then(return_to).map(str::to_owned)
}

fn login_path<'a>(visit: &Visit<'a>) -> &'a str {
    visit.login.paths.login.as_deref().unwrap_or("/")
}

/// The query that says where a login ends.
fn back_to(place: Option<&str>) -> String {
    place.map(|place| format!("?return_to={}", encode(place))).unwrap_or_default()
}

/// The way to the same place under the name that `public_url` has for this machine, where the browser used another one: a
/// login that began at `localhost` does not end at `127.0.0.1`, since the cookies of the one are not sent to the other.
fn under_its_name(visit: &Visit<'_>, path: &str, place: Option<&str>) -> Option<Response> {
    let is_other = super::is_other_name(visit.origin, visit.reached_at);
    is_other.then(|| page::redirect(&format!("{}{path}{}", visit.origin, back_to(place)), Vec::new()))
}

/// Where providers send browsers back to; exactly this is registered with them.
fn callback(visit: &Visit<'_>) -> Option<String> {
    let path = visit.login.paths.callback.as_deref().filter(|_| !visit.origin.is_empty())?;
    Some(format!("{}{path}", visit.origin.trim_end_matches('/')))
}

fn sign_in(visit: &Visit<'_>, place: Option<&str>, again: Option<(&Posted<'_>, Failure)>) -> Response {
    let providers: Vec<&str> = visit.browser.providers.iter().map(|link| &*link.name).collect();
    let (posted, failure) = (again.map(|(posted, _)| posted), again.map(|(_, failure)| failure));
    let page = SignIn {
        app: &visit.app.name,
        path: login_path(visit),
        return_to: place,
        providers: &providers,
        passwords: visit.browser.passwords && visit.login.issuer.is_some(),
        account: posted.map_or("", |posted| posted.account),
        signing_up: posted.is_some_and(|posted| posted.signing_up),
        problem: failure.map(Failure::text),
    };
    page.respond(failure.map_or(200, Failure::status))
}

fn again(visit: &Visit<'_>, posted: Option<&Posted<'_>>, failure: Failure) -> Response {
    const NOTHING: Posted<'static> = Posted { account: "", password: "", return_to: None, signing_up: false };
    let posted = posted.unwrap_or(&NOTHING);
    let response = sign_in(visit, posted.return_to.and_then(return_to), Some((posted, failure)));
    match failure {
        Failure::RateLimited(wait) | Failure::Unavailable(wait) => with_retry(response, wait),
        _ => response,
    }
}

fn not_found(visit: &Visit<'_>) -> Response {
    let way_on = Some((login_path(visit), "To the sign-in page"));
    let text = "There is no such way to sign in.";
    Notice { title: "Not found", text, way_on, reference: visit.decision_id }.respond(404)
}

fn with_retry(mut response: Response, wait: Duration) -> Response {
    let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
    if let Ok(value) = HeaderValue::try_from(seconds) {
        response.headers.insert(RETRY_AFTER, value);
    }
    response
}

/// A UUID (version 7).
fn id(now: Timestamp, random: &dyn crate::random::Random) -> String {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of OpenID Connect Core, appendix A.3 and A.6, and of RFC 7636, appendix B.
    #[test]
    fn hashes_of_access_tokens_are_those_of_the_standard() {
        assert_eq!(at_hash(Algorithm::RS256, "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"), "77QmUPtjPfzWtF2AnpK9RQ");
        let verifier = Secret::new("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned());
        assert_eq!(&*Pkce::of(verifier).challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn nobody_learns_whether_an_account_exists() {
        let refused = |code: &str| ProviderError::Refused { status: 400, code: code.into(), description: "x".into() };
        for code in ["invalid_credentials", "user_banned", "user_not_found", ""] {
            assert_eq!(Failure::of(&refused(code), false), Failure::Credentials, "{code}");
        }
        for code in ["user_already_exists", "email_exists", "signup_disabled", "email_address_invalid"] {
            assert_eq!(Failure::of(&refused(code), true), Failure::SignUp, "{code}");
        }
        assert_eq!(Failure::of(&ProviderError::Unavailable("".into()), false).status(), 503);
        assert_eq!(Failure::of(&ProviderError::Busy(None), true).status(), 429);
    }
}
