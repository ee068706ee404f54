//! YAML in, decisions out.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::diagnostic::{Diagnostic, Sources};
use crate::identity::Transport;
use crate::identity::claims::Claims;
use crate::policy::compile::{Candidate, compile};
use crate::policy::references::References;
use crate::policy::set::{Place, PolicySet, Revision};
use crate::policy::{Options, check, read};
use crate::request::forwarded::ClientAddr;
use crate::request::head::RequestHead;
use crate::secret::Secret;

use super::cases::{self, CLIENT, NOW};
use super::decide::{Decision, Presented, Question, decide};
use super::explain::{explain, recall};
use super::facts::Environment;
use super::{Masks, Truth};

/// Compiles texts, or says which findings are errors.
pub(super) fn try_candidate(files: &[(&str, &str)], references: &References) -> Result<Candidate, Vec<String>> {
    let mut sources = Sources::default();
    for (path, text) in files {
        sources.add(path, text);
    }
    let errors = |found: &[Diagnostic]| {
        let errors = found.iter().filter(|found| found.is_error());
        let place = |found: &Diagnostic| sources.place(found.primary.span);
        errors.map(|found| format!("{} {} at {}", found.code, found.message, place(found))).collect::<Vec<_>>()
    };
    let (document, found) = read(&sources);
    if found.iter().any(Diagnostic::is_error) {
        return Err(errors(&found));
    }
    let (checked, found) = check(document, &sources, &Options::default());
    let checked = checked.ok_or_else(|| errors(&found))?;
    compile(&checked, &sources, references, Revision::of(&sources)).map_err(|found| errors(&found))
}

fn candidate(files: &[(&str, &str)], references: &References) -> Candidate {
    match try_candidate(files, references) {
        Ok(candidate) => candidate,
        Err(errors) => panic!("{errors:?}"),
    }
}

fn policy(text: &str) -> Arc<PolicySet> {
    let text = format!("version: 1\nupstream: http://localhost:8000\n{text}");
    Arc::clone(candidate(&[("policies/test.yaml", &text)], &References::none()).policy())
}

/// Who asks, as claims of the set's first issuer.
pub(super) fn user(policy: &PolicySet, claims: Value) -> Presented {
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    let issuer = &policy.issuers[0];
    Presented::Identity(Arc::new(issuer.mapping.identity(
        Claims::new(claims),
        issuer.name.clone(),
        Transport::Bearer,
        None,
    )))
}

/// The decision on a request `METHOD target`, in one word: `allow`, or status and code.
pub(super) fn ask(policy: &Arc<PolicySet>, request: &str, headers: &[(&str, &str)], presented: Presented) -> String {
    word(&answer(policy, request, headers, presented))
}

fn word(decision: &Decision) -> String {
    match decision {
        Decision::Allow(_) => "allow".to_owned(),
        Decision::Deny(denial) => format!("{} {}", denial.status(), denial.reason.code()),
        Decision::Preflight => "preflight".to_owned(),
    }
}

fn answer(policy: &Arc<PolicySet>, request: &str, headers: &[(&str, &str)], presented: Presented) -> Decision {
    let (method, target) = request.split_once(' ').unwrap();
    let (host, target) = match target.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap()),
        None => ("localhost", target),
    };
    let mut map = HeaderMap::new();
    map.insert("host", HeaderValue::from_str(host).unwrap());
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let head = RequestHead::new(method, target, &map);
    decide(&Question {
        policy,
        head: &head,
        client: ClientAddr::new(CLIENT),
        country: None,
        presented,
        now: NOW,
        environment: Environment::Test,
    })
}

