//! Who asks: one credential, or none, verified with the keys of its own issuer.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;

use super::token_cache::{Remembered, TokenCache};
use super::{Authorization, Checked, Course, Found, Introspected, KeyFound, Need, RETRY, Refreshed, Stop, cors};
use crate::browser::{LiveSession, SessionFound};
use crate::clock::Timestamp;
use crate::decision::Routed;
use crate::decision::{Denial, Reason};
use crate::identity::claims::Claims;
use crate::identity::credential::{Credential, CredentialError};
use crate::identity::ssr::{self, Held, SsrSession};
use crate::identity::{Caller, IssuerName, Transport};
use crate::policy::document::Preset;
use crate::policy::set::{Admission, App, Edge, Issuer, OnExpired, PolicySet};
use crate::policy::specificity::matches;
use crate::policy::template::Segment;
use crate::request::RequestError;
use crate::request::cookie::{self, CookieError};
use crate::request::forwarded::Origin;
use crate::request::head::{Lookup, RequestHead};
use crate::secret::Secret;
use crate::store::revoked::RevokedList;
use crate::token::error::TokenError;
use crate::token::verify::{VerifiedToken, Verifier};

/// A caller and the credential that said so.
#[derive(Debug)]
pub(super) struct Authenticated<'r> {
    pub(super) caller: Caller,
    pub(super) token: Option<Cow<'r, str>>,
    transport: Option<Transport>,
    /// What the app gets as `Authorization`, where that is not what the client sent.
    access: Option<HeaderValue>,
}

impl Authenticated<'_> {
    const NOBODY: Self = Self { caller: Caller::Anonymous, token: None, transport: None, access: None };

    /// What becomes of `Authorization`: where the caller plays a part, only what was validated is forwarded. A part of
    /// Supabase also gets the project's own key, which its clients send while nobody is signed in, and the signatures of S3.
    pub(super) fn authorization(&self, routed: &Routed) -> Authorization {
        if let Some(access) = self.access.as_ref().filter(|_| routed.app().forward_token) {
            return Authorization::Set(access.clone());
        }
        let validated =
            self.transport == Some(Transport::Bearer) || !routed.needs_credential() || routed.route().edge.is_some();
        if routed.app().forward_token && validated { Authorization::Keep } else { Authorization::Remove }
    }
}

/// What tokens are checked with.
#[derive(Clone, Copy, Debug)]
pub(super) struct With<'a> {
    pub(super) tokens: &'a TokenCache,
    pub(super) revoked: &'a RevokedList,
    /// Whether the store is open that would know.
    pub(super) knows_revocations: bool,
    /// Whether sessions of identity providers end here too.
    pub(super) ends_sessions: bool,
    /// What was found out for this request.
    pub(super) found: &'a Found,
}

impl<'a> With<'a> {
    fn verifier(&self) -> &'a Verifier {
        self.tokens.verifier()
    }
}

