//! What a policy says, in the words of OpenAPI: security schemes, scopes, and who may call each operation.
//!
//! In: a policy set and an upstream's OpenAPI document (3.0 or later) as JSON. Out: that document with our security in
//! place of its own, with the paths that clients see, and without the operations that nobody can call through the
//! gateway, nor the header parameters that no client may send (`X-Auth-User`: the gateway sets it). Members that are not
//! about security stay as they are, in their order.
//!
//! Which route an operation has is found by asking the policy's own table of templates with sample paths (`paths`);
//! what that route asks for becomes `security` where OpenAPI has a word for it, and a sentence elsewhere (`security`).
//! Never less is claimed than the policy asks for. Conditions that compare with a value of the policy are mentioned and
//! not shown, since the document may be public.
//!
//! Pure; it does not fetch the document, and does not decide. Swagger 2.0 is not converted.

mod outline;
mod paths;
mod schemes;
mod security;

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

use crate::policy::document::AppId;
use crate::policy::set::PolicySet;

pub use outline::outline;

use paths::{Finder, Prefix};
use schemes::Scheme;
use security::Needs;

/// Members of a path item that are operations.
const METHODS: [&str; 9] = ["get", "put", "post", "delete", "options", "head", "patch", "trace", "query"];

/// Why a document cannot be rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteError {
    /// It is no OpenAPI document of version 3.
    NotOpenApi,
    /// It has more paths and parameters than are looked up.
    TooLarge,
}

impl fmt::Display for RewriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOpenApi => "it is no OpenAPI document of version 3",
            Self::TooLarge => "it has too many paths",
        })
    }
}

impl std::error::Error for RewriteError {}

/// For whom a document is rewritten.
#[derive(Clone, Copy, Debug)]
pub struct View<'p> {
    /// The policy.
    pub policy: &'p PolicySet,
    /// The app whose document it is. Routes of other apps do not count: they go elsewhere.
    pub app: AppId,
    /// The host that was asked, in canonical form without a port.
    pub host: &'p str,
}

/// What each operation needs, by path and method.
type Plan = HashMap<String, HashMap<&'static str, Needs>>;

/// Puts the policy's security into a document.
pub fn rewrite(document: Value, view: View<'_>) -> Result<Value, RewriteError> {
    let Value::Object(mut root) = document else { return Err(RewriteError::NotOpenApi) };
    let has_bearer_scopes = match root.get("openapi").and_then(Value::as_str) {
        Some(version) if version.starts_with("3.0") => false,
        Some(version) if version.starts_with("3.") => true,
        _ => return Err(RewriteError::NotOpenApi),
    };
    let scheme = Scheme::of(view, has_bearer_scopes);

    let (prefix, mut plan) = plan(&root, view)?;
    if let Some(Value::Object(place)) = root.get_mut("paths") {
        let paths = std::mem::take(place);
        *place = paths.into_iter().filter_map(|entry| path_item(entry, view, &prefix, &mut plan, &scheme)).collect();
    }
    each_object(root.get_mut("webhooks"), foreign);
    root.shift_remove("servers");
    root.shift_remove("security");

    let components = root.entry("components").or_insert_with(|| Value::Object(Map::new()));
    if !components.is_object() {
        *components = Value::Object(Map::new());
    }
    if let Value::Object(components) = components {
        each_object(components.get_mut("pathItems"), foreign);
        components.insert("securitySchemes".to_owned(), scheme.definition());
        let responses = components.entry("responses").or_insert_with(|| Value::Object(Map::new()));
        if !responses.is_object() {
            *responses = Value::Object(Map::new());
        }
        let fastapi = view.policy.app(view.app).is_some_and(|app| app.errors_fastapi);
        if let Value::Object(responses) = responses {
            responses.extend(schemes::responses(fastapi));
        }
    }
    Ok(Value::Object(root))
}

/// What the operations need, and what clients see before the paths of the document. The first prefix under which
/// anything is served is the right one.
fn plan(root: &Map<String, Value>, view: View<'_>) -> Result<(Prefix, Plan), RewriteError> {
    let nothing = Map::new();
    let paths = root.get("paths").and_then(Value::as_object).unwrap_or(&nothing);
    let schemas = root.get("components").and_then(|components| components.get("schemas")).and_then(Value::as_object);
    let mut finder = Finder::new(view, schemas);
    let mut chosen = (Prefix::default(), Plan::new());
    for prefix in Prefix::candidates(view, root.get("servers")) {
        let mut plan = Plan::new();
        for (path, item) in paths {
            let Some(item) = item.as_object().filter(|item| !item.contains_key("$ref")) else { continue };
            for method in METHODS {
                let Some(operation) = item.get(method).and_then(Value::as_object) else { continue };
                let method_name = method.to_ascii_uppercase();
                let routes = finder.routes(&prefix, path, &method_name, [operation, item])?;
                if let Some(needs) = Needs::of(view.policy, &routes, &method_name) {
                    plan.entry(path.clone()).or_default().insert(method, needs);
                }
            }
        }
        chosen = (prefix, plan);
        if !chosen.1.is_empty() {
            break;
        }
    }
    Ok(chosen)
}

/// A path with its operations as they are shown; `None` if none is left. References to path items elsewhere are not
/// followed: whether their operations are served is not known, so they are not shown.
fn path_item(
    (path, item): (String, Value),
    view: View<'_>,
    prefix: &Prefix,
    plan: &mut Plan,
    scheme: &Scheme<'_>,
) -> Option<(String, Value)> {
    if path.starts_with("x-") {
        return Some((path, item));
    }
    let mut needs = plan.remove(&path)?;
    let Value::Object(mut item) = item else { return None };
    for method in METHODS {
        match (item.get_mut(method), needs.remove(method)) {
            (Some(Value::Object(operation)), Some(needs)) => {
                without_our_headers(operation, view.policy);
                needs.describe(operation, scheme);
            }
            _ => drop(item.shift_remove(method)),
        }
    }
    item.shift_remove("servers");
    item.shift_remove("additionalOperations"); // methods that no policy names
    without_our_headers(&mut item, view.policy);
    prefix.declare_parameters(&mut item);
    Some((prefix.before(&path), Value::Object(item)))
}

/// Removes header parameters that the gateway removes from every request: the app reads them, and clients never send
/// them.
fn without_our_headers(declaring: &mut Map<String, Value>, policy: &PolicySet) {
    if let Some(Value::Array(parameters)) = declaring.get_mut("parameters") {
        parameters.retain(|parameter| {
            let member = |name: &str| parameter.get(name).and_then(Value::as_str);
            member("in") != Some("header") || !member("name").is_some_and(|name| policy.strip.contains(name))
        });
    }
}

/// A path item that is not about this gateway: what it says about security would name schemes that are gone.
fn foreign(item: &mut Map<String, Value>) {
    for method in METHODS {
        if let Some(Value::Object(operation)) = item.get_mut(method) {
            operation.shift_remove("security");
        }
    }
}

/// Edits each member of a map that is itself a map.
fn each_object(value: Option<&mut Value>, mut edit: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Object(members)) = value {
        members.values_mut().filter_map(Value::as_object_mut).for_each(&mut edit);
    }
}

#[cfg(test)]
mod tests;