#[test]
fn the_patterns_of_the_language_on_one_line() {
    const NOBODY: &str = "401 unauthenticated";
    const DENIED: &str = "403 access_denied";
    const SCOPE: &str = "403 insufficient_scope";
    // route, request, [(claims, decision)]
    #[expect(clippy::type_complexity, reason = "a table that is read row by row")]
    #[rustfmt::skip]
    let table: &[(&str, &str, &[(Value, &str)])] = &[
        ("GET /public/posts: public", "GET /public/posts", &[(json!(null), "allow"), (json!({}), "allow")]),
        ("GET /users/me: authenticated", "GET /users/me", &[(json!(null), NOBODY), (json!({"sub": "u"}), "allow")]),
        ("GET /items: { scope: items:read }", "GET /items", &[
            (json!(null), NOBODY), (json!({}), SCOPE), (json!({"scope": "items:write"}), SCOPE), (json!({"scope": "items"}), "allow"),
            (json!({"scope": 7}), SCOPE)]),
        ("GET /admin/users: { role: admin }", "GET /admin/users", &[
            (json!(null), NOBODY), (json!({"roles": "editor"}), DENIED), (json!({"roles": ["admin"]}), "allow"), (json!({"roles": {}}), DENIED)]),
        ("DELETE /items/{id:int}: { permission: items:delete }", "DELETE /items/7", &[
            (json!({"permissions": ["items:delete"]}), "allow"), (json!({"roles": "admin"}), "allow"), (json!({"permissions": "items:*"}), "allow"),
            (json!({"permissions": ["items:del"]}), DENIED), (json!({"roles": "viewer"}), DENIED)]),
        ("PUT /users/{user_id}: { any: [ { where: path.user_id == user.id }, { role: admin } ] }", "PUT /users/u1", &[
            (json!(null), NOBODY), (json!({"sub": "u1"}), "allow"), (json!({"sub": "u2"}), DENIED), (json!({"sub": 1}), DENIED),
            (json!({"sub": "u2", "roles": ["admin"]}), "allow")]),
        ("GET /feed: optional", "GET /feed", &[(json!(null), "allow"), (json!({}), "allow")]),
        ("POST /api/expensive-operation: { limit: 5/min by user }", "POST /api/expensive-operation", &[
            (json!(null), NOBODY), (json!({}), "allow")]),
        ("GET /users/me/items: { scope: { all: [items, me] } }", "GET /users/me/items", &[
            (json!({"scope": "items"}), SCOPE), (json!({"scope": "me items"}), "allow")]),
        ("GET /reports: { scope: { any: [reports:read, admin:read] } }", "GET /reports", &[
            (json!({"scope": "admin"}), "allow"), (json!({"scope": "x"}), SCOPE)]),
        ("GET /items/sensitive: { permission: { all: [items:read, admin:read] } }", "GET /items/sensitive", &[
            (json!({"permissions": ["items:read"]}), DENIED), (json!({"permissions": ["admin:read", "items:read"]}), "allow")]),
        ("GET /manager/reports: { role: editor }", "GET /manager/reports", &[(json!({"roles": "admin"}), "allow"), (json!({"roles": "viewer"}), DENIED)]),
        ("GET /admin/dashboard: { where: token.role == \"admin\" }", "GET /admin/dashboard", &[
            (json!({"role": "admin"}), "allow"), (json!({"role": "Admin"}), DENIED), (json!({"roles": ["admin"]}), DENIED), (json!(null), NOBODY)]),
        ("GET /organizations/{org_id:int}/data: { where: path.org_id == token.org_id }", "GET /organizations/42/data", &[
            (json!({"org_id": 42}), "allow"), (json!({"org_id": "42"}), "allow"), (json!({"org_id": 43}), DENIED), (json!({"org_id": null}), DENIED),
            (json!({"org_id": [42]}), DENIED), (json!({"org_id": 42.0}), "allow")]),
        ("GET /teams/{team_id}/dashboard: { where: token.teams contains path.team_id }", "GET /teams/red/dashboard", &[
            (json!({"teams": ["blue", "red"]}), "allow"), (json!({"teams": "red"}), "allow"), (json!({"teams": "redder"}), DENIED),
            (json!({"teams": []}), DENIED), (json!({}), DENIED)]),
        ("PUT /posts/{post_id}: authenticated", "PUT /posts/7", &[(json!({}), "allow"), (json!(null), NOBODY)]),
        ("GET /x: deny", "GET /x", &[(json!(null), DENIED), (json!({"roles": "admin"}), DENIED)]),
        ("GET /x: todo", "GET /x", &[(json!({"roles": "admin"}), DENIED)]),
        ("GET /x: { mfa: true }", "GET /x", &[
            (json!(null), NOBODY), (json!({}), "401 insufficient_user_authentication"), (json!({"amr": ["pwd", "mfa"]}), "allow")]),
        ("GET /x: { max_age: 10m, scope: a }", "GET /x", &[
            (json!({"auth_time": 1_893_499_000, "scope": "a"}), "allow"),
            (json!({"auth_time": 1_893_498_000, "scope": "a"}), "401 insufficient_user_authentication"),
            (json!({"scope": "a"}), "401 insufficient_user_authentication"),
            (json!({"auth_time": 1_893_499_000}), SCOPE),
            // The clocks may differ by the leeway; what is further ahead is not fresh.
            (json!({"auth_time": NOW.as_seconds() + 30, "scope": "a"}), "allow"),
            (json!({"auth_time": NOW.as_seconds() + 31, "scope": "a"}), "401 insufficient_user_authentication"),
            (json!({"auth_time": 1e308, "scope": "a"}), "401 insufficient_user_authentication"),
            (json!({}), DENIED)]),
        ("GET /x: { where: user.auth_age < 10m }", "GET /x", &[
            (json!({"auth_time": 1_893_499_000}), "allow"), (json!({"auth_time": NOW.as_seconds() + 31}), DENIED)]),
        // Nobody is told 401 wherever some identity could pass: a leaf below a `not` helps by being false.
        ("GET /x: { access: authenticated, not: { role: viewer } }", "GET /x", &[
            (json!(null), NOBODY), (json!({"roles": "viewer"}), DENIED), (json!({}), "allow")]),
        ("GET /x: { not: { any: [ { role: viewer }, { not: { scope: a } } ] } }", "GET /x", &[
            (json!(null), NOBODY), (json!({}), SCOPE), (json!({"scope": "a"}), "allow")]),
        ("GET /x: { any: [ { scope: a }, { not: { role: viewer } } ] }", "GET /x", &[
            (json!({"roles": "viewer", "scope": "b"}), SCOPE), (json!({"roles": "editor"}), SCOPE), (json!({}), "allow"), (json!(null), NOBODY)]),
        ("GET /x: { where: token.suspended is not true }", "GET /x", &[
            (json!({}), "allow"), (json!({"suspended": false}), "allow"), (json!({"suspended": "true"}), "allow"), (json!({"suspended": true}), DENIED)]),
        ("GET /x: { where: token.plan != \"free\" }", "GET /x", &[
            (json!({"plan": "pro"}), "allow"), (json!({"plan": "free"}), DENIED), (json!({}), DENIED), (json!({"plan": 1}), DENIED)]),
        ("GET /x: { where: [ token.level >= 3, token.level < 7.5 ] }", "GET /x", &[
            (json!({"level": 3}), "allow"), (json!({"level": 7.4}), "allow"), (json!({"level": 8}), DENIED), (json!({"level": "5"}), DENIED)]),
        ("GET /x: { where: user.email ends_with \"@acme.example\" }", "GET /x", &[
            (json!({"email": "a@acme.example"}), "allow"), (json!({"email": "a@acme.example.evil"}), DENIED), (json!({"email": ""}), DENIED)]),
        ("GET /x: { where: token.plan in plans }", "GET /x", &[(json!({"plan": "pro"}), "allow"), (json!({"plan": "free"}), DENIED), (json!({"plan": ["pro"]}), DENIED)]),
        ("GET /x: { access: public, where: client.ip in office }", "GET /x", &[(json!(null), DENIED)]),
        ("GET /x: { access: public, where: client.ip in there }", "GET /x", &[(json!(null), "allow")]),
        ("GET /x: { where: request.time < 13:00 }", "GET /x", &[(json!({}), "allow")]),
        ("GET /x: { where: [ request.weekday == \"tue\", request.time >= 12:01 ] }", "GET /x", &[(json!({}), DENIED)]),
        ("GET /x: { access: optional, where: token.beta is true }", "GET /x", &[
            (json!(null), NOBODY), (json!({"beta": true}), "allow"), (json!({}), DENIED)]),
    ];
    for (route, request, expectations) in table {
        let policy = policy(&format!(
            "roles: {{ viewer: [items:read], editor: {{ includes: viewer, can: [items:edit] }}, admin: {{ includes: editor, can: \"*\" }} }}\n\
             permissions: {{ items:delete: x, items:read: x, admin:read: x }}\n\
             sets: {{ plans: [pro, team], office: [10.0.0.0/8], there: [203.0.113.0/24] }}\n\
             identity: {{ app: {{ preset: jwt, secret: env:S, issuer: i, audience: a }} }}\n\
             routes:\n  {route}\n"
        ));
        for (claims, expected) in *expectations {
            let presented = if claims.is_null() { Presented::Nothing } else { user(&policy, claims.clone()) };
            assert_eq!(ask(&policy, request, &[], presented), *expected, "{route} with {claims}");
        }
    }
}