/// The caller of a request. Nobody is a caller too: whether that is enough, `authorize` says.
pub(super) fn authenticate<'a>(
    with: With<'a>,
    routed: &Routed,
    head: &RequestHead<'a>,
    origin: &Origin<'_>,
    now: Timestamp,
    course: &mut Course,
) -> Result<Authenticated<'a>, Stop> {
    if !routed.needs_credential() {
        return Ok(Authenticated::NOBODY);
    }
    let policy = routed.policy();
    let cookies = cookies(policy, head.headers)?;
    let tokens = cookies.iter().map(|cookie| cookie.token.clone());
    let credential = Credential::single(head.headers, tokens)?.filter(|credential| !credential.is_ignored());
    if let Some(session) = session(with, routed, head, course)? {
        course.set_cookie.extend(session.set_cookie.iter().cloned());
        return by_session(with, routed, head, origin, now, (session, credential));
    }
    let Some(credential) = credential else { return Ok(Authenticated::NOBODY) };
    let transport = credential.transport();
    let sent_by = |issuer: &IssuerName| {
        cookies.iter().find(|cookie| cookie.issuer.name == *issuer && cookie.token == credential.token())
    };
    let mut verified = with.tokens.verify(credential.token(), now);
    let mut renewed = None;
    if transport != Transport::Bearer
        && let Some(ended) = ended(&verified, now)
        && let Some((issuer, _)) = with.verifier().named(credential.token())
        && let Some((cookie, session)) = sent_by(&issuer).and_then(|cookie| Some((cookie, cookie.session.as_ref()?)))
    {
        match renew(with, (cookie, session), ended, head, course)? {
            Renewal::Keep => {}
            Renewal::Nobody => return Ok(Authenticated::NOBODY),
            Renewal::New(token) => {
                verified = with.tokens.verify(token, now);
                renewed = Some(token);
            }
        }
    }
    let token = renewed.unwrap_or_else(|| credential.token());
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => Remembered::new(match project_key(with, policy, token, &error, now) {
            Some(key) => key,
            None => verify_later(with, policy, token, error)?,
        }),
    };
    let Some(issuer) = policy.issuer(verified.issuer()) else { return Err(refuse("issuer_unknown").into()) };
    match issuer.admit(verified.claims()) {
        Admission::Accepted => {}
        Admission::NoCredential => return Ok(Authenticated::NOBODY),
        Admission::Refused(cause) => return Err(refuse(cause).into()),
    }
    check_revoked(with, issuer, verified.claims(), routed.app())?;
    let may_come_so = match transport {
        Transport::Bearer => issuer.bearer,
        Transport::Cookie | Transport::Session => sent_by(&issuer.name).is_some(),
    };
    if !may_come_so {
        return Err(refuse("token_wrong_transport").into());
    }
    if transport != Transport::Bearer {
        check_origin(routed.app(), head, origin)?;
    }
    check_session(with, routed, issuer, token)?;
    Ok(Authenticated {
        caller: Caller::Known(verified.identity(transport)),
        token: Some(renewed.map_or_else(|| credential.into_token(), Cow::Borrowed)),
        transport: Some(transport),
        access: None,
    })
}

/// One of the old keys of a Supabase project, sent as a bearer: no token of a user, and still signed by the project.
fn project_key(
    with: With<'_>,
    policy: &PolicySet,
    token: &str,
    error: &TokenError,
    now: Timestamp,
) -> Option<VerifiedToken> {
    if matches!(error, TokenError::Malformed(_) | TokenError::Expired | TokenError::KeysUnavailable) {
        return None;
    }
    let mut projects = policy.issuers.iter().filter(|issuer| issuer.db_roles.is_some());
    projects.find_map(|issuer| with.verifier().verify_project_key(&issuer.name, token, now).ok())
}

/// How a token has ended, if it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// It is still accepted, since clocks differ.
    Just,
    /// It is not accepted any more.
    Long,
}

fn ended(verified: &Result<Arc<Remembered>, TokenError>, now: Timestamp) -> Option<Ended> {
    match verified {
        Ok(verified) => verified.expires().is_some_and(|expires| expires <= now).then_some(Ended::Just),
        Err(TokenError::Expired) => Some(Ended::Long),
        Err(_) => None,
    }
}

/// What becomes of a session of `@supabase/ssr` whose access token has ended.
enum Renewal<'a> {
    Keep,
    Nobody,
    New(&'a str),
}

