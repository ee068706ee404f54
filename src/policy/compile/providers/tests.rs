//! YAML in, what runs out.

use std::sync::Arc;

use serde_json::json;

use crate::diagnostic::Sources;
use crate::identity::claims::Claims;
use crate::identity::{Fact, Identity, IssuerName, Transport};
use crate::policy::references::References;
use crate::policy::set::{Issuer, KeysAt, OnExpired, PolicySet, Revision};
use crate::policy::{Options, check, compile, read};
use crate::secret::Secret;
use crate::token::verify::{ExpectedAudience, ExpectedIssuer, IssuerKeys, IssuerRules};

const SECRET: &str = "5f1a0a4a2cc0d4f9c7f7a0f3d2f4a0c95f1a0a4a2cc0d4f9";

fn references() -> References {
    [
        ("SUPABASE_URL", "https://abc.supabase.co/"),
        ("SUPABASE_KEY", "sb_publishable_x"),
        ("LEGACY", SECRET),
        ("SB_SECRET", "sb_secret_x"),
        ("CLIENT_SECRET", "hush"),
        ("TENANT", "8B1A9953-c461-4296-a827-abf8c47804d7"),
        ("BAD", "not a/host"),
        ("PLAIN", "http://login.example"),
    ]
    .into_iter()
    .fold(References::none(), |references, (name, value)| references.with_env(name, Secret::new(value.to_owned())))
}

/// A set with these issuers, one on each line.
fn compiled(issuers: &str, references: &References) -> Result<Arc<PolicySet>, Vec<String>> {
    let mut sources = Sources::default();
    let issuers: String = issuers.trim().lines().map(|line| format!("  {}\n", line.trim())).collect();
    let text =
        format!("version: 1\nupstream: http://localhost:1\nidentity:\n{issuers}routes:\n  GET /: authenticated\n");
    sources.add("p.yaml", &text);
    let (document, diagnostics) = read(&sources);
    assert!(diagnostics.is_empty(), "{text}{diagnostics:#?}");
    let (checked, found) = check(document, &sources, &Options::default());
    let Some(checked) = checked else { return Err(found.into_iter().map(|found| found.message).collect()) };
    compile::compile(&checked, &sources, references, Revision::default())
        .map(|candidate| Arc::clone(candidate.policy()))
        .map_err(|problems| problems.into_iter().map(|problem| problem.message).collect())
}

/// The only issuer of a set, and its rules.
fn issuer(line: &str) -> (Arc<PolicySet>, IssuerRules) {
    let policy =
        compiled(&format!("it: {line}"), &references()).unwrap_or_else(|problems| panic!("{line}: {problems:?}"));
    let rules = policy.verifier.issuers().next().unwrap().clone();
    (policy, rules)
}

fn only(policy: &PolicySet) -> &Issuer {
    &policy.issuers[0]
}