#[test]
fn the_most_specific_template_owns_its_methods() {
    let policy = policy(
        "identity: { app: { preset: jwt, secret: env:S, issuer: i, audience: a } }\n\
         allow: { P302: x, P305: x, P311: x, P312: x, P205: x, P206: x, P507: x }\n\
         routes:\n  /**: public\n  GET /users/me: deny\n  GET /users/{id:int}: public\n  GET|POST /users/{id}: authenticated\n  \
         GET /users/me/x: public\n  GET /files/{rest**}: public\n  GET /@me: deny\n  GET /größe: deny\n",
    );
    for (request, expected) in [
        ("GET /", "allow"),
        ("PURGE /", "400 invalid_request"),
        ("QUERY /", "405 method_not_allowed"),
        ("TRACE /", "405 method_not_allowed"),
        ("get /", "405 method_not_allowed"),
        ("GET /users/me", "403 access_denied"),
        ("HEAD /users/me", "403 access_denied"),
        ("GET /users/me/", "403 access_denied"),
        ("GET /users/%6de", "403 access_denied"),
        ("POST /users/me", "405 method_not_allowed"),
        ("GET /users/ME", "401 unauthenticated"),
        ("GET /users/7", "allow"),
        ("POST /users/7", "405 method_not_allowed"),
        ("GET /users/seven", "401 unauthenticated"),
        ("HEAD /users/me/x", "allow"),
        ("GET /users/me/x", "allow"),
        ("GET /files", "allow"),
        ("POST /files/a/b", "405 method_not_allowed"),
        ("GET /%40me", "403 access_denied"),
        ("GET /gr%C3%B6%C3%9Fe", "403 access_denied"),
        ("GET /users//me", "400 invalid_target"),
        ("GET /users/a%2Fb", "400 invalid_target"),
        ("GET /users/../me", "400 invalid_target"),
    ] {
        let got = ask(&policy, request, &[], Presented::Nothing);
        // An unknown method may be refused before routing.
        assert!(got == expected || request.starts_with("PURGE"), "{request}: {got}");
    }
    let Decision::Deny(denial) = answer(&policy, "DELETE /users/seven", &[], Presented::Nothing) else { panic!() };
    assert_eq!(denial.allow, ["GET", "HEAD", "POST"]);
}