/// The browser's own client refreshes its session, unless the policy says that the gateway does (`on_expired`).
fn renew<'a>(
    with: With<'a>,
    (cookie, session): (&InCookie<'_, '_>, &SsrSession),
    ended: Ended,
    head: &RequestHead<'_>,
    course: &mut Course,
) -> Result<Renewal<'a>, Stop> {
    let on_expired = cookie.issuer.supabase.as_ref().map(|project| project.on_expired).unwrap_or_default();
    match (on_expired, &with.found.refreshed, ended) {
        (OnExpired::Unauthenticated, _, Ended::Just) => Ok(Renewal::Keep),
        (OnExpired::Unauthenticated, _, Ended::Long) => Ok(Renewal::Nobody),
        (OnExpired::RefreshAndSetCookie, None, _) => {
            let (issuer, session) = (cookie.issuer.name.clone(), session.json.clone());
            Err(Stop::Ask(Need::SsrRefresh { issuer, session, client: course.client.ip() }))
        }
        (OnExpired::RefreshAndSetCookie, Some(Refreshed::New { token, session: json }), _) => {
            replace(cookie.name, ssr::cookies(cookie.name, json.expose(), session.encoding), head, course);
            Ok(Renewal::New(token.expose()))
        }
        (OnExpired::RefreshAndSetCookie, Some(Refreshed::Over), _) => {
            replace(cookie.name, Vec::new(), head, course);
            Ok(Renewal::Nobody)
        }
        (OnExpired::RefreshAndSetCookie, Some(Refreshed::Unavailable), Ended::Just) => Ok(Renewal::Keep),
        (OnExpired::RefreshAndSetCookie, Some(Refreshed::Unavailable), Ended::Long) => {
            Err(unavailable("the session cannot be refreshed now", "refresh_unavailable").into())
        }
    }
}

/// The browser and the app get these cookies instead of the pieces that the browser sent.
fn replace(name: &str, pieces: Vec<(String, String)>, head: &RequestHead<'_>, course: &mut Course) {
    let left_over =
        cookie::pieces(head.headers, name).into_iter().filter(|old| !pieces.iter().any(|(new, _)| new == old));
    let removed = left_over.map(|name| ssr::removal(&name));
    let set = pieces.iter().map(|(name, value)| ssr::set_cookie(name, value));
    // Names of cookies are tokens, and values are written in ASCII: nothing is lost here.
    course.set_cookie.extend(removed.chain(set).filter_map(|text| HeaderValue::try_from(text).ok()));
    course.cookies = Some((name.into(), pieces));
}

/// The session that the browser's cookie leads to. One that leads nowhere counts as none.
fn session<'a>(
    with: With<'a>,
    routed: &Routed,
    head: &RequestHead<'a>,
    course: &mut Course,
) -> Result<Option<&'a LiveSession>, Stop> {
    let Some(login) = routed.app().login.as_deref() else { return Ok(None) };
    let Some(browser) = login.browser.as_ref() else { return Ok(None) };
    let cookie = cookie::find(head.headers, &browser.cookie).inspect_err(|_| {
        course.set_cookie.push(browser.clearing()); // cookie tossing: none of them is believed
    });
    let Some(cookie) = cookie.map_err(RequestError::from)?.filter(|cookie| !cookie.is_empty()) else {
        return Ok(None);
    };
    match &with.found.session {
        None => {
            let (login, cookie) = (Arc::clone(browser), Secret::new(cookie.to_owned()));
            Err(Stop::Ask(Need::Session { login, cookie }))
        }
        // Apps of one host may share a cookie: each believes those to whom it sends people.
        Some(SessionFound::Live(session)) if login.signs_in_at(&session.issuer) => Ok(Some(session)),
        // The cookie stays: another tab may have got the next one a moment ago, and would lose it.
        Some(SessionFound::Live(_) | SessionFound::Gone) => Ok(None),
        Some(SessionFound::Unavailable) => Err(unavailable("the session cannot be read now", "session_unknown").into()),
    }
}