#[test]
fn presets_know_issuer_keys_audience_and_algorithms() {
    let discovery = |issuer: &str| format!("discovery {issuer}");
    for (line, iss, keys, aud, algorithms) in [
        (
            "{ preset: oidc, issuer: https://login.example/, audience: api }",
            "https://login.example/",
            discovery("https://login.example/"),
            "api",
            "RS256 PS256 ES256 ES384 EdDSA",
        ),
        (
            "{ preset: oidc, issuer: https://login.example, audience: [a, b], jwks_url: https://keys.example/k, algorithms: ES256 }",
            "https://login.example",
            "https://keys.example/k".to_owned(),
            "a b",
            "ES256",
        ),
        (
            "{ preset: oidc, issuer: 'http://127.0.0.1:9000', audience: api }",
            "http://127.0.0.1:9000",
            discovery("http://127.0.0.1:9000"),
            "api",
            "RS256 PS256 ES256 ES384 EdDSA",
        ),
        (
            "{ preset: auth0, domain: acme.eu.auth0.com, audience: https://api.acme.example }",
            "https://acme.eu.auth0.com/",
            discovery("https://acme.eu.auth0.com/"),
            "https://api.acme.example",
            "RS256 PS256",
        ),
        (
            "{ preset: keycloak, url: https://id.example/realms/acme/, client_id: web }",
            "https://id.example/realms/acme",
            discovery("https://id.example/realms/acme"),
            "web",
            "RS256 PS256 ES256 ES384 EdDSA",
        ),
        (
            "{ preset: entra, tenant: env:TENANT, audience: api://x, client_id: x }",
            "https://login.microsoftonline.com/8b1a9953-c461-4296-a827-abf8c47804d7/v2.0",
            discovery("https://login.microsoftonline.com/8b1a9953-c461-4296-a827-abf8c47804d7/v2.0"),
            "api://x",
            "RS256",
        ),
        (
            "{ preset: cognito, project: eu-central-1_AbC, client_id: 7f }",
            "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC",
            discovery("https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC"),
            "7f (or client_id)",
            "RS256",
        ),
        (
            "{ preset: clerk, domain: clerk.acme.example, audience: none, allow: { P408: as Clerk makes them } }",
            "https://clerk.acme.example",
            discovery("https://clerk.acme.example"),
            "any",
            "RS256",
        ),
        (
            "{ preset: firebase, project: acme-prod }",
            "https://securetoken.google.com/acme-prod",
            "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com".to_owned(),
            "acme-prod",
            "RS256",
        ),
        (
            "{ preset: google, client_id: 1.apps.googleusercontent.com }",
            "https://accounts.google.com",
            "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
            "1.apps.googleusercontent.com",
            "RS256",
        ),
        (
            "{ preset: okta, domain: acme.okta.com, audience: api://default }",
            "https://acme.okta.com/oauth2/default",
            discovery("https://acme.okta.com/oauth2/default"),
            "api://default",
            "RS256",
        ),
        (
            "{ preset: okta, issuer: https://acme.okta.com/oauth2/aus1, audience: api://default }",
            "https://acme.okta.com/oauth2/aus1",
            discovery("https://acme.okta.com/oauth2/aus1"),
            "api://default",
            "RS256",
        ),
        (
            "{ preset: jwt, jwks_url: https://keys.example/k, issuer: me, audience: api }",
            "me",
            "https://keys.example/k".to_owned(),
            "api",
            "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 EdDSA",
        ),
        (
            "{ preset: supabase }",
            "https://abc.supabase.co/auth/v1",
            "https://abc.supabase.co/auth/v1/.well-known/jwks.json".to_owned(),
            "authenticated",
            "RS256 RS512 ES256 EdDSA",
        ),
        (
            "{ preset: supabase, url: 'http://kong:8000', jwt_secret: env:LEGACY, audience: mine }",
            "http://kong:8000/auth/v1",
            "http://kong:8000/auth/v1/.well-known/jwks.json".to_owned(),
            "mine",
            "HS256 RS256 RS512 ES256 EdDSA",
        ),
        (
            "{ preset: supabase, jwt_secret: env:LEGACY, algorithms: [HS256] }",
            "https://abc.supabase.co/auth/v1",
            "none".to_owned(),
            "authenticated",
            "HS256",
        ),
    ] {
        let (policy, rules) = issuer(line);
        let texts = |texts: &[Box<str>]| texts.join(" ");
        let audience = match &rules.audience {
            ExpectedAudience::DangerAny => "any".to_owned(),
            ExpectedAudience::OneOf(ours) => texts(ours),
            ExpectedAudience::ClientOneOf(ours) => format!("{} (or client_id)", texts(ours)),
        };
        let remote = only(&policy).remote.as_ref().map_or_else(
            || "none".to_owned(),
            |remote| match &remote.at {
                KeysAt::Url(url) => url.to_string(),
                KeysAt::Discovery(issuer) => format!("discovery {issuer}"),
            },
        );
        let mut found: Vec<&str> = rules.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        let mut expected: Vec<&str> = algorithms.split(' ').collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(rules.issuer, ExpectedIssuer::Exact(iss.into()), "{line}");
        assert_eq!((remote, audience.as_str(), found), (keys, aud, expected), "{line}");
    }
}

#[test]
fn a_secret_of_supabase_stands_beside_its_published_keys() {
    for (line, known, may_be_empty) in [
        ("{ preset: supabase }", 0, true),
        ("{ preset: supabase, jwt_secret: env:LEGACY }", 1, true),
        ("{ preset: supabase, jwt_secret: [env:LEGACY, env:LEGACY], algorithms: [HS256, ES256] }", 2, true),
        ("{ preset: oidc, issuer: https://login.example/, audience: api }", 0, false),
    ] {
        let (policy, rules) = issuer(line);
        let keys = match &rules.keys {
            IssuerKeys::Known(keys) => keys.iter().count(),
            IssuerKeys::Unavailable => 0,
        };
        assert_eq!((keys, only(&policy).remote.as_ref().unwrap().may_be_empty), (known, may_be_empty), "{line}");
    }
}

