//! What a login is given: scopes, an access token, and the answer that holds them.

use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Builder;

use crate::clock::Timestamp;
use crate::identity::scope::Hierarchy;
use crate::issuer::Signer;
use crate::policy::set::PolicySet;
use crate::random::Random;
use crate::response::Response;
use crate::store::{Session, User};
use crate::token::compact::MAX_TOKEN_LEN;
use crate::token::verify::ExpectedAudience;

use super::error::OAuthError;
use super::refresh::RefreshToken;
use super::{Asking, Ours};

/// Roles that only a policy gives, through `includes`: neither a token nor a store can.
const RESERVED: &str = "portcullis:";

/// The roles of a user that count.
fn roles(user: &User) -> impl Iterator<Item = &str> {
    user.roles.iter().map(String::as_str).filter(|role| !role.starts_with(RESERVED))
}

/// All scopes that a user may be given: their own, and those that their roles grant, inclusion applied.
pub(super) fn allowed(user: &User, policy: &PolicySet) -> Vec<String> {
    let closure = policy.roles.closure(roles(user));
    let of_roles = policy.roles.roles.iter().enumerate().filter(|(number, _)| closure.contains(*number));
    let of_roles = of_roles.flat_map(|(_, role)| role.grants.iter().map(AsRef::as_ref));
    let mut scopes = Vec::new();
    for scope in user.scopes.iter().map(String::as_str).chain(of_roles) {
        push(&mut scopes, scope);
    }
    scopes
}

/// The scopes of a new login. A scope that is asked for is granted if an allowed one satisfies it; where none is asked
/// for, all that are allowed (or the defaults among them).
///
/// Somebody who asked for nothing and may have nothing still gets a token: an app that only asks who somebody is has no
/// scopes at all. Whoever asked for something gets a part of it (with `strict` all of it) or `invalid_scope`.
pub(super) fn granted(
    requested: &[&str],
    allowed: &[String],
    defaults: Option<&[Box<str>]>,
    hierarchy: Hierarchy,
    strict: bool,
) -> Result<Vec<String>, OAuthError> {
    let is_allowed = |scope: &str| allowed.iter().any(|allowed| hierarchy.satisfies(allowed, scope));
    let mut scopes = Vec::new();
    if requested.is_empty() {
        match defaults {
            None => scopes = allowed.to_vec(),
            Some(defaults) => {
                defaults.iter().filter(|scope| is_allowed(scope)).for_each(|scope| push(&mut scopes, scope));
            }
        }
        return Ok(scopes);
    }
    requested.iter().filter(|scope| is_allowed(scope)).for_each(|scope| push(&mut scopes, scope));
    if scopes.is_empty() || strict && scopes.len() < requested.len() {
        return Err(OAuthError::InvalidScope("The requested scopes may not be given"));
    }
    Ok(scopes)
}

/// The scopes of a login that goes on: never more than were granted to it (RFC 6749 §6), and never more than the user
/// may have today.
pub(super) fn renewed(
    requested: &[&str],
    session: &[String],
    allowed: &[String],
    hierarchy: Hierarchy,
    strict: bool,
) -> Result<Vec<String>, OAuthError> {
    if requested.iter().any(|scope| !session.iter().any(|granted| hierarchy.satisfies(granted, scope))) {
        return Err(OAuthError::InvalidScope("More scopes are requested than were granted"));
    }
    if !requested.is_empty() {
        return granted(requested, allowed, None, hierarchy, strict);
    }
    let mut scopes = Vec::new();
    for granted in session {
        if allowed.iter().any(|allowed| hierarchy.satisfies(allowed, granted)) {
            push(&mut scopes, granted);
        } else {
            // What is left of it, if the user may have only a part today.
            let left = allowed.iter().filter(|allowed| hierarchy.satisfies(granted, allowed));
            left.for_each(|allowed| push(&mut scopes, allowed));
        }
    }
    Ok(scopes)
}

fn push(scopes: &mut Vec<String>, scope: &str) {
    if !scope.is_empty() && !scopes.iter().any(|other| other == scope) {
        scopes.push(scope.to_owned());
    }
}

/// A new UUID (version 7).
pub(super) fn id(now: Timestamp, random: &dyn Random) -> String {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
}

/// A signed access token.
pub(super) struct AccessToken {
    token: String,
    expires_in: u64,
    scope: String,
}