#[test]
fn the_most_specific_host_owns_its_paths() {
    let app = |name: &str, host: &str| {
        format!("version: 1\napp: {name}\nupstream: http://{name}\n{host}routes:\n  GET /{name}: public\n")
    };
    let text = [
        app("any", ""),
        app("exact", "host: api.example\n"),
        app("short", "host: \"*.example\"\n"),
        app("long", "host: [\"*.eu.example\", other.test]\n"),
    ]
    .join("---\n");
    let policy = Arc::clone(candidate(&[("policies/hosts.yaml", &text)], &References::none()).policy());
    for (request, expected) in [
        ("GET //api.example/exact", "allow"),
        ("GET //API.example.:8080/exact", "allow"),
        ("GET //api.example/short", "404 not_found"),
        ("GET //api.example/any", "404 not_found"),
        ("GET //b.example/short", "allow"),
        ("GET //example/short", "404 not_found"),
        ("GET //example/any", "allow"),
        ("GET //a.b.eu.example/long", "allow"),
        ("GET //a.eu.example/short", "404 not_found"),
        ("GET //eu.example/short", "allow"),
        ("GET //other.test/long", "allow"),
        ("GET //elsewhere/any", "allow"),
    ] {
        assert_eq!(ask(&policy, request, &[], Presented::Nothing), expected, "{request}");
    }
}

#[test]
fn opt_ins_admit_irregular_targets_in_their_app_alone() {
    let policy = policy(
        "allow: { encoded_slash: x, double_slash: x, P312: x, P405: x }\n\
         routes:\n  GET /a/{x}: public\n  GET /b/**: public\n  GET /c/{x}/y: public\n",
    );
    for (request, expected) in [
        ("GET /a/x%2Fy", "allow"),
        ("GET /a/x/y", "404 not_found"),
        ("GET /c/x%2Fy", "400 invalid_target"),
        ("GET /a//", "400 invalid_target"),
        ("GET /b//x", "allow"),
        ("GET /a/x;y", "400 invalid_target"),
        ("GET /nowhere%2F", "400 invalid_target"),
    ] {
        assert_eq!(ask(&policy, request, &[], Presented::Nothing), expected, "{request}");
    }
}

#[test]
fn case_is_folded_only_where_the_app_says_so_and_guards_fold_with_it() {
    let text = "version: 1\napp: folding\nupstream: http://a\nhost: a.test\ncase: insensitive\nroutes:\n  GET /Admin/{x}: public\n  GET /ADMIN/users: authenticated\n\
                ---\nversion: 1\napp: exact\nupstream: http://b\nhost: a.test\nroutes:\n  GET /admin/users: deny\n\
                ---\nversion: 1\nguards:\n  g: { paths: /admin/users, include_public: true, require: { where: request.method == \"HEAD\" } }\n";
    let policy = Arc::clone(candidate(&[("policies/case.yaml", text)], &References::none()).policy());
    let identity = || user(&policy, json!({}));
    for (request, expected) in [
        ("GET //a.test/aDMIN/x", "allow"),
        ("GET //a.test/admin/users", "403 access_denied"),
        ("GET //a.test/admin/USERS", "403 access_denied"),
        ("HEAD //a.test/admin/USERS", "allow"),
        ("HEAD //a.test/admin/users", "403 access_denied"),
    ] {
        assert_eq!(ask(&policy, request, &[], identity()), expected, "{request}");
    }
}