/// Whoever the tokens of a session speak for. A second credential beside it must be the same.
fn by_session<'a>(
    with: With<'a>,
    routed: &Routed,
    head: &RequestHead<'_>,
    origin: &Origin<'_>,
    now: Timestamp,
    (session, other): (&'a LiveSession, Option<Credential<'_>>),
) -> Result<Authenticated<'a>, Stop> {
    let (token, access) = (session.token.expose().as_str(), session.access.expose().as_str());
    if other.is_some_and(|other| other.token() != token && other.token() != access) {
        return Err(CredentialError::Conflicting.into());
    }
    let verified = match &session.client_id {
        Some(client) => with.verifier().verify_id_token(&session.issuer, client, token, now).map(Remembered::new),
        None => with.tokens.verify(token, now),
    };
    let verified = match verified {
        Ok(verified) => verified,
        Err(error) => Remembered::new(verify_later(with, routed.policy(), token, error)?),
    };
    if *verified.issuer() != session.issuer {
        return Err(refuse("issuer_unknown").into());
    }
    // Whoever mixed up users since then, the provider or the store: it was not this one who signed in.
    let subject = verified.claims().get("sub").and_then(serde_json::Value::as_str);
    if subject != Some(&*session.user) {
        return Err(refuse("session_of_another").into());
    }
    let Some(issuer) = routed.policy().issuer(verified.issuer()) else { return Err(refuse("issuer_unknown").into()) };
    match issuer.admit(verified.claims()) {
        Admission::Accepted => {}
        Admission::NoCredential => return Ok(Authenticated::NOBODY),
        Admission::Refused(cause) => return Err(refuse(cause).into()),
    }
    check_revoked(with, issuer, verified.claims(), routed.app())?;
    check_origin(routed.app(), head, origin)?;
    check_session(with, routed, issuer, token)?;
    let bearer = HeaderValue::try_from(format!("Bearer {access}")).map_err(|_| refuse("token_malformed"))?;
    Ok(Authenticated {
        caller: Caller::Known(verified.identity(Transport::Session)),
        token: Some(Cow::Borrowed(token)),
        transport: Some(Transport::Session),
        access: Some(bearer),
    })
}

/// A token that cannot be verified with what is at hand: its key may be new, or its issuer must be asked.
fn verify_later(with: With<'_>, policy: &PolicySet, token: &str, error: TokenError) -> Result<VerifiedToken, Stop> {
    match error {
        TokenError::KeysUnavailable | TokenError::UnknownKey => {
            let named = with.verifier().named(token);
            let remote = |name: &IssuerName| policy.issuer(name).is_some_and(|issuer| issuer.remote.is_some());
            match (named.filter(|(issuer, _)| remote(issuer)), with.found.key) {
                (Some((issuer, kid)), None) => Err(Stop::Ask(Need::Key { issuer, kid })),
                (_, Some(KeyFound::Unavailable)) => Err(refused(TokenError::KeysUnavailable).into()),
                _ => Err(refused(error).into()),
            }
        }
        TokenError::Malformed(malformed) if malformed.may_be_opaque() => {
            let Some(issuer) = policy.issuers.iter().find(|issuer| issuer.introspection.is_some()) else {
                return Err(refused(error).into());
            };
            match &with.found.introspected {
                None => {
                    let (issuer, token) = (issuer.name.clone(), Secret::new(token.to_owned()));
                    Err(Stop::Ask(Need::Introspection { issuer, token }))
                }
                Some(Introspected::Active(verified)) => Ok(VerifiedToken::clone(verified)),
                Some(Introspected::Inactive(cause)) => Err(refuse(cause).into()),
                Some(Introspected::Unavailable) => {
                    Err(unavailable("the token cannot be verified now", "introspection_unavailable").into())
                }
            }
        }
        _ => Err(refused(error).into()),
    }
}

fn refuse(cause: &'static str) -> Denial {
    Denial::new(Reason::InvalidToken, TokenError::BadSignature.description()).because(cause)
}

fn unavailable(detail: &'static str, cause: &'static str) -> Denial {
    Denial::new(Reason::Unavailable, detail).because(cause).retry_after(RETRY)
}