/// Signs an access token for a session. It never outlives the session.
pub(super) fn mint(
    asking: &Asking<'_>,
    ours: Ours<'_>,
    signer: &Signer,
    user: &User,
    session: &Session,
    scopes: &[String],
    random: &dyn Random,
) -> Result<AccessToken, OAuthError> {
    let rules = asking.policy.verifier.issuers().find(|rules| rules.name == ours.issuer.name);
    let issued = asking.now.as_seconds();
    let expires = asking.now.plus(ours.local.expires).min(session.expires).as_seconds();
    let scope = scopes.join(" ");
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    set("iss", json!(ours.local.iss));
    set("sub", json!(user.id));
    match ours.local.audience.as_slice() {
        // `audience: none`: some apps verify tokens with libraries that refuse any audience.
        [] if rules.is_some_and(|rules| rules.audience == ExpectedAudience::DangerAny) => {}
        [] => set("aud", json!(*asking.app.name)),
        [one] => set("aud", json!(one)),
        several => set("aud", json!(several)),
    }
    set("iat", json!(issued));
    set("exp", json!(expires));
    set("jti", json!(id(asking.now, random)));
    set("sid", json!(session.id));
    set("auth_time", json!(session.started.as_seconds()));
    set("scope", json!(scope));
    set("roles", json!(roles(user).collect::<Vec<_>>()));
    set("name", json!(user.name));
    for (name, value) in [("email", &user.email), ("tenant", &user.tenant)] {
        if let Some(value) = value {
            set(name, json!(value));
        }
    }
    let typ = rules.and_then(|rules| rules.required_typ.as_deref()).unwrap_or("JWT");
    let token = signer.minter.mint(&claims, signer.kid.as_ref(), Some(typ)).map_err(|_| OAuthError::unavailable())?;
    if token.len() > MAX_TOKEN_LEN {
        return Err(OAuthError::InvalidScope("The scopes do not fit into a token, ask for fewer"));
    }
    let expires_in = u64::try_from(expires.saturating_sub(issued)).unwrap_or(0).max(1);
    Ok(AccessToken { token, expires_in, scope })
}

/// The successful answer (RFC 6749 §5.1). `scope` is always there; nothing is null.
pub(super) fn answer(access: &AccessToken, refresh: &RefreshToken) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        access_token: &'a str,
        token_type: &'static str,
        expires_in: u64,
        scope: &'a str,
        refresh_token: &'a str,
    }
    let body = Body {
        access_token: &access.token,
        token_type: "bearer",
        expires_in: access.expires_in,
        scope: &access.scope,
        refresh_token: refresh.expose(),
    };
    Response::json(200, &body)
}

/// What is kept of a user agent: its beginning, without control characters.
pub(super) fn shortened(user_agent: &str) -> String {
    user_agent.chars().filter(|char| !char.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(|scope| (*scope).to_owned()).collect()
    }

    #[test]
    fn scopes_are_what_is_asked_for_as_far_as_it_is_allowed() {
        use Hierarchy::{Colon, None as Flat};
        let invalid = None;
        for (requested, may, hierarchy, strict, expected) in [
            (&[][..], &["me", "items"][..], Colon, false, Some(&["me", "items"][..])),
            (&[], &[], Colon, false, Some(&[])),
            (&[], &[], Colon, true, Some(&[])),
            (&["me"], &["me", "items"], Colon, false, Some(&["me"])),
            (&["me", "admin"], &["me"], Colon, false, Some(&["me"])),
            (&["me", "admin"], &["me"], Colon, true, invalid),
            (&["admin"], &["me"], Colon, false, invalid),
            (&["admin"], &[], Colon, false, invalid),
            (&["items:read"], &["items"], Colon, false, Some(&["items:read"])),
            (&["items:read"], &["items"], Flat, false, invalid),
            (&["items"], &["items:read"], Colon, false, invalid),
            (&["me"], &["me", "me"], Colon, true, Some(&["me"])),
        ] {
            let found = granted(requested, &owned(may), None, hierarchy, strict).ok();
            assert_eq!(found, expected.map(owned), "{requested:?} of {may:?}");
        }
        let defaults: Vec<Box<str>> = vec!["me".into(), "admin".into()];
        let may = owned(&["me", "items"]);
        assert_eq!(granted(&[], &may, Some(&defaults), Colon, true), Ok(owned(&["me"])));
        assert_eq!(granted(&["items"], &may, Some(&defaults), Colon, true), Ok(owned(&["items"])));
    }

    #[test]
    fn scopes_never_widen_and_follow_what_the_user_may_have_today() {
        let colon = Hierarchy::Colon;
        let invalid = None;
        for (requested, session, may, strict, expected) in [
            (&[][..], &["me", "items"][..], &["me", "items", "admin"][..], false, Some(&["me", "items"][..])),
            (&["admin"], &["me"], &["me", "admin"], false, invalid),
            (&["me", "admin"], &["me"], &["me", "admin"], false, invalid),
            (&["items:read"], &["items"], &["items"], false, Some(&["items:read"])),
            (&["items"], &["items:read"], &["items"], false, invalid),
            (&[], &["me", "items"], &["me"], false, Some(&["me"])),
            (&[], &["items"], &["items:read"], false, Some(&["items:read"])),
            (&[], &["items"], &[], false, Some(&[])),
            (&["items"], &["items"], &[], false, invalid),
            (&["me", "items"], &["me", "items"], &["me"], false, Some(&["me"])),
            (&["me", "items"], &["me", "items"], &["me"], true, invalid),
        ] {
            let found = renewed(requested, &owned(session), &owned(may), colon, strict).ok();
            assert_eq!(found, expected.map(owned), "{requested:?} of {session:?}, {may:?} today");
        }
    }

    #[test]
    fn a_user_agent_is_shortened_and_has_no_controls() {
        assert_eq!(shortened("curl/8\r\n\u{1b}[31m"), "curl/8[31m");
        assert_eq!(shortened(&"ü".repeat(500)).chars().count(), 200);
    }
}
