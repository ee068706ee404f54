//! Documents about the endpoints: authorization server (RFC 8414), protected resource (RFC 9728), keys (RFC 7517).
//!
//! `origin` is how clients reach the gateway, without a path: `public_url`, or scheme and host of the request.

use std::collections::BTreeSet;

use http::HeaderValue;
use http::header::CACHE_CONTROL;
use serde_json::{Map, Value, json};

use crate::identity::IssuerName;
use crate::issuer::Snapshot;
use crate::policy::set::{App, LeafKind, Login, PolicySet, Via};
use crate::policy::template::Segment;
use crate::response::Response;
use crate::token::verify::ExpectedIssuer;

/// Where the document of the authorization server is; the path of the issuer, if it has one, follows.
pub const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";
/// Where the document of the protected resource is; the path of the resource, if it has one, follows.
pub const PROTECTED_RESOURCE: &str = "/.well-known/oauth-protected-resource";
/// Where the keys are.
pub const JWKS: &str = "/.well-known/jwks.json";

/// How long answers may be kept: less than the time between a key's publication and its first signature.
const CACHE: &str = "public, max-age=30";

/// The document of the authorization server. `None` for a login whose endpoint is the app's own.
pub fn authorization_server(policy: &PolicySet, app: &App, login: &Login, origin: &str) -> Option<Response> {
    let issuer = issuer(policy, login, origin)?;
    let mut document = Map::new();
    let mut set = |name: &str, value: Value| drop(document.insert(name.to_owned(), value));
    let url = |path: &str| json!(format!("{origin}{path}"));
    set("issuer", json!(issuer));
    if let Some(path) = &login.paths.token {
        set("token_endpoint", url(path));
    }
    match keys_of(policy, login) {
        Some(project) => set("jwks_uri", json!(project)),
        None => set("jwks_uri", url(JWKS)),
    }
    set("scopes_supported", json!(scopes(policy, app)));
    set("response_types_supported", json!([])); // required, and there is no authorization endpoint
    set("grant_types_supported", json!(["password", "refresh_token"]));
    set("token_endpoint_auth_methods_supported", json!(["none"]));
    if let Some(path) = &login.paths.revoke {
        set("revocation_endpoint", url(path));
        set("revocation_endpoint_auth_methods_supported", json!(["none"]));
    }
    if let Some(path) = &login.paths.introspect {
        set("introspection_endpoint", url(path));
        set("introspection_endpoint_auth_methods_supported", json!(["Bearer"]));
    }
    Some(cached(&Value::Object(document)))
}

/// The document of the app as a protected resource.
pub fn protected_resource(policy: &PolicySet, app: &App, origin: &str) -> Response {
    let mut servers = Vec::new();
    if let Some(issuer) = app.login.as_ref().and_then(|login| issuer(policy, login, origin)) {
        servers.push(issuer);
    }
    for rules in policy.verifier.issuers() {
        let local = policy.issuer(&rules.name).is_some_and(|issuer| issuer.local.is_some());
        if let ExpectedIssuer::Exact(issuer) = &rules.issuer
            && !local
            && is_url(issuer)
        {
            servers.push(issuer.to_string());
        }
    }
    let mut document = json!({
        "resource": format!("{origin}{}", base(app)),
        "scopes_supported": scopes(policy, app),
        "bearer_methods_supported": ["header"],
        "resource_name": *app.name,
    });
    if let (Some(document), false) = (document.as_object_mut(), servers.is_empty()) {
        document.insert("authorization_servers".to_owned(), json!(servers));
    }
    cached(&document)
}

/// The public keys of all tokens that the gateway gives out.
pub fn jwks(policy: &PolicySet, keys: &Snapshot) -> Response {
    let own = policy.issuers.iter().filter(|issuer| issuer.local.is_some());
    let issuers: Vec<&IssuerName> = own.map(|issuer| &issuer.name).collect();
    cached(&keys.jwks(&issuers))
}

/// What `resource_metadata` of a challenge says.
pub fn resource_metadata(app: &App, origin: &str) -> String {
    format!("{origin}{PROTECTED_RESOURCE}{}", base(app))
}

/// Where the keys of a Supabase project are, where its tokens are given out.
fn keys_of(policy: &PolicySet, login: &Login) -> Option<String> {
    let project = policy.issuer(login.issuer.as_ref()?)?.supabase.as_ref()?;
    Some(format!("{}/auth/v1/.well-known/jwks.json", project.url))
}

/// The `issuer` of the authorization server: the `iss` of its tokens, if that is a URL; else the origin. Where a Supabase
/// project checks passwords it is the origin: the token endpoint that clients are to find is here, not there.
pub fn issuer(policy: &PolicySet, login: &Login, origin: &str) -> Option<String> {
    match login.via {
        Via::Local => {}
        Via::Supabase => return Some(origin.to_owned()),
        Via::Upstream | Via::Oidc => return None,
    }
    let local = policy.issuer(login.issuer.as_ref()?)?.local.as_ref()?;
    Some(if is_url(&local.iss) { local.iss.to_string() } else { origin.to_owned() })
}

fn is_url(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// The literal beginning of an app's paths.
fn base(app: &App) -> String {
    let mut path = String::new();
    for segment in &app.base {
        let Segment::Literal(literal) = segment else { break };
        path.push('/');
        path.push_str(literal);
    }
    path
}

/// The scopes of the catalogue, and those that the app's routes ask for.
fn scopes<'p>(policy: &'p PolicySet, app: &App) -> BTreeSet<&'p str> {
    let of_app = |id| policy.app(id).is_some_and(|other| other.name == app.name);
    let leaves = policy.routes.iter().filter(|route| of_app(route.app)).flat_map(|route| &route.leaves);
    let asked = leaves.filter_map(|leaf| if let LeafKind::Scope(scope) = &leaf.kind { Some(&**scope) } else { None });
    policy.scopes.iter().map(|(name, _)| &**name).chain(asked).collect()
}

fn cached(document: &Value) -> Response {
    Response::json(200, document).with(CACHE_CONTROL, HeaderValue::from_static(CACHE))
}