#[test]
fn guards_refuse_and_never_grant() {
    let policy = policy(
        "identity: { app: { preset: jwt, secret: env:S, issuer: i, audience: a, claims: { tenant: t } } }\n\
         allow: { P410: x, P405: x, P311: x, P312: x }\n\
         guards:\n  \
         tenant: { paths: \"/t/{tenant}/**\", require: { where: path.tenant == user.tenant } }\n  \
         writes: { paths: [/t/*/w, /w/**], methods: [POST], require: { scope: w } }\n  \
         host: { paths: /**, hosts: [a.test], require: { scope: h } }\n  \
         watch: { paths: /**, mode: shadow, require: { scope: s } }\n  \
         both: { paths: [\"/t/{x}/both/*\", \"/t/*/both/{x}\"], require: { where: path.x == token.x } }\n\
         routes:\n  GET|POST /t/{id}/w: authenticated\n  GET /t/{id}/public: public\n  /w: authenticated\n  GET /t/{a}/both/{b}: authenticated\n  GET /t/{a}/no: deny\n",
    );
    for (request, claims, expected) in [
        ("GET /t/acme/w", json!({"t": "acme"}), "allow"),
        ("GET /t/acme/w", json!({"t": "evil"}), "403 access_denied"),
        ("GET /t/acme/w", json!({}), "403 access_denied"),
        ("POST /t/acme/w", json!({"t": "acme"}), "403 insufficient_scope"),
        ("POST /t/acme/w", json!({"t": "acme", "scope": "w"}), "allow"),
        ("GET /t/acme/public", json!({"t": "evil"}), "allow"),
        ("GET /t/acme/no", json!({"t": "acme"}), "403 access_denied"),
        ("GET /w", json!({}), "allow"),
        ("POST /w", json!({}), "403 insufficient_scope"),
        ("GET //a.test/w", json!({}), "403 insufficient_scope"),
        ("GET //b.test/w", json!({}), "allow"),
        ("GET /t/a/both/a", json!({"t": "a", "x": "a"}), "allow"),
        ("GET /t/a/both/b", json!({"t": "a", "x": "a"}), "403 access_denied"),
        ("GET /t/a/both/b", json!({"t": "a", "x": "b"}), "403 access_denied"),
    ] {
        let presented = user(&policy, claims.clone());
        let decision = answer(&policy, request, &[], presented);
        assert_eq!(word(&decision), expected, "{request} with {claims}");
        if let Decision::Allow(allowed) = &decision {
            let shadow = allowed.0.shadow();
            let public = request.contains("public");
            assert_eq!(shadow.len(), usize::from(!public), "{request}: the shadow guard is evaluated");
        }
    }
    let Decision::Deny(denial) = answer(&policy, "GET /t/acme/w", &[], user(&policy, json!({}))) else { panic!() };
    assert_eq!(denial.failed, ["unknown:guard tenant"]);
    assert_eq!(ask(&policy, "GET /t/acme/w", &[], Presented::Nothing), "401 unauthenticated");
    assert_eq!(ask(&policy, "GET /t/acme/w", &[], Presented::Invalid("x".into())), "401 invalid_token");
}

#[test]
fn what_is_sent_several_times_is_unknown_even_to_is() {
    let policy = policy(
        "allow: { P405: x, P507: x }\nroutes:\n  GET /eq: { access: public, where: header.x-a == \"1\" }\n  \
         GET /missing: { access: public, where: header.x-a is missing }\n  GET /not: { access: public, where: query.a is not \"1\" }\n  \
         GET /env: { access: public, where: header.x-secret == env.HOOK }\n  GET /strip: { access: public, where: header.x-auth-user is present }\n",
    );
    for (request, headers, expected) in [
        ("GET /eq", vec![("x-a", "1")], "allow"),
        ("GET /eq", vec![("x-a", "1"), ("x-a", "1")], "403 access_denied"),
        ("GET /missing", vec![], "allow"),
        ("GET /missing", vec![("x-a", "1"), ("x-a", "1")], "403 access_denied"),
        ("GET /not?a=2", vec![], "allow"),
        ("GET /not", vec![], "allow"),
        ("GET /not?a=2&a=3", vec![], "403 access_denied"),
        ("GET /not?a=%31", vec![], "403 access_denied"),
        ("GET /env", vec![("x-secret", "test:HOOK")], "allow"),
        ("GET /env", vec![("x-secret", "test:HOO")], "403 access_denied"),
        ("GET /env", vec![], "403 access_denied"),
        ("GET /strip", vec![("x-auth-user", "root")], "403 access_denied"),
    ] {
        assert_eq!(ask(&policy, request, &headers, Presented::Nothing), expected, "{request} {headers:?}");
    }
}