#[test]
fn how_often_keys_are_fetched_is_stated_or_ten_minutes_half_a_minute_and_a_day() {
    for (keys, expected) in
        [("", [600, 30, 24 * 3600]), (", refresh: 5m, cool_down: 10s, max_stale: 1h", [300, 10, 3600])]
    {
        let (policy, _) = issuer(&format!("{{ preset: supabase{keys} }}"));
        let remote = only(&policy).remote.clone().unwrap();
        assert_eq!([remote.refresh, remote.cool_down, remote.max_stale].map(|time| time.as_secs()), expected);
    }
}

#[test]
fn a_supabase_project_is_what_the_policy_says_of_it() {
    let (policy, _) = issuer("{ preset: supabase }");
    let project = only(&policy).supabase.clone().unwrap();
    assert_eq!((&*project.url, project.on_expired), ("https://abc.supabase.co", OnExpired::Unauthenticated));
    assert_eq!(project.key.as_ref().unwrap().expose(), "sb_publishable_x");
    assert!(project.session_check.is_none() && project.forward_client_ip.is_none());

    let (policy, _) = issuer(
        "{ preset: supabase, key: sb_publishable_y, on_expired: refresh_and_set_cookie, \
         session_check: { paths: [/account/**], on_error: allow, cache: 5s }, forward_client_ip: { secret_key: env:SB_SECRET } }",
    );
    let project = only(&policy).supabase.clone().unwrap();
    assert_eq!(project.on_expired, OnExpired::RefreshAndSetCookie);
    assert_eq!(project.key.as_ref().unwrap().expose(), "sb_publishable_y");
    assert_eq!(project.forward_client_ip.as_ref().unwrap().expose(), "sb_secret_x");
    let check = project.session_check.clone().unwrap();
    assert_eq!((check.paths.len(), check.cache.as_secs(), check.allow_on_error), (1, 5, true));
}

#[test]
fn clients_and_introspection_of_a_provider() {
    let (policy, _) = issuer(
        "{ preset: keycloak, url: https://id.example/realms/a, client_id: web, client_secret: env:CLIENT_SECRET, \
         introspection: { url: https://id.example/i, client_id: api, client_secret: env:CLIENT_SECRET } }",
    );
    let client = only(&policy).oidc.clone().unwrap();
    assert_eq!((&*client.issuer, &*client.client_id), ("https://id.example/realms/a", "web"));
    assert_eq!(client.client_secret.as_ref().unwrap().expose(), "hush");
    assert_eq!(client.scopes.join(" "), "openid profile email");
    let asked = only(&policy).introspection.clone().unwrap();
    assert_eq!((&*asked.url, &*asked.client_id, asked.cache.as_secs()), ("https://id.example/i", "api", 30));

    let (policy, _) =
        issuer("{ preset: oidc, issuer: https://a.example, audience: api, client_id: x, login_scopes: openid }");
    let client = only(&policy).oidc.clone().unwrap();
    assert!(client.client_secret.is_none());
    assert_eq!(client.scopes.join(" "), "openid");
    let (policy, _) = issuer("{ preset: oidc, issuer: https://a.example, audience: api }");
    assert!(only(&policy).oidc.is_none());
}