/// Whether a token was revoked. Of the gateway's own tokens, and of those whose sessions end here, nothing is known while
/// the list cannot be kept up to date (`on_store_error`); others are revoked somewhere else.
fn check_revoked(with: With<'_>, issuer: &Issuer, claims: &Claims, app: &App) -> Result<(), Denial> {
    let text = |name: &str| claims.get(name).and_then(serde_json::Value::as_str);
    let session = text("sid").or_else(|| text("session_id"));
    let issued = claims.get("iat").and_then(serde_json::Value::as_f64).map(|seconds| seconds as i64);
    if with.revoked.is_revoked(issuer.name.as_str(), text("jti"), session, text("sub"), issued) {
        return Err(Denial::new(Reason::InvalidToken, TokenError::BadSignature.description()).because("token_revoked"));
    }
    let is_concerned =
        issuer.local.is_some() || with.ends_sessions && (issuer.supabase.is_some() || issuer.oidc.is_some());
    if is_concerned && !app.allow_on_store_error && !(with.knows_revocations && with.revoked.is_current()) {
        let denial = Denial::new(Reason::Unavailable, "the token cannot be verified now");
        return Err(denial.because("revocations_unknown").retry_after(RETRY));
    }
    Ok(())
}

/// Whether the session of a token still lives, on the paths where its project is asked (`session_check`).
fn check_session(with: With<'_>, routed: &Routed, issuer: &Issuer, token: &str) -> Result<(), Stop> {
    let check = issuer.supabase.as_ref().and_then(|project| project.session_check.as_ref());
    let Some(check) = check.filter(|check| is_on_path(&check.paths, routed)) else { return Ok(()) };
    match with.found.checked {
        None => {
            let (issuer, token) = (issuer.name.clone(), Secret::new(token.to_owned()));
            Err(Stop::Ask(Need::SessionCheck { issuer, token }))
        }
        Some(Checked::Live) => Ok(()),
        Some(Checked::Ended) => Err(refuse("session_ended").into()),
        Some(Checked::Unavailable) if check.allow_on_error => Ok(()),
        Some(Checked::Unavailable) => {
            Err(unavailable("the session cannot be checked now", "session_check_unavailable").into())
        }
    }
}