#[test]
fn a_secret_that_is_not_resolved_matches_nothing() {
    let text = "version: 1\nupstream: http://a\nallow: { P405: x, P507: x }\nroutes:\n  GET /: { access: public, where: header.x == env.HOOK }\n";
    for (value, expected) in [(None, false), (Some(""), false), (Some("s3cret"), true)] {
        let references = match value {
            Some(value) => References::none().with_env("HOOK", Secret::new(value.to_owned())),
            None => References::none(),
        };
        let policy = Arc::clone(candidate(&[("policies/a.yaml", text)], &references).policy());
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("localhost"));
        map.insert("x", HeaderValue::from_str(value.unwrap_or_default()).unwrap());
        let head = RequestHead::new("GET", "/", &map);
        let question = Question {
            policy: &policy,
            head: &head,
            client: ClientAddr::new(CLIENT),
            country: None,
            presented: Presented::Nothing,
            now: NOW,
            environment: Environment::Resolved,
        };
        assert_eq!(matches!(decide(&question), Decision::Allow(_)), expected, "{value:?}");
        let text = explain(&question, ("anonymous", None)).to_text();
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn identity_headers_are_ours_alone() {
    let sent =
        |policy: &Arc<PolicySet>, request: &str, presented: Presented| match answer(policy, request, &[], presented) {
            Decision::Allow(allowed) => {
                let mut fields = HeaderMap::new();
                for forged in ["x-auth-user", "X_Auth.User", "remote-user", "x-plan", "x-webauth-anything", "x-other"] {
                    fields
                        .append(HeaderName::from_bytes(forged.as_bytes()).unwrap(), HeaderValue::from_static("forged"));
                }
                allowed.1.apply(&mut fields);
                allowed.1.apply(&mut fields);
                let mut lines: Vec<String> =
                    fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
                lines.sort();
                lines.join("; ")
            }
            other => word(&other),
        };
    let policy = policy(
        "roles: { admin: { includes: viewer, can: [a:b] }, viewer: [a:c] }\n\
         headers: { X-Plan: token.plan, X-Source: '\"edge\"' }\n\
         allow: { P312: x }\n\
         defaults: { headers: { X-Auth-Email: null } }\n\
         routes:\n  GET /p: public\n  GET /o: optional\n  GET /u/{id}: { headers: { X-Item: path.id, X-Plan: null } }\n  GET /a: authenticated\n",
    );
    let ada = || {
        user(&policy, json!({"sub": "ada", "email": "ada@x", "plan": "pro", "roles": ["admin", "x,y"], "scope": "a b"}))
    };
    for (request, presented, expected) in [
        ("GET /p", ada(), "x-other: forged"),
        ("GET /o", Presented::Nothing, "x-auth-anonymous: true; x-other: forged"),
        (
            "GET /a",
            ada(),
            "x-auth-issuer: local; x-auth-method: bearer; x-auth-permissions: a:b,a:c; x-auth-roles: admin,x%2Cy,viewer; \
             x-auth-scopes: a,b; x-auth-user: ada; x-other: forged; x-plan: pro; x-source: edge",
        ),
        (
            "GET /u/7",
            user(&policy, json!({"sub": "u"})),
            "x-auth-issuer: local; x-auth-method: bearer; x-auth-user: u; x-item: 7; x-other: forged; x-source: edge",
        ),
        ("GET /a", user(&policy, json!({"sub": "a\nb"})), "403 access_denied"),
    ] {
        assert_eq!(sent(&policy, request, presented), expected, "{request}");
    }
}

#[test]
fn paths_are_rewritten_from_what_was_matched() {
    let text = "version: 1\napp: a\nupstream: http://a\nhost: a.test\nbase: /v1/{tenant}\nstrip_base: true\nallow: { encoded_slash: x, P312: x }\n\
                routes:\n  GET /**: public\n  GET /r/{id}/{rest**}: { access: public, rewrite: \"/api/{tenant}/größe/{id}/{rest**}\" }\n";
    let policy = Arc::clone(candidate(&[("policies/a.yaml", text)], &References::none()).policy());
    for (request, expected) in [
        ("GET //a.test/v1/acme/x/y?q=1", "/x/y?q=1"),
        ("GET //a.test/v1/acme/x/", "/x/"),
        ("GET //a.test/v1/acme", "/"),
        ("GET //a.test/v1/acme/", "/"),
        ("GET //a.test/v1/acme/r/a%20b/c/d/?x", "/api/acme/gr%C3%B6%C3%9Fe/a%20b/c/d/?x"),
        ("GET //a.test/v1/acme/r/a", "/api/acme/gr%C3%B6%C3%9Fe/a"),
        ("GET //a.test/v1/acme/r/a%2Fb/c", "/api/acme/gr%C3%B6%C3%9Fe/a%2Fb/c"),
    ] {
        let Decision::Allow(allowed) = answer(&policy, request, &[], Presented::Nothing) else { panic!("{request}") };
        assert_eq!(allowed.0.forwarded_target().unwrap(), expected, "{request}");
    }
}

#[test]
fn a_preflight_is_answered_by_the_gateway_unless_the_template_names_options() {
    let policy = policy(
        "cors: { origins: [https://app.example] }\nallow: { P312: x, P507: x }\nroutes:\n  GET|POST /a: authenticated\n  GET|OPTIONS /b: authenticated\n  /c: authenticated\n",
    );
    let preflight = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    for (request, headers, expected) in [
        ("OPTIONS /a", &preflight[..], "preflight"),
        ("OPTIONS /b", &preflight, "401 unauthenticated"),
        ("OPTIONS /c", &preflight, "preflight"),
        ("OPTIONS /a", &[], "405 method_not_allowed"),
        ("OPTIONS /c", &[], "401 unauthenticated"),
        ("OPTIONS /nowhere", &preflight, "404 not_found"),
    ] {
        assert_eq!(ask(&policy, request, headers, Presented::Nothing), expected, "{request}");
    }
}

#[test]
fn kinds_of_supabase_that_the_issuer_does_not_allow_have_no_way_in() {
    let policy = policy(
        "identity: { supabase: { preset: supabase, url: https://x.supabase.co, anonymous_users: allow } }\nallow: { P404: x }\nroutes:\n  GET /a: authenticated\n  GET /o: optional\n",
    );
    let user_claims = json!({"role": "authenticated"});
    for (claims, expected, optional) in [
        (user_claims, "allow", "allow"),
        (json!({"role": "authenticated", "is_anonymous": true}), "allow", "allow"),
        (json!({"role": "authenticated", "client_id": "c"}), "403 access_denied", "allow"),
        (json!({"role": "service_role"}), "403 access_denied", "allow"),
    ] {
        assert_eq!(ask(&policy, "GET /a", &[], user(&policy, claims.clone())), expected, "{claims}");
        assert_eq!(ask(&policy, "GET /o", &[], user(&policy, claims.clone())), optional, "{claims}");
    }
    use crate::policy::set::Admission::{Accepted, NoCredential, Refused};
    let id = "8b1a9953-c461-4296-a827-abf8c47804d7";
    for (claims, expected) in [
        (json!({"role": "authenticated", "sub": id, "session_id": "s"}), Accepted),
        (json!({"role": "anon"}), NoCredential),
        (json!({"role": "service_role"}), Refused("service_role_not_allowed")),
        (json!({"role": "postgres", "sub": id, "session_id": "s"}), Refused("role_not_allowed")),
        (json!({"sub": id, "session_id": "s"}), Refused("role_not_allowed")),
        (json!({"role": "authenticated", "sub": "u1", "session_id": "s"}), Refused("sub_is_not_a_uuid")),
        (json!({"role": "authenticated", "sub": id}), Refused("session_id_missing")),
    ] {
        let Value::Object(map) = claims.clone() else { panic!() };
        assert_eq!(policy.issuers[0].admit(&Claims::new(map)), expected, "{claims}");
    }
}

/// A policy of a few lines must not fill the memory of a gateway that looks at it.
#[test]
fn names_that_double_each_other_are_refused_before_they_fill_the_memory() {
    let doubling: String = (0..28).map(|n| format!("  a{n}: {{ all: [ a{}, a{} ] }}\n", n + 1, n + 1)).collect();
    let text = format!(
        "version: 1\nupstream: http://a\nidentity: {{ me: {{ preset: jwt, issuer: https://me.example, audience: me, secret: env:S }} }}\nroles: {{ x: {{ can: \"*\" }} }}\naccess:\n{doubling}  a28: {{ role: x }}\nroutes:\n  GET /a: a0\n"
    );
    let errors = try_candidate(&[("policies/test.yaml", &text)], &References::none()).unwrap_err();
    assert!(errors.len() < 5 && errors.iter().all(|error| error.contains("P006")), "{errors:?}");
}

#[test]
fn ten_thousand_routes_compile_and_decide_fast() {
    let mut text = String::from("allow: { P205: x, P206: x, P302: x, P305: x, P311: x, P312: x }\nroutes:\n");
    for number in 0..10_000 {
        text.push_str(&format!("  GET /area{}/r{number}/{{id}}/x: {{ scope: items:read }}\n", number % 100));
    }
    let policy = policy(&text);
    let Decision::Allow(allowed) =
        answer(&policy, "GET /area99/r9999/7/x", &[], user(&policy, json!({"sub": "u", "scope": "items"})))
    else {
        panic!("the last route is found")
    };
    assert_eq!(&*allowed.0.route().key, "GET /area99/r9999/{id}/x");
}

const ITEMS: &str = include_str!("../../examples/items/policies/items.yaml");

fn items() -> Candidate {
    candidate(&[("policies/items.yaml", ITEMS)], &References::none())
}

fn saas() -> Candidate {
    let files = [
        ("policies/_platform.yaml", include_str!("../../examples/saas/policies/_platform.yaml")),
        ("policies/apps.yaml", include_str!("../../examples/saas/policies/apps.yaml")),
        ("policies/saas.test.yaml", include_str!("../../examples/saas/policies/saas.test.yaml")),
    ];
    candidate(&files, &References::none())
}

/// What `explain METHOD target --as NAME` shows.
fn explained(policy: &Arc<PolicySet>, request: &str, name: &str) -> String {
    let (method, target) = request.split_once(' ').unwrap();
    let url: http::Uri = target.parse().unwrap();
    let mut map = HeaderMap::new();
    map.insert("host", HeaderValue::from_str(url.host().unwrap_or("localhost")).unwrap());
    let head = RequestHead::new(method, url.path(), &map);
    let fixture = policy.fixtures.iter().find(|fixture| fixture.name.value == name);
    let presented = match fixture {
        Some(fixture) => Presented::Identity(Arc::new(cases::identity(policy, &fixture.value, NOW).unwrap())),
        None => Presented::Nothing,
    };
    let place = fixture.map(|fixture| Place::of(&policy.sources, fixture.name.span));
    let question = Question {
        policy,
        head: &head,
        client: ClientAddr::new(CLIENT),
        country: None,
        presented,
        now: NOW,
        environment: Environment::Test,
    };
    explain(&question, (name, place.as_ref())).to_text()
}

#[test]
fn examples_pass_their_own_tests() {
    for (name, candidate) in [("items", items()), ("saas", saas())] {
        let (report, tested) = cases::Tested::run(candidate);
        assert!(tested.is_some() && report.passed > 10, "{name}:\n{}", report.to_text(None));
    }
}

#[test]
fn a_report_shows_groups_and_what_tests_have_not_seen() {
    let report = cases::run(items().policy());
    insta::assert_snapshot!(report.to_text(Some(Duration::from_millis(2))) + &report.coverage.to_text());
}

#[test]
fn a_failing_test_is_shown_with_its_reasons() {
    let text = include_str!("../../examples/items/policies/items.yaml")
        .replace("{ role: admin } ] }\n\nroutes", "{ role: admin }, { scope: items:write } ] }\n\nroutes");
    let candidate = candidate(&[("policies/items.yaml", &text)], &References::none());
    let report = cases::run(candidate.policy());
    insta::assert_snapshot!(report.to_text(None));
    let found = report.diagnostics();
    assert_eq!(found.len(), 1);
    assert_eq!(candidate.sources.text(found[0].primary.span), "writer: 403");
    let (report, tested) = cases::Tested::run(candidate);
    assert!(!report.is_passing() && tested.is_none(), "what fails its tests cannot serve");
}

#[test]
fn explanations_of_the_items_example() {
    let policy = Arc::clone(items().policy());
    let asked = [
        ("POST /items", "reader"),
        ("GET /users/me", "reader"),
        ("DELETE /items/seven", "boss"),
        ("PUT /users/u1", "boss"),
        ("GET /users/u1", "writer"),
        ("GET /users/u1", "anonymous"),
        ("GET /users/../x", "anonymous"),
    ];
    let text = asked.map(|(request, name)| explained(&policy, request, name)).join("\n");
    insta::assert_snapshot!(text.replace(&policy.revision.to_string(), "00000000"));
}

#[test]
fn explanations_of_the_saas_example() {
    let policy = Arc::clone(saas().policy());
    let asked = [
        ("DELETE https://api.acme.example/v1/t/acme/projects/8b1a9953-c461-4296-a827-abf8c47804d7", "eve"),
        ("GET https://api.acme.example/v1/t/acme/feed", "bot"),
        ("GET https://api.acme.example/admin/users", "sam"),
        ("GET https://eu.acme.example/admin/users", "sam"),
        ("POST https://api.acme.example/v1/hooks/stripe", "anonymous"),
    ];
    let text = asked.map(|(request, name)| explained(&policy, request, name)).join("\n");
    insta::assert_snapshot!(text.replace(&policy.revision.to_string(), "00000000"));
}

#[test]
fn a_decision_is_recalled_from_its_masks() {
    let policy = Arc::clone(saas().policy());
    let request = "DELETE //api.acme.example/v1/t/acme/projects/8b1a9953-c461-4296-a827-abf8c47804d7";
    let fixture = policy.fixtures.iter().find(|fixture| fixture.name.value == "eve").unwrap();
    let eve = Presented::Identity(Arc::new(cases::identity(&policy, &fixture.value, NOW).unwrap()));
    let Decision::Deny(denial) = answer(&policy, request, &[], eve) else { panic!("eve is of another tenant") };
    let masks = denial.masks.unwrap();
    // The masks of the decision log's sample: authenticated, permission and mfa hold, so does not-suspended.
    assert_eq!((masks.truth(), masks.known()), (0x0f, 0x3f));
    let route = policy.route(denial.route.unwrap()).unwrap();
    let (needs, guards) = recall(&policy, route, Masks::new(masks.known(), masks.truth()));
    assert_eq!(
        needs.lines(),
        ["all ├ ✓ authenticated", "    └ all ├ ✓ permission project:delete", "          └ ✓ mfa"]
    );
    let values: Vec<_> =
        guards.iter().map(|guard| (guard.name.as_str(), guard.needs.as_ref().unwrap().value)).collect();
    assert_eq!(values, [("not-suspended", Truth::True), ("tenant-isolation", Truth::False)]);
}

/// RFC 8414 §3.1, RFC 9728 §3.1: the path of what is described follows the well-known one.
#[test]
fn documents_about_a_login_stand_where_clients_look_for_them() {
    let keys = |issuer: &str, base: &str| -> Vec<String> {
        let text = format!(
            "version: 1\napp: a\nupstream: http://127.0.0.1:9\nlogin: local\n{base}\
             identity: {{ local: {{ preset: local, issuer: \"{issuer}\" }} }}\nroutes: {{ GET /: public }}\n"
        );
        let candidate = candidate(&[("policies/a.yaml", &text)], &References::none());
        let known = candidate.routes.iter().filter(|route| route.key.contains("well-known"));
        known.map(|route| route.key.trim_start_matches("GET /.well-known/").to_owned()).collect()
    };
    assert_eq!(
        keys("https://login.example.com/x", "base: /v1\n"),
        ["oauth-authorization-server/x", "oauth-protected-resource/v1", "jwks.json"]
    );
    assert_eq!(keys("portcullis", ""), ["oauth-authorization-server", "oauth-protected-resource", "jwks.json"]);
}
