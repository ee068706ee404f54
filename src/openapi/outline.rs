//! A document that knows nothing but the policy: what there is to call, without what is sent and answered.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::policy::document::AppId;
use crate::policy::set::{Destination, PolicySet, Route};
use crate::policy::template::{Kind, Segment};

use super::paths::parameter;

/// All but what RFC 3986 calls unreserved.
const LITERAL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The methods that are shown of a route that serves any.
const ANY: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The operations of an app as an OpenAPI document, to be [rewritten](super::rewrite) like the one of an upstream.
pub fn outline(policy: &PolicySet, app: AppId) -> Value {
    let mut paths = Map::new();
    let nothing: &[Segment] = &[];
    let (name, hidden) =
        policy.app(app).map_or(("", nothing), |app| (&*app.name, if app.strip_base { &*app.base } else { nothing }));
    for route in policy.routes.iter().filter(|route| route.app == app) {
        // The well-known endpoints are not below the base.
        let Some(template) = route.template.strip_prefix(hidden) else { continue };
        let (path, parameters) = path(template);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        let Value::Object(item) = item else { continue };
        for method in methods(route) {
            let known = item.get_mut(method).and_then(Value::as_object_mut);
            match known {
                // Two routes that differ in the types of parameters only: they are one operation, of either type.
                Some(operation) => {
                    operation.shift_remove("parameters");
                    let untyped = parameters.iter().map(|(name, _)| parameter(name, Kind::Any));
                    operation.insert("parameters".to_owned(), untyped.collect());
                }
                None => drop(item.insert(method.to_owned(), operation(route, &parameters))),
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": name, "version": policy.revision.to_string() },
        "paths": paths,
    })
}

fn operation(route: &Route, parameters: &[(String, Kind)]) -> Value {
    let mut operation = Map::new();
    match (&route.name, route.destination) {
        (Some(name), _) => drop(operation.insert("summary".to_owned(), Value::from(&**name))),
        (None, Destination::Own(own)) => {
            operation.insert("summary".to_owned(), format!("The gateway's own endpoint `{}`", own.as_str()).into());
        }
        (None, Destination::Upstream(_)) => {}
    }
    if !parameters.is_empty() {
        let parameters = parameters.iter().map(|(name, kind)| parameter(name, *kind));
        operation.insert("parameters".to_owned(), parameters.collect());
    }
    operation.insert("responses".to_owned(), json!({ "default": { "description": "The answer" } }));
    Value::Object(operation)
}

fn methods(route: &Route) -> Vec<&'static str> {
    if route.any_method {
        return ANY.to_vec();
    }
    let names = |method: &str| route.methods.iter().any(|named| named.as_str().eq_ignore_ascii_case(method));
    // `HEAD` comes with `GET`.
    super::METHODS.into_iter().filter(|method| names(method) && !(*method == "head" && names("get"))).collect()
}

/// A template as OpenAPI writes it, with its parameters.
fn path(template: &[Segment]) -> (String, Vec<(String, Kind)>) {
    let (mut path, mut parameters) = (String::new(), Vec::new());
    for segment in template {
        path.push('/');
        let (name, kind) = match segment {
            Segment::Literal(text) => {
                path.extend(utf8_percent_encode(text, LITERAL));
                continue;
            }
            Segment::Parameter { name, kind } => (name, *kind),
            Segment::Tail { name } => (name, Kind::Any),
        };
        let name = name.clone().unwrap_or_else(|| format!("part{}", parameters.len() + 1));
        path.push_str(&format!("{{{name}}}"));
        parameters.push((name, kind));
    }
    if path.is_empty() {
        path.push('/');
    }
    (path, parameters)
}