/// As each provider documents its access tokens.
#[test]
fn facts_are_where_each_provider_puts_them() {
    let entra = "preset: entra, tenant: 8b1a9953-c461-4296-a827-abf8c47804d7, client_id: x";
    for (line, claims, expected) in [
        (
            "preset: keycloak, url: https://id.example/realms/a, client_id: web",
            json!({ "sub": "u", "realm_access": { "roles": ["editor", "offline_access"] }, "scope": "openid items:read",
                    "resource_access": { "web": { "roles": ["x"] } }, "preferred_username": "ada", "sid": "s" }),
            "id=u roles=editor,offline_access scopes=openid,items:read permissions= tenant=- session=s name=ada",
        ),
        (
            entra,
            json!({ "sub": "pairwise", "oid": "o", "tid": "t", "roles": ["Task.Write"], "scp": "Files.Read User.Read", "name": "Ada" }),
            "id=o roles=Task.Write scopes=Files.Read,User.Read permissions= tenant=t session=- name=Ada",
        ),
        (
            "preset: cognito, project: eu-central-1_A, client_id: x",
            json!({ "sub": "u", "cognito:groups": ["admins"], "scope": "items/read", "username": "ada", "origin_jti": "s",
                    "client_id": "x", "token_use": "access" }),
            "id=u roles=admins scopes=items/read permissions= tenant=- session=s name=ada",
        ),
        (
            "preset: auth0, domain: a.auth0.com, audience: api",
            json!({ "sub": "auth0|1", "scope": "openid", "permissions": ["items:delete"], "org_id": "org_1" }),
            "id=auth0|1 roles= scopes=openid permissions=items:delete tenant=org_1 session=- name=-",
        ),
        (
            "preset: clerk, domain: c.example, audience: x",
            json!({ "sub": "user_1", "sid": "sess_1", "v": 2, "o": { "id": "org_1", "rol": "admin", "slg": "acme" } }),
            "id=user_1 roles=admin scopes= permissions= tenant=org_1 session=sess_1 name=-",
        ),
        (
            "preset: clerk, domain: c.example, audience: x",
            json!({ "sub": "user_1", "org_id": "org_1", "org_role": "org:admin", "org_permissions": ["org:items:read"] }),
            "id=user_1 roles=org:admin scopes= permissions=org:items:read tenant=org_1 session=- name=-",
        ),
        (
            "preset: firebase, project: p",
            json!({ "sub": "u", "role": "editor", "firebase": { "tenant": "t", "sign_in_provider": "password" } }),
            "id=u roles=editor scopes= permissions= tenant=t session=- name=-",
        ),
        (
            "preset: google, client_id: x",
            json!({ "sub": "1", "hd": "acme.example", "name": "Ada" }),
            "id=1 roles= scopes= permissions= tenant=acme.example session=- name=Ada",
        ),
        (
            "preset: okta, domain: a.okta.com, audience: x",
            json!({ "sub": "ada@example.com", "uid": "00u1", "scp": ["items:read"], "groups": ["Everyone"] }),
            "id=00u1 roles=Everyone scopes=items:read permissions= tenant=- session=- name=-",
        ),
    ] {
        let (_, rules) = issuer(&format!("{{ {line} }}"));
        let serde_json::Value::Object(claims) = claims else { panic!("claims are an object") };
        let name = IssuerName::new("it");
        assert_eq!(
            shown(&rules.mapping.identity(Claims::new(claims), name, Transport::Bearer, None)),
            expected,
            "{line}"
        );
    }
}

fn shown(identity: &Identity) -> String {
    let text = |fact: &Fact<Box<str>>| match fact {
        Fact::Known(text) => text.to_string(),
        _ => "-".to_owned(),
    };
    let list = |fact: &Fact<Vec<Box<str>>>| match fact {
        Fact::Known(names) => names.join(","),
        _ => String::new(),
    };
    let scopes = match &identity.scopes {
        Fact::Known(scopes) => scopes.iter().collect::<Vec<_>>().join(","),
        _ => String::new(),
    };
    format!(
        "id={} roles={} scopes={scopes} permissions={} tenant={} session={} name={}",
        text(&identity.id),
        list(&identity.roles),
        list(&identity.permissions),
        text(&identity.tenant),
        text(&identity.session),
        text(&identity.name)
    )
}

#[test]
fn what_the_environment_says_is_looked_at_like_what_the_policy_says() {
    for (line, expected) in [
        ("it: { preset: auth0, domain: env:BAD, audience: x }", "`domain` is a host name"),
        ("it: { preset: entra, tenant: env:BAD, audience: x }", "`tenant` is the id of the tenant, a UUID"),
        ("it: { preset: cognito, project: env:BAD, audience: x }", "`project` is the id of the user pool"),
        ("it: { preset: firebase, project: env:BAD }", "`project` is the id of the project"),
        ("it: { preset: supabase, url: env:BAD }", "bad URL: not a URL"),
        (
            "it: { preset: supabase, url: https://a.supabase.co/auth/v1 }",
            "the URL of a Supabase project ends before `/auth/v1`",
        ),
        (
            "it: { preset: keycloak, url: env:PLAIN, client_id: x }",
            "bad URL: by `https`: whoever can change what comes from there can let anybody in",
        ),
    ] {
        assert_eq!(compiled(line, &references()).err(), Some(vec![expected.to_owned()]), "{line}");
    }
}

#[test]
fn what_is_not_resolved_accepts_no_token_and_is_told_apart() {
    let policy = compiled(
        "a: { preset: supabase, url: env:A }
         b: { preset: supabase, url: env:B }
         c: { preset: auth0, domain: env:C, audience: x }",
        &References::none(),
    )
    .unwrap();
    assert!(policy.issuers.iter().all(|issuer| issuer.remote.is_none() && issuer.supabase.is_none()));
    for rules in policy.verifier.issuers() {
        assert!(matches!(&rules.issuer, ExpectedIssuer::Exact(iss) if iss.starts_with("unresolved:")));
        assert!(matches!(rules.keys, IssuerKeys::Unavailable));
    }
}
