//! YAML in, what runs out: logins with sessions of browsers.

use std::sync::Arc;

use crate::diagnostic::Sources;
use crate::policy::document::Access;
use crate::policy::references::References;
use crate::policy::set::{Destination, LimitKey, OnUnauthenticated, PolicySet, Revision, Via};
use crate::policy::{Options, check, compile, read};
use crate::secret::Secret;

pub(super) const IDENTITY: &str = "
identity:
  supabase: { preset: supabase, url: https://abc.supabase.co, key: sb_publishable_x }
  staff: { preset: keycloak, url: https://id.example/realms/staff, client_id: web }
  partners: { preset: oidc, issuer: https://login.example/, audience: api, client_id: web }
  machines: { preset: oidc, issuer: https://machines.example/, audience: api }
";

/// A set of one file, with the first line and the issuers above.
pub(super) fn compiled(text: &str) -> Result<Arc<PolicySet>, Vec<String>> {
    let mut sources = Sources::default();
    sources.add("p.yaml", &format!("version: 1\n{}{text}", IDENTITY.trim_start()));
    let (document, mut diagnostics) = read(&sources);
    let (checked, found) = check(document, &sources, &Options::default());
    diagnostics.extend(found);
    let errors = |found: Vec<crate::diagnostic::Diagnostic>| -> Vec<String> {
        found.into_iter().filter(|found| found.is_error()).map(|found| found.message).collect()
    };
    let Some(checked) = checked else { return Err(errors(diagnostics)) };
    let references = [("LONG", "k".repeat(32)), ("OTHER", "o".repeat(40)), ("SHORT", "k".repeat(31))]
        .into_iter()
        .fold(References::none(), |references, (name, value)| references.with_env(name, Secret::new(value)));
    compile::compile(&checked, &sources, &references, Revision::default())
        .map(|candidate| Arc::clone(candidate.policy()))
        .map_err(errors)
}

/// The gateway's own routes, in order.
fn own(policy: &PolicySet) -> Vec<String> {
    let own = policy.routes.iter().filter_map(|route| match route.destination {
        Destination::Own(own) => Some(format!("{} {} {}", route.key, own.as_str(), route.access.as_str())),
        Destination::Upstream(_) => None,
    });
    own.collect()
}

const APP: &str = "app: web\nupstream: http://localhost:1\nroutes: { /x: authenticated }\n";

#[test]
fn each_login_has_its_endpoints() {
    let supabase = [
        "POST /token token public",
        "GET /login login public",
        "POST /login login public",
        "GET /auth/callback callback public",
        "POST /logout logout public",
    ];
    for (login, expected) in [
        ("login: supabase", supabase.to_vec()),
        (
            "login: { via: supabase, providers: [github, google], paths: { login: /in, callback: /back, logout: none } }",
            vec![
                "POST /token token public",
                "GET /in login public",
                "POST /in login public",
                "GET /in/github login provider public",
                "GET /in/google login provider public",
                "GET /back callback public",
            ],
        ),
        ("login: { via: supabase, session: none }", vec!["POST /token token public"]),
        (
            "base: /app\nlogin: { via: supabase, path: /t, paths: { login: none, callback: none } }",
            vec!["POST /app/t token public", "POST /app/logout logout public"],
        ),
        (
            "login: oidc",
            vec![
                "GET /login login public",
                "GET /login/staff login provider public",
                "GET /login/partners login provider public",
                "GET /auth/callback callback public",
                "POST /logout logout public",
            ],
        ),
        (
            "login: { via: oidc, issuer: partners }",
            vec![
                "GET /login login public",
                "GET /login/partners login provider public",
                "GET /auth/callback callback public",
                "POST /logout logout public",
            ],
        ),
    ] {
        let policy = compiled(&format!("{APP}{login}\n")).unwrap();
        let (described, own): (Vec<_>, Vec<_>) =
            own(&policy).into_iter().partition(|own| own.contains("/.well-known/"));
        assert_eq!(own, expected, "{login}");
        // Where tokens are given out, clients find out where; the keys are the project's.
        assert_eq!(described.len(), if own[0].contains(" token ") { 2 } else { 0 }, "{login}: {described:?}");
    }
}

#[test]
fn sessions_of_browsers_are_as_stated() {
    let policy = compiled(&format!("{APP}login: {{ via: supabase, providers: [github] }}\n")).unwrap();
    let login = policy.apps[0].login.clone().unwrap();
    let browser = login.browser.clone().unwrap();
    assert_eq!((login.via, login.issuer.as_ref().unwrap().as_str()), (Via::Supabase, "supabase"));
    assert_eq!((&*browser.cookie, &*browser.return_to, browser.passwords), ("__Host-session", "/", true));
    let times = [browser.idle, browser.expires, browser.refresh_margin].map(|time| time.as_secs());
    assert_eq!((times, browser.keys.len()), ([24 * 3600, 14 * 24 * 3600, 90], 0));
    let links: Vec<_> = browser.providers.iter().map(|link| (&*link.name, link.issuer.as_str())).collect();
    assert_eq!(links, [("github", "supabase")]);
    assert_eq!(login.paths.login.as_deref(), Some("/login"));
    assert_eq!(login.paths.callback.as_deref(), Some("/auth/callback"));
    assert!(policy.needs_store());

    let policy = compiled(&format!(
        "{APP}login: {{ via: oidc, return_to: /home, session: {{ cookie: __Host-s, idle: 1h, expires: 2h, \
         refresh_margin: 10s, keys: [env:LONG, env:OTHER] }} }}\n"
    ))
    .unwrap();
    let login = policy.apps[0].login.clone().unwrap();
    let browser = login.browser.clone().unwrap();
    assert_eq!((login.via, &login.issuer), (Via::Oidc, &None));
    assert_eq!((&*browser.cookie, &*browser.return_to, browser.passwords), ("__Host-s", "/home", false));
    let times = [browser.idle, browser.expires, browser.refresh_margin].map(|time| time.as_secs());
    assert_eq!((times, browser.keys.len()), ([3600, 7200, 10], 2));
    let links: Vec<_> = browser.providers.iter().map(|link| (&*link.name, link.issuer.as_str())).collect();
    assert_eq!(links, [("staff", "staff"), ("partners", "partners")]);

    let policy = compiled(&format!("{APP}login: {{ via: supabase, session: none }}\n")).unwrap();
    assert!(policy.apps[0].login.as_ref().unwrap().browser.is_none() && !policy.needs_store());

    let short = compiled(&format!("{APP}login: {{ via: oidc, session: {{ keys: env:SHORT }} }}\n"));
    let message = "a key that seals sessions has at least 32 bytes: `portcullis secret` makes one";
    assert_eq!(short.err(), Some(vec![message.to_owned()]));
}

/// A guess at the form takes from the same buckets as one at the token endpoint.
#[test]
fn the_form_of_the_sign_in_page_shares_the_limits_of_the_token_endpoint() {
    let policy = compiled(&format!("{APP}login: supabase\n")).unwrap();
    let limits = |key: &str| {
        let route = policy.routes.iter().find(|route| *route.key == *key).unwrap();
        (route.limits_by_address.clone(), route.limits_by_identity.clone())
    };
    assert_eq!(limits("POST /login"), limits("POST /token"));
    assert_eq!(limits("POST /token").0.len(), 1);
    assert_eq!(limits("GET /login"), (vec![], vec![]));
    let login = policy.apps[0].login.clone().unwrap();
    assert_eq!(login.account_limits.iter().map(|used| used.by.clone()).collect::<Vec<_>>(), [LimitKey::Account]);
}

#[test]
fn whom_nobody_signed_in_with_is_sent_where_route_or_app_say() {
    let policy = compiled(
        "app: web
upstream: http://localhost:1
login: supabase
defaults: { on_unauthenticated: redirect }
routes:
  GET /: authenticated
  GET /api: { access: authenticated, on_unauthenticated: challenge }
  GET /own: { access: authenticated, on_unauthenticated: \"redirect /in?redirectTo={path}\" }
---
version: 1
app: api
host: api.example
upstream: http://localhost:1
routes:
  GET /: authenticated
",
    )
    .unwrap();
    let found: Vec<_> = policy.routes.iter().map(|route| (&*route.key, route.on_unauthenticated.clone())).collect();
    let to = OnUnauthenticated::To("/in?redirectTo={path}".into());
    assert_eq!(
        found[..4],
        [
            ("GET /", OnUnauthenticated::Login),
            ("GET /api", OnUnauthenticated::Challenge),
            ("GET /own", to),
            ("GET /", OnUnauthenticated::Challenge),
        ]
    );
    let own = policy.routes.iter().filter(|route| route.own().is_some());
    assert!(own.into_iter().all(|route| route.on_unauthenticated == OnUnauthenticated::Challenge));
    assert!(policy.routes.iter().all(|route| route.edge.is_none() && route.access != Access::Todo));
}

/// Each route of an app in front of Supabase: key, access, part, and what else is not as usual.
fn edges(policy: &PolicySet) -> Vec<String> {
    let routes = policy.routes.iter().map(|route| {
        let mut text = format!("{} {} {:?}", route.key, route.access.as_str(), route.edge.unwrap());
        let minutes = route.timeout.as_secs() / 60;
        let notes = [
            (!route.generated, "written".to_owned()),
            (route.websocket, "websocket".to_owned()),
            (!route.retry, "once".to_owned()),
            (minutes != 1, format!("{minutes}m")),
            (route.max_body.is_some(), format!("{}B", route.max_body.unwrap_or_default())),
            (
                route.rewrite.is_some(),
                format!("→ {}", crate::policy::specificity::render(route.rewrite.as_deref().unwrap_or_default())),
            ),
        ];
        for (_, note) in notes.iter().filter(|(is_so, _)| *is_so) {
            text = format!("{text} {note}");
        }
        text
    });
    routes.collect()
}

#[test]
fn an_app_in_front_of_supabase_has_the_routes_of_its_parts() {
    let everything = compiled("app: edge\npreset: supabase-edge\nupstream: http://localhost:1\n").unwrap();
    assert_eq!(
        edges(&everything),
        [
            "/auth/v1/** public Auth once 1048576B",
            "/auth/v1/token public Token once 1048576B",
            "/auth/v1/logout public Logout once 1048576B",
            "/auth/v1/admin/** deny Auth once 1048576B",
            "/auth/v1/invite deny Auth once 1048576B",
            "/auth/v1/scim/** deny Auth once 1048576B",
            "/rest/v1/** optional Rest",
            "/rest/v1 deny Rest",
            "/graphql/v1/** optional Rest",
            "/storage/v1/** optional Storage 60m",
            "/storage/v1/s3/** public Storage 60m",
            "/functions/v1/** optional Functions 6m",
            "/realtime/v1/** optional Realtime",
            "/realtime/v1/websocket public Realtime websocket",
            "/realtime/v1/api/openapi deny Realtime",
            "/realtime/v1/api/tenants/** deny Realtime",
        ]
    );
    assert!(everything.routes.iter().all(|route| route.any_method));
    for (header, count, first, socket) in [
        ("base: /auth/v1\nstrip_base: true", 6, "/auth/v1/** public Auth once 1048576B", None),
        ("base: /sb/rest/v1\nstrip_base: true", 2, "/sb/rest/v1/** optional Rest", None),
        (
            "base: /realtime/v1\nstrip_base: true",
            4,
            "/realtime/v1/** optional Realtime",
            Some("/realtime/v1/websocket public Realtime websocket → /socket/websocket"),
        ),
        (
            "base: /realtime/v1",
            4,
            "/realtime/v1/** optional Realtime",
            Some("/realtime/v1/websocket public Realtime websocket"),
        ),
        (
            "base: /sb\nstrip_base: true",
            16,
            "/sb/auth/v1/** public Auth once 1048576B",
            Some("/sb/realtime/v1/websocket public Realtime websocket"),
        ),
    ] {
        let policy = compiled(&format!("app: edge\npreset: supabase-edge\nupstream: http://localhost:1\n{header}\n"));
        let edges = edges(&policy.unwrap());
        assert_eq!((edges.len(), edges[0].as_str()), (count, first), "{header}");
        let found = edges.iter().find(|edge| edge.contains("websocket")).map(String::as_str);
        assert_eq!(found, socket, "{header}");
    }
}

#[test]
fn what_is_written_stands_instead_of_what_the_preset_brings() {
    let policy = compiled(
        "app: edge
preset: supabase-edge
upstream: http://localhost:1
defaults: { timeout: 2m, max_body: 10B }
roles: { staff: [] }
routes:
  /rest/v1/**: { access: authenticated, allow: { P311: as the preset has it } }
  POST /auth/v1/signup: { access: public, limit: 5/min by ip, max_body: 1KiB, allow: { P305: it is only for POST } }
  POST /auth/v1/token: { access: public, limit: 5/min by ip }
  /storage/v1/{any**}: { role: staff, timeout: 3m, allow: { P311: as the preset has it } }
  GET /auth/v1/admin/users: { role: staff, allow: { P311: staff may look, P305: at no more } }
",
    )
    .unwrap();
    let edges = edges(&policy);
    for expected in [
        "/rest/v1/** authenticated Rest written 2m 10B",
        "POST /auth/v1/signup public Auth written once 2m 1024B",
        "POST /auth/v1/token public Token written once 2m 10B",
        "/auth/v1/token public Token once 2m 10B",
        "/storage/v1/{any**} authenticated Storage written 3m 10B",
        "GET /auth/v1/admin/users authenticated Auth written once 2m 10B",
        "/auth/v1/admin/** deny Auth once 2m 10B",
    ] {
        assert!(edges.iter().any(|edge| edge == expected), "{expected}: {edges:#?}");
    }
    assert!(!edges.iter().any(|edge| edge.starts_with("/rest/v1/** optional") || edge.starts_with("/storage/v1/** ")));

    // Another app on the same host is no part of it.
    let twice = compiled(
        "app: edge
preset: supabase-edge
upstream: http://localhost:1
---
version: 1
app: other
upstream: http://localhost:1
routes:
  /functions/v1/**: public
",
    );
    assert_eq!(twice.err(), Some(vec!["same template twice for any method".to_owned()]));
}

#[test]
fn clients_of_supabase_send_and_read_more_headers_across_origins() {
    for (cors, headers, expose) in [("", 24, 14), (", headers: [apikey], expose: [link, location]", 1, 2)] {
        let policy = compiled(&format!(
            "app: edge\npreset: supabase-edge\nupstream: http://localhost:1\ncors: {{ origins: [https://app.example]{cors} }}\n"
        ))
        .unwrap();
        let cors = policy.apps[0].cors.clone().unwrap();
        assert_eq!((cors.headers.len(), cors.expose.len()), (headers, expose));
        assert!(cors.headers.iter().any(|name| &**name == "apikey"));
    }
}