/// Whether the request is for one of these paths; where the app does not tell upper from lower case, neither does this.
fn is_on_path(paths: &[Vec<Segment>], routed: &Routed) -> bool {
    let segments: SmallVec<[Cow<'_, str>; 16]> = routed.target().segments().map(|segment| segment.decoded()).collect();
    let is_same = |template: &[Segment]| matches(template, segments.iter().map(|segment| &**segment));
    if !routed.app().fold_case {
        return paths.iter().any(|template| is_same(template));
    }
    let folded: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    paths.iter().any(|template| {
        let template: Vec<Segment> = template
            .iter()
            .map(|segment| match segment {
                Segment::Literal(literal) => Segment::Literal(literal.to_ascii_lowercase()),
                other => other.clone(),
            })
            .collect();
        matches(&template, folded.iter().map(String::as_str))
    })
}

/// A token in a cookie.
struct InCookie<'p, 'r> {
    /// Whose policy names the cookie.
    issuer: &'p Issuer,
    name: &'p str,
    token: Cow<'r, str>,
    /// The session that the token is a part of, in a cookie of `@supabase/ssr`.
    session: Option<SsrSession>,
}

/// The tokens in cookies: for each issuer, that of the first cookie in `from` that is there.
fn cookies<'p, 'r>(policy: &'p PolicySet, headers: &'r HeaderMap) -> Result<SmallVec<[InCookie<'p, 'r>; 1]>, Denial> {
    let mut found = SmallVec::new();
    if headers.contains_key(header::COOKIE) {
        for issuer in &policy.issuers {
            for name in &issuer.cookies {
                if let Some(cookie) = in_cookie(issuer, name, headers).map_err(RequestError::from)? {
                    found.push(cookie);
                    break;
                }
            }
        }
    }
    Ok(found)
}

fn in_cookie<'p, 'r>(
    issuer: &'p Issuer,
    name: &'p str,
    headers: &'r HeaderMap,
) -> Result<Option<InCookie<'p, 'r>>, CookieError> {
    if issuer.preset != Preset::Supabase {
        let value = cookie::find(headers, name)?.filter(|value| !value.is_empty());
        return Ok(value.map(|value| InCookie { issuer, name, token: Cow::Borrowed(value), session: None }));
    }
    let Some(value) = cookie::find_in_pieces(headers, name)? else { return Ok(None) };
    Ok(match Held::read(value) {
        Held::Token(token) => Some(InCookie { issuer, name, token, session: None }),
        Held::Session(session) => {
            let token = Cow::Owned(session.access.expose().clone());
            Some(InCookie { issuer, name, token, session: Some(session) })
        }
        Held::Nothing => {
            tracing::debug!(issuer = issuer.name.as_str(), cookie = name, "a session in a cookie cannot be read");
            None
        }
    })
}

fn refused(error: TokenError) -> Denial {
    let (reason, detail) = match error {
        TokenError::KeysUnavailable => (Reason::Unavailable, "the token cannot be verified now"),
        _ => (Reason::InvalidToken, error.description()),
    };
    let denial = Denial::new(reason, detail).because(format!("{}: {error}", error.name()));
    if reason == Reason::Unavailable { denial.retry_after(RETRY) } else { denial }
}

/// A cookie comes with every request that any page makes a browser send. So writes and upgrades need an origin
/// that is the app's own or listed (ASVS 3.5.1, RFC 6455 §10.2).
fn check_origin(app: &App, head: &RequestHead<'_>, origin: &Origin<'_>) -> Result<(), Denial> {
    let reads = matches!(head.method, "GET" | "HEAD" | "OPTIONS") && !head.has_header(header::UPGRADE.as_str());
    // `none`: the user asked for it, no page did.
    let same_site = || matches!(head.header("sec-fetch-site").one(), Some("same-origin" | "none"));
    let allowed = match head.header(header::ORIGIN.as_str()) {
        _ if reads => true,
        Lookup::One(value) => may_act(app, value, origin),
        Lookup::Missing => same_site(),
        Lookup::Unclear => false,
    };
    if allowed { Ok(()) } else { Err(cross_origin()) }
}

/// No preflight comes before a WebSocket: where the app says which origins it knows, others may not open one.
pub(super) fn check_websocket(routed: &Routed, head: &RequestHead<'_>, origin: &Origin<'_>) -> Result<(), Denial> {
    if !routed.route().websocket || routed.app().cors.is_none() || !head.has_header(header::UPGRADE.as_str()) {
        return Ok(());
    }
    // Who speaks through a socket of Supabase's Realtime is told by a token inside it, never by a cookie.
    let is_realtime = routed.route().edge == Some(Edge::Realtime);
    let may_read = || routed.app().cors.as_ref().is_some_and(|cors| cors::allowed_origin(cors, head).is_some());
    match head.header(header::ORIGIN.as_str()) {
        Lookup::Missing => Ok(()), // no browser
        Lookup::One(value) if may_act(routed.app(), value, origin) || (is_realtime && may_read()) => Ok(()),
        Lookup::One(_) | Lookup::Unclear => Err(cross_origin()),
    }
}

/// Whether an origin is the app's own, or one that it lets act with credentials.
fn may_act(app: &App, value: &str, origin: &Origin<'_>) -> bool {
    let rest = value.strip_prefix(origin.scheme()).and_then(|rest| rest.strip_prefix("://"));
    let own = rest.is_some_and(|host| host.eq_ignore_ascii_case(origin.host().authority()));
    let listed = || {
        app.cors.as_ref().is_some_and(|cors| cors.credentials && cors.origins.iter().any(|listed| **listed == *value))
    };
    value != "null" && (own || listed())
}

fn cross_origin() -> Denial {
    Denial::new(Reason::AccessDenied, "the request comes from another origin").because("cross_origin")
}
